//! Hooks over whole nodes: a real receiver, its signatures and failures, gates, callbacks, and leaders that end in between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pinrail_client::{Client, v1};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};
use v1::{DeliveryState, ReleaseState, Stage, StageMode, Verdict};

use crate::nodes::{Nodes, SOON, agent, switch_to};
use crate::receiver::Receiver;
use crate::releases::{gate, policy, scene, start, until, worker};

/// A variable that every test has in its environment, and its value.
const SECRET: &str = "env:CARGO_PKG_NAME";
const SECRET_VALUE: &str = env!("CARGO_PKG_NAME");

fn hook(name: &str, url: &str, events: &[&str]) -> v1::Hook {
    v1::Hook {
        name: name.to_owned(),
        url: format!("{url}/{name}"),
        events: events.iter().map(|it| (*it).to_owned()).collect(),
        secret: SECRET.to_owned(),
        gate: String::new(),
    }
}

async fn set_hooks(client: &Client, hooks: Vec<v1::Hook>) {
    let policy = v1::Policy { hooks, ..Default::default() };
    let agent_id = "support".to_owned();
    let request = v1::UpdateAgentRequest { agent_id, policy: Some(policy), ..Default::default() };
    client.agents().update(request).await.expect("the policy is taken");
}

async fn deliveries(client: &Client, hook: &str, state: DeliveryState) -> Vec<v1::Delivery> {
    let request = v1::ListDeliveriesRequest {
        agent_id: "support".into(),
        hook: hook.into(),
        state: state.into(),
        ..Default::default()
    };
    client.hooks().deliveries(request).await.expect("they are read").deliveries
}

/// Waits until deliveries that are made are as somebody wants them.
async fn delivered(
    client: &Client,
    hook: &str,
    wanted: impl Fn(&[v1::Delivery]) -> bool,
) -> Vec<v1::Delivery> {
    let deadline = Instant::now() + SOON;
    loop {
        let now = deliveries(client, hook, DeliveryState::Delivered).await;
        if wanted(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "they stand at {now:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_event_arrives_signed_and_is_sent_again_after_a_failure() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    // The first attempt at each event fails.
    let receiver =
        Receiver::start(|sent| if sent.repeats == 0 { (500, "busy") } else { (204, "") });
    let receiver = receiver.await;
    let pager = hook("pager", &receiver.url, &["route.*", "environment.wanted"]);
    set_hooks(&client, vec![pager]).await;
    switch_to(&client, "v2").await;
    let seen = receiver.until(|seen| seen.iter().filter(|it| it.repeats == 1).count() >= 3).await;

    let switched: Vec<_> = seen.iter().filter(|it| it.kind().ends_with("route.switched")).collect();
    assert_eq!(switched.len(), 2, "{seen:#?}");
    for sent in &seen {
        assert!(sent.is_signed_with(SECRET_VALUE), "{sent:?}");
        assert!(!sent.is_signed_with("another"), "{sent:?}");
        assert_eq!(sent.headers["content-type"], "application/cloudevents+json");
        assert_eq!(sent.headers["webhook-id"], sent.id());
        assert_eq!((sent.path.as_str(), &sent.body["specversion"]), ("/pager", &json!("1.0")));
    }
    let (first, again) = (switched[0], switched[1]);
    assert_eq!(first.raw, again.raw, "a repeat is the same");
    assert_eq!(first.kind(), "io.pinrail.route.switched");
    assert_eq!(
        (&first.body["subject"], &first.body["data"]["reason"]),
        (&json!("v2"), &json!("test"))
    );
    let next = &first.body["data"]["next"];
    assert_eq!(next[1], "pinrail rollback support --from v2");
    // What is wanted of the compute: the new bundle serves, the old one stays warm.
    let wants: BTreeSet<_> = seen
        .iter()
        .filter(|it| it.kind().ends_with("environment.wanted"))
        .map(|it| (it.body["subject"].as_str().unwrap(), it.fact("want")))
        .collect();
    assert_eq!(wants, BTreeSet::from([("v1", "warm"), ("v2", "serve")]));

    let made = delivered(&client, "pager", |made| made.len() == 3).await;
    for it in &made {
        assert_eq!((it.attempts, it.status), (2, 204), "{it:?}");
    }
    assert!(deliveries(&client, "pager", DeliveryState::Pending).await.is_empty());
    let request = v1::ListHooksRequest { agent_id: "support".into(), ..Default::default() };
    let hooks = client.hooks().list(request).await.expect("they are read").hooks;
    assert_eq!((hooks.len(), hooks[0].delivered, hooks[0].pending), (1, 3, 0));
    assert_eq!(hooks[0].error, "busy");

    // One more time by hand: the receiver lost it, say.
    let id = made.iter().find(|it| it.r#type == "route.switched").expect("it is there");
    let request = v1::RedeliverRequest {
        agent_id: "support".into(),
        hook: "pager".into(),
        what: Some(v1::redeliver_request::What::DeliveryId(id.delivery_id.clone())),
        ..Default::default()
    };
    let answer = client.hooks().redeliver(request).await.expect("it is pending again");
    assert_eq!(answer.deliveries, 1);
    let third = |it: &crate::receiver::Sent| it.repeats == 2 && it.kind().ends_with("switched");
    receiver.until(|seen| seen.iter().any(third)).await;
    delivered(&client, "pager", |made| made.iter().any(|it| it.attempts == 3)).await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_hook_is_tested_at_any_node_and_says_what_came_of_it() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let receiver =
        Receiver::start(|sent| if sent.path == "/good" { (200, "") } else { (410, "gone") });
    let receiver = receiver.await;
    let unset = v1::Hook {
        secret: "env:PINRAIL_NO_SUCH_SECRET".to_owned(),
        ..hook("unset", &receiver.url, &[])
    };
    let hooks = ["good", "bad"].map(|name| hook(name, &receiver.url, &[]));
    set_hooks(&client, hooks.into_iter().chain([unset]).collect()).await;
    for (index, _) in nodes.live() {
        let client = nodes.client_of(index);
        let test = |hook: &str| {
            let (agent_id, hook) = ("support".to_owned(), hook.to_owned());
            v1::TestHookRequest { agent_id, hook, ..Default::default() }
        };
        let good = client.hooks().test(test("good")).await.expect("it is tried");
        assert!(good.delivered && good.signed && good.status == 200, "{good:?}");
        let bad = client.hooks().test(test("bad")).await.expect("it is tried");
        assert_eq!((bad.delivered, bad.status, bad.error.as_str()), (false, 410, "gone"));
        let unset = client.hooks().test(test("unset")).await.expect("it is tried");
        assert_eq!((unset.delivered, unset.status), (false, 0));
        assert!(unset.error.contains("PINRAIL_NO_SUCH_SECRET is not set"), "{}", unset.error);
        let none = client.hooks().test(test("goood")).await.expect_err("there is none");
        assert_eq!(none.reason(), "HOOK_NOT_FOUND");
    }
    assert!(receiver.seen().iter().all(|it| it.path != "/unset"), "nothing is sent unsigned");
    nodes.stop_all().await;
}

#[tokio::test]
async fn the_next_leader_sends_what_the_last_one_did_not() {
    let mut nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let receiver =
        Receiver::start(move |_| if up.load(Ordering::SeqCst) { (200, "") } else { (503, "") });
    let receiver = receiver.await;
    set_hooks(&client, vec![hook("pager", &receiver.url, &["route.*", "bundle.*"])]).await;
    for round in 2..6 {
        switch_to(&client, &format!("v{round}")).await;
    }
    // Some were tried and failed, others were not looked at yet, when the leader ends.
    receiver.until(|seen| !seen.is_empty()).await;
    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    switch_to(&client, "v6").await;
    is_up.store(true, Ordering::SeqCst);

    let request =
        v1::ListEventsRequest { agent_id: "support".into(), limit: 1_000, ..Default::default() };
    let events = client.events().list(request).await.expect("they are read").events;
    let since =
        events.iter().find(|it| it.r#type == "agent.updated").expect("it is there").revision;
    let expected: BTreeSet<String> = events
        .iter()
        .filter(|it| it.revision >= since)
        .filter(|it| it.r#type.starts_with("route.") || it.r#type.starts_with("bundle."))
        .map(|it| format!("{}/{}", it.revision, it.index))
        .collect();
    assert!(expected.len() >= 10, "{events:#?}");
    let made = delivered(&client, "pager", |made| made.len() >= expected.len()).await;
    let made: BTreeSet<String> = made.into_iter().map(|it| it.delivery_id).collect();
    assert_eq!(made, expected, "each event, and no other one");
    let sent: BTreeSet<String> = receiver
        .seen()
        .iter()
        .filter_map(|it| it.id().split_once('/').map(|(_, place)| place.to_owned()))
        .collect();
    assert_eq!(sent, expected);
    nodes.stop_all().await;
}

#[tokio::test]
async fn the_end_of_a_run_calls_back_with_its_result() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let receiver = Receiver::start(|_| (200, "")).await;
    set_hooks(&client, vec![hook("app", &receiver.url, &[])]).await;
    let worker = worker(&client, "v1", 100);
    let run = |run_id: &str, callback: &str| v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        input: Some(v1::Payload { content_type: "application/json".into(), data: "7".into() }),
        callback: callback.into(),
        ..Default::default()
    };
    let refused = client.runs().start(run("none", "apq")).await.expect_err("there is none");
    assert_eq!(refused.reason(), "HOOK_NOT_FOUND");
    client.runs().start(run("told", "app")).await.expect("it starts");
    client.runs().start(run("silent", "")).await.expect("it starts");
    let seen = receiver.until(|seen| !seen.is_empty()).await;
    let told = &seen[0];
    assert_eq!((told.kind(), &told.body["subject"]), ("io.pinrail.run.finished", &json!("told")));
    assert_eq!((told.fact("state"), told.fact("callback")), ("completed", "app"));
    assert_eq!(told.body["data"]["result"], json!(107));
    assert!(told.is_signed_with(SECRET_VALUE), "{told:?}");
    // A run that ends badly is over as well.
    let request = v1::CancelRunRequest {
        agent_id: "support".into(),
        run_id: "stopped".into(),
        ..Default::default()
    };
    worker.abort();
    client.runs().start(run("stopped", "app")).await.expect("it starts");
    client.runs().cancel(request).await.expect("it is cancelled");
    let seen = receiver.until(|seen| seen.len() >= 2).await;
    assert_eq!((&seen[1].body["subject"], seen[1].fact("state")), (&json!("stopped"), "cancelled"));
    assert!(seen.iter().all(|it| it.body["subject"] != "silent"), "nobody asked for it");
    nodes.stop_all().await;
}

/// A hook that gates a stage and gets no events.
fn gating(stage: &str, url: &str) -> v1::Hook {
    v1::Hook { gate: stage.to_owned(), ..hook(&format!("gate-{stage}"), url, &[]) }
}

/// Nodes with workers of both bundles and this policy; the release begins.
async fn release_with(
    policy: v1::Policy,
) -> (Nodes, Client, Vec<JoinHandle<pinrail_client::Result<()>>>) {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    scene(&client, policy).await;
    let workers = vec![worker(&client, "v1", 0), worker(&client, "v2", 0)];
    let first: u32 = client.run("support", 1_u32).await.expect("it completes");
    assert_eq!(first, 1);
    start(&client).await;
    (nodes, client, workers)
}

#[tokio::test]
async fn a_gate_hook_that_refuses_fails_the_stage_with_its_reason() {
    let receiver = Receiver::start(|_| (403, "change freeze until Monday")).await;
    let policy = v1::Policy { hooks: vec![gating("smoke", &receiver.url)], ..policy() };
    let (nodes, client, workers) = release_with(policy).await;
    let end = until(&client, |now| now.ended_at.is_some()).await;
    assert_eq!(end.state(), ReleaseState::Failed);
    let smoke = gate(&end, Stage::Smoke);
    assert_eq!(smoke.verdict(), Verdict::Fail);
    assert_eq!(smoke.reason, "hook gate-smoke refused: change freeze until Monday");
    let asked = receiver.seen();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    let data = &asked[0].body["data"];
    assert!(asked[0].is_signed_with(SECRET_VALUE), "{asked:#?}");
    assert_eq!(asked[0].kind(), "io.pinrail.gate.asked");
    assert_eq!((&data["stage"], &data["bundle_id"]), (&json!("smoke"), &json!("v2")));
    assert_eq!(data["attempt_id"], json!(smoke.attempt_id));
    assert_eq!(data["evidence"]["cases"][0]["pass"], json!(true), "the stage itself comes first");
    workers.iter().for_each(JoinHandle::abort);
    nodes.stop_all().await;
}

#[tokio::test]
async fn gate_hooks_let_pass_and_one_that_breaks_down_is_asked_again() {
    // Evals have no set and the switch has nothing of its own: their hooks alone decide.
    let reply = |sent: &crate::receiver::Sent| match (sent.path.as_str(), sent.repeats) {
        ("/gate-switch", 0) => (500, "try again"),
        (_, _) => (200, "fine"),
    };
    let receiver = Receiver::start(reply).await;
    let stages = ["prepare", "smoke", "evals", "switch", "quarantine"];
    let hooks = stages.map(|stage| gating(stage, &receiver.url)).to_vec();
    let mut policy = v1::Policy { hooks, ..policy() };
    let gates = policy.gates.get_or_insert_default();
    gates.evals = Some(v1::EvalsGate { mode: StageMode::Required.into(), ..Default::default() });
    let (nodes, client, workers) = release_with(policy).await;
    let end = until(&client, |now| now.ended_at.is_some()).await;
    assert_eq!(end.state(), ReleaseState::Recycled, "{}", end.end_reason);
    let reason = |stage| gate(&end, stage).reason.clone();
    assert_eq!(reason(Stage::Smoke), "1 of 1 cases; let pass by gate-smoke");
    assert_eq!(reason(Stage::Evals), "it names no eval set; let pass by gate-evals");
    assert_eq!(reason(Stage::Switch), "all stages are behind; let pass by gate-switch");
    assert!(reason(Stage::Quarantine).ends_with("; let pass by gate-quarantine"));
    assert!(gate(&end, Stage::Switch).evidence.contains("\"said\":\"fine\""));
    let asked: Vec<String> = receiver.seen().iter().map(|it| it.path.clone()).collect();
    let expected = ["prepare", "smoke", "evals", "switch", "switch", "quarantine"];
    assert_eq!(asked, expected.map(|stage| format!("/gate-{stage}")));
    let ids: BTreeSet<String> = receiver.seen().iter().map(|it| it.id().to_owned()).collect();
    assert_eq!(ids.len(), 5, "a repeat has the id of the first: {ids:?}");
    workers.iter().for_each(JoinHandle::abort);
    nodes.stop_all().await;
}

#[derive(Debug, clap::Parser)]
struct Pinrail {
    #[command(flatten)]
    globals: pinrail_client::cli::Globals,
    #[command(subcommand)]
    command: pinrail_client::cli::Command,
}

/// The exit code of a command line.
async fn code(nodes: &Nodes, words: &str) -> std::process::ExitCode {
    use clap::Parser as _;
    let endpoints = nodes.endpoints().join(",");
    let everywhere = ["pinrail", "--endpoint", &endpoints];
    let words = everywhere.into_iter().chain(words.split(' '));
    let Pinrail { globals, command } = Pinrail::try_parse_from(words).expect("it parses");
    pinrail_client::cli::run(command, globals).await
}

#[tokio::test]
async fn the_command_line_shows_hooks_and_the_audit() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let receiver = Receiver::start(|sent| if sent.path == "/good" { (200, "") } else { (410, "") });
    let receiver = receiver.await;
    set_hooks(&client, ["good", "bad"].map(|name| hook(name, &receiver.url, &["route.*"])).into())
        .await;
    switch_to(&client, "v2").await;
    delivered(&client, "good", |made| !made.is_empty()).await;
    let id = deliveries(&client, "good", DeliveryState::Delivered).await[0].delivery_id.clone();
    let request = v1::ListAuditRequest { agent_id: "support".into(), ..Default::default() };
    let newest = client.audit().list(request).await.expect("it is read").entries[0].clone();
    let (sequence, hash) = (newest.sequence, newest.hash);
    for (words, expected) in [
        ("hook list support".to_owned(), 0),
        ("hooks list support -o json".to_owned(), 0),
        ("hook show support good -o yaml".to_owned(), 0),
        ("hook show support god".to_owned(), 1),
        ("hook test support good".to_owned(), 0),
        ("hook test support bad -o json".to_owned(), 1),
        ("hook deliveries support bad --state pending".to_owned(), 0),
        (format!("hook redeliver support good {id} --reason lost -o json"), 0),
        ("hook redeliver support good 999999/0".to_owned(), 1),
        ("hook redeliver support bad --dead".to_owned(), 0),
        ("audit list support --action switch -o jsonl".to_owned(), 0),
        ("audit list --since 1h --limit 2".to_owned(), 0),
        ("audit verify -o json".to_owned(), 0),
        (format!("audit verify --expect {sequence}:{hash}"), 0),
        (format!("audit verify --expect {sequence}:00"), 10),
    ] {
        let is = format!("{:?}", code(&nodes, &words).await);
        assert_eq!(is, format!("{:?}", std::process::ExitCode::from(expected)), "{words}");
    }
    nodes.stop_all().await;
}
