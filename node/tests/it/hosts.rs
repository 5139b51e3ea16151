//! Worker hosts beyond one program of one bundle: a server behind `pinrail worker http`, and blue and green in one host.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use pinrail_client::{Client, payload, v1};
use serde_json::{Value as Json, json};
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::exec::{agent, end, written};
use crate::nodes::{Nodes, SOON, start};
use pinrail_node::testing::free_port;

/// `pinrail worker VERB support …`, as a person would start it.
fn worker(nodes: &Nodes, verb: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
    command
        .args(["--endpoint", &nodes.endpoint(0), "worker", verb, "support"])
        .args(words)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A Python program with this port as its argument.
fn python(folder: &Path, words: &[&str], port: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .args(words)
        .arg(port)
        .current_dir(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    command
}

async fn run(client: &Client, input: Json) -> pinrail_client::Result<Json> {
    timeout(SOON, client.run("support", input)).await.expect("in time")
}

#[tokio::test]
async fn a_server_that_is_killed_behind_a_checkpoint_does_not_repeat_it() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (notes, port) = (folder.path().join("notes"), free_port().to_string());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples/exec");
    let serve = |crash: &str| {
        let mut command = python(&examples, &["server.py"], &port);
        command.env("NOTE_FILE", &notes).env("CRASH", crash);
        command.spawn().expect("python3 runs")
    };
    let url = format!("http://127.0.0.1:{port}/pinrail");
    // The host is there first, and waits for the server.
    let host = ["--bundle", "v1", "--code", "abc", "--url", &url];
    let mut host = worker(&nodes, "http", &host).spawn().expect("the binary runs");
    let mut first: Child = serve("after-checkpoint");
    let restarted = async {
        first.wait().await.expect("it is ours");
        serve("")
    };
    let question = json!({ "question": "How are you?" });
    let (answer, _second) = tokio::join!(run(&client, question), restarted);
    let answer = answer.expect("the run completes");
    assert_eq!(answer["text"], "Well met: 3 words, visit 1");
    assert_eq!(answer["noted"], "noted");
    let noted = std::fs::read_to_string(&notes).expect("it was written");
    assert_eq!(noted, "noted\n", "what was recorded is not done again");
    end(&mut host).await;
    nodes.stop_all().await;
}

/// Answers as its input says; 1 waits until it is told to stop.
const MOODY: &str = r#"
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
stop = threading.Event()
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        m = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer, mood = 200, {"done": m.get("attempt")}, m.get("input")
        if m["type"] == "cancel":
            open("told", "w").write("%s %s\n" % (m["run_id"], m["reason"]))
            stop.set()
        elif mood == 1:
            open("taken", "w").write("yes\n")
            stop.wait(60)
        elif mood == "busy" and m["attempt"] == 1:
            status = 503
        elif mood == "hang up" and m["attempt"] == 1:
            return self.connection.close()
        elif mood == "gone":
            status = 404
        elif mood == "page":
            answer = "a page"
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[tokio::test]
async fn a_servers_errors_are_tried_again_where_that_may_help_and_a_cancel_is_posted() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let port = free_port().to_string();
    let mut server = python(folder.path(), &["-c", MOODY], &port).spawn().expect("python3 runs");
    let at = format!("v1=http://127.0.0.1:{port}/");
    let mut host =
        worker(&nodes, "http", &["--bundle", &at, "--code", "abc"]).spawn().expect("it runs");
    for input in ["busy", "hang up"] {
        assert_eq!(run(&client, json!(input)).await.expect("the second attempt"), 2, "{input}");
    }
    for (input, reason, words) in [("gone", "HTTP_FAILED", "404"), ("page", "PROTOCOL", "a page")] {
        let error = run(&client, json!(input)).await.expect_err("no attempt helps");
        assert_eq!(error.reason(), reason, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    start(&client, "slow").await;
    written(&folder.path().join("taken")).await;
    let request = v1::CancelRunRequest {
        agent_id: "support".into(),
        run_id: "slow".into(),
        ..Default::default()
    };
    client.runs().cancel(request).await.expect("it is cancelled");
    assert_eq!(written(&folder.path().join("told")).await, "slow requested");
    server.kill().await.expect("it runs");
    let refused = run(&client, json!("refused")).await.expect_err("nobody listens");
    assert_eq!(refused.reason(), "HTTP_FAILED", "{refused:?}");
    end(&mut host).await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_host_without_a_server_to_post_to_is_told_so() {
    let nodes = Nodes::start(1).await;
    for (words, said) in [
        (&["--bundle", "v1"][..], "--url"),
        (&["--bundle", "v1", "--url", "https://localhost/"], "http://"),
        (&["--bundle", "v1", "--bundle", "v1", "--url", "http://localhost/"], "twice"),
    ] {
        let output = timeout(SOON, worker(&nodes, "http", words).output()).await.expect("in time");
        let output = output.expect("the binary runs");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(talk.contains(said), "{talk}");
    }
    nodes.stop_all().await;
}

/// Waits for a signal, and says where it runs and for which bundle. Each folder has its own.
const WHERE: &str = r#"#!/bin/sh
case $PINRAIL_STEP in
plan) echo '{"wait":"go","then":"where"}' ;;
where) printf '{"done":"COLOUR %s %s"}' "$(basename "$PWD")" "$PINRAIL_BUNDLE" ;;
esac
"#;

async fn second_bundle(client: &Client) {
    let (agent_id, bundle_id) = (|| "support".to_owned(), |id: &str| id.to_owned());
    let request = v1::GetBundleRequest {
        agent_id: agent_id(),
        bundle_id: bundle_id("v1"),
        ..Default::default()
    };
    let first = client.bundles().get(request).await.expect("it is there").bundle;
    let mut manifest = first.expect("it is there").manifest.expect("it has one");
    manifest.code = Some(v1::CodePart { git_commit: "def".into(), ..Default::default() });
    let request = v1::CreateBundleRequest {
        agent_id: agent_id(),
        bundle_id: bundle_id("v2"),
        manifest: Some(manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("the bundle is created");
    let request = v1::SwitchRequest {
        agent_id: agent_id(),
        bundle_id: bundle_id("v2"),
        ..Default::default()
    };
    client.releases().switch(request).await.expect("it goes live");
}

async fn waits(client: &Client, run_id: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let request = v1::GetRunRequest {
            agent_id: "support".into(),
            run_id: run_id.into(),
            ..Default::default()
        };
        let run = client.runs().get(request).await.expect("it is read").run.expect("it is there");
        if run.state() == v1::RunState::Waiting {
            return;
        }
        assert!(Instant::now() < deadline, "{run:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn go(client: &Client, run_id: &str) -> String {
    let request = v1::SignalRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        name: "go".into(),
        ..Default::default()
    };
    client.runs().signal(request).await.expect("the signal is taken");
    let request = v1::GetResultRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..Default::default()
    };
    let result = client.runs().result(request).await.expect("it is answered");
    assert_eq!(result.state(), v1::RunState::Completed, "{result:?}");
    payload::decode(result.output.as_ref()).expect("the output is text")
}

#[tokio::test]
async fn one_host_serves_blue_and_green_each_in_its_own_folder() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "before").await;
    second_bundle(&client).await;
    start(&client, "after").await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for colour in ["blue", "green"] {
        let dir = folder.path().join(colour);
        std::fs::create_dir(&dir).expect("it is made");
        let file = dir.join("where.sh");
        std::fs::write(&file, WHERE.replace("COLOUR", colour)).expect("it is written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("it is ours");
    }
    let place = |bundle: &str, dir: &str| format!("{bundle}={}", folder.path().join(dir).display());
    let (blue, green) = (place("v1", "blue"), place("v2", "green"));
    let bundles = ["--bundle", &blue, "--bundle", &green, "--code", "v1=abc", "--code", "v2=def"];
    let program = ["--per-step", "--", "./where.sh"];
    let words = [&bundles[..], &program].concat();
    let host = worker(&nodes, "exec", &words).spawn().expect("the binary runs");
    for (run_id, said) in [("before", "blue blue v1"), ("after", "green green v2")] {
        waits(&client, run_id).await;
        assert_eq!(go(&client, run_id).await, said);
    }
    let pid = host.id().expect("it runs").to_string();
    Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs");
    let ended = timeout(SOON, host.wait_with_output()).await.expect("in time").expect("it is ours");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    nodes.stop_all().await;
}
