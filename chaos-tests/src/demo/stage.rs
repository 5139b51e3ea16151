//! The processes of the demonstration, and the agent, released with the command line as a person would do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::DemoOptions;
use crate::cluster::process::{Launch, Process};
use crate::config::Binaries;
use crate::console::Console;
use crate::history::{WorkerEvent, WorkerLine};

/// The agent that workers execute, and the one whose runs execute elsewhere.
pub(super) const AGENT: &str = "research";
pub(super) const FLEET: &str = "fleet";
/// What is released.
pub(super) const OLD: &str = "v1";
pub(super) const NEW: &str = "v2";
/// Worker processes of each bundle.
const WORKERS: usize = 2;
const STOP: Duration = Duration::from_secs(15);

/// Makes agents and starts workers.
pub(super) struct Stage<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) options: &'a DemoOptions,
    pub(super) folder: PathBuf,
    pub(super) console: Console,
}

impl Stage<'_> {
    /// Both agents with their policies and both bundles.
    pub(super) async fn release(&self) -> Result<()> {
        for (agent, execution) in [(AGENT, "workers"), (FLEET, "external")] {
            let file = self.folder.join(format!("{agent}.toml"));
            fs::write(&file, self.agent_toml(execution))?;
            self.console
                .run(&["agent", "create", agent, "-f", &file.display().to_string()])
                .await?;
            for bundle in [OLD, NEW] {
                let file = self.bundle_file(bundle);
                let file = file.display().to_string();
                self.console.run(&["bundle", "create", agent, bundle, "-f", &file]).await?;
            }
        }
        Ok(())
    }

    fn agent_toml(&self, execution: &str) -> String {
        format!(
            "[runs]\nexecution = \"{execution}\"\nmax_age = \"1h\"\n\n[steps]\nlease = \"2s\"\nmax_attempts = 20\n\
             backoff = {{ initial = \"100ms\", max = \"1s\" }}\n\n[switch]\ndrain_cap = \"{}s\"\ngrace = \"{}s\"\n",
            self.options.drain_cap, self.options.grace
        )
    }

    fn bundle_file(&self, bundle: &str) -> PathBuf {
        self.options.research.join(format!("bundle-{bundle}.toml"))
    }

    /// The code that a bundle file names: what its workers say they were built from.
    pub(super) fn code(&self, bundle: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct File {
            code: Code,
        }
        #[derive(Deserialize)]
        struct Code {
            git_commit: String,
        }
        let path = self.bundle_file(bundle);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        Ok(file.code.git_commit)
    }

    /// The worker processes of both bundles.
    pub(super) fn start_workers(&self) -> Result<Crew> {
        let folder = self.folder.join("steps");
        fs::create_dir_all(&folder)?;
        let mut processes = Vec::new();
        for bundle in [OLD, NEW] {
            let code = self.code(bundle)?;
            for number in 1..=WORKERS {
                let what = format!("worker-{bundle}-{number}");
                let log = folder.join(format!("{what}.jsonl"));
                let launch = Launch {
                    what: what.clone(),
                    program: self.binaries.research()?.to_owned(),
                    args: [
                        "--agent",
                        AGENT,
                        "--bundle",
                        bundle,
                        "--code",
                        &code,
                        "--endpoint",
                        &self.console.endpoints,
                        "--slots",
                        "32",
                        "--worker-id",
                        &what,
                        "--shutdown-grace",
                        "1",
                        "--log",
                        &log.display().to_string(),
                    ]
                    .map(Into::into)
                    .to_vec(),
                    env: vec![("RUST_LOG".to_owned(), "warn".into())],
                    log: self.folder.join(format!("{what}.log")),
                    namespace: None,
                    apart: false,
                };
                processes.push(Process::start(&launch)?);
            }
        }
        Ok(Crew { processes, folder })
    }
}

/// The workers at work.
pub(super) struct Crew {
    processes: Vec<Process>,
    folder: PathBuf,
}

impl Crew {
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    pub(super) fn must_run(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::must_run)
    }

    /// Ends them, and gives what they logged.
    pub(super) async fn stop(mut self) -> Result<Vec<WorkerLine>> {
        for process in &mut self.processes {
            process.terminate(STOP).await?;
        }
        read_step_logs(&self.folder)
    }
}

/// One line of the research example's log.
#[derive(Debug, Deserialize)]
struct StepLine {
    run: String,
    number: u32,
    attempt: u32,
    bundle: String,
    code: String,
    pid: u32,
    at_ms: u64,
}

/// The workers' own account in the form that the judge reads. These logs know no tokens.
fn read_step_logs(folder: &Path) -> Result<Vec<WorkerLine>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        for line in text.lines() {
            let line: StepLine = serde_json::from_str(line)
                .with_context(|| format!("{}: {line}", path.display()))?;
            lines.push(WorkerLine {
                at_us: line.at_ms * 1_000,
                worker_id: format!("pid {}", line.pid),
                code: line.code,
                agent: AGENT.to_owned(),
                run_id: line.run,
                step: line.number,
                attempt: line.attempt,
                token: 0,
                event: WorkerEvent::Began { bundle_id: line.bundle, checkpoints: Vec::new() },
            });
        }
    }
    lines.sort_by_key(|line| line.at_us);
    Ok(lines)
}
