//! Memory, lists and costs through all layers: what workers write with a completion, what a watch hears, what is
//! carried over after a rollback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pinrail_client::worker::{Next, StepContext, StepError, StepResult, Usage};
use pinrail_client::{Client, Worker, payload, v1};
use pinrail_proto::log;
use pinrail_proto::v1::memory_scope::Scope;
use tokio::time::timeout;

use crate::nodes::{Nodes, SOON};

const AGENT: &str = "support";

async fn agent(client: &Client) {
    let request = v1::CreateAgentRequest { agent_id: AGENT.into(), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    for bundle in ["v1", "v2"] {
        let model = v1::ModelPart {
            provider: "p".into(),
            name: "m".into(),
            snapshot: bundle.into(),
            ..Default::default()
        };
        let manifest = v1::BundleManifest {
            code: Some(v1::CodePart { git_commit: "abc".into(), ..Default::default() }),
            models: [("default".to_owned(), model)].into(),
            ..Default::default()
        };
        let request = v1::CreateBundleRequest {
            agent_id: AGENT.into(),
            bundle_id: bundle.into(),
            manifest: Some(manifest),
            ..Default::default()
        };
        client.bundles().create(request).await.expect("the bundle is created");
    }
    switch(client, "v1").await;
}

async fn switch(client: &Client, bundle: &str) {
    let request = v1::SwitchRequest {
        agent_id: AGENT.into(),
        bundle_id: bundle.into(),
        ..Default::default()
    };
    client.releases().switch(request).await.expect("it goes live");
}

async fn put(client: &Client, key: &str, value: &str) {
    let request = v1::PutMemoryRequest {
        agent_id: AGENT.into(),
        key: key.into(),
        value: Some(v1::Payload {
            content_type: "application/json".into(),
            data: value.to_owned().into(),
        }),
        ..Default::default()
    };
    client.memory().put(request).await.expect("it is written");
}

async fn get(client: &Client, key: &str) -> Option<String> {
    let request =
        v1::GetMemoryRequest { agent_id: AGENT.into(), key: key.into(), ..Default::default() };
    let version = client.memory().get(request).await.expect("it is read").version?;
    Some(String::from_utf8(version.value?.data.to_vec()).expect("it is text"))
}

fn bundle(id: &str) -> Option<v1::MemoryScope> {
    Some(v1::MemoryScope { scope: Some(Scope::BundleId(id.into())) })
}

#[tokio::test]
async fn a_retried_step_writes_once_with_its_completion() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    put(&client, "count", "1").await;
    let attempts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&attempts);
    let step = move |ctx: StepContext, (): ()| {
        let seen = Arc::clone(&seen);
        async move {
            let count: u32 = ctx.memory().get("count").await?.unwrap_or(0);
            ctx.memory().put_on_complete("count", &(count + 1))?;
            ctx.memory().put_on_complete(["runs", ctx.run_id()], "done")?;
            // Nothing is to be seen before the step is done, nor of an attempt that fails.
            if seen.fetch_add(1, Ordering::Relaxed) < 2 {
                return Err(StepError::retry("not yet"));
            }
            StepResult::Ok(Next::done(count))
        }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(client.clone())
        .agent(AGENT)
        .bundle("v1")
        .code("abc")
        .step("main", step)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    let count: u32 = client.run(AGENT, ()).await.expect("it completes");
    assert_eq!((count, attempts.load(Ordering::Relaxed)), (1, 3));
    assert_eq!(get(&client, "count").await.as_deref(), Some("2"));
    let request = v1::GetMemoryHistoryRequest {
        agent_id: AGENT.into(),
        key: "count".into(),
        ..Default::default()
    };
    let versions = client.memory().history(request).await.expect("it is read").versions;
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert!(!versions[0].run_id.is_empty());
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic").expect("it ends well");
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_watch_hears_changes_in_order_and_of_another_layer_after_a_rollback() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    put(&client, "users/1", "1").await;
    let mut watch = client.memory().watch(v1::WatchMemoryRequest {
        agent_id: AGENT.into(),
        prefix: "users/".into(),
        ..Default::default()
    });
    let first = timeout(SOON, watch.next()).await.expect("in time").expect("an answer");
    assert_eq!(first.versions.len(), 1);
    let old = first.layer;
    for (key, value) in [("users/2", "2"), ("other", "0"), ("users/1", "3")] {
        put(&client, key, value).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let answer = timeout(SOON, watch.next()).await.expect("in time").expect("an answer");
        heard.extend(answer.versions.into_iter().map(|version| version.key));
    }
    assert_eq!(heard, ["users/2", "users/1"]);
    switch(&client, "v2").await;
    loop {
        let answer = timeout(SOON, watch.next()).await.expect("in time").expect("an answer");
        if answer.layer != old {
            break;
        }
    }
    nodes.stop_all().await;
}

#[tokio::test]
async fn what_a_rollback_hid_is_shown_carried_over_and_dropped() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    put(&client, "a", "1").await;
    switch(&client, "v2").await;
    for number in 0..300 {
        put(&client, &format!("new/{number}"), "2").await;
    }
    let request = v1::RollbackRequest {
        agent_id: AGENT.into(),
        from_bundle_id: "v2".into(),
        ..Default::default()
    };
    client.releases().rollback(request).await.expect("it is rolled back");
    assert_eq!(get(&client, "new/7").await, None);
    let diff = v1::DiffMemoryRequest {
        agent_id: AGENT.into(),
        from: bundle("v2"),
        page_size: 1_000,
        ..Default::default()
    };
    let hidden = client.memory().diff(diff.clone()).await.expect("it is read");
    assert_eq!(hidden.differences.len(), 300);
    let mut promote = v1::PromoteMemoryRequest {
        agent_id: AGENT.into(),
        from: bundle("v2"),
        ..Default::default()
    };
    let mut batches = Vec::new();
    loop {
        let done = client.memory().promote(promote.clone()).await.expect("it is carried over");
        batches.push(done.promoted);
        promote.after_key = done.next_key;
        if promote.after_key.is_empty() {
            break;
        }
    }
    assert_eq!((batches[0], batches.iter().sum::<u64>()), (256, 300));
    assert_eq!(get(&client, "new/7").await.as_deref(), Some("2"));
    let same = client.memory().diff(diff).await.expect("it is read");
    assert_eq!(same.differences, []);
    let discard = v1::DiscardMemoryRequest {
        agent_id: AGENT.into(),
        from: bundle("v2"),
        ..Default::default()
    };
    let dropped = client.memory().discard(discard).await.expect("it is dropped");
    assert!(dropped.discarded > 0);
    nodes.stop_all().await;
}

#[tokio::test]
async fn what_workers_report_is_summed_up_and_has_a_currency() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let step = |ctx: StepContext, (): ()| async move {
        ctx.report(Usage {
            model: "default".into(),
            input_tokens: 100,
            output_tokens: 10,
            cost_micros: 2_500,
            ..Default::default()
        });
        StepResult::Ok(Next::done(()))
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(client.clone())
        .agent(AGENT)
        .bundle("v1")
        .code("abc")
        .step("main", step)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    for _ in 0..2 {
        let () = client.run(AGENT, ()).await.expect("it completes");
    }
    for (by, headings) in [
        (v1::CostBy::Bundle, 1),
        (v1::CostBy::Run, 2),
        (v1::CostBy::Step, 1),
        (v1::CostBy::Model, 1),
        (v1::CostBy::Kind, 1),
    ] {
        let request =
            v1::GetCostsRequest { agent_id: AGENT.into(), by: by.into(), ..Default::default() };
        let costs = client.runs().costs(request).await.expect("it is read");
        let total = costs.total.expect("a total");
        assert_eq!((total.cost_micros, total.input_tokens, total.calls), (5_000, 200, 2));
        assert_eq!((costs.costs.len(), costs.currency.as_str()), (headings, "USD"), "{by:?}");
    }
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic").expect("it ends well");
    nodes.stop_all().await;
}

#[tokio::test]
async fn runs_are_listed_newest_first_by_what_they_are() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    for number in 0..6 {
        let kind = if number % 2 == 0 { "refund" } else { "order" };
        let request = v1::StartRunRequest {
            agent_id: AGENT.into(),
            run_id: format!("r{number}"),
            labels: [("task_kind".to_owned(), kind.to_owned())].into(),
            ..Default::default()
        };
        client.runs().start(request).await.expect("the run starts");
    }
    let list = v1::ListRunsRequest {
        agent_id: AGENT.into(),
        labels: [("task_kind".to_owned(), "refund".to_owned())].into(),
        open: true,
        kind: v1::RunKind::Live.into(),
        ..Default::default()
    };
    let runs = client.runs().list(list.clone()).await.expect("it is read").runs;
    let ids: Vec<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
    assert_eq!(ids, ["r4", "r2", "r0"]);
    let hour = prost_types::Duration { seconds: 3_600, nanos: 0 };
    let old = v1::ListRunsRequest { older_than: Some(hour), ..list };
    assert_eq!(client.runs().list(old).await.expect("it is read").runs, []);
    nodes.stop_all().await;
}

/// A run of a kind that only the leader starts, through the log as it does.
async fn start_shadow(nodes: &Nodes, memory_revision: u64) {
    let start = log::StartRun {
        agent: Some(log::AgentRef { namespace: "default".into(), agent_id: AGENT.into() }),
        run_id: "shadow".into(),
        bundle_id: "v2".into(),
        kind: v1::RunKind::Shadow.into(),
        memory_revision,
        ..Default::default()
    };
    let kind = Some(log::command::Kind::StartRun(start));
    let command = log::Command { header: None, kind };
    let replica = &nodes.servers[0].as_ref().expect("it runs").replica;
    let outcome = replica.propose(command, SOON).await.expect("it is committed");
    assert!(matches!(outcome.result, Some(log::outcome::Result::StartRun(_))), "{outcome:?}");
}

/// What a run saw before it wrote, and behind that.
type Seen = (Option<String>, Option<String>);

async fn result(client: &Client, run_id: &str) -> Seen {
    let result = timeout(SOON, client.wait_for_result(AGENT, run_id)).await.expect("in time");
    let output = result.expect("it completes").output;
    payload::decode(output.as_ref()).expect("it is what the step gave")
}

async fn tries(ctx: StepContext, (): ()) -> StepResult<Next> {
    let before: Option<String> = ctx.memory().get("note").await?;
    ctx.memory().put("note", "tried").await?;
    let after: Option<String> = ctx.memory().get("note").await?;
    Ok(Next::done((before, after)))
}

#[tokio::test]
async fn runs_that_serve_no_user_have_a_memory_of_their_own_and_shadows_a_worker_that_is_safe() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    put(&client, "note", "\"first\"").await;
    let request =
        v1::GetMemoryRequest { agent_id: AGENT.into(), key: "note".into(), ..Default::default() };
    let revision = client.memory().get(request).await.expect("it is read").revision;
    put(&client, "note", "\"second\"").await;
    let worker = |id: &str| {
        let worker = Worker::builder(client.clone()).agent(AGENT).bundle("v2").code("abc");
        worker.worker_id(id).step("main", tries)
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        drop(stopped.wait_for(|stop| *stop).await);
    };
    let plain = tokio::spawn(worker("plain").run_until(until(stopped.clone())));

    for (run_id, memory_revision, before) in
        [("empty", 0, None), ("as-it-was", revision, Some("first".to_owned()))]
    {
        let request = v1::StartRunRequest {
            agent_id: AGENT.into(),
            run_id: run_id.into(),
            bundle_id: "v2".into(),
            kind: v1::RunKind::Smoke.into(),
            memory_revision,
            ..Default::default()
        };
        client.runs().start(request).await.expect("it starts");
        let seen = result(&client, run_id).await;
        assert_eq!(seen, (before, Some("tried".to_owned())));
        let scope = v1::MemoryScope { scope: Some(Scope::RunId(run_id.into())) };
        let request = v1::GetMemoryRequest {
            agent_id: AGENT.into(),
            scope: Some(scope),
            key: "note".into(),
            ..Default::default()
        };
        let shown = client.memory().get(request).await.expect("it is read").version;
        assert_eq!(&*shown.and_then(|it| it.value).expect("a value").data, b"\"tried\"");
        assert_eq!(get(&client, "note").await.as_deref(), Some("\"second\""));
    }
    for kind in [v1::RunKind::Shadow, v1::RunKind::Drill, v1::RunKind::Canary] {
        let request = v1::StartRunRequest {
            agent_id: AGENT.into(),
            bundle_id: "v2".into(),
            kind: kind.into(),
            ..Default::default()
        };
        client.runs().start(request).await.expect_err("the leader starts those");
    }

    start_shadow(&nodes, revision).await;
    // The worker that is not safe is passed over, though it has nothing else to do.
    let request = v1::StartRunRequest {
        agent_id: AGENT.into(),
        run_id: "later".into(),
        bundle_id: "v2".into(),
        kind: v1::RunKind::Smoke.into(),
        ..Default::default()
    };
    client.runs().start(request).await.expect("it starts");
    result(&client, "later").await;
    let request =
        v1::GetRunRequest { agent_id: AGENT.into(), run_id: "shadow".into(), ..Default::default() };
    let run = client.runs().get(request).await.expect("it is read").run.expect("it is there");
    assert_eq!(run.state(), v1::RunState::Queued);
    let safe = tokio::spawn(worker("safe").shadow_safe().run_until(until(stopped)));
    let seen = result(&client, "shadow").await;
    assert_eq!(seen, (Some("first".to_owned()), Some("tried".to_owned())));
    let workers = v1::ListWorkersRequest { agent_id: AGENT.into(), ..Default::default() };
    let workers = client.workers().list(workers).await.expect("they are listed").workers;
    let safe_ones = workers.iter().filter(|worker| worker.shadow_safe);
    assert_eq!(safe_ones.map(|worker| worker.worker_id.as_str()).collect::<Vec<_>>(), ["safe"]);
    stop.send_replace(true);
    for worker in [plain, safe] {
        worker.await.expect("it does not panic").expect("it ends well");
    }
    nodes.stop_all().await;
}
