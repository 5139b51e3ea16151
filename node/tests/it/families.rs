//! Runs that come of other runs, over whole nodes: children, runs that continue others, and runs that begin later; and the
//! brake of one run.

use std::collections::BTreeSet;
use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepError, StepResult};
use pinrail_client::{Client, Worker, payload, v1};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent, agent_named};

/// What the input asks for: `child`, `broken child`, `loop` or a plain answer.
async fn main(ctx: StepContext, ask: String) -> StepResult<Next> {
    Ok(match ask.split_once(' ') {
        None if ask == "child" => Next::child("billing", 20).then("after", ()),
        Some(("broken", _)) => Next::child("billing", "no number").then("after", ()),
        Some(("loop", left)) => match left.parse::<u32>()? {
            0 => Next::done(ctx.run_id()),
            left => Next::continue_as_new(format!("loop {}", left - 1)),
        },
        _ => Next::done(ask),
    })
}

async fn billing(_: StepContext, amount: u32) -> StepResult<Next> {
    Ok(Next::done(amount + 1))
}

async fn after(ctx: StepContext, (): ()) -> StepResult<Next> {
    let billed: u32 = ctx.child()?;
    Ok(Next::done(billed))
}

fn worker(client: &Client) -> JoinHandle<pinrail_client::Result<()>> {
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .slots(1)
        .step("main", main)
        .step("billing", billing)
        .step("after", after);
    tokio::spawn(worker.run_until(std::future::pending()))
}

async fn start(client: &Client, run_id: &str, ask: &str, delay: Option<i64>) {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        input: Some(payload::encode(ask).expect("text encodes")),
        delay: delay.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the run is accepted");
}

async fn run(client: &Client, run_id: &str) -> v1::Run {
    let request = v1::GetRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        ..Default::default()
    };
    client.runs().get(request).await.expect("it is read").run.expect("it is there")
}

async fn becomes(client: &Client, run_id: &str, state: v1::RunState) -> v1::Run {
    let deadline = Instant::now() + SOON;
    loop {
        let run = run(client, run_id).await;
        if run.state() == state {
            return run;
        }
        assert!(Instant::now() < deadline, "{run:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_run_waits_for_its_child_and_is_told_how_it_ended() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    // Its only slot is free while the parent waits.
    let worker = worker(&client);
    let billed: u32 = client.run("support", "child").await.expect("parent and child complete");
    assert_eq!(billed, 21);
    start(&client, "bad", "broken child", None).await;
    let parent = becomes(&client, "bad", v1::RunState::Failed).await;
    assert_eq!(parent.failure.expect("it says why").reason, "INVALID_INPUT");
    let child = run(&client, "bad.2").await;
    assert_eq!((child.parent_run_id.as_str(), child.state()), ("bad", v1::RunState::Failed));
    let (ours, theirs) = (parent.pin.expect("a pin"), child.pin.expect("a pin"));
    assert_eq!((ours.bundle_id, ours.layer), (theirs.bundle_id, theirs.layer));
    worker.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_child_ends_with_its_parent() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "parent", "plain", None).await;
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: "child".into(),
        parent_run_id: "parent".into(),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the child begins");
    let request = v1::CancelRunRequest {
        agent_id: "support".into(),
        run_id: "parent".into(),
        ..Default::default()
    };
    client.runs().cancel(request).await.expect("the parent is cancelled");
    let child = becomes(&client, "child", v1::RunState::Cancelled).await;
    assert_eq!(child.end_reason(), v1::EndReason::Parent);
    nodes.stop_all().await;
}

#[tokio::test]
async fn who_waits_for_a_run_waits_for_those_that_continue_it() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let worker = worker(&client);
    start(&client, "endless", "loop 3", None).await;
    let result = client.wait_for_result("support", "endless").await.expect("the last completes");
    let last: String = payload::decode(result.output.as_ref()).expect("text");
    assert_eq!(last, "endless+3");
    let first = run(&client, "endless").await;
    assert_eq!(
        (first.state(), first.continued_to.as_str()),
        (v1::RunState::Continued, "endless+1")
    );
    let last = run(&client, "endless+3").await;
    assert_eq!((last.first_run_id.as_str(), last.steps), ("endless", 1));
    worker.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_delayed_run_takes_its_pin_when_it_is_due_under_the_next_leader() {
    let mut nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "later", "plain", Some(2)).await;
    let waits = run(&client, "later").await;
    assert_eq!((waits.state(), waits.pin), (v1::RunState::Scheduled, None));
    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    let worker = worker(&client);
    let done = becomes(&client, "later", v1::RunState::Completed).await;
    let pin = done.pin.expect("it was pinned");
    assert_eq!(pin.bundle_id, "v1");
    let ms = |at: Option<&prost_types::Timestamp>| pinrail_proto::time::timestamp_millis(at);
    assert!(ms(pin.pinned_at.as_ref()) >= ms(done.due_at.as_ref()), "not before it was due");
    worker.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_paused_run_is_given_to_no_worker_until_it_is_resumed() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "held", "plain", None).await;
    let request = || v1::PauseRunRequest {
        agent_id: "support".into(),
        run_id: "held".into(),
        ..Default::default()
    };
    let paused = client.runs().pause(request()).await.expect("it is paused");
    assert_eq!((paused.state(), paused.already), (v1::RunState::Paused, false));
    assert!(client.runs().pause(request()).await.expect("it is still paused").already);
    let worker = worker(&client);
    // A run that was started behind it is done: the paused one blocks nothing, and nobody got it.
    let other: String = client.run("support", "other").await.expect("it completes");
    assert_eq!(other, "other");
    let held = run(&client, "held").await;
    assert_eq!((held.state(), held.paused), (v1::RunState::Paused, true));
    let request = v1::ResumeRunRequest {
        agent_id: "support".into(),
        run_id: "held".into(),
        ..Default::default()
    };
    client.runs().resume(request.clone()).await.expect("it is resumed");
    becomes(&client, "held", v1::RunState::Completed).await;
    let error = client.runs().resume(request).await.expect_err("it is over");
    assert_eq!(error.reason(), "RUN_CLOSED");
    worker.abort();
    nodes.stop_all().await;
}

/// Starts a run of another agent in every attempt, and fails behind it until the third.
async fn bills(ctx: StepContext, _: Option<u32>) -> StepResult<Next> {
    let run_id = ctx.start_run("billing", 7).await?;
    let again = ctx.start_run("billing", 8).await?;
    if ctx.attempt() < 3 {
        return Err(StepError::retry_after(Duration::ZERO, "it stumbled"));
    }
    Ok(Next::done((run_id, again)))
}

#[tokio::test]
async fn a_run_of_another_agent_is_started_once_however_often_its_step_is_tried() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    agent_named(&client, "billing").await;
    crate::nodes::start(&client, "order").await;
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", bills);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    let result = client.wait_for_result("support", "order").await.expect("it completes");
    let output = result.output.expect("an output").data;
    let (first, second): (String, String) = serde_json::from_slice(&output).expect("two ids");
    let request = v1::ListRunsRequest { agent_id: "billing".into(), ..Default::default() };
    let runs = client.runs().list(request).await.expect("they are listed").runs;
    let ids: BTreeSet<String> = runs.iter().map(|run| run.run_id.clone()).collect();
    assert_eq!((runs.len(), ids), (2, BTreeSet::from([first, second])));
    let request = v1::GetRunRequest {
        agent_id: "support".into(),
        run_id: "order".into(),
        ..Default::default()
    };
    let run = client.runs().get(request).await.expect("it is read").run.expect("it is there");
    let tools = run.usage.expect("it used something").tools;
    assert_eq!(tools.len(), 1);
    assert_eq!(
        (tools[0].tool.as_str(), tools[0].side_effects.as_str()),
        ("start_run", "destructive")
    );
    worker.abort();
    nodes.stop_all().await;
}
