//! Signals over whole nodes, with real workers and short times: a candidate that is slow, hangs or is dear is left by the
//! signal that sees it, and what was seen is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult, Usage};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::time::duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::evals::{json, refused};
use crate::nodes::{Nodes, SOON};

const AGENT: &str = "support";

/// What a bundle's runs are like.
#[derive(Clone, Copy)]
struct Manner {
    takes: Duration,
    /// Millionths.
    costs: u64,
}

const QUICK: Manner = Manner { takes: Duration::from_millis(20), costs: 100 };

struct Working {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<pinrail_client::Result<()>>,
}

impl Working {
    fn start(client: &Client, bundle_id: &str, manner: Manner) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let step = move |ctx: StepContext, _: u32| async move {
            let model = "default".to_owned();
            ctx.report(Usage { model, cost_micros: manner.costs, ..Usage::default() });
            sleep(manner.takes).await;
            let next: StepResult<Next> = Ok(Next::done("done"));
            next
        };
        let worker = Worker::builder(client.clone())
            .agent(AGENT)
            .bundle(bundle_id)
            .code("abc")
            .slots(64)
            .step("main", step)
            .run_until(async { drop(stopped.await) });
        Self { stop, ended: tokio::spawn(worker) }
    }

    async fn stop(self) {
        drop(self.stop);
        self.ended.await.expect("it does not panic").expect("it ends well");
    }
}

/// Users who never cease: a run each few milliseconds, until they are dropped.
struct Users {
    go_on: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Users {
    fn start(client: &Client, every: Duration) -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        let (client, asked) = (client.clone(), Arc::clone(&go_on));
        let task = tokio::spawn(async move {
            while asked.load(Ordering::Relaxed) {
                let request = v1::StartRunRequest {
                    agent_id: AGENT.into(),
                    input: Some(v1::Payload {
                        content_type: "application/json".into(),
                        data: "1".into(),
                    }),
                    max_age: Some(duration(60_000)),
                    ..Default::default()
                };
                client.runs().start(request).await.expect("the run starts");
                sleep(every).await;
            }
        });
        Self { go_on, task }
    }

    async fn stop(self) {
        self.go_on.store(false, Ordering::Relaxed);
        self.task.await.expect("they do not panic");
    }
}

/// `v1` is live, `v2` is there; the canary has half of the traffic for a minute, windows are of ten seconds.
async fn set_up(client: &Client, signals: v1::SignalsPolicy, canary: v1::StageMode) {
    let off = v1::StageMode::Off.into();
    let gates = v1::GatesPolicy {
        shadow: Some(v1::ShadowGate { mode: off, ..Default::default() }),
        canary: Some(v1::CanaryGate {
            mode: canary.into(),
            steps: vec![v1::CanaryStep { share_bp: 5_000, hold: Some(duration(60_000)) }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let policy = v1::Policy {
        gates: Some(gates),
        signals: Some(v1::SignalsPolicy {
            window: Some(duration(10_000)),
            min_samples: Some(10),
            ..signals
        }),
        rollback: Some(v1::RollbackPolicy { in_flight: v1::InFlight::Cancel.into() }),
        ..Default::default()
    };
    let agent_id = || AGENT.to_owned();
    let request =
        v1::CreateAgentRequest { agent_id: agent_id(), policy: Some(policy), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    for bundle_id in ["v1", "v2"] {
        let model = v1::ModelPart {
            provider: "p".into(),
            name: "m".into(),
            snapshot: bundle_id.into(),
            ..Default::default()
        };
        let code = v1::CodePart { git_commit: "abc".into(), ..Default::default() };
        let manifest = v1::BundleManifest {
            code: Some(code),
            models: [("default".to_owned(), model)].into(),
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

async fn release(client: &Client) {
    let request = v1::StartReleaseRequest {
        agent_id: AGENT.into(),
        bundle_id: "v2".into(),
        ..Default::default()
    };
    client.releases().start(request).await.expect("the release starts");
}

async fn signals(client: &Client) -> v1::GetSignalsResponse {
    let request = v1::GetSignalsRequest { agent_id: AGENT.into(), ..Default::default() };
    client.signals().get(request).await.expect("they are read")
}

/// Waits until the newest release was rolled back; what fired.
async fn rolled_back(client: &Client) -> v1::Firing {
    let deadline = Instant::now() + SOON + SOON;
    loop {
        let request = v1::GetReleaseRequest { agent_id: AGENT.into(), ..Default::default() };
        let release = client.releases().get(request).await.expect("it is read").release;
        let release = release.expect("there is one");
        if release.state() == v1::ReleaseState::RolledBack {
            let firings = signals(client).await.firings;
            return firings.first().cloned().expect("what fired is kept");
        }
        let seen = signals(client).await;
        assert!(Instant::now() < deadline, "{:?} {seen:?}", release.state());
        sleep(Duration::from_millis(100)).await;
    }
}

async fn route(client: &Client) -> v1::Route {
    let request = v1::GetAgentRequest { agent_id: AGENT.into(), ..Default::default() };
    let agent = client.agents().get(request).await.expect("it is read").agent;
    agent.and_then(|agent| agent.route).expect("it has a route")
}

async fn live(client: &Client) -> String {
    route(client).await.live_bundle_id
}

#[tokio::test]
async fn a_slow_candidate_is_rolled_back_in_its_canary() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    set_up(&client, v1::SignalsPolicy::default(), v1::StageMode::Required).await;
    let blue = Working::start(&client, "v1", QUICK);
    let slow = Manner { takes: Duration::from_millis(400), ..QUICK };
    let green = Working::start(&client, "v2", slow);
    let users = Users::start(&client, Duration::from_millis(50));
    release(&client).await;
    let fired = rolled_back(&client).await;
    assert_eq!(fired.signal(), v1::SignalKind::P95Latency, "{fired:?}");
    assert_eq!((fired.phase(), fired.action.as_str()), (v1::Stage::Canary, "rolled back to v1"));
    assert!(fired.summary.contains("p95 +") && fired.evidence.contains("baseline"), "{fired:?}");
    assert_eq!(live(&client).await, "v1");
    users.stop().await;
    green.stop().await;
    blue.stop().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_rollback_in_the_canary_leaves_the_candidate_and_behind_it_none_by_chance() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    set_up(&client, v1::SignalsPolicy::default(), v1::StageMode::Required).await;
    let workers = ["v1", "v2"].map(|bundle_id| Working::start(&client, bundle_id, QUICK));
    release(&client).await;
    let deadline = Instant::now() + SOON;
    while route(&client).await.canary_bundle_id != "v2" {
        assert!(Instant::now() < deadline, "{:?}", route(&client).await);
        sleep(Duration::from_millis(20)).await;
    }
    let left = json(&nodes, &["rollback", AGENT]).await;
    assert_eq!((&left["from_bundle_id"], &left["to_bundle_id"]), (&"v2".into(), &"v1".into()));
    let route = route(&client).await;
    assert_eq!((route.live_bundle_id.as_str(), route.canary_bundle_id.as_str()), ("v1", ""));
    let (reason, _) = refused(&nodes, &["rollback", AGENT], 9).await;
    assert_eq!(reason, "ROLLBACK_AMBIGUOUS");
    for worker in workers {
        worker.stop().await;
    }
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_candidate_that_hangs_is_rolled_back_though_it_completes_nothing() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    set_up(&client, v1::SignalsPolicy::default(), v1::StageMode::Required).await;
    let blue = Working::start(&client, "v1", QUICK);
    let hangs = Manner { takes: Duration::from_secs(3_600), ..QUICK };
    let green = Working::start(&client, "v2", hangs);
    let users = Users::start(&client, Duration::from_millis(50));
    release(&client).await;
    let fired = rolled_back(&client).await;
    assert_eq!(fired.signal(), v1::SignalKind::P95Latency, "{fired:?}");
    assert!(fired.summary.contains("slow share 100 %"), "{fired:?}");
    assert!(fired.evidence.contains("overdue"), "{fired:?}");
    assert_eq!(live(&client).await, "v1");
    users.stop().await;
    // Its steps would sleep for an hour.
    green.ended.abort();
    blue.stop().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_dear_candidate_is_rolled_back_behind_the_switch_where_the_policy_says_so() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    // How long runs take on a busy machine is not what this is about.
    let off = v1::SignalMode::Off.into();
    let latency = v1::P95LatencySignal {
        modes: Some(v1::SignalModes { canary: off, quarantine: off }),
        ..v1::P95LatencySignal::default()
    };
    let rolls_back = v1::SignalsPolicy {
        quarantine: v1::SignalMode::Rollback.into(),
        p95_latency: Some(latency),
        ..v1::SignalsPolicy::default()
    };
    set_up(&client, rolls_back, v1::StageMode::Off).await;
    let blue = Working::start(&client, "v1", QUICK);
    let dear = Manner { costs: 500, ..QUICK };
    let green = Working::start(&client, "v2", dear);
    let users = Users::start(&client, Duration::from_millis(50));
    let deadline = Instant::now() + SOON;
    while signals(&client).await.live.is_none_or(|live| live.completed < 20) {
        assert!(Instant::now() < deadline, "the baseline's runs complete");
        sleep(Duration::from_millis(50)).await;
    }
    release(&client).await;
    let fired = rolled_back(&client).await;
    assert_eq!(fired.signal(), v1::SignalKind::CostPerCompletedRun, "{fired:?}");
    assert_eq!(
        (fired.phase(), fired.summary.contains("cost +400 %")),
        (v1::Stage::Quarantine, true)
    );
    assert_eq!(live(&client).await, "v1");
    users.stop().await;
    green.stop().await;
    blue.stop().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn nothing_goes_on_while_a_signal_fires_until_somebody_knows() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let notifies =
        v1::SignalsPolicy { canary: v1::SignalMode::Notify.into(), ..v1::SignalsPolicy::default() };
    set_up(&client, notifies, v1::StageMode::Required).await;
    let blue = Working::start(&client, "v1", QUICK);
    let slow = Manner { takes: Duration::from_millis(400), ..QUICK };
    let green = Working::start(&client, "v2", slow);
    let users = Users::start(&client, Duration::from_millis(50));
    release(&client).await;
    let deadline = Instant::now() + SOON + SOON;
    let fired = loop {
        let firings = signals(&client).await.firings;
        if let Some(fired) =
            firings.into_iter().find(|it| it.signal() == v1::SignalKind::P95Latency)
        {
            break fired;
        }
        assert!(Instant::now() < deadline, "it fires");
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(fired.action, "notified");
    let request = v1::GetAgentStatusRequest { agent_id: AGENT.into(), ..Default::default() };
    let status = client.agents().status(request).await.expect("it is read");
    let reading = status.signals.first().and_then(|watch| {
        watch.readings.iter().find(|it| it.signal() == v1::SignalKind::P95Latency).cloned()
    });
    assert!(reading.is_some_and(|it| it.firing.is_some()), "{:?}", status.signals);
    let options = Some(v1::WriteOptions { reason: "known".into(), ..Default::default() });
    let request = v1::AckSignalRequest {
        agent_id: AGENT.into(),
        signal: v1::SignalKind::P95Latency.into(),
        options,
        ..Default::default()
    };
    let acked = client.signals().ack(request).await.expect("it fires");
    assert_eq!(acked.firing.expect("the firing").ack_reason, "known");
    users.stop().await;
    green.stop().await;
    blue.stop().await;
    nodes.stop_all().await;
}
