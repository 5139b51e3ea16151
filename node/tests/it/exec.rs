//! A Python program as the worker of a bundle, by `pinrail worker exec` and the example in `client/examples/exec`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_client::{Client, v1};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::nodes::{Nodes, SOON};

/// The program, as a person would start it; flags may stand before it, behind `--`.
pub(crate) fn exec(nodes: &Nodes, folder: &Path, program: &[&str]) -> Command {
    let at = program.iter().position(|word| *word == "--");
    let (flags, program) = at.map_or((&[][..], program), |at| (&program[..at], &program[at + 1..]));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
    command
        .args(["worker", "exec", "support", "--bundle", "v1", "--slots", "2", "--dir"])
        .arg(folder)
        .args(["--endpoint", &nodes.endpoint(0), "--code", "abc"])
        .args(flags)
        .arg("--")
        .args(program)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

const PYTHON: &[&str] = &["python3", "agent.py"];
const NODE: &[&str] = &["node", "agent.mjs"];
const SHELL: &[&str] = &["--per-step", "--", "./agent.sh"];

/// A node, its agent, and a program that works for it.
pub(crate) struct Scene {
    nodes: Nodes,
    client: Client,
    program: Child,
    /// Distinct keys that the outside service was asked with, and how often it was asked.
    asked: Arc<Mutex<(BTreeSet<String>, u32)>>,
    folder: TempDir,
}

impl Scene {
    pub(crate) async fn set(program: &[&str], crash: &str) -> Self {
        let nodes = Nodes::start(1).await;
        let client = nodes.client();
        agent(&client).await;
        let asked = Arc::default();
        let url = service(Arc::clone(&asked)).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples/exec");
        let program = exec(&nodes, &examples, program)
            .env("COUNT_URL", url)
            .env("NOTE_FILE", folder.path().join("notes"))
            .env("CRASH", crash)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .spawn()
            .expect("the binary runs");
        Self { nodes, client, program, asked, folder }
    }

    pub(crate) async fn run(&self, question: &str) -> Json {
        let input = json!({ "question": question });
        let answer = timeout(SOON, self.client.run("support", input)).await.expect("in time");
        answer.expect("the run completes")
    }

    pub(crate) fn notes(&self) -> usize {
        let file: PathBuf = self.folder.path().join("notes");
        std::fs::read_to_string(file).unwrap_or_default().lines().count()
    }

    /// The program is told to end, and says what it wrote.
    pub(crate) async fn end(self) -> String {
        interrupt(&self.program).await;
        let ended = timeout(SOON, self.program.wait_with_output()).await.expect("in time");
        let ended = ended.expect("it is ours");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(0), "{said}");
        self.nodes.stop_all().await;
        said
    }
}

async fn interrupt(program: &Child) {
    let pid = program.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs");
    assert!(sent.success());
}

/// Ends a program as Ctrl-C does: it leaves nothing behind.
pub(crate) async fn end(program: &mut Child) {
    interrupt(program).await;
    let ended = timeout(SOON, program.wait()).await.expect("in time").expect("it is ours");
    assert_eq!(ended.code(), Some(0));
}

pub(crate) async fn agent(client: &Client) {
    let agent_id = || "support".to_owned();
    let grace = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let switch = Some(v1::SwitchPolicy { grace, ..Default::default() });
    let policy = Some(v1::Policy { switch, ..Default::default() });
    let request = v1::CreateAgentRequest { agent_id: agent_id(), policy, ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "m".into(),
        snapshot: "1".into(),
        ..Default::default()
    };
    let tool = v1::ToolPart {
        version: "1".into(),
        input_schema_json: r#"{"type":"object","required":["words"]}"#.into(),
        output_schema_json: r#"{"type":"object","required":["seen"]}"#.into(),
        side_effects: v1::SideEffects::Idempotent.into(),
        ..Default::default()
    };
    let prompt = v1::PromptPart { text: "Well met".into(), ..Default::default() };
    let manifest = v1::BundleManifest {
        code: Some(v1::CodePart { git_commit: "abc".into(), ..Default::default() }),
        models: [("default".to_owned(), model)].into(),
        prompts: [("greeting".to_owned(), prompt)].into(),
        tools: [("count".to_owned(), tool)].into(),
        entry: "plan".into(),
        ..Default::default()
    };
    let request = v1::CreateBundleRequest {
        agent_id: agent_id(),
        bundle_id: "v1".into(),
        manifest: Some(manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("the bundle is created");
    let request =
        v1::SwitchRequest { agent_id: agent_id(), bundle_id: "v1".into(), ..Default::default() };
    client.releases().switch(request).await.expect("it goes live");
}

/// A service that does something once for each key, as a payment would, and answers how much it has done.
pub(crate) async fn service(asked: Arc<Mutex<(BTreeSet<String>, u32)>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            let _ = stream.read_line(&mut line).await;
            let mut rest = String::new();
            while stream.read_line(&mut rest).await.is_ok() && !rest.ends_with("\r\n\r\n") {}
            let key = line.split(['=', ' ']).nth(2).unwrap_or_default().to_owned();
            let done = {
                let mut asked = asked.lock();
                asked.0.insert(key);
                asked.1 += 1;
                asked.0.len().to_string()
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{done}",
                done.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

async fn runs_its_steps_with_memory_tools_and_checkpoints(program: &[&str]) {
    let scene = Scene::set(program, "").await;
    let first = scene.run("How are you?").await;
    assert_eq!(first["text"], "Well met: 3 words, visit 1");
    assert_eq!((&first["bundle"], &first["noted"]), (&json!("v1"), &json!("noted")));
    let second = scene.run("And now?").await;
    assert_eq!(second["text"], "Well met: 2 words, visit 2");
    let page = v1::ListRunsRequest { agent_id: "support".into(), ..Default::default() };
    let runs = scene.client.runs().list(page).await.expect("they are listed").runs;
    for run in runs {
        let usage = run.usage.unwrap_or_default();
        assert_eq!(usage.models.iter().map(|model| model.cost_micros).sum::<u64>(), 5);
        assert_eq!(usage.tools.iter().map(|tool| tool.calls).sum::<u64>(), 1);
    }
    assert_eq!(scene.asked.lock().0.len(), 2, "each run's call has its own key");
    scene.end().await;
}

async fn killed_behind_a_checkpoint_does_not_repeat_it(program: &[&str]) {
    let scene = Scene::set(program, "after-checkpoint").await;
    let answer = scene.run("How are you?").await;
    assert_eq!(answer["noted"], "noted");
    assert_eq!(scene.notes(), 1, "what was recorded is not done again");
    assert_eq!(scene.asked.lock().1, 1, "nor is the tool called again");
    let said = scene.end().await;
    assert!(said.contains("step=plan attempt=1 bundle=v1 planning"), "{said}");
}

async fn killed_between_effect_and_record_asks_again_with_the_same_key(program: &[&str]) {
    let scene = Scene::set(program, "in-tool").await;
    let answer = scene.run("How are you?").await;
    assert_eq!(answer["seen"], 1);
    let (keys, asked) = scene.asked.lock().clone();
    assert_eq!((keys.len(), asked), (1, 2), "asked twice, done once");
    scene.end().await;
}

#[tokio::test]
async fn a_python_agent_runs_its_steps_with_memory_tools_and_checkpoints() {
    runs_its_steps_with_memory_tools_and_checkpoints(PYTHON).await;
}

#[tokio::test]
async fn a_python_agent_killed_behind_a_checkpoint_does_not_repeat_it() {
    killed_behind_a_checkpoint_does_not_repeat_it(PYTHON).await;
}

#[tokio::test]
async fn a_python_agent_killed_between_effect_and_record_asks_again_with_the_same_key() {
    killed_between_effect_and_record_asks_again_with_the_same_key(PYTHON).await;
}

#[tokio::test]
async fn a_node_agent_runs_its_steps_with_memory_tools_and_checkpoints() {
    runs_its_steps_with_memory_tools_and_checkpoints(NODE).await;
}

#[tokio::test]
async fn a_node_agent_killed_behind_a_checkpoint_does_not_repeat_it() {
    killed_behind_a_checkpoint_does_not_repeat_it(NODE).await;
}

#[tokio::test]
async fn a_node_agent_killed_between_effect_and_record_asks_again_with_the_same_key() {
    killed_between_effect_and_record_asks_again_with_the_same_key(NODE).await;
}

#[tokio::test]
async fn a_shell_agent_runs_its_steps_with_memory_and_checkpoints() {
    let scene = Scene::set(SHELL, "after-checkpoint").await;
    assert_eq!(scene.run("How are you?").await, "3 words, visit 1");
    assert_eq!(scene.notes(), 1, "killed behind the checkpoint, it is not done again");
    assert_eq!(scene.run("And now?").await, "2 words, visit 2");
    let page = v1::ListRunsRequest { agent_id: "support".into(), ..Default::default() };
    for run in scene.client.runs().list(page).await.expect("they are listed").runs {
        let models = run.usage.unwrap_or_default().models;
        assert_eq!(models.iter().map(|model| model.cost_micros).sum::<u64>(), 5);
    }
    let said = scene.end().await;
    assert!(said.contains("step=plan attempt=1 bundle=v1 planning"), "{said}");
    assert!(!said.contains("{\"next\""), "an outcome is no log: {said}");
}

/// Ends in every way but the right one, as its input says.
const CARELESS: &str = r#"
case $(cat) in
*'"input":"silent"'*) echo 'a log, not an outcome' ;;
*'"input":"failed"'*) echo '{"level":"error"}'; echo 'out of disk' >&2; exit 3 ;;
*'"input":"both"'*) echo '{"done":1,"next":"plan"}' ;;
*'"input":"deaf"'*) exec <&-; echo '{"type":"outcome","done":"deaf"}'; exit 1 ;;
*'"input":"behind"'*) sleep 600 & echo $! >pid; echo '{"done":"behind"}' ;;
esac
"#;

#[tokio::test]
async fn a_process_without_an_outcome_failed_and_one_behind_it_is_ended() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = ["--per-step", "--", "sh", "-c", CARELESS];
    let mut host = exec(&nodes, folder.path(), &program).spawn().expect("the binary runs");
    let run = async |input: &str| {
        timeout(SOON, client.run::<_, Json>("support", json!(input))).await.expect("in time")
    };
    for (input, reason, words) in [
        ("silent", "PROGRAM_ENDED", "exit status: 0"),
        ("failed", "PROGRAM_ENDED", "exit status: 3): out of disk"),
        ("both", "PROTOCOL", "an outcome is one of"),
    ] {
        let error = run(input).await.expect_err("it fails");
        assert_eq!(error.reason(), reason, "{input}: {error:?}");
        assert!(error.to_string().contains(words), "{input}: {error}");
    }
    assert_eq!(run("deaf").await.expect("its last line counts"), "deaf");
    assert_eq!(run("behind").await.expect("nobody waits for the sleep"), "behind");
    let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it wrote it");
    gone(pid.trim()).await;
    end(&mut host).await;
    nodes.stop_all().await;
}

/// Waits until there is no such process, or only its remains.
async fn gone(pid: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        assert!(Instant::now() < deadline, "{pid} still runs: {stat}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Hears of no SIGTERM, and has a process that hears of none either.
const STUBBORN: &str = r#"
trap '' TERM
sleep 600 & echo $! >child
echo $$ >self
while :; do wait; done
"#;

#[tokio::test]
async fn a_cancelled_process_goes_with_its_whole_group() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = ["--per-step", "--", "sh", "-c", STUBBORN];
    let mut host = exec(&nodes, folder.path(), &program).spawn().expect("the binary runs");
    crate::nodes::start(&client, "r1").await;
    let self_pid = written(&folder.path().join("self")).await;
    let child_pid = written(&folder.path().join("child")).await;
    let request = v1::CancelRunRequest {
        agent_id: "support".into(),
        run_id: "r1".into(),
        ..Default::default()
    };
    client.runs().cancel(request).await.expect("it is cancelled");
    gone(&self_pid).await;
    gone(&child_pid).await;
    end(&mut host).await;
    nodes.stop_all().await;
}

/// The first line of a file, once there is one.
pub(crate) async fn written(file: &Path) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        match std::fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            Ok(_) | Err(_) => {}
        }
        assert!(Instant::now() < deadline, "{} was not written", file.display());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Says nonsense first: garbage, an unknown type, a tool that was not begun. It is told of each, and may go on.
const RUDE: &str = r#"
import json, os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["PINRAIL_SOCKET"])
lines = s.makefile("r")
def say(text):
    s.sendall((text + "\n").encode())
say('{"type":"hello","protocol":1,"steps":["plan"]}')
while True:
    step = lines.readline()
    if '"step"' not in step:
        break
    heard = []
    for nonsense in ["garbage", '{"type":"dance"}', '{"id":7,"type":"tool.end","name":"no","output":1}']:
        say(nonsense)
        heard.append(json.loads(lines.readline())["error"]["reason"])
    if json.loads(step)["attempt"] == 1:
        say('{"type":"outcome","next":"x","done":1}' if "both" in step else '{"type":"outcome","done":%s}' % json.dumps(heard))
"#;

#[tokio::test]
async fn a_program_that_breaks_the_protocol_is_told_so_and_harms_nobody() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut program =
        exec(&nodes, folder.path(), &["python3", "-c", RUDE]).spawn().expect("the binary runs");
    let heard: Json = timeout(SOON, client.run("support", json!("polite")))
        .await
        .expect("in time")
        .expect("it completes");
    assert_eq!(heard, json!(["PROTOCOL", "PROTOCOL", "PROTOCOL"]));
    let both =
        timeout(SOON, client.run::<_, Json>("support", json!("both"))).await.expect("in time");
    let error = both.expect_err("an outcome is one thing");
    assert_eq!(error.reason(), "PROTOCOL", "{error:?}");
    end(&mut program).await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_program_that_does_not_start_is_named() {
    let nodes = Nodes::start(1).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (program, words) in [
        (&["/nowhere/agent"][..], "/nowhere/agent"),
        (&["python3", "-c", "import sys; sys.exit('no such model')"], "no such model"),
    ] {
        let said = exec(&nodes, folder.path(), program).output();
        let said = timeout(SOON, said).await.expect("in time").expect("the binary runs");
        let text = String::from_utf8_lossy(&said.stderr);
        assert_ne!(said.status.code(), Some(0), "{text}");
        assert!(text.contains(words), "{text}");
    }
    nodes.stop_all().await;
}

/// Its first process waits to be told to go on; the others are done at once.
const SLOW: &str = r#"
if mkdir first 2>/dev/null; then
  echo $$ >self
  while [ ! -e go ]; do sleep 0.05; done
  echo '{"done":"first"}'
else
  echo '{"done":"second"}'
fi
"#;

#[tokio::test]
async fn a_worker_stopped_past_its_lease_changes_nothing_when_it_wakes_up() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let lease = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let steps = Some(v1::StepPolicy { lease, ..Default::default() });
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy { steps, ..Default::default() }),
        ..Default::default()
    };
    client.agents().update(request).await.expect("leases end soon");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let host = || {
        let program = ["--per-step", "--", "sh", "-c", SLOW];
        exec(&nodes, folder.path(), &program).spawn().expect("the binary runs")
    };
    let mut stopped = host();
    let signal = async |name: &str, pid: u32| {
        let sent = Command::new("kill").args([name, &pid.to_string()]).status().await;
        assert!(sent.expect("kill runs").success());
    };
    crate::nodes::start(&client, "r1").await;
    written(&folder.path().join("self")).await;
    let pid = stopped.id().expect("it runs");
    signal("-STOP", pid).await;
    let mut other = host();
    let result = timeout(SOON, client.wait_for_result("support", "r1")).await.expect("in time");
    let output = async |result: v1::GetResultResponse| {
        pinrail_client::payload::decode::<String>(result.output.as_ref()).expect("text")
    };
    assert_eq!(output(result.expect("another worker took it over")).await, "second");
    end(&mut other).await;
    // The first wakes up, and its program ends: nobody hears of that any more.
    std::fs::write(folder.path().join("go"), "").expect("it is written");
    signal("-CONT", pid).await;
    let next = timeout(SOON, client.run::<_, String>("support", json!(1))).await.expect("in time");
    assert_eq!(next.expect("it goes on with other work"), "second");
    let result = client.wait_for_result("support", "r1").await.expect("it is still there");
    assert_eq!(output(result).await, "second", "the run has one result");
    let request = v1::ListStepsRequest {
        agent_id: "support".into(),
        run_id: "r1".into(),
        ..Default::default()
    };
    let steps = client.runs().steps(request).await.expect("they are read").steps;
    assert_eq!((steps.len(), steps[0].attempt), (1, 2));
    end(&mut stopped).await;
    nodes.stop_all().await;
}
