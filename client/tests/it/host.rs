//! Programs of other languages in runs that must not do anything: over the protocol of `worker exec`, with both helpers.

use std::path::{Path, PathBuf};

use pinrail_client::host::{Host, Program, Source, serve};
use pinrail_client::{payload, v1};
use tokio::time::timeout;
use v1::{work_request, work_response};

use crate::member::{Member, SOON, WorkerStream, client};

const PYTHON: &str = r#"
import pinrail_exec as pinrail

def use(step):
    def call(input, key):
        return 7
    used = [step.tool(name, {"q": step.side_effects}, call) for name in step.input]
    return pinrail.done([step.kind] + used)

def start(step):
    return pinrail.done(step.start_run("billing", "an invoice"))

pinrail.serve({"use": use, "start": start}, shadow_safe=True)
"#;

const NODE: &str = r#"
import * as pinrail from "./pinrail_exec.mjs";

async function use(step) {
  const used = [];
  for (const name of step.input) used.push(await step.tool(name, { q: step.sideEffects }, () => 7));
  return pinrail.done([step.kind, ...used]);
}

const start = async (step) => pinrail.done(await step.startRun("billing", "an invoice"));

pinrail.serve({ use, start }, { shadowSafe: true });
"#;

fn folder(file: &str, program: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/exec");
    for helper in ["pinrail_exec.py", "pinrail_exec.mjs"] {
        std::fs::copy(examples.join(helper), folder.path().join(helper)).expect("it is there");
    }
    std::fs::write(folder.path().join(file), program).expect("it is written");
    folder
}

fn host(command: [&str; 2], dir: PathBuf) -> Host {
    let command = command.map(str::to_owned).into();
    Host {
        agent: "a".into(),
        bundle: "v1".into(),
        source: Source::Kept(Program { command, dir: Some(dir) }),
        slots: 1,
        steps: Vec::new(),
        shadow_safe: false,
        code: None,
        worker_id: Some("w".into()),
    }
}

async fn assign(stream: &mut WorkerStream, token: u64, name: &str, input: &[&str]) {
    let shadow = v1::Assignment {
        run_id: "r".into(),
        step: 1,
        name: name.into(),
        attempt: 1,
        token: Some(v1::StepToken { incarnation: 1, revision: token }),
        bundle_id: "v1".into(),
        kind: v1::RunKind::Shadow.into(),
        suppress_side_effects: true,
        input: Some(payload::encode(&input).expect("text encodes")),
        ..Default::default()
    };
    stream.say(0, work_response::Message::Assignment(Box::new(shadow))).await;
}

/// The next message that says what became of a step; checkpoints are acknowledged, and their names kept.
async fn outcome(stream: &mut WorkerStream) -> (Vec<String>, work_request::Message) {
    let mut recorded = Vec::new();
    loop {
        let (sequence, message) = stream.next().await;
        match message {
            work_request::Message::Checkpoint(it) => {
                recorded.push(it.checkpoint.unwrap_or_default().name);
                stream.done(sequence, false).await;
            }
            work_request::Message::Credit(_) => {}
            other => {
                stream.done(sequence, false).await;
                return (recorded, other);
            }
        }
    }
}

async fn acts_on_nothing(command: [&str; 2], program: &str) {
    let folder = folder(command[1], program);
    let mut member = Member::pulled().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = serve(vec![host(command, folder.path().to_owned())], client(&[&member]), async {
        drop(stopped.await)
    });
    let served = tokio::spawn(served);
    let (mut stream, hello) = member.welcome().await;
    assert!(hello.shadow_safe, "the program said so");

    assign(&mut stream, 7, "use", &["look", "send"]).await;
    let (recorded, message) = outcome(&mut stream).await;
    let work_request::Message::Complete(it) = message else { panic!("{message:?}") };
    let Some(v1::complete_step::Outcome::Done(output)) = it.outcome else { panic!("not done") };
    assert_eq!(&*output.data, br#"["shadow",7,4]"#, "one that reads is called, a stub answers");
    assert_eq!(recorded, ["tool:look", "tool:send"]);

    for (token, name, tools) in [(8, "use", &["wipe"][..]), (9, "start", &[])] {
        assign(&mut stream, token, name, tools).await;
        let (recorded, message) = outcome(&mut stream).await;
        let work_request::Message::Fail(it) = message else { panic!("{message:?}") };
        let failure = it.failure.unwrap_or_default();
        assert_eq!(failure.reason, "TOOL_SUPPRESSED", "{failure:?}");
        assert!(failure.non_retryable && recorded.is_empty());
    }
    drop(stop);
    timeout(SOON, served).await.expect("it ends").expect("no panic").expect("it ends well");
}

#[tokio::test]
async fn a_python_program_does_nothing_in_a_shadow_run() {
    acts_on_nothing(["python3", "agent.py"], PYTHON).await;
}

#[tokio::test]
async fn a_node_program_does_nothing_in_a_shadow_run() {
    acts_on_nothing(["node", "agent.mjs"], NODE).await;
}
