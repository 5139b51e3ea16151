//! Whose turn it is, over a whole node: priorities, and the limit of one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker, v1};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent};

async fn start(client: &Client, run_id: &str, priority: u32, fairness_key: &str) {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        priority,
        fairness_key: fairness_key.into(),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the run starts");
}

#[tokio::test]
async fn urgent_runs_are_executed_first() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    for (run_id, priority) in [("late", 5), ("usual", 0), ("urgent", 1)] {
        start(&client, run_id, priority, "").await;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let main = move |ctx: StepContext, _: Option<u32>| {
        note.lock().push(ctx.run_id().to_owned());
        async move { Ok(Next::done(())) as StepResult<Next> }
    };
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .slots(1)
        .step("main", main);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    for run_id in ["late", "usual", "urgent"] {
        client.wait_for_result("support", run_id).await.expect("it completes");
    }
    assert_eq!(*seen.lock(), ["urgent", "usual", "late"]);
    worker.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_keys_limit_holds_and_others_go_on() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let steps = v1::StepPolicy { max_running_per_key: Some(2), ..Default::default() };
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy { steps: Some(steps), ..Default::default() }),
        ..Default::default()
    };
    client.agents().update(request).await.expect("the policy is taken");
    let runs: Vec<String> = (0..12).map(|number| format!("run-{number}")).collect();
    for run_id in &runs {
        start(&client, run_id, 0, "tenant-7").await;
    }
    start(&client, "other", 0, "tenant-8").await;
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (of_key, peak) = (Arc::clone(&now), Arc::clone(&most));
    let main = move |ctx: StepContext, _: Option<u32>| {
        let (of_key, peak) = (Arc::clone(&of_key), Arc::clone(&peak));
        async move {
            if ctx.run_id() != "other" {
                peak.fetch_max(of_key.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Work that takes a moment, so that more than one could be seen at once.
                sleep(Duration::from_millis(5)).await;
                of_key.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(Next::done(())) as StepResult<Next>
        }
    };
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .slots(8)
        .step("main", main);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    client.wait_for_result("support", "other").await.expect("it is not held back");
    for run_id in &runs {
        client.wait_for_result("support", run_id).await.expect("it completes");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    worker.abort();
    nodes.stop_all().await;
}

async fn is_stranded(client: &Client) -> bool {
    let request = v1::GetAgentStatusRequest { agent_id: "support".into(), ..Default::default() };
    let status = client.agents().status(request).await.expect("the node answers");
    status.bundles.iter().any(|bundle| bundle.stranded)
}

#[tokio::test]
async fn a_bundle_with_open_runs_and_no_worker_is_an_alarm_until_one_comes() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    assert!(!is_stranded(&client).await, "it has no open runs");
    start(&client, "r", 0, "").await;
    assert!(is_stranded(&client).await);
    let never = |_: StepContext, _: Option<u32>| std::future::pending::<StepResult<Next>>();
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", never);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    let deadline = Instant::now() + SOON;
    while is_stranded(&client).await {
        assert!(Instant::now() < deadline, "its worker does not count");
        sleep(Duration::from_millis(10)).await;
    }
    worker.abort();
    nodes.stop_all().await;
}
