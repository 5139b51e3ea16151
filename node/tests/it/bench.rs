//! `pinrail bench` against whole nodes: it measures every workload, and leaves nothing, however it ends.

use std::process::{Output, Stdio};

use pinrail_client::{Client, v1};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::nodes::{Nodes, SOON, agent};

/// A bench, as a person would start it.
struct Bench {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    namespace: String,
}

fn command(nodes: &Nodes, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
    command
        .args(["--endpoint", &nodes.endpoints().join(","), "-o", "json", "bench"])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Bench {
    /// Starts it and waits until it has made a namespace.
    async fn start(nodes: &Nodes, words: &[&str]) -> Self {
        let mut child = command(nodes, words).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("it is piped");
        let said = BufReader::new(stderr).lines();
        let mut bench = Self { child, said, namespace: String::new() };
        let line = bench.until("is made for it").await;
        let namespace = line.split(' ').nth(1).expect("it names the namespace");
        namespace.clone_into(&mut bench.namespace);
        bench
    }

    /// The next line that says so.
    async fn until(&mut self, what: &str) -> String {
        let line = async {
            loop {
                let line = self.said.next_line().await.expect("it speaks UTF-8");
                let line = line.unwrap_or_else(|| panic!("it ended without {what:?}"));
                if line.contains(what) {
                    return line;
                }
            }
        };
        timeout(SOON, line).await.unwrap_or_else(|_| panic!("it does not say {what:?}"))
    }

    async fn interrupt(self) -> (Option<i32>, Json) {
        let Self { child, mut said, .. } = self;
        let pid = child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs");
        assert!(sent.success());
        // Who does not listen to it would let it wait for ever.
        let talk = async { while let Ok(Some(_)) = said.next_line().await {} };
        let (output, ()) = tokio::join!(timeout(SOON, child.wait_with_output()), talk);
        let output = output.expect("it ends in time").expect("it ends");
        (output.status.code(), json(&output))
    }
}

fn json(output: &Output) -> Json {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

async fn namespaces(client: &Client) -> Vec<String> {
    let answer = client.namespaces().list(v1::ListNamespacesRequest::default()).await;
    let all = answer.expect("they are listed").namespaces.into_iter();
    all.map(|namespace| namespace.namespace).collect()
}

/// Agents of a namespace, with their open runs.
async fn agents(client: &Client, namespace: &str) -> Vec<(String, u64)> {
    let answer = client.with_namespace(namespace).agents().list(Default::default()).await;
    let all = answer.map(|page| page.agents).unwrap_or_default();
    all.into_iter().map(|agent| (agent.agent_id, agent.open_runs)).collect()
}

/// A short bench that must succeed.
async fn measured(nodes: &Nodes, words: &[&str]) -> Json {
    let short = ["--duration", "200ms", "--warm-up", "50ms"];
    let words = words.iter().chain(&short).copied().collect::<Vec<_>>();
    let output = command(nodes, &words).output().await.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    json(&output)
}

/// Workloads and clients of what was measured, in which no operation may have failed.
fn rows(said: &Json) -> Vec<(&str, u64)> {
    let clients = |row: &Json| {
        let median = &row["median"];
        assert!(median["operations"].as_u64().unwrap() > 0, "{row}");
        assert!(median["errors"].as_object().unwrap().is_empty(), "{row}");
        row["clients"].as_u64().unwrap()
    };
    let all = said["measurements"].as_array().unwrap().iter();
    all.map(|row| (row["workload"].as_str().unwrap(), clients(row))).collect()
}

#[tokio::test]
async fn every_workload_is_measured_and_nothing_is_left() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let pid = std::process::id().to_string();
    let said = measured(&nodes, &["--clients", "8", "--server-pid", &pid]).await;
    let all = ["start", "put", "read", "lookup", "get", "step", "run"];
    assert_eq!(rows(&said), all.map(|workload| (workload, 8)));
    let said = measured(&nodes, &["put", "start", "--clients", "1,2", "--repeats", "2"]).await;
    assert_eq!(rows(&said), [("put", 1), ("put", 2), ("start", 1), ("start", 2)]);
    for row in said["measurements"].as_array().unwrap() {
        assert_eq!(row["rounds"].as_array().unwrap().len(), 2, "{row}");
    }
    assert_eq!(namespaces(&client).await, ["default"]);
    assert_eq!(agents(&client, "default").await, [("support".to_owned(), 0)]);
    nodes.stop_all().await;
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate() {
    let nodes = Nodes::start(1).await;
    let flags = ["lookup", "--rate", "40", "--clients", "2", "--duration", "1s", "--warm-up", "0s"];
    let output = command(&nodes, &flags).output().await.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = json(&output);
    // However slow the machine is: what is due is done, and counts.
    assert_eq!(said["measurements"][0]["median"]["operations"], 40, "{said}");
    assert_eq!(said["loop"], "open");
    assert_eq!(namespaces(&nodes.client()).await, ["default"]);
    nodes.stop_all().await;
}

#[tokio::test]
async fn ctrl_c_removes_what_was_made_and_prints_what_was_measured() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    let flags = ["--clients", "16", "--duration", "60s", "--warm-up", "0s"];
    for workload in ["start", "put", "step", "run"] {
        let words = [workload].iter().chain(&flags).copied().collect::<Vec<_>>();
        let bench = Bench::start(&nodes, &words).await;
        // It is in the middle of it when runs are open or keys are there.
        let under_way = async {
            loop {
                let namespace = v1::GetNamespaceRequest {
                    namespace: bench.namespace.clone(),
                    ..Default::default()
                };
                let found = client.namespaces().get(namespace).await.expect("it is there");
                let used = found.namespace.and_then(|it| it.used).unwrap_or_default();
                if used.open_runs() > 0 || used.memory_bytes() > 0 {
                    return;
                }
            }
        };
        timeout(SOON, under_way).await.expect("it begins in time");
        let (code, said) = bench.interrupt().await;
        assert_eq!(code, Some(130), "{workload}");
        assert_eq!(said["interrupted"], true);
        assert_eq!(said["measurements"][0]["workload"], workload, "{said}");
        assert_eq!(namespaces(&client).await, ["default"], "{workload}");
    }
    // Before anything is measured: nothing is printed but that.
    let bench = Bench::start(&nodes, &["read", "--warm-up", "60s"]).await;
    let (code, said) = bench.interrupt().await;
    assert_eq!((code, said["measurements"].as_array().map(Vec::len)), (Some(130), Some(0)));
    assert_eq!(namespaces(&client).await, ["default"]);
    nodes.stop_all().await;
}

#[tokio::test]
async fn what_a_killed_bench_left_can_be_removed() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let mut bench = Bench::start(&nodes, &["start", "--duration", "60s", "--warm-up", "0s"]).await;
    let namespace = bench.namespace.clone();
    let under_way = async {
        while agents(&client, &namespace).await.iter().all(|(_, open_runs)| *open_runs == 0) {}
    };
    timeout(SOON, under_way).await.expect("it begins in time");
    bench.child.kill().await.expect("it is killed");
    let remove = |name: String| {
        let mut command = command(&nodes, &["--remove", &name]);
        async move { command.output().await.expect("the binary runs").status.code() }
    };
    assert_eq!(remove("default".to_owned()).await, Some(2), "it was not made for load");
    assert_eq!(remove(namespace.clone()).await, Some(0));
    assert_eq!(namespaces(&client).await, ["default"]);
    assert_eq!(remove(namespace).await, Some(0), "again is the same");
    nodes.stop_all().await;
}
