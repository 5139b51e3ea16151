//! Repin over a whole node: at a drain deadline, and by hand behind a held step.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult, WorkerBuilder};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::time;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent, switch_to};

pub(crate) async fn start(client: &Client, run_id: &str, repinnable: bool) {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        repinnable: Some(repinnable),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the run starts");
}

async fn run(client: &Client, run_id: &str) -> v1::Run {
    let request = v1::GetRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        ..Default::default()
    };
    client.runs().get(request).await.expect("it is read").run.expect("it is in the answer")
}

fn worker(client: &Client, bundle: &str, open: watch::Receiver<bool>) -> WorkerBuilder {
    let begin = move |_: StepContext, _: Option<u32>| {
        let mut open = open.clone();
        async move {
            open.wait_for(|open| *open).await.expect("the test lives");
            Ok(Next::step("finish", ()))
        }
    };
    async fn finish(ctx: StepContext, (): ()) -> StepResult<Next> {
        Ok(Next::done(ctx.bundle().id()))
    }
    Worker::builder(client.clone())
        .agent("support")
        .bundle(bundle)
        .code("abc")
        .slots(8)
        .step("main", begin)
        .step("finish", finish)
}

#[tokio::test]
async fn a_drain_moves_repinnable_runs_and_cancels_the_others() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let policy = v1::Policy {
        switch: Some(v1::SwitchPolicy {
            drain_cap: Some(time::duration(300)),
            on_drain: v1::OnDrain::Repin.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(policy),
        ..Default::default()
    };
    client.agents().update(request).await.expect("the policy is taken");
    start(&client, "moves", true).await;
    start(&client, "stays", false).await;
    switch_to(&client, "v2").await;
    let (_, open) = watch::channel(true);
    let tasks = tokio::spawn(worker(&client, "v2", open).run_until(std::future::pending()));
    let moved = client.wait_for_result("support", "moves").await.expect("it completes");
    assert_eq!((moved.state(), moved.bundle_id.as_str()), (v1::RunState::Completed, "v2"));
    let stayed = client.wait_for_result("support", "stays").await.expect_err("it is cancelled");
    assert_eq!(stayed.reason(), "DRAIN_CAP");
    let moved = run(&client, "moves").await;
    assert_eq!(moved.repins, 1);
    assert_eq!(moved.pin.expect("a pin").reason(), v1::PinReason::Repin);
    tasks.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_repin_by_hand_waits_for_the_step_that_a_worker_holds() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "fixed", false).await;
    start(&client, "moves", true).await;
    let (gate, open) = watch::channel(false);
    let old = tokio::spawn(worker(&client, "v1", open.clone()).run_until(std::future::pending()));
    let deadline = Instant::now() + SOON;
    while run(&client, "moves").await.state() != v1::RunState::Running {
        assert!(Instant::now() < deadline, "nobody took it");
        sleep(Duration::from_millis(5)).await;
    }
    switch_to(&client, "v2").await;
    let new = tokio::spawn(worker(&client, "v2", open).run_until(std::future::pending()));
    let request = |run_id: &str, bundle_id: &str| v1::RepinRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        bundle_id: bundle_id.into(),
        ..Default::default()
    };
    let refused = client.runs().repin(request("fixed", "")).await.expect_err("it did not say so");
    assert_eq!(refused.reason(), "NOT_REPINNABLE");
    let refused = client.runs().repin(request("moves", "v9")).await.expect_err("no such bundle");
    assert_eq!(refused.reason(), "BUNDLE_NOT_FOUND");
    let answer = client.runs().repin(request("moves", "")).await.expect("it is taken");
    assert!(!answer.moved && !answer.already && answer.bundle_id == "v2", "{answer:?}");
    assert_eq!(run(&client, "moves").await.repin_to, "v2");
    gate.send(true).expect("workers listen");
    let moved = client.wait_for_result("support", "moves").await.expect("it completes");
    assert_eq!(moved.output.expect("an output").data, "\"v2\"");
    let fixed = client.wait_for_result("support", "fixed").await.expect("it completes");
    assert_eq!(fixed.output.expect("an output").data, "\"v1\"");
    let steps = v1::ListStepsRequest {
        agent_id: "support".into(),
        run_id: "moves".into(),
        ..Default::default()
    };
    let steps = client.runs().steps(steps).await.expect("they are read").steps;
    assert_eq!(steps.len(), 2);
    old.abort();
    new.abort();
    nodes.stop_all().await;
}
