//! Drills over whole nodes: the rollback is practised and timed, and what it was practised on is what it was.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::time::duration;
use pinrail_proto::v1::{DrillMode, DrillPart, DrillState, StageMode, Verdict};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent};

const AGENT: &str = "support";

/// One smoke case for the probes; what becomes of runs in flight; how long a drill may take.
fn policy(in_flight: v1::InFlight, limit_ms: u64) -> v1::Policy {
    let case = v1::SmokeCase {
        name: "greets".into(),
        input: Some(v1::Payload { content_type: "application/json".into(), data: "7".into() }),
        matches: "^7$".into(),
        within: Some(duration(20_000)),
        ..Default::default()
    };
    let off = StageMode::Off.into();
    v1::Policy {
        gates: Some(v1::GatesPolicy {
            smoke: Some(v1::SmokeGate { cases: vec![case], ..Default::default() }),
            shadow: Some(v1::ShadowGate { mode: off, ..Default::default() }),
            canary: Some(v1::CanaryGate { mode: off, ..Default::default() }),
            ..Default::default()
        }),
        rollback: Some(v1::RollbackPolicy { in_flight: in_flight.into() }),
        drill: Some(v1::DrillPolicy { limit: Some(duration(limit_ms)), ..Default::default() }),
        ..Default::default()
    }
}

async fn set(client: &Client, policy: v1::Policy) {
    let request = v1::UpdateAgentRequest {
        agent_id: AGENT.into(),
        policy: Some(policy),
        ..Default::default()
    };
    client.agents().update(request).await.expect("the policy is taken");
}

/// A worker that answers with what it was asked.
fn worker(
    client: &Client,
    bundle: &str,
    takes: Duration,
) -> JoinHandle<pinrail_client::Result<()>> {
    let echo = move |_: StepContext, ask: u32| async move {
        sleep(takes).await;
        let answer: StepResult<Next> = Ok(Next::done(ask));
        answer
    };
    let builder = Worker::builder(client.clone())
        .agent(AGENT)
        .bundle(bundle)
        .code("abc")
        .slots(8)
        .step("main", echo);
    tokio::spawn(builder.run_until(std::future::pending()))
}

async fn start(client: &Client, mode: DrillMode) -> v1::Drill {
    let request =
        v1::StartDrillRequest { agent_id: AGENT.into(), mode: mode.into(), ..Default::default() };
    client.drills().start(request).await.expect("it begins").drill.expect("it is in the answer")
}

/// The newest drill, once it is over.
async fn over(client: &Client) -> v1::Drill {
    let deadline = Instant::now() + SOON;
    loop {
        let request = v1::GetDrillRequest { agent_id: AGENT.into(), ..Default::default() };
        if let Ok(answer) = client.drills().get(request).await {
            let drill = answer.drill.expect("it is in the answer");
            if drill.state() != DrillState::Running {
                return drill;
            }
            assert!(Instant::now() < deadline, "it stands at {drill:?}");
        }
        assert!(Instant::now() < deadline, "there is no drill");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn route(client: &Client) -> v1::Route {
    let request = v1::GetAgentRequest { agent_id: AGENT.into(), ..Default::default() };
    let agent = client.agents().get(request).await.expect("it is read").agent;
    agent.expect("it is there").route.expect("it has a route")
}

fn part(drill: &v1::Drill, part: DrillPart) -> &v1::DrillTime {
    drill.parts.iter().find(|time| time.part() == part).expect("the part was tried")
}

/// A run completes, so the bundle had a worker.
async fn warm(client: &Client) {
    let first: u32 = client.run(AGENT, 1_u32).await.expect("it completes");
    assert_eq!(first, 1);
}

#[tokio::test]
async fn a_drill_on_its_own_route_times_each_part_and_moves_nothing() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    set(&client, policy(v1::InFlight::Restart, 60_000)).await;
    let working = worker(&client, "v1", Duration::ZERO);
    warm(&client).await;
    let before = route(&client).await;
    start(&client, DrillMode::Route).await;
    let drill = over(&client).await;
    assert_eq!(drill.state(), DrillState::Passed, "{drill:?}");
    let parts: Vec<DrillPart> = drill.parts.iter().map(v1::DrillTime::part).collect();
    let all = [
        DrillPart::Prepare,
        DrillPart::Rollback,
        DrillPart::Starts,
        DrillPart::Memory,
        DrillPart::InFlight,
        DrillPart::Probes,
        DrillPart::Return,
    ];
    assert_eq!(parts, all);
    assert!(drill.parts.iter().all(|time| time.verdict() == Verdict::Pass), "{drill:?}");
    assert_eq!(part(&drill, DrillPart::Starts).reason, "at 3 members");
    let in_flight = &part(&drill, DrillPart::InFlight).reason;
    assert_eq!(in_flight, "3 of 3 runs restarted on the good bundle");
    assert_eq!(part(&drill, DrillPart::Probes).reason, "1 of 1 cases");
    let took = part(&drill, DrillPart::Rollback).took.expect("it was timed");
    assert!(took.seconds == 0 && took.nanos > 0, "a rollback takes below a second: {took:?}");
    assert_eq!(route(&client).await, before);
    let agents = client.agents().list(v1::ListAgentsRequest::default()).await.expect("a list");
    assert_eq!(agents.agents.len(), 1, "its own route is no agent that users know");
    let request = v1::ListDrillsRequest { agent_id: AGENT.into(), ..Default::default() };
    let listed = client.drills().list(request).await.expect("a list");
    assert_eq!(listed.drills, [drill]);
    working.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_drill_above_its_limit_fails_and_names_the_part() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    set(&client, policy(v1::InFlight::Keep, 4_000)).await;
    let working = worker(&client, "v1", Duration::from_secs(6));
    warm(&client).await;
    start(&client, DrillMode::Route).await;
    let drill = over(&client).await;
    assert_eq!(drill.state(), DrillState::Failed, "{drill:?}");
    assert!(drill.end_reason.starts_with("probes: not over within the limit"), "{drill:?}");
    assert_eq!(part(&drill, DrillPart::InFlight).verdict(), Verdict::Pass);
    assert_eq!(part(&drill, DrillPart::Probes).verdict(), Verdict::Fail);
    working.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_live_drill_goes_to_the_standby_and_back_and_leaves_the_quarantine_as_it_was() {
    let nodes = Nodes::start(3).await;
    let leader = nodes.leader().await;
    let client = nodes.client_of(leader);
    agent(&client).await;
    set(&client, policy(v1::InFlight::Cancel, 60_000)).await;
    let old = worker(&client, "v1", Duration::ZERO);
    warm(&client).await;
    let request = v1::StartDrillRequest {
        agent_id: AGENT.into(),
        mode: DrillMode::Live.into(),
        ..Default::default()
    };
    let refused = client.drills().start(request).await.expect_err("nothing is in quarantine");
    assert!(refused.to_string().contains("quarantine"), "{refused}");
    let get = v1::GetBundleRequest {
        agent_id: AGENT.into(),
        bundle_id: "v1".into(),
        ..Default::default()
    };
    let first = client.bundles().get(get).await.expect("it is read").bundle;
    let create = v1::CreateBundleRequest {
        agent_id: AGENT.into(),
        bundle_id: "v2".into(),
        manifest: first.and_then(|bundle| bundle.manifest),
        ..Default::default()
    };
    client.bundles().create(create).await.expect("another bundle");
    let new = worker(&client, "v2", Duration::ZERO);
    let switch = || v1::SwitchRequest {
        agent_id: AGENT.into(),
        bundle_id: "v2".into(),
        ..Default::default()
    };
    let deadline = Instant::now() + SOON;
    while client.releases().switch(switch()).await.is_err() {
        assert!(Instant::now() < deadline, "the worker does not come");
        sleep(Duration::from_millis(20)).await;
    }
    let release = || async {
        let request = v1::GetReleaseRequest { agent_id: AGENT.into(), ..Default::default() };
        client.releases().get(request).await.expect("it is read").release.expect("there is one")
    };
    let before = release().await;
    // A member that follows may not have applied the switch yet that the leader has answered.
    start(&nodes.client_of((leader + 1) % 3), DrillMode::Live).await;
    let drill = over(&client).await;
    assert_eq!(drill.state(), DrillState::Passed, "{drill:?}");
    assert_eq!((drill.from_bundle_id.as_str(), drill.to_bundle_id.as_str()), ("v2", "v1"));
    assert_eq!(part(&drill, DrillPart::Probes).verdict(), Verdict::Pass);
    let now = route(&client).await;
    assert_eq!((now.live_bundle_id.as_str(), now.standby_bundle_id.as_str()), ("v2", "v1"));
    assert_eq!(release().await, before, "release and quarantine are what they were");
    old.abort();
    new.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_drill_that_is_due_begins_by_itself() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let drill = v1::DrillPolicy { every: Some(duration(14 * 86_400_000)), ..Default::default() };
    set(&client, v1::Policy { drill: Some(drill), ..Default::default() }).await;
    let deadline = Instant::now() + SOON;
    loop {
        let request = v1::ListDrillsRequest { agent_id: AGENT.into(), ..Default::default() };
        if client.drills().list(request).await.expect("a list").due_at.is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "none is planned");
        sleep(Duration::from_millis(20)).await;
    }
    // Without a window it comes within a day.
    nodes.advance(Duration::from_secs(86_400));
    let drill = over(&client).await;
    assert!(drill.scheduled && drill.state() == DrillState::Passed, "{drill:?}");
    nodes.stop_all().await;
}
