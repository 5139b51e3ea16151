//! Steps that carry more than a request of the API may: what attempts recorded comes back to the next one, and what runs went through
//! can be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pinrail_client::worker::{Next, StepContext, StepError, StepResult};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::limits;

use crate::nodes::{Nodes, agent};

/// Of one value; as JSON it fits a payload.
const VALUE: usize = limits::PAYLOAD_BYTES - 1_024;
/// Together more than a request may have, and less than a run may store.
const VALUES: u32 = 8;
/// Of each step's state.
const STATE: usize = 1 << 20;
const STEPS: u32 = 9;

async fn record(made: &AtomicU32, ctx: StepContext) -> StepResult<Next> {
    for _ in 0..VALUES {
        let value: String = ctx
            .checkpoint("page", async || {
                made.fetch_add(1, Ordering::SeqCst);
                StepResult::Ok("x".repeat(VALUE))
            })
            .await?;
        assert_eq!(value.len(), VALUE);
    }
    match ctx.attempt() {
        1 => Err(StepError::retry("it lost its connection")),
        attempt => Ok(Next::done(attempt)),
    }
}

async fn carry(_: StepContext, at: u32) -> StepResult<Next> {
    Ok(Next::step("carried", (at + 1, "x".repeat(STATE))))
}

async fn carried(_: StepContext, (at, state): (u32, String)) -> StepResult<Next> {
    Ok(if at < STEPS { Next::step("carried", (at + 1, state)) } else { Next::done(at) })
}

async fn listed(client: &Client, run_id: &str) -> Vec<v1::Step> {
    let (mut steps, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListStepsRequest {
            agent_id: "support".into(),
            run_id: run_id.into(),
            page_token: page_token.clone(),
            ..Default::default()
        };
        let page = client.runs().steps(request).await.expect("a page fits an answer");
        assert!(!page.steps.is_empty(), "each page goes on");
        steps.extend(page.steps);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return steps;
        }
    }
}

#[tokio::test]
async fn what_is_larger_than_a_request_comes_back_to_its_worker_and_can_be_read() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let made = Arc::new(AtomicU32::new(0));
    let main = {
        let made = Arc::clone(&made);
        move |ctx: StepContext, kind: u32| {
            let made = Arc::clone(&made);
            async move { if kind == 1 { record(&made, ctx).await } else { carry(ctx, 1).await } }
        }
    };
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", main)
        .step("carried", carried);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    let attempts: u32 = client.run("support", 1_u32).await.expect("the second attempt has it all");
    assert_eq!((attempts, made.load(Ordering::SeqCst)), (2, VALUES), "nothing was made twice");
    let steps: u32 = client.run("support", 2_u32).await.expect("it goes through its steps");
    assert_eq!(steps, STEPS);
    let request = v1::ListRunsRequest { agent_id: "support".into(), ..Default::default() };
    let runs = client.runs().list(request).await.expect("they are listed").runs;
    let longest = runs.iter().max_by_key(|run| run.steps).expect("there are two");
    let numbers: Vec<u32> =
        listed(&client, &longest.run_id).await.iter().map(|step| step.number).collect();
    assert_eq!(numbers, (1..=STEPS).collect::<Vec<_>>());
    let request = v1::ExplainRunRequest {
        agent_id: "support".into(),
        run_id: longest.run_id.clone(),
        ..Default::default()
    };
    let explained = client.runs().explain(request).await.expect("it fits an answer");
    let last = explained.steps.last().expect("some steps");
    assert_eq!(last.number, STEPS, "the end of a run says more than its beginning");
    worker.abort();
    nodes.stop_all().await;
}
