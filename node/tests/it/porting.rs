//! The recipes of docs/PORTING.md, each killed in the middle. LangGraph and the Agents SDK are the real ones, in a Python
//! environment of their own that `make porting` installs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pinrail_client::{Client, payload, v1};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::nodes::{Nodes, SOON};

/// What each program begins with: notes of what was done, in whichever process, and a way to die.
const NOTES: &str = r#"
import os, signal
import pinrail_exec as pinrail
def note(what):
    with open("notes", "a") as file:
        file.write(what + "\n")
    return open("notes").read().split().count(what)
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"#;

/// Dies when the model is asked for the third time.
const PLAIN: &str = r#"
import plain_loop as recipe
ask, tool = recipe.ask_model, recipe.call_tool
def ask_model(bundle, messages):
    if note("asked") == 3:
        die()
    return ask(bundle, messages)
def call_tool(arguments, key):
    note("called")
    return tool(arguments, key)
recipe.ask_model, recipe.call_tool = ask_model, call_tool
pinrail.serve({"loop": recipe.loop, "turn": recipe.turn})
"#;

/// Dies when the first node of the first run was saved.
const LANGGRAPH: &str = r#"
import langgraph_agent as recipe
put, tool = recipe.PinrailSaver.put, pinrail.Step.tool
def saved(self, config, checkpoint, metadata, versions):
    config = put(self, config, checkpoint, metadata, versions)
    if metadata["step"] == 1 and note("saved") == 1:
        die()
    return config
def called(self, *args):
    note("called")
    return tool(self, *args)
recipe.PinrailSaver.put, pinrail.Step.tool = saved, called
pinrail.serve({"run": recipe.run})
"#;

/// Dies when the model is asked for the second time, and when the second conversation was written.
const AGENTS: &str = r#"
import openai_agent as recipe
ask, keep = recipe.StandIn.get_response, recipe.PinrailSession.keep
async def asked(self, *args, **kwargs):
    if note("asked") == 2:
        die()
    return await ask(self, *args, **kwargs)
def kept(self):
    keep(self)
    if note("kept") == 2:
        die()
recipe.StandIn.get_response, recipe.PinrailSession.keep = asked, kept
pinrail.serve({"chat": recipe.chat})
"#;

struct Scene {
    nodes: Nodes,
    client: Client,
    folder: TempDir,
    host: Child,
}

impl Scene {
    async fn set(python: &Path, program: &str, entry: &str) -> Self {
        let nodes = Nodes::start(1).await;
        let client = nodes.client();
        agent(&client, entry).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples");
        let path = ["porting", "exec"].map(|name| examples.join(name).display().to_string());
        let host = Command::new(env!("CARGO_BIN_EXE_pinrail"))
            .args(["--endpoint", &nodes.endpoint(0), "worker", "exec", "support"])
            .args(["--bundle", "v1", "--code", "abc", "--slots", "1", "--dir"])
            .arg(folder.path())
            .arg("--")
            .arg(python)
            .args(["-c", &format!("{NOTES}{program}")])
            .env("PYTHONPATH", path.join(":"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        Self { nodes, client, folder, host }
    }

    /// Starts a run in the conversation `chat`.
    async fn start(&self, run_id: &str, question: &str) {
        let input = payload::encode(&json!({ "question": question })).expect("it is JSON");
        let request = v1::StartRunRequest {
            agent_id: "support".into(),
            run_id: run_id.into(),
            session: "chat".into(),
            input: Some(input),
            ..Default::default()
        };
        self.client.runs().start(request).await.expect("the run starts");
    }

    async fn result(&self, run_id: &str) -> Json {
        let result = self.client.wait_for_result("support", run_id);
        let result = timeout(SOON, result).await.expect("in time").expect("it completes");
        payload::decode(result.output.as_ref()).expect("it is JSON")
    }

    /// How often something was done.
    fn noted(&self, what: &str) -> usize {
        let notes = std::fs::read_to_string(self.folder.path().join("notes")).unwrap_or_default();
        notes.lines().filter(|line| *line == what).count()
    }

    async fn end(mut self) {
        crate::exec::end(&mut self.host).await;
        self.nodes.stop_all().await;
    }
}

async fn agent(client: &Client, entry: &str) {
    let agent_id = || "support".to_owned();
    let request = v1::CreateAgentRequest { agent_id: agent_id(), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    let tool = v1::ToolPart {
        stub_json: String::new(),
        version: "1".into(),
        input_schema_json: r#"{"type":"object","required":["query"]}"#.into(),
        output_schema_json: r#"{"type":"object","required":["text"]}"#.into(),
        side_effects: v1::SideEffects::ReadOnly.into(),
    };
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "m".into(),
        snapshot: "1".into(),
        ..Default::default()
    };
    let manifest = v1::BundleManifest {
        code: Some(v1::CodePart { git_commit: "abc".into(), ..Default::default() }),
        models: [("default".to_owned(), model)].into(),
        tools: [("search".to_owned(), tool)].into(),
        entry: entry.into(),
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

/// The Python that has both frameworks.
fn frameworks() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_pinrail")).ancestors().nth(2);
    let python = target.expect("the binary is in a target folder").join("porting/bin/python3");
    assert!(python.exists(), "{} is not there: `make porting` makes it", python.display());
    python
}

#[tokio::test]
async fn a_plain_loop_killed_in_a_turn_repeats_no_turn_that_was_recorded() {
    for entry in ["loop", "turn"] {
        let scene = Scene::set(Path::new("python3"), PLAIN, entry).await;
        scene.start("r", "hi").await;
        let answer = scene.result("r").await;
        assert_eq!(answer, json!({ "answer": "fact about hi and fact about hi?" }), "{entry}");
        assert_eq!((scene.noted("asked"), scene.noted("called")), (4, 2), "{entry}");
        scene.end().await;
    }
}

#[tokio::test]
async fn a_langgraph_graph_killed_behind_a_node_goes_on_with_the_next_and_waits_for_a_person() {
    let scene = Scene::set(&frameworks(), LANGGRAPH, "run").await;
    scene.start("first", "hi").await;
    let answer = scene.result("first").await;
    assert_eq!(answer, json!({ "answer": "fact about hi", "facts": 1 }));
    assert_eq!((scene.noted("saved"), scene.noted("called")), (1, 1), "the node ran once");
    scene.start("second", "my refund").await;
    let request = v1::SignalRunRequest {
        agent_id: "support".into(),
        run_id: "second".into(),
        name: "approved".into(),
        value: Some(payload::encode(&json!("approved by Ann")).expect("it is JSON")),
        ..Default::default()
    };
    scene.client.runs().signal(request).await.expect("the signal is taken");
    let said = "fact about hi and fact about my refund, approved by Ann";
    assert_eq!(scene.result("second").await, json!({ "answer": said, "facts": 2 }));
    scene.end().await;
}

#[tokio::test]
async fn an_agent_of_the_openai_sdk_killed_twice_asks_no_question_twice_and_keeps_one_conversation()
{
    let scene = Scene::set(&frameworks(), AGENTS, "chat").await;
    for (run_id, question, answer) in [
        ("first", "hi", "fact about hi, question 1"),
        ("second", "again", "fact about again, question 2"),
        ("third", "more", "fact about more, question 3"),
    ] {
        scene.start(run_id, question).await;
        assert_eq!(scene.result(run_id).await, json!({ "answer": answer }));
    }
    assert_eq!(scene.noted("asked"), 7, "two answers a question, and the one that was cut off");
    assert_eq!(scene.noted("kept"), 4);
    scene.end().await;
}
