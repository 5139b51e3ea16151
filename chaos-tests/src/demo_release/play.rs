//! One chapter: an agent is set up with the command line, users start runs, and the candidate is released.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pinrail_client::Client;
use pinrail_proto::v1::{self, Verdict};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::chapter::{Chapter, Fate, LIVE, PASSED_BEFORE};
use super::{Manner, files};
use crate::cluster::process::{Launch, Process};
use crate::console::Console;
use crate::demo::Timeline;

const OLD: &str = "v1";
const NEW: &str = "v2";
/// Between two runs of an agent.
const APART: Duration = Duration::from_millis(60);
/// Runs before the release: enough to compare with.
const BEFORE: usize = 60;
/// No release takes longer.
const PATIENCE: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(15);

pub(crate) struct Play {
    pub(crate) chapter: &'static Chapter,
    pub(crate) client: Client,
    pub(crate) console: Console,
    pub(crate) agent_program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) timeline: Timeline,
}

/// How a chapter ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) chapter: &'static Chapter,
    pub(crate) release: v1::Release,
    pub(crate) took: Duration,
    /// What was seen, in a line each.
    pub(crate) evidence: Vec<String>,
    /// It is not what the candidate deserves.
    pub(crate) problem: Option<String>,
}

impl Play {
    pub(crate) async fn perform(self) -> Result<Ending> {
        std::fs::create_dir_all(&self.folder)?;
        self.set_up().await.with_context(|| format!("set up {}", self.chapter.agent))?;
        let mut workers = [(OLD, LIVE), (NEW, self.chapter.candidate)]
            .map(|(bundle, manner)| self.worker(bundle, manner))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        self.wait_for_workers(workers.len()).await?;
        let agent = self.chapter.agent;
        self.console.run(&["switch", agent, OLD]).await?;
        let mut users = JoinSet::new();
        let (client, spared) = (self.client.clone(), self.chapter.agent);
        let (count, mut started) = tokio::sync::watch::channel(0);
        users.spawn(async move { trickle(&client, spared, &count).await });
        started.wait_for(|count| *count >= BEFORE).await?;
        let began = Instant::now();
        self.console.run(&["release", "start", agent, NEW, "--reason", "demonstration"]).await?;
        self.say(format!("release of {NEW} begins: {}", self.chapter.about));
        let release = self.wait_for_the_end().await?;
        let took = began.elapsed();
        let (evidence, problem) = self.judge(&release).await?;
        self.say(format!("{} after {took:.1?}", state(&release)));
        evidence.iter().for_each(|line| self.timeline.add(line));
        users.shutdown().await;
        for worker in &mut workers {
            worker.must_run()?;
            worker.terminate(STOP).await?;
        }
        Ok(Ending { chapter: self.chapter, release, took, evidence, problem })
    }

    fn say(&self, text: impl AsRef<str>) {
        self.timeline.say(format!("{:<8} {}", self.chapter.agent, text.as_ref()));
    }

    async fn set_up(&self) -> Result<()> {
        let agent = self.chapter.agent;
        let path = |path: PathBuf| path.display().to_string();
        let file = path(files::agent(&self.folder, self.chapter)?);
        self.console.run(&["agent", "create", agent, "-f", &file]).await?;
        for bundle in [OLD, NEW] {
            let file = path(files::bundle(&self.folder, bundle)?);
            self.console.run(&["bundle", "create", agent, bundle, "-f", &file]).await?;
        }
        let Some(passes) = self.chapter.passes else { return Ok(()) };
        let file = path(files::eval_set(&self.folder)?);
        self.console.run(&["eval", "set", "create", agent, "core@1", "-f", &file]).await?;
        for (bundle, passed) in [(OLD, PASSED_BEFORE), (NEW, passes)] {
            let file = path(files::results(&self.folder, bundle, passed)?);
            let args = ["eval", "submit", agent, bundle, "-f", &file, "--set", "core@1"];
            self.console.run(&args).await?;
        }
        Ok(())
    }

    fn worker(&self, bundle: &str, manner: Manner) -> Result<Process> {
        let what = format!("{}-{bundle}", self.chapter.agent);
        let mut args = vec![
            "--agent".to_owned(),
            self.chapter.agent.to_owned(),
            "--bundle".to_owned(),
            bundle.to_owned(),
            "--endpoints".to_owned(),
            self.console.endpoints.clone(),
            "--takes".to_owned(),
            format!("{}ms", manner.takes.as_millis()),
            "--costs-micros".to_owned(),
            manner.costs_micros.to_string(),
        ];
        args.extend(manner.hangs.then(|| "--hangs".to_owned()));
        args.extend(manner.drifted.then(|| "--drifted".to_owned()));
        let launch = Launch {
            log: self.folder.join(format!("{what}.log")),
            what,
            program: self.agent_program.clone(),
            args: args.into_iter().map(Into::into).collect(),
            env: vec![("RUST_LOG".to_owned(), "warn".into())],
            namespace: None,
            apart: false,
        };
        Process::start(&launch)
    }

    async fn wait_for_workers(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = v1::ListWorkersRequest {
                agent_id: self.chapter.agent.to_owned(),
                ..v1::ListWorkersRequest::default()
            };
            if self.client.workers().list(request).await?.workers.len() == count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the workers of {} do not come", self.chapter.agent);
            }
            sleep(APART).await;
        }
    }

    /// Tells each stage that begins.
    async fn wait_for_the_end(&self) -> Result<v1::Release> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        loop {
            let request = v1::GetReleaseRequest {
                agent_id: self.chapter.agent.to_owned(),
                ..v1::GetReleaseRequest::default()
            };
            let release = self.client.releases().get(request).await?.release.unwrap_or_default();
            if release.ended_at.is_some() {
                return Ok(release);
            }
            let now = state(&release);
            if now != last {
                self.say(&now);
                last = now;
            }
            if Instant::now() > deadline {
                bail!("the release of {} stands at {release:?}", self.chapter.agent);
            }
            sleep(APART).await;
        }
    }

    /// What the cluster kept of why the release ended so, and whether that is right.
    async fn judge(&self, release: &v1::Release) -> Result<(Vec<String>, Option<String>)> {
        let passed: Vec<String> = release
            .gates
            .iter()
            .filter(|gate| gate.verdict() == Verdict::Pass)
            .map(|gate| word(gate.stage().as_str_name(), "STAGE_"))
            .collect();
        let mut evidence = vec![format!("passed {}", passed.join(" "))];
        let found = match self.chapter.deserves {
            Fate::Recycled => passed.len() == release.gates.len(),
            Fate::Stopped(stage) => {
                let mut gates = release.gates.iter().filter(|gate| gate.stage() == stage);
                gates.next().is_some_and(|gate| {
                    evidence.push(gate.reason.clone());
                    gate.verdict() == Verdict::Fail
                })
            }
            Fate::RolledBack(signal, phase) => {
                let request = v1::GetSignalsRequest {
                    agent_id: self.chapter.agent.to_owned(),
                    release_id: release.release_id.clone(),
                    ..v1::GetSignalsRequest::default()
                };
                let firings = self.client.signals().get(request).await?.firings;
                let fired =
                    firings.iter().filter(|it| (it.signal(), it.phase()) == (signal, phase));
                let seen: Vec<_> =
                    fired.map(|it| format!("{}: {}", it.summary, it.action)).collect();
                evidence.extend(seen.iter().cloned());
                !seen.is_empty()
            }
        };
        let right = found && release.state() == self.chapter.deserves.state();
        let problem = (!right).then(|| {
            format!(
                "{}: {:?} was deserved, it is {release:?}",
                self.chapter.agent, self.chapter.deserves
            )
        });
        Ok((evidence, problem))
    }
}

/// Starts runs until it is dropped.
async fn trickle(
    client: &Client,
    agent: &str,
    count: &tokio::sync::watch::Sender<usize>,
) -> Result<()> {
    loop {
        let input = v1::Payload {
            content_type: "application/json".to_owned(),
            data: r#"{"question":"Where is my refund?"}"#.into(),
        };
        let request = v1::StartRunRequest {
            agent_id: agent.to_owned(),
            input: Some(input),
            ..v1::StartRunRequest::default()
        };
        client.runs().start(request).await?;
        count.send_modify(|count| *count += 1);
        sleep(APART).await;
    }
}

/// The state of a release in a word.
pub(super) fn state(release: &v1::Release) -> String {
    word(release.state().as_str_name(), "RELEASE_STATE_")
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}
