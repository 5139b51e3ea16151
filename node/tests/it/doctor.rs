//! `pinrail doctor` against whole nodes: all of them up, one down, two down.

use std::path::PathBuf;
use std::process::{Command, Output};

use tokio::time::Instant;

use crate::nodes::{Nodes, SOON, agent};

/// Runs beside the nodes, which live on this test's own thread.
async fn doctor(endpoints: Vec<String>, flags: Vec<String>) -> Output {
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
        command.args(["doctor", "--endpoint", &endpoints.join(",")]).args(flags);
        command.output().expect("the binary runs")
    };
    tokio::task::spawn_blocking(run).await.expect("it does not panic")
}

fn state_of(said: &Output, check: &str) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let checks = json["checks"].as_array().expect("a list").iter();
    let of = checks.filter(|it| it["check"] == check);
    of.map(|it| it["state"].as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn the_doctor_finds_nothing_then_one_down_then_no_quorum() {
    let mut nodes = Nodes::start(3).await;
    agent(&nodes.client()).await;
    let endpoints = nodes.endpoints();
    let json = || vec!["-o".to_owned(), "json".to_owned()];
    let checks = ["endpoints", "quorum", "versions", "leader", "lag", "state", "clocks", "agents"];
    let deadline = Instant::now() + SOON;
    loop {
        let said = doctor(endpoints.clone(), json()).await;
        if checks.iter().all(|check| state_of(&said, check) == ["ok"]) {
            assert_eq!(said.status.code(), Some(0), "{said:?}");
            break;
        }
        assert!(Instant::now() < deadline, "all is well, and it says: {said:?}");
    }
    // One endpoint leads to the others.
    let said = doctor(endpoints[..1].to_vec(), vec![]).await;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.contains("n0, n1, n2 answer"), "{text}");

    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    // A busy machine may take a little to settle on the next leader.
    let deadline = Instant::now() + SOON;
    let said = loop {
        let said = doctor(endpoints.clone(), json()).await;
        if said.status.code() == Some(0) {
            break said;
        }
        assert!(Instant::now() < deadline, "one down is a warning: {said:?}");
    };
    assert_eq!(state_of(&said, "endpoints"), ["warn"]);
    assert_eq!(state_of(&said, "quorum"), ["ok"]);

    let next = nodes.leader().await;
    nodes.stop(next).await;
    let said = doctor(endpoints, json()).await;
    assert_eq!(said.status.code(), Some(6), "{said:?}");
    assert_eq!(state_of(&said, "quorum"), ["fail"]);
    nodes.stop_all().await;
}

#[tokio::test]
async fn the_doctor_looks_at_the_machine_too() {
    let nodes = Nodes::start(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("server.toml");
    std::fs::write(&file, "data = \"/nowhere/at/all\"\n").expect("it is written");
    let flags = ["-o", "json", "-f", &file.display().to_string()].map(str::to_owned).to_vec();
    let said = doctor(nodes.endpoints(), flags).await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(state_of(&said, "data"), ["fail"]);
    nodes.stop_all().await;
}
