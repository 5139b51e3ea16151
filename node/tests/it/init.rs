//! What `pinrail init` writes works as its last lines say, in every language, against a node.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use pinrail_client::Worker;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::nodes::{Nodes, SOON};

#[expect(unreachable_pub, reason = "public in a program of its own")]
#[path = "../../../client/src/cli/template/rust/agent.rs"]
mod agent;
#[expect(
    clippy::duplicate_mod,
    reason = "the program brings its own, as it does where init wrote it"
)]
#[expect(dead_code, unreachable_pub, reason = "a program: only seen to compile")]
#[path = "../../../client/src/cli/template/rust/main.rs"]
mod program;

/// A node, and the folder of an agent that `init` wrote.
struct Scene {
    nodes: Nodes,
    folder: TempDir,
}

impl Scene {
    async fn set(lang: &str) -> Self {
        let nodes = Nodes::start(1).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let scene = Self { nodes, folder };
        scene.pinrail(scene.folder.path(), &["init", "--lang", lang, "helper"]).await;
        for command in [
            &["agent", "create", "helper", "-f", "agent.toml"][..],
            &["bundle", "create", "helper", "v1", "-f", "bundle.toml"],
            &["switch", "helper", "v1"],
        ] {
            scene.pinrail(&scene.dir(), command).await;
        }
        scene
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("helper")
    }

    fn command(&self, folder: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
        command
            .args(["--endpoint", &self.nodes.endpoint(0)])
            .args(words)
            .current_dir(folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .kill_on_drop(true);
        command
    }

    async fn pinrail(&self, folder: &Path, words: &[&str]) -> Output {
        let output = timeout(SOON, self.command(folder, words).output()).await.expect("in time");
        let output = output.expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        output
    }

    fn exec(&self, words: &[&str]) -> Child {
        let exec = ["worker", "exec", "helper", "--bundle", "v1"];
        let mut command = self.command(&self.dir(), &[&exec, words].concat());
        command.stderr(Stdio::inherit()).spawn().expect("the binary runs")
    }

    /// Runs the smoke case, as a person would.
    async fn answers(&self) {
        let start = [
            "run",
            "start",
            "helper",
            "--input",
            "@smoke/refund.json",
            "--wait",
            "--timeout",
            "30s",
        ];
        let output = self.pinrail(&self.dir(), &[&start[..], &["-o", "json"]].concat()).await;
        let result: Json = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let answer = &result["output"];
        assert_eq!(
            answer["answer"], "Answer in one short sentence. A refund takes five days.",
            "{result}"
        );
        assert_eq!(answer["bundle"], "v1");
        let said = self.pinrail(&self.dir(), &["memory", "get", "helper", "last/question"]).await;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("Where is my refund?"), "{said}");
    }
}

#[tokio::test]
async fn a_new_agent_in_python_answers_its_smoke_case() {
    let scene = Scene::set("python").await;
    let mut worker = scene.exec(&["--", "python3", "agent.py"]);
    scene.answers().await;
    crate::exec::end(&mut worker).await;
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn a_new_agent_in_shell_answers_its_smoke_case() {
    let scene = Scene::set("shell").await;
    let mut worker = scene.exec(&["--per-step", "--", "./agent.sh"]);
    scene.answers().await;
    crate::exec::end(&mut worker).await;
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn a_new_agent_in_rust_answers_its_smoke_case() {
    let scene = Scene::set("rust").await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(scene.nodes.client()).agent("helper").bundle("v1");
    let worker = agent::steps(worker).run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    scene.answers().await;
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic").expect("it ends well");
    scene.nodes.stop_all().await;
}
