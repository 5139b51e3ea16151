//! Waits over whole nodes: a run that waits outlives its leader and takes nothing from its worker.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult, Wait};
use pinrail_client::{Client, Worker, payload, v1};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::evals::{json, refused};
use crate::nodes::{Nodes, SOON, agent, start};

/// 1 waits for a person, 2 for a moment, and all others are done at once.
async fn main(_: StepContext, kind: u32) -> StepResult<Next> {
    Ok(match kind {
        1 => Next::wait("approved").timeout(Duration::from_secs(3_600)).then("resume", "approval"),
        2 => Next::sleep(Duration::from_millis(20)).then("resume", "nap"),
        _ => Next::done("at once"),
    })
}

async fn resume(ctx: StepContext, state: String) -> StepResult<Next> {
    Ok(match ctx.woken::<String>()? {
        Some(Wait::Signal(value)) if value == "once more" => {
            Next::wait("approved").then("resume", state + ", twice")
        }
        Some(Wait::Signal(value)) => Next::done(format!("{state}: {value}")),
        Some(Wait::TimedOut) => Next::done(format!("{state}: over")),
        None => Next::done("it never waited"),
    })
}

struct Working {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<pinrail_client::Result<()>>,
}

impl Working {
    /// A worker with a single slot.
    fn start(client: &Client) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = Worker::builder(client.clone())
            .agent("support")
            .bundle("v1")
            .code("abc")
            .slots(1)
            .step("main", main)
            .step("resume", resume)
            .run_until(async { drop(stopped.await) });
        Self { stop, ended: tokio::spawn(worker) }
    }

    async fn stop(self) {
        drop(self.stop);
        self.ended.await.expect("it does not panic").expect("it ends well");
    }
}

async fn signal(client: &Client, run_id: &str, value: &str) -> bool {
    let request = v1::SignalRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        name: "approved".into(),
        value: Some(payload::encode(value).expect("text encodes")),
        ..Default::default()
    };
    client.runs().signal(request).await.expect("the signal is taken").delivered
}

async fn run(client: &Client, run_id: &str) -> v1::Run {
    let request = v1::GetRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        ..Default::default()
    };
    client.runs().get(request).await.expect("it is read").run.expect("it is there")
}

async fn waits(client: &Client, run_id: &str, step: u32) {
    let deadline = Instant::now() + SOON;
    loop {
        let run = run(client, run_id).await;
        if run.state() == v1::RunState::Waiting && run.steps == step {
            return;
        }
        assert!(Instant::now() < deadline, "{run:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn output(client: &Client, run_id: &str) -> String {
    let request = v1::GetResultRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..Default::default()
    };
    let result = client.runs().result(request).await.expect("it is answered");
    assert_eq!(result.state(), v1::RunState::Completed, "{result:?}");
    payload::decode(result.output.as_ref()).expect("the output is text")
}

#[tokio::test]
async fn a_waiting_run_takes_no_slot_and_outlives_its_leader() {
    let mut nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let worker = Working::start(&client);
    // The input of a run started by hand is 1.
    start(&client, "waits").await;
    waits(&client, "waits", 2).await;
    let other: String = client.run("support", 3).await.expect("the worker's only slot is free");
    assert_eq!(other, "at once");
    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    assert!(signal(&client, "waits", "once more").await, "it ends the wait");
    waits(&client, "waits", 3).await;
    assert!(signal(&client, "waits", "yes").await);
    assert_eq!(output(&client, "waits").await, "approval, twice: yes");
    worker.stop().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn early_signals_are_given_in_order_and_a_timer_wakes_a_run() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "early").await;
    assert!(!signal(&client, "early", "once more").await, "nobody waits for it yet");
    assert!(!signal(&client, "early", "yes").await);
    assert_eq!(run(&client, "early").await.pending_signals, 2);
    let worker = Working::start(&client);
    assert_eq!(output(&client, "early").await, "approval, twice: yes");
    assert_eq!(run(&client, "early").await.pending_signals, 0);
    let told: String = client.run("support", 2).await.expect("the timer wakes it");
    assert_eq!(told, "nap: over");
    worker.stop().await;
    nodes.stop_all().await;
}

/// Starts a run at a member that holds the call until the run is over, or for so long.
async fn start_and_hold(
    client: &Client,
    run_id: &str,
    kind: u32,
    wait: Duration,
    options: v1::WriteOptions,
) -> v1::StartRunResponse {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        input: Some(payload::encode(&kind).expect("a number encodes")),
        wait: prost_types::Duration::try_from(wait).ok(),
        options: Some(options),
        ..Default::default()
    };
    let started = tokio::time::timeout(SOON, client.runs().start(request)).await;
    started.expect("it is answered as soon as there is something to say").expect("it is started")
}

fn told(started: &v1::StartRunResponse) -> Option<String> {
    let result = started.result.as_ref()?;
    assert_eq!((result.closed, &result.run_id), (true, &started.run_id));
    Some(payload::decode(result.output.as_ref()).expect("the output is text"))
}

#[tokio::test]
async fn a_start_that_waits_has_the_result_from_any_member() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let worker = Working::start(&client);
    let (held, nothing) = (SOON * 2, v1::WriteOptions::default);
    for (member, run_id) in ["one", "two", "three"].into_iter().enumerate() {
        let member = nodes.client_of(member);
        let asked = || v1::WriteOptions { request_id: run_id.into(), ..nothing() };
        let first = start_and_hold(&member, run_id, 3, held, asked()).await;
        assert_eq!((told(&first).as_deref(), first.already), (Some("at once"), false));
        let again = start_and_hold(&member, run_id, 3, held, nothing()).await;
        assert_eq!((told(&again).as_deref(), again.already), (Some("at once"), true));
        let repeated = start_and_hold(&member, run_id, 3, held, asked()).await;
        assert_eq!(told(&repeated).as_deref(), Some("at once"), "the same request again");
        let dry_run = v1::WriteOptions { dry_run: true, ..nothing() };
        let only_asked = start_and_hold(&member, "never", 3, held, dry_run).await;
        assert_eq!(only_asked.result, None, "there is nothing to wait for");
    }
    let slow = start_and_hold(&client, "slow", 1, Duration::from_millis(50), nothing()).await;
    assert_eq!((slow.result.clone(), slow.already), (None, false), "it waits for a person");
    waits(&client, "slow", 2).await;
    let again = start_and_hold(&client, "slow", 1, held, nothing());
    let (again, signalled) = tokio::join!(again, signal(&client, "slow", "yes"));
    assert!(signalled);
    assert_eq!((told(&again).as_deref(), again.already), (Some("approval: yes"), true));
    worker.stop().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn runs_that_wait_for_a_signal_are_found_and_all_of_them_ended() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let worker = Working::start(&client);
    for run_id in ["one", "two"] {
        start(&client, run_id).await;
        waits(&client, run_id, 2).await;
    }
    let _: String = client.run("support", 3).await.expect("it is done at once");
    let found = json(&nodes, &["run", "list", "support", "--waiting-for", "approved"]).await;
    let runs = found["runs"].as_array().expect("a list");
    let ids: Vec<&str> = runs.iter().filter_map(|run| run["run_id"].as_str()).collect();
    assert_eq!(ids, ["two", "one"], "newest first");
    let none = json(&nodes, &["run", "list", "support", "--waiting-for", "paid"]).await;
    assert_eq!(none["runs"], serde_json::json!([]));
    let all = ["run", "cancel-all", "support", "--bundle", "v1"];
    let (reason, _) = refused(&nodes, &all, 2).await;
    assert_eq!(reason, "CONFIRMATION_NEEDED");
    let would = json(&nodes, &[&all[..], &["--dry-run"]].concat()).await;
    assert_eq!(would["run_ids"].as_array().map(Vec::len), Some(2));
    waits(&client, "one", 2).await;
    let mut asked = json(&nodes, &[&all[..], &["--yes"]].concat()).await;
    let ids = asked["run_ids"].as_array_mut().expect("a list");
    ids.sort_by_key(ToString::to_string);
    assert_eq!(*ids, ["one", "two"]);
    assert_eq!(run(&client, "one").await.state(), v1::RunState::Cancelled);
    worker.stop().await;
    nodes.stop_all().await;
}
