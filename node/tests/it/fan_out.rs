//! Fan-out and join over a whole node: the join comes once, whatever becomes of the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinrail_client::worker::{Branch, Next, StepContext, StepError, StepResult};
use pinrail_client::{Client, Worker, payload, v1};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::nodes::{Nodes, agent};

/// Branches of the run that workers die under: the most that one completion may make.
const BRANCHES: u32 = 1_000;

async fn main(_: StepContext, branches: u32) -> StepResult<Next> {
    Ok(Next::all((0..branches).map(|number| ("read", number))).join("merge"))
}

async fn read(_: StepContext, number: u32) -> StepResult<Next> {
    sleep(Duration::from_millis(20)).await;
    // Every tenth branch takes a second step.
    Ok(if number.is_multiple_of(10) { Next::step("more", number) } else { Next::done(number) })
}

async fn more(_: StepContext, number: u32) -> StepResult<Next> {
    Ok(Next::done(number))
}

async fn merge(_: StepContext, numbers: Vec<u32>) -> StepResult<Next> {
    Ok(Next::done(numbers))
}

fn worker(client: &Client) -> JoinHandle<pinrail_client::Result<()>> {
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .slots(16)
        .step("main", main)
        .step("read", read)
        .step("more", more)
        .step("merge", merge);
    tokio::spawn(worker.run_until(std::future::pending()))
}

/// Leases end soon, and a step may be tried as often as its workers die.
async fn patient(client: &Client) {
    let steps = v1::StepPolicy {
        lease: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        max_attempts: Some(1_000),
        ..Default::default()
    };
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy { steps: Some(steps), ..Default::default() }),
        ..Default::default()
    };
    client.agents().update(request).await.expect("the policy is changed");
}

async fn start(client: &Client, run_id: &str, input: &serde_json::Value) {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        input: Some(payload::encode(input).expect("JSON encodes")),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the run starts");
}

async fn result(client: &Client, run_id: &str) -> v1::GetResultResponse {
    let request = v1::GetResultRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    client.runs().result(request).await.expect("it is answered")
}

async fn steps(client: &Client, run_id: &str) -> Vec<v1::Step> {
    let mut request = v1::ListStepsRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        page_size: 1_000,
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        let page = client.runs().steps(request.clone()).await.expect("they are read");
        all.extend(page.steps);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_thousand_branches_join_once_while_workers_die() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    patient(&client).await;
    let over = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (client, over) = (client.clone(), Arc::clone(&over));
        async move {
            let mut workers = [worker(&client), worker(&client), worker(&client)];
            let mut killed = 0_usize;
            while !over.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(150)).await;
                // A dropped worker is one that died: it says nothing more and hands nothing back.
                let next = killed % workers.len();
                std::mem::replace(&mut workers[next], worker(&client)).abort();
                killed += 1;
            }
            workers.iter().for_each(JoinHandle::abort);
            killed
        }
    });
    start(&client, "wide", &BRANCHES.into()).await;
    let result = result(&client, "wide").await;
    over.store(true, Ordering::Relaxed);
    let killed = killer.await.expect("it does not panic");
    assert_eq!(result.state(), v1::RunState::Completed, "{result:?}");
    let numbers: Vec<u32> = payload::decode(result.output.as_ref()).expect("a list");
    assert_eq!(numbers, (0..BRANCHES).collect::<Vec<_>>(), "in the order of the branches");
    let steps = steps(&client, "wide").await;
    assert_eq!(steps.iter().filter(|step| step.name == "merge").count(), 1);
    let completed = |step: &&v1::Step| step.state() == v1::StepState::Completed;
    assert_eq!(steps.iter().filter(completed).count(), 2 + 1_000 + 100, "each is recorded once");
    let again = steps.iter().filter(|step| step.attempt > 1).count();
    assert!(killed > 2 && again > 0, "{killed} workers died, {again} steps were tried again");
    nodes.stop_all().await;
}

async fn doubtful(_: StepContext, settle: bool) -> StepResult<Next> {
    let all = Next::all([("good", 1), ("bad", 2), ("good", 3)]);
    Ok(if settle { all.settle().join("sum") } else { all.join("sum") })
}

async fn bad(_: StepContext, _: u32) -> StepResult<Next> {
    Err(StepError::fatal("BROKEN", "it never works"))
}

async fn sum(_: StepContext, branches: Vec<Branch<u32>>) -> StepResult<Next> {
    let reason = |branch: &Branch<u32>| match branch {
        Branch::Ok(_) => None,
        Branch::Error(error) => Some(error.reason.clone()),
    };
    let reasons: Vec<_> = branches.iter().filter_map(reason).collect();
    let sum: u32 = branches.into_iter().filter_map(Branch::ok).sum();
    Ok(Next::done((sum, reasons)))
}

#[tokio::test]
async fn a_failed_branch_fails_the_join_unless_it_settles() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", doubtful)
        .step("good", more)
        .step("bad", bad)
        .step("sum", sum);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    start(&client, "strict", &false.into()).await;
    let strict = result(&client, "strict").await;
    assert_eq!(strict.state(), v1::RunState::Failed);
    assert_eq!(strict.failure.expect("it says why").reason, "BROKEN");
    start(&client, "settled", &true.into()).await;
    let settled = result(&client, "settled").await;
    let told: (u32, Vec<String>) = payload::decode(settled.output.as_ref()).expect("a pair");
    assert_eq!(told, (4, vec!["BROKEN".to_owned()]));
    worker.abort();
    nodes.stop_all().await;
}
