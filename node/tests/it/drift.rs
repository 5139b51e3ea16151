//! Drift over whole nodes, with real workers: what they see of a tool, what it replies, and which model served.

use std::path::Path;
use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult, ToolsSeen, Usage};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::time::duration;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::exec::{self, exec};
use crate::nodes::{Nodes, SOON};

const AGENT: &str = "support";

fn input() -> Json {
    json!({ "type": "object", "properties": { "query": { "type": "string" } } })
}

fn output() -> Json {
    json!({ "type": "object", "required": ["docs"], "properties": { "docs": { "type": "array" } } })
}

/// The same with a parameter that nobody sends.
fn stricter() -> Json {
    json!({
        "type": "object",
        "properties": { "query": { "type": "string" }, "region": { "type": "string" } },
        "required": ["region"],
    })
}

/// An agent whose bundles `v1`, live, and `v2` name the tool `search`. Heartbeats come each second.
async fn set_up(client: &Client, drift: v1::DriftPolicy) {
    let agent_id = || AGENT.to_owned();
    let steps = v1::StepPolicy { lease: Some(duration(3_000)), ..Default::default() };
    let policy = v1::Policy { drift: Some(drift), steps: Some(steps), ..Default::default() };
    let request =
        v1::CreateAgentRequest { agent_id: agent_id(), policy: Some(policy), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    let tool = v1::ToolPart {
        version: "1".into(),
        input_schema_json: input().to_string(),
        output_schema_json: output().to_string(),
        side_effects: v1::SideEffects::ReadOnly.into(),
        ..Default::default()
    };
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "large".into(),
        snapshot: "2025-09-29".into(),
        ..Default::default()
    };
    for bundle_id in ["v1", "v2"] {
        let prompt = v1::PromptPart { text: bundle_id.into(), ..Default::default() };
        let manifest = v1::BundleManifest {
            code: Some(v1::CodePart { git_commit: "abc".into(), ..Default::default() }),
            models: [("default".to_owned(), model.clone())].into(),
            tools: [("search".to_owned(), tool.clone())].into(),
            prompts: [("system".to_owned(), prompt)].into(),
            ..Default::default()
        };
        let request = v1::CreateBundleRequest {
            agent_id: agent_id(),
            bundle_id: bundle_id.into(),
            manifest: Some(manifest),
            ..Default::default()
        };
        client.bundles().create(request).await.expect("the bundle is created");
    }
    let request =
        v1::SwitchRequest { agent_id: agent_id(), bundle_id: "v1".into(), ..Default::default() };
    client.releases().switch(request).await.expect("it goes live");
}

/// Searches; the reply and the model that served are what the run says.
async fn search(ctx: StepContext, ask: (Json, String)) -> StepResult<Next> {
    let (reply, served_model) = ask;
    ctx.report(Usage { model: "default".into(), served_model, ..Usage::default() });
    let found: Json = ctx
        .tool("search")
        .call(json!({ "query": "refund" }), |_, _| async move { StepResult::Ok(reply) })
        .await?;
    Ok(Next::done(found))
}

struct Working {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<pinrail_client::Result<()>>,
}

impl Working {
    fn start(client: &Client, bundle_id: &str, worker_id: &str, seen: &ToolsSeen) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = Worker::builder(client.clone())
            .agent(AGENT)
            .bundle(bundle_id)
            .worker_id(worker_id)
            .code("abc")
            .slots(4)
            .tools_seen(seen)
            .step("main", search)
            .run_until(async { drop(stopped.await) });
        Self { stop, ended: tokio::spawn(worker) }
    }

    async fn stop(self) {
        drop(self.stop);
        self.ended.await.expect("it does not panic").expect("it ends well");
    }
}

fn sees(input: &Json) -> ToolsSeen {
    let seen = ToolsSeen::new();
    seen.set("search", input, Some(&output()));
    seen
}

async fn drifts(client: &Client, all: bool) -> Vec<v1::Drift> {
    let request = v1::ListDriftsRequest { agent_id: AGENT.into(), all, ..Default::default() };
    client.tools().drifts(request).await.expect("they are read").drifts
}

/// Waits until this is what is known.
async fn until(client: &Client, is_so: impl Fn(&[v1::Drift]) -> bool) -> Vec<v1::Drift> {
    let deadline = Instant::now() + SOON;
    loop {
        let known = drifts(client, true).await;
        if is_so(&known) {
            return known;
        }
        assert!(Instant::now() < deadline, "{known:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn accept(client: &Client, name: &str) -> Vec<v1::Drift> {
    let options = v1::WriteOptions { reason: "SUP-812".into(), ..Default::default() };
    let request = v1::AcceptDriftRequest {
        agent_id: AGENT.into(),
        name: name.into(),
        options: Some(options),
        ..Default::default()
    };
    client.tools().accept(request).await.expect("it is accepted").drifts
}

async fn worker(client: &Client, worker_id: &str) -> Option<v1::Worker> {
    let request = v1::ListWorkersRequest { agent_id: AGENT.into(), ..Default::default() };
    let workers = client.workers().list(request).await.expect("they are listed").workers;
    workers.into_iter().find(|worker| worker.worker_id == worker_id)
}

async fn until_worker(client: &Client, worker_id: &str, state: v1::WorkerState) -> v1::Worker {
    let deadline = Instant::now() + SOON;
    loop {
        let seen = worker(client, worker_id).await;
        if let Some(worker) = seen.clone().filter(|worker| worker.state() == state) {
            return worker;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn status(client: &Client) -> v1::BundleStatus {
    let request = v1::GetAgentStatusRequest { agent_id: AGENT.into(), ..Default::default() };
    let status = client.agents().status(request).await.expect("it is read");
    status.bundles.into_iter().next().expect("v1 is live")
}

async fn run(client: &Client, reply: &Json, served: &str) -> Json {
    let answer = timeout(SOON, client.run(AGENT, json!([reply, served]))).await.expect("in time");
    answer.expect("the run completes")
}

#[tokio::test]
async fn other_schemas_replies_and_models_alarm_until_somebody_accepts_them() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    set_up(&client, v1::DriftPolicy::default()).await;
    let working = Working::start(&client, "v1", "w", &sees(&stricter()));

    let known = until(&client, |known| !known.is_empty()).await;
    let [seen] = known.as_slice() else { panic!("one: {known:?}") };
    assert_eq!((seen.source(), seen.class()), (v1::DriftSource::Schema, v1::DriftClass::Breaking));
    assert_eq!((seen.worker_id.as_str(), seen.action()), ("w", v1::DriftAction::Alert));
    assert_eq!(seen.changes[0].path, "input /required");
    assert_eq!(seen.changes[0].what, "region is required now");
    assert_eq!(serde_json::from_str::<Json>(&seen.input_schema_json).ok(), Some(stricter()));
    let request = v1::GetBundleRequest {
        agent_id: AGENT.into(),
        bundle_id: "v1".into(),
        ..Default::default()
    };
    let bundle = client.bundles().get(request).await.expect("it is read").bundle;
    assert_eq!(bundle.expect("it is there").tool_digests["search"], seen.expected);

    // It alarms, and the worker works: its replies and its model are looked at too.
    let good = json!({ "docs": [] });
    assert_eq!(run(&client, &good, "large-2025-09-29").await, good);
    assert_eq!(drifts(&client, true).await.len(), 1, "a good reply by the right model");
    let bad = json!({ "docs": "none" });
    assert_eq!(run(&client, &bad, "large-2025-10-10").await, bad, "it is passed on");
    run(&client, &bad, "large-2025-10-10").await;
    let known = until(&client, |known| known.len() == 3).await;
    let of = |source| known.iter().find(|it| it.source() == source).expect("it is known");
    let replies = of(v1::DriftSource::Response);
    assert_eq!((replies.count, replies.changes[0].path.as_str()), (2, "/docs"));
    assert!(!replies.changes[0].what.contains("none"), "without its value: {replies:?}");
    let model = of(v1::DriftSource::Model);
    assert_eq!((model.name.as_str(), model.seen.as_str()), ("default", "large-2025-10-10"));
    assert_eq!(model.expected, "large@2025-09-29");
    assert_eq!(status(&client).await.open_drifts, 3);

    let request = v1::ListEventsRequest {
        agent_id: AGENT.into(),
        r#type: "drift.".into(),
        ..Default::default()
    };
    let events = client.events().list(request).await.expect("they are listed").events;
    assert_eq!(events.iter().filter(|event| event.r#type == "drift.found").count(), 3);

    assert_eq!(accept(&client, "search").await.len(), 2);
    assert_eq!(accept(&client, "default").await.len(), 1);
    assert_eq!((status(&client).await.open_drifts, drifts(&client, false).await.len()), (0, 0));
    working.stop().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_worker_that_sees_another_tool_is_blocked_until_that_is_accepted() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let block = v1::DriftPolicy { breaking: v1::DriftAction::Block.into(), ..Default::default() };
    set_up(&client, block).await;
    let seen = sees(&input());
    let first = Working::start(&client, "v1", "w1", &seen);
    let good = json!({ "docs": [] });
    run(&client, &good, "").await;

    // The tool changes while the worker works.
    seen.set("search", &stricter(), Some(&output()));
    let blocked = until_worker(&client, "w1", v1::WorkerState::Blocked).await;
    assert_eq!(blocked.free_slots, 0);
    let known = until(&client, |known| !known.is_empty()).await;
    assert_eq!(known[0].action(), v1::DriftAction::Block);
    let now = status(&client).await;
    assert_eq!((now.workers, now.blocked_workers), (0, 1));
    let request = v1::StartRunRequest {
        agent_id: AGENT.into(),
        run_id: "held".into(),
        input: Some(v1::Payload {
            content_type: "application/json".into(),
            data: json!([good, ""]).to_string().into(),
        }),
        ..Default::default()
    };
    client.runs().start(request).await.expect("it starts");
    let other = Working::start(&client, "v1", "w2", &sees(&stricter()));
    let blocked = until_worker(&client, "w2", v1::WorkerState::Blocked).await;
    assert_eq!(blocked.blocked_by, "breaking drift of search");
    let request =
        v1::GetRunRequest { agent_id: AGENT.into(), run_id: "held".into(), ..Default::default() };
    let held = client.runs().get(request.clone()).await.expect("it is read").run;
    assert_eq!(held.expect("it is there").state(), v1::RunState::Queued);

    // A release waits for a worker that is not.
    let candidate = Working::start(&client, "v2", "w3", &sees(&stricter()));
    until_worker(&client, "w3", v1::WorkerState::Blocked).await;
    let switch =
        v1::SwitchRequest { agent_id: AGENT.into(), bundle_id: "v2".into(), ..Default::default() };
    let refused = client.releases().switch(switch).await.expect_err("its worker is blocked");
    assert!(format!("{refused:?}").contains("NO_WORKERS"), "{refused:?}");

    accept(&client, "search").await;
    until_worker(&client, "w1", v1::WorkerState::Live).await;
    let deadline = Instant::now() + SOON;
    loop {
        let run = client.runs().get(request.clone()).await.expect("it is read").run;
        if run.as_ref().is_some_and(|run| run.state() == v1::RunState::Completed) {
            break;
        }
        assert!(Instant::now() < deadline, "{run:?}");
        sleep(Duration::from_millis(50)).await;
    }
    for worker in [first, other, candidate] {
        worker.stop().await;
    }
    nodes.stop_all().await;
}

#[tokio::test]
async fn what_no_worker_sees_any_more_is_over() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    set_up(&client, v1::DriftPolicy::default()).await;
    let good = Working::start(&client, "v1", "good", &sees(&input()));
    let bad = Working::start(&client, "v1", "bad", &sees(&stricter()));
    until(&client, |known| !known.is_empty()).await;
    bad.stop().await;
    let known = until(&client, |known| known[0].state() == v1::DriftState::Cleared).await;
    assert!(known[0].cleared_at.is_some(), "{known:?}");
    assert_eq!(status(&client).await.open_drifts, 0);
    good.stop().await;
    nodes.stop_all().await;
}

/// A program that sees a tool of the bundle with one more required field, and in the middle of a step not at all.
async fn a_program_says_which_tools_it_sees(file: &str, text: &str, program: &str) {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    exec::agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples/exec");
    let examples = examples.canonicalize().expect("they are there");
    let text = text.replace("EXAMPLES", &examples.display().to_string());
    std::fs::write(folder.path().join(file), text).expect("it is written");
    let mut child = exec(&nodes, folder.path(), &[program, file])
        .env("PYTHONPATH", &examples)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .spawn()
        .expect("the binary runs");
    let known = until(&client, |known| !known.is_empty()).await;
    assert_eq!((known[0].name.as_str(), known[0].class()), ("count", v1::DriftClass::Breaking));
    assert_eq!(known[0].changes[0].what, "place is required now");
    let ran: Json = timeout(SOON, client.run(AGENT, json!({}))).await.unwrap().unwrap();
    assert_eq!(ran, json!("looked"));
    let known = until(&client, |known| known.len() == 2).await;
    assert!(known.iter().any(|it| it.seen == "absent"), "{known:?}");
    exec::end(&mut child).await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_python_program_says_which_tools_it_sees() {
    let text = r#"
import pinrail_exec as pinrail

def plan(step):
    step.sees_tools({"count": None})
    return pinrail.done("looked")

schema = {"type": "object", "required": ["words", "place"]}
pinrail.serve({"plan": plan}, tools={"count": {"input": schema}})
"#;
    a_program_says_which_tools_it_sees("drift.py", text, "python3").await;
}

#[tokio::test]
async fn a_node_program_says_which_tools_it_sees() {
    let text = r#"
import * as pinrail from "EXAMPLES/pinrail_exec.mjs";

async function plan(step) {
  step.seesTools({ count: null });
  return pinrail.done("looked");
}

const schema = { type: "object", required: ["words", "place"] };
pinrail.serve({ plan }, { tools: { count: { input: schema } } });
"#;
    a_program_says_which_tools_it_sees("drift.mjs", text, "node").await;
}
