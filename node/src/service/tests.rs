//! What the door does by itself, on a node of one: bounds, and streams of events.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use pinrail_proto::log::command::Kind;
use pinrail_proto::{log, reason};
use pinrail_state_machine::query::EventFilter;
use prost::Message as _;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic_types::StatusExt as _;

use super::{Dispatch, Node, ServerConfig, watch, write};
use crate::env::Env;
use crate::raft::{Replica, ReplicaConfig};

const SOON: Duration = Duration::from_secs(20);

async fn node() -> (Node, TempDir) {
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let config = ReplicaConfig {
        cluster: "test".into(),
        node: "n0".into(),
        data: data.path().join("n0"),
        peer_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        peer_advertise: None,
        grpc_advertise: "127.0.0.1:1".into(),
        members: vec![],
        join: vec![],
        heartbeat_ms: 50,
        election_min_ms: 150,
        election_max_ms: 300,
        snapshot_log_bytes: 64 << 20,
        keep_entries: 1_000,
        memory: 256 << 20,
    };
    let replica = Replica::start(config, Env::real()).await.expect("it starts");
    let mut leadership = replica.leadership();
    let here = timeout(SOON, leadership.wait_for(|now| now.here)).await;
    here.expect("it leads in time").expect("the replica lives");
    let dispatch = Dispatch::start(replica.clone());
    let config = ServerConfig::local("test", "n0", data.path(), 0);
    (Node::new(replica, dispatch, &config), data)
}

fn agent(name: &str) -> Option<log::AgentRef> {
    Some(log::AgentRef { namespace: "default".into(), agent_id: name.into() })
}

fn create(name: &str) -> Kind {
    Kind::CreateAgent(Box::new(log::CreateAgent { agent: agent(name), policy: None }))
}

/// Writes that make events without growing the state otherwise.
async fn pause_and_resume(node: &Node, name: &str, times: usize) {
    let encode =
        |kind| Bytes::from(log::Command { header: None, kind: Some(kind) }.encode_to_vec());
    let pause = log::PauseAgent { agent: agent(name), ..Default::default() };
    let resume = log::ResumeAgent { agent: agent(name), ..Default::default() };
    let pair = [encode(Kind::PauseAgent(pause)), encode(Kind::ResumeAgent(resume))];
    for _ in 0..times.div_ceil(100) {
        let commands = std::iter::repeat_n(pair.clone(), 100).flatten().collect();
        let outcomes = node.replica.propose_here(commands, SOON).await.expect("they are written");
        let refused =
            |it: &log::Outcome| matches!(it.result, Some(log::outcome::Result::Rejection(_)));
        assert!(!outcomes.iter().any(refused), "no command is refused");
    }
}

#[tokio::test]
async fn writes_beyond_the_bound_are_refused_and_probes_are_not() {
    let (node, _data) = node().await;
    let all = u32::try_from(write::IN_FLIGHT).expect("the bound is small");
    let room = node.writes.try_acquire_many(all).expect("nothing is under way");
    let refused = node.write(None, create("a"), SOON).await.expect_err("there is no room");
    let details = refused.get_error_details();
    let info = details.error_info().expect("a refusal says its reason");
    assert_eq!(info.reason, reason::OVERLOADED.name);
    assert!(details.retry_info().is_some(), "waiting helps");
    let probe = Kind::Probe(log::Probe {});
    node.propose(None, probe, SOON).await.expect("health is known under load too");
    drop(room);
    node.write(None, create("a"), SOON).await.expect("there is room again");
    node.replica.shutdown().await;
}

#[tokio::test]
async fn a_watcher_of_rare_events_does_not_wait_between_pages_without_any() {
    let (node, _data) = node().await;
    let (_, first) = node.write(None, create("a"), SOON).await.expect("it is created");
    // More than two of the pages that a query looks at.
    pause_and_resume(&node, "a", 12_000).await;
    let (_, last) = node.write(None, create("b"), SOON).await.expect("it is created");
    let filter = EventFilter {
        type_: "agent.created".into(),
        after_revision: first,
        ..EventFilter::default()
    };
    let mut answers = watch::events(node.clone(), filter, SOON).await.expect("it is kept");
    let found = async {
        loop {
            let answer = answers.next().await.expect("the stream goes on").expect("no error");
            if let Some(event) = answer.events.first() {
                return event.revision;
            }
        }
    };
    // Each page that was waited for would take that long.
    let found = timeout(watch::PROGRESS, found).await.expect("it catches up at once");
    assert_eq!(found, last);
    node.replica.shutdown().await;
}

#[tokio::test]
async fn a_busy_cluster_does_not_flood_a_watcher_of_a_quiet_agent() {
    let (node, _data) = node().await;
    for name in ["busy", "quiet"] {
        node.write(None, create(name), SOON).await.expect("it is created");
    }
    let filter = EventFilter {
        namespace: "default".into(),
        agent_id: "quiet".into(),
        ..EventFilter::default()
    };
    let mut answers = watch::events(node.clone(), filter, SOON).await.expect("it is kept");
    let first = answers.next().await.expect("the stream goes on").expect("no error");
    assert_eq!(first.events.len(), 1, "its creation");
    pause_and_resume(&node, "busy", 1_000).await;
    let pause = log::PauseAgent { agent: agent("quiet"), ..Default::default() };
    node.write(None, Kind::PauseAgent(pause), SOON).await.expect("it is paused");
    let mut without = 0;
    let paused = loop {
        let answer = answers.next().await.expect("the stream goes on").expect("no error");
        match answer.events.into_iter().next() {
            Some(event) => break event.r#type,
            None => without += 1,
        }
    };
    assert_eq!(paused, "agent.paused");
    // Ten batches went by; a slow machine may need one or two intervals for them.
    assert!(without <= 3, "{without} answers without events");
    node.replica.shutdown().await;
}
