//! With one of three members stopped, and with two, every verb answers or says what is missing within its timeout.
//! What is run is the command line, as a person would.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::Setting;
use super::plan::bundle;
use crate::api::setup::{self, Policy};
use crate::cluster::{Cluster, Options};
use crate::history::Recorder;
use crate::report::Keeper;
use crate::scenario::Load;

const AGENT: &str = "alpha";
/// What each verb is given, and how much later the process may end.
const VERB: Duration = Duration::from_secs(4);
const LATE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 6;
/// Exit codes of the command line.
const OK: i32 = 0;
const UNAVAILABLE: i32 = 6;
const UNKNOWN: i32 = 12;

/// What a verb must come to with fewer members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// A quorum: without one it says so.
    Quorum,
    /// Nothing but a node.
    Node,
    /// It reports on the quorum: with two of three it is healthy or degraded.
    Health,
}

struct Verb {
    args: &'static [&'static str],
    needs: Needs,
}

const fn verb(args: &'static [&'static str], needs: Needs) -> Verb {
    Verb { args, needs }
}

/// Every verb of this part of the command line that reads or writes a cluster. `%` is made unique.
const VERBS: &[Verb] = &[
    verb(&["status", "alpha"], Needs::Quorum),
    verb(&["status", "alpha", "--local"], Needs::Node),
    verb(&["namespace", "list"], Needs::Quorum),
    verb(&["namespace", "create", "tenant%"], Needs::Quorum),
    verb(&["agent", "list"], Needs::Quorum),
    verb(&["agent", "show", "alpha"], Needs::Quorum),
    verb(&["agent", "show", "alpha", "--local"], Needs::Node),
    verb(&["agent", "create", "made%"], Needs::Quorum),
    verb(&["agent", "pause", "alpha"], Needs::Quorum),
    verb(&["agent", "resume", "alpha"], Needs::Quorum),
    verb(&["bundle", "list", "alpha"], Needs::Quorum),
    verb(&["bundle", "show", "alpha", "v1"], Needs::Quorum),
    verb(&["bundle", "show", "alpha", "v1", "--local"], Needs::Node),
    verb(&["bundle", "diff", "alpha", "v1", "v2"], Needs::Quorum),
    verb(&["environment", "list", "alpha"], Needs::Quorum),
    verb(&["environment", "set", "alpha", "v1", "--address", "http://127.0.0.1:1"], Needs::Quorum),
    verb(&["run", "start", "alpha", "--input", "{}", "--run-id", "made%"], Needs::Quorum),
    verb(&["run", "list", "alpha"], Needs::Quorum),
    verb(&["run", "show", "first", "--agent", "alpha"], Needs::Quorum),
    verb(&["run", "show", "first", "--agent", "alpha", "--local"], Needs::Node),
    verb(&["run", "explain", "first", "--agent", "alpha"], Needs::Quorum),
    verb(&["run", "steps", "first", "--agent", "alpha"], Needs::Quorum),
    verb(&["run", "result", "ended", "--agent", "alpha"], Needs::Quorum),
    verb(&["run", "keep", "first", "--agent", "alpha"], Needs::Quorum),
    verb(&["pin", "get", "first", "--agent", "alpha"], Needs::Node),
    verb(&["pin", "list", "alpha"], Needs::Quorum),
    verb(&["pin", "list", "alpha", "--local"], Needs::Node),
    verb(&["drain", "status", "alpha"], Needs::Quorum),
    verb(&["drain", "status", "alpha", "--local"], Needs::Node),
    verb(&["worker", "list", "alpha"], Needs::Quorum),
    verb(&["memory", "put", "alpha", "k", "\"%\"", "--bundle", "v1"], Needs::Quorum),
    verb(&["memory", "get", "alpha", "k", "--bundle", "v1"], Needs::Quorum),
    verb(&["memory", "get", "alpha", "k", "--bundle", "v1", "--local"], Needs::Node),
    verb(&["memory", "list", "alpha"], Needs::Quorum),
    verb(&["memory", "history", "alpha", "k", "--bundle", "v1"], Needs::Quorum),
    verb(&["memory", "put", "alpha", "gone", "1", "--bundle", "v1"], Needs::Quorum),
    verb(&["memory", "delete", "alpha", "gone", "--bundle", "v1"], Needs::Quorum),
    verb(&["switch", "alpha", "v2", "--yes", "--force", "--reason", "again"], Needs::Quorum),
    verb(&["rollback", "alpha", "--from", "v2"], Needs::Quorum),
    verb(&["cluster", "status"], Needs::Node),
    verb(&["cluster", "members"], Needs::Node),
    verb(&["cluster", "health"], Needs::Health),
];

/// One verb with one or two members stopped.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub stopped: String,
    pub command: String,
    pub exit: Option<i32>,
    pub took_ms: u128,
    pub wrong: Option<String>,
    pub said: String,
}

/// All verbs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Degraded {
    pub lines: Vec<Line>,
}

impl Degraded {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|line| line.wrong.is_none())
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let exit = line.exit.map_or_else(|| "-".to_owned(), |exit| exit.to_string());
            writeln!(
                f,
                "  {:<18} {:>5} ms  exit {exit:>2}  {}",
                line.stopped, line.took_ms, line.command
            )?;
            if let Some(wrong) = &line.wrong {
                writeln!(f, "    WRONG: {wrong}\n    said: {}", line.said)?;
            }
        }
        let wrong = self.lines.iter().filter(|line| line.wrong.is_some()).count();
        writeln!(f, "  {} verbs, {wrong} wrong", self.lines.len())
    }
}

/// # Errors
/// When the harness failed.
pub async fn degraded(setting: &Setting) -> Result<Degraded> {
    let keeper = Keeper::new(setting, "degraded")?;
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let mut cluster = Cluster::start(&options).await?;
    prepare(&cluster, setting).await?;
    let mut found = Degraded::default();
    let endpoints = cluster.endpoints();
    let run = async |found: &mut Degraded, stopped: &str, quorum: bool| {
        let binary = &setting.binaries.pinrail;
        let place = Place { binary, endpoints: &endpoints, stopped, quorum };
        // In order while they change something; side by side when all they can do is wait.
        let at_once = if quorum { 1 } else { AT_ONCE };
        let before = found.lines.len();
        let verbs = VERBS.iter().enumerate().map(|(number, verb)| place.one(verb, before + number));
        found.lines.extend(stream::iter(verbs).buffered(at_once).collect::<Vec<_>>().await);
    };
    run(&mut found, "none", true).await;
    let leader = cluster.wait_leader(Duration::from_secs(5)).await?;
    cluster.members[leader].kill().await?;
    cluster.wait_leader(Duration::from_secs(10)).await?;
    run(&mut found, "killed leader", true).await;
    // The second one is frozen: its connections stay open and say nothing.
    let next = cluster.wait_leader(Duration::from_secs(5)).await?;
    cluster.members[next].freeze().await?;
    sleep(Duration::from_secs(1)).await;
    run(&mut found, "killed and frozen", false).await;
    cluster.members[next].kill().await?;
    run(&mut found, "two killed", false).await;
    Ok(found)
}

async fn prepare(cluster: &Cluster, setting: &Setting) -> Result<()> {
    use crate::history::{Answer, Call, Outcome};
    let mut load = Load::new(cluster.nodes.clone(), Recorder::in_memory(), setting.seed);
    let policy = Policy { external: true, ..Policy::default() };
    load.add_agent(AGENT, policy, &[bundle(1), bundle(2)]).await?;
    setup::agent(&cluster.nodes, AGENT, policy, &[]).await?;
    let mut operator = load.operator();
    for run_id in ["first", "ended"] {
        let (run_id, input, bundle_id) = (run_id.to_owned(), "{}".to_owned(), String::new());
        match operator.operate(AGENT, Call::StartRun { run_id, input, bundle_id }).await {
            Outcome::Ok { answer: Answer::Started { .. }, .. } => {}
            other => anyhow::bail!("the first run came to {other:?}"),
        }
    }
    let finish = Call::FinishRun { run_id: "ended".to_owned(), output: "{}".to_owned() };
    match operator.operate(AGENT, finish).await {
        Outcome::Ok { .. } => Ok(()),
        other => anyhow::bail!("the end of a run came to {other:?}"),
    }
}

/// Where a verb is run.
struct Place<'a> {
    binary: &'a Path,
    endpoints: &'a str,
    stopped: &'a str,
    quorum: bool,
}

impl Place<'_> {
    async fn one(&self, verb: &Verb, unique: usize) -> Line {
        let unique = unique.to_string();
        let args: Vec<String> = verb.args.iter().map(|arg| arg.replace('%', &unique)).collect();
        let begin = Instant::now();
        let output = run(self.binary, self.endpoints, &args).await;
        let took = begin.elapsed();
        let (exit, said) = match &output {
            Ok((exit, said)) => (*exit, said.clone()),
            Err(error) => (None, format!("{error:#}")),
        };
        Line {
            stopped: self.stopped.to_owned(),
            command: args.join(" "),
            exit,
            took_ms: took.as_millis(),
            wrong: judge(verb, exit, &said, took, self.quorum),
            said,
        }
    }
}

fn judge(
    verb: &Verb,
    exit: Option<i32>,
    said: &str,
    took: Duration,
    quorum: bool,
) -> Option<String> {
    let Some(exit) = exit else {
        return Some("it did not end in time".to_owned());
    };
    if took > VERB + LATE {
        return Some(format!("it took {took:?}"));
    }
    let allowed: &[i32] = match (verb.needs, quorum) {
        (Needs::Node, _) | (Needs::Quorum | Needs::Health, true) => &[OK],
        (Needs::Health, false) => &[UNAVAILABLE],
        (Needs::Quorum, false) => &[UNAVAILABLE, UNKNOWN],
    };
    if !allowed.contains(&exit) {
        return Some(format!("exit {exit}, expected one of {allowed:?}"));
    }
    let explained = ["NO_QUORUM", "NO_LEADER", "OUTCOME_UNKNOWN", "quorum"];
    let silent = !explained.iter().any(|word| said.contains(word));
    (exit != OK && silent).then(|| "it does not say what is missing".to_owned())
}

async fn run(binary: &Path, endpoints: &str, args: &[String]) -> Result<(Option<i32>, String)> {
    let child = Command::new(binary)
        .args(args)
        .args(["--endpoint", endpoints, "--timeout", "4s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the command line")?;
    let output = timeout(VERB + 2 * LATE, child.wait_with_output()).await.context("it hangs")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok((output.status.code(), format!("{}\n{}", text(&output.stderr), text(&output.stdout))))
}
