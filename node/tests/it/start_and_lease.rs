//! A start that finds a worker waiting is one command with the lease of its first step, at whatever node it was asked for.

use pinrail_client::v1;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message;
use tokio::time::{Duration, sleep, timeout};

use crate::nodes::{Nodes, SOON, Stream, agent, hello};

/// The revision at which a run was started at one node.
async fn start_at(nodes: &Nodes, index: usize, run_id: &str) -> u64 {
    let client = nodes.client_of(index);
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        ..Default::default()
    };
    let started = client.runs().start(request).await.expect("the run starts");
    assert_eq!(started.state(), v1::RunState::Running, "{run_id}");
    started.revision
}

#[tokio::test]
async fn a_start_at_any_node_leases_to_a_waiting_worker_in_its_own_command() {
    let nodes = Nodes::start(3).await;
    agent(&nodes.client()).await;
    let leader = nodes.leader().await;
    let worker = v1::WorkerHello { slots: 3, ..hello("w") };
    let mut stream = Stream::open(&nodes.endpoint(leader), worker).await.expect("it is let in");
    assert!(matches!(stream.next().await.1, Message::Welcome(_)));
    stream.say(0, Request::Credit(v1::Credit { slots: 3 })).await;
    let dispatch = nodes.servers[leader].as_ref().expect("it runs").dispatch.clone();
    let waits = async {
        while dispatch.slots(1, "v1").is_none_or(|slots| slots.free < 3) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waits).await.expect("the worker waits in time");
    for index in 0..3 {
        let run_id = format!("r{index}");
        let started = start_at(&nodes, index, &run_id).await;
        let (_, Message::Assignment(first)) = stream.next().await else { panic!("no assignment") };
        assert_eq!(first.run_id, run_id);
        assert_eq!(first.token.map(|token| token.revision), Some(started), "asked at n{index}");
    }
    nodes.stop_all().await;
}
