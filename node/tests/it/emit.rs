//! What steps say while they run: chunks for those who watch, progress for the next attempt.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pinrail_client::worker::{Next, StepContext, StepError, StepResult, WorkerBuilder};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::limits;
use pinrail_proto::v1::run_service_client::RunServiceClient;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::nodes::{Nodes, SOON, agent, start};

fn watch(run_id: &str) -> v1::WatchRunRequest {
    v1::WatchRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        chunks: true,
        ..Default::default()
    }
}

type Seen = (Vec<v1::Chunk>, bool, v1::Run);

/// Everything that a watcher at one node is told until the run is over: the chunks, whether some were lost, and the run.
async fn seen(endpoint: String, run_id: &str) -> Seen {
    let mut node =
        RunServiceClient::connect(format!("http://{endpoint}")).await.expect("the node answers");
    let mut changes = node.watch_run(watch(run_id)).await.expect("it is watched").into_inner();
    let (mut chunks, mut gap, mut run) = (Vec::new(), false, None);
    let all = async {
        while let Some(change) = changes.message().await.expect("the watch goes on") {
            gap |= change.gap;
            chunks.extend(change.chunks);
            run = change.run.or(run.take());
        }
    };
    timeout(SOON, all).await.expect("the run ends");
    (chunks, gap, run.expect("its state was told"))
}

fn words(chunks: &[v1::Chunk]) -> Vec<Value> {
    let word = |chunk: &v1::Chunk| {
        let data = chunk.value.clone().unwrap_or_default().data;
        serde_json::from_slice(&data).expect("JSON")
    };
    chunks.iter().map(word).collect()
}

fn builder(client: &Client) -> WorkerBuilder {
    Worker::builder(client.clone()).agent("support").bundle("v1").code("abc").slots(4)
}

fn spawn(worker: WorkerBuilder) -> tokio::task::JoinHandle<pinrail_client::Result<()>> {
    tokio::spawn(worker.run_until(std::future::pending()))
}

async fn tell(ctx: StepContext, _: Value) -> StepResult<Next> {
    for word in ["Your ", "refund ", "is "] {
        ctx.emit(word);
    }
    ctx.emit(json!({ "days": 3 }));
    Ok(Next::done("told"))
}

#[tokio::test]
async fn watchers_at_every_node_get_what_a_step_emits_in_order_and_then_its_result() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "r").await;
    let mut watchers = Vec::new();
    for index in 0..3 {
        watchers.push(tokio::spawn(seen(nodes.endpoint(index), "r")));
    }
    let worker = spawn(builder(&client).step("main", tell));
    for watcher in watchers {
        let (chunks, gap, run) = watcher.await.expect("it saw the end");
        assert_eq!(
            words(&chunks),
            [json!("Your "), json!("refund "), json!("is "), json!({"days": 3})]
        );
        let sequences: Vec<u64> = chunks.iter().map(|chunk| chunk.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4]);
        assert!(!gap && chunks.iter().all(|chunk| !chunk.restarted));
        assert_eq!(run.state(), v1::RunState::Completed);
    }
    worker.abort();
    nodes.stop_all().await;
}

async fn stumble(ctx: StepContext, _: Value) -> StepResult<Next> {
    let came: Option<u32> = ctx.last_progress()?;
    ctx.emit(format!("attempt {}", ctx.attempt()));
    if ctx.attempt() == 1 {
        ctx.progress(41)?;
        ctx.progress(42)?;
        return Err(StepError::retry_after(Duration::ZERO, "it stumbled"));
    }
    Ok(Next::done(came))
}

#[tokio::test]
async fn another_attempt_says_that_it_restarts_and_knows_how_far_the_one_before_came() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "r").await;
    let worker = spawn(builder(&client).step("main", stumble));
    let (chunks, gap, run) = seen(nodes.endpoint(0), "r").await;
    assert_eq!(words(&chunks), [json!("attempt 1"), json!("attempt 2")]);
    assert_eq!(chunks.iter().map(|chunk| chunk.restarted).collect::<Vec<_>>(), [false, true]);
    assert!(!gap);
    assert_eq!(run.output.expect("an output").data, "42");
    worker.abort();
    nodes.stop_all().await;
}

/// When the cluster heard of the one worker last.
async fn last_heard(client: &Client) -> Option<u64> {
    let request = v1::ListWorkersRequest { agent_id: "support".into(), ..Default::default() };
    let workers = client.workers().list(request).await.expect("the leader knows").workers;
    let at = workers.first()?.last_heartbeat_at;
    Some(pinrail_proto::time::timestamp_millis(at.as_ref()))
}

#[tokio::test]
async fn progress_outlives_its_worker() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let lease = Some(pinrail_proto::time::duration(1_000));
    let steps = v1::StepPolicy { lease, ..Default::default() };
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy { steps: Some(steps), ..Default::default() }),
        ..Default::default()
    };
    client.agents().update(request).await.expect("the policy is taken");
    start(&client, "r").await;
    let (said, heard) = tokio::sync::oneshot::channel();
    let said = Arc::new(Mutex::new(Some(said)));
    let sticks = move |ctx: StepContext, _: Value| {
        let said = said.lock().take();
        async move {
            ctx.progress(json!({ "done": 3 }))?;
            said.map(|said| said.send(()));
            std::future::pending::<StepResult<Next>>().await
        }
    };
    let dies = spawn(builder(&client).step("main", sticks));
    heard.await.expect("the step begins");
    let (since, deadline) = (last_heard(&client).await, Instant::now() + SOON);
    // The heartbeat behind the step's word has it.
    while last_heard(&client).await <= since {
        assert!(Instant::now() < deadline, "no heartbeat came");
        sleep(Duration::from_millis(20)).await;
    }
    dies.abort();
    let goes_on = |ctx: StepContext, _: Value| async move {
        Ok(Next::done(ctx.last_progress::<Value>()?)) as StepResult<Next>
    };
    let worker = spawn(builder(&client).step("main", goes_on));
    let result = client.wait_for_result("support", "r").await.expect("it completes");
    assert_eq!(result.output.expect("an output").data, r#"{"done":3}"#);
    worker.abort();
    nodes.stop_all().await;
}

async fn flood(ctx: StepContext, _: Value) -> StepResult<Next> {
    let text = "x".repeat(1_000);
    for _ in 0..limits::CHUNKS {
        ctx.emit(&text);
        tokio::task::yield_now().await;
    }
    Ok(Next::done(()))
}

#[tokio::test]
async fn who_comes_late_is_told_that_something_is_missing() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "r").await;
    let worker = spawn(builder(&client).step("main", flood));
    client.wait_for_result("support", "r").await.expect("it completes");
    let (chunks, gap, _) = seen(nodes.endpoint(0), "r").await;
    assert!(gap, "a megabyte does not fit");
    assert!(chunks.len() * 1_000 <= limits::CHUNKS_BYTES, "{}", chunks.len());
    worker.abort();
    nodes.stop_all().await;
}
