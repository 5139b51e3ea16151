//! Releases over whole nodes: workers of both bundles, real runs, and leaders that end in the middle.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult, WorkerBuilder};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::time::duration;
use pinrail_proto::v1::{ReleaseState, Stage, StageMode, Verdict};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent};

/// A stage's and a share's time.
const SPAN_MS: u64 = 1_000;

/// Smoke with one case; every other stage is off until a test says otherwise.
pub(crate) fn policy() -> v1::Policy {
    let off = StageMode::Off.into();
    let case = v1::SmokeCase {
        name: "greets".into(),
        input: Some(v1::Payload { content_type: "application/json".into(), data: "7".into() }),
        matches: "^7$".into(),
        within: Some(duration(20_000)),
        ..Default::default()
    };
    v1::Policy {
        gates: Some(v1::GatesPolicy {
            prepare: Some(v1::PrepareGate {
                mode: StageMode::Required.into(),
                timeout: Some(duration(20_000)),
            }),
            smoke: Some(v1::SmokeGate {
                mode: StageMode::Required.into(),
                timeout: Some(duration(20_000)),
                cases: vec![case],
            }),
            evals: Some(v1::EvalsGate { mode: off, ..Default::default() }),
            shadow: Some(v1::ShadowGate { mode: off, ..Default::default() }),
            canary: Some(v1::CanaryGate { mode: off, ..Default::default() }),
        }),
        quarantine: Some(v1::QuarantinePolicy {
            min: Some(duration(SPAN_MS)),
            max: Some(duration(2 * SPAN_MS)),
        }),
        signals: Some(v1::SignalsPolicy {
            canary: v1::SignalMode::Off.into(),
            quarantine: v1::SignalMode::Off.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The agent `support` with this policy and the bundles v1, which is live, and v2.
pub(crate) async fn scene(client: &Client, policy: v1::Policy) {
    agent(client).await;
    let agents = client.agents();
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(policy),
        ..Default::default()
    };
    agents.update(request).await.expect("the policy is taken");
    let request = v1::GetBundleRequest {
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        ..Default::default()
    };
    let first = client.bundles().get(request).await.expect("it is read").bundle;
    let request = v1::CreateBundleRequest {
        agent_id: "support".into(),
        bundle_id: "v2".into(),
        manifest: first.and_then(|bundle| bundle.manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("another bundle");
}

/// A worker that answers with what it was asked, and `extra` more.
pub(crate) fn worker(
    client: &Client,
    bundle: &str,
    extra: u32,
) -> JoinHandle<pinrail_client::Result<()>> {
    let echo = move |_: StepContext, ask: u32| async move {
        let answer: StepResult<Next> = Ok(Next::done(ask + extra));
        answer
    };
    let builder: WorkerBuilder = Worker::builder(client.clone())
        .agent("support")
        .bundle(bundle)
        .code("abc")
        .slots(8)
        .shadow_safe()
        .step("main", echo);
    tokio::spawn(builder.run_until(std::future::pending()))
}

pub(crate) async fn start(client: &Client) -> v1::Release {
    let request = v1::StartReleaseRequest {
        agent_id: "support".into(),
        bundle_id: "v2".into(),
        ..Default::default()
    };
    let answer = client.releases().start(request).await.expect("it begins");
    answer.release.expect("it is in the answer")
}

async fn release(client: &Client) -> v1::Release {
    let request = v1::GetReleaseRequest { agent_id: "support".into(), ..Default::default() };
    client.releases().get(request).await.expect("it is read").release.expect("there is one")
}

/// Waits until a release is as somebody wants it; runs are started meanwhile.
pub(crate) async fn until(client: &Client, wanted: impl Fn(&v1::Release) -> bool) -> v1::Release {
    let deadline = Instant::now() + SOON;
    loop {
        let now = release(client).await;
        if wanted(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "it stands at {now:?}");
        let answer: u32 = client.run("support", 7_u32).await.expect("live runs go on");
        assert!(answer >= 7);
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn gate(release: &v1::Release, stage: Stage) -> &v1::Gate {
    release.gates.iter().find(|gate| gate.stage() == stage).expect("every stage has a gate")
}

#[tokio::test]
async fn a_release_goes_on_under_the_next_leader_to_its_last_stage() {
    let mut nodes = Nodes::start(3).await;
    let client = nodes.client();
    let mut policy = policy();
    let gates = policy.gates.get_or_insert_default();
    let step = |share_bp| v1::CanaryStep { share_bp, hold: Some(duration(SPAN_MS)) };
    gates.canary = Some(v1::CanaryGate {
        mode: StageMode::Required.into(),
        steps: vec![step(2_000), step(8_000)],
        ..Default::default()
    });
    scene(&client, policy).await;
    let old = worker(&client, "v1", 0);
    let first: u32 = client.run("support", 1_u32).await.expect("it completes");
    assert_eq!(first, 1);
    start(&client).await;
    // Without workers of the candidate it waits, and says for what.
    let waits = until(&client, |now| !gate(now, Stage::Prepare).reason.is_empty()).await;
    assert_eq!((waits.state(), waits.stage()), (ReleaseState::Preparing, Stage::Prepare));
    let prepare = gate(&waits, Stage::Prepare);
    assert_eq!(prepare.verdict(), Verdict::Running);
    assert_eq!(prepare.reason, "no live worker of the candidate");
    let new = worker(&client, "v2", 0);
    until(&client, |now| now.state() == ReleaseState::Canary).await;
    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    let end = until(&client, |now| now.ended_at.is_some()).await;
    assert_eq!(end.state(), ReleaseState::Recycled, "{}", end.end_reason);
    for stage in [Stage::Prepare, Stage::Smoke, Stage::Canary, Stage::Switch, Stage::Quarantine] {
        assert_eq!(gate(&end, stage).verdict(), Verdict::Pass, "{stage:?}");
    }
    assert_eq!(gate(&end, Stage::Evals).verdict(), Verdict::Skipped);
    let raised = end.transitions.iter().filter(|it| it.what == "raised").count();
    assert_eq!(raised, 1, "each share is given once: {:?}", end.transitions);
    let page = reported(&client, "canary").await;
    assert!(page.contains("| quarantine |") && page.contains("**recycled**"), "{page}");
    let request = v1::GetAgentRequest { agent_id: "support".into(), ..Default::default() };
    let agent = client.agents().get(request).await.expect("it is read").agent.expect("it is there");
    let route = agent.route.expect("it has a route");
    assert_eq!((route.live_bundle_id.as_str(), route.standby_bundle_id.as_str()), ("v2", ""));
    old.abort();
    new.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_candidate_that_answers_wrongly_is_stopped_by_its_smoke_test() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    scene(&client, policy()).await;
    let workers = [worker(&client, "v1", 0), worker(&client, "v2", 100)];
    let first: u32 = client.run("support", 1_u32).await.expect("it completes");
    assert_eq!(first, 1);
    start(&client).await;
    let end = until(&client, |now| now.ended_at.is_some()).await;
    assert_eq!(end.state(), ReleaseState::Failed);
    let smoke = gate(&end, Stage::Smoke);
    assert_eq!(smoke.verdict(), Verdict::Fail);
    assert!(smoke.reason.contains("greets: the output does not match"), "{}", smoke.reason);
    assert!(smoke.evidence.contains("run_id"), "{}", smoke.evidence);
    workers.iter().for_each(JoinHandle::abort);
    nodes.stop_all().await;
}

/// Divergent pairs are listed, and one of them is shown with what both runs came to.
async fn side_by_side(client: &Client) {
    let request = v1::ListShadowPairsRequest {
        agent_id: "support".into(),
        state: v1::PairState::Diverged.into(),
        ..Default::default()
    };
    let listed = client.shadows().pairs(request).await.expect("a list");
    assert!(listed.pairs.len() >= 5, "{listed:?}");
    let pair = &listed.pairs[0];
    assert_eq!(pair.why, "/: 7 and 107");
    for run_id in [&pair.live_run_id, &pair.shadow_run_id] {
        let request = v1::GetShadowPairRequest {
            agent_id: "support".into(),
            run_id: run_id.clone(),
            ..Default::default()
        };
        let shown = client.shadows().pair(request).await.expect("it is of the pair");
        let output = |side: Option<v1::PairSide>| {
            let side = side.expect("both sides are there");
            let output = side.output.expect("it completed");
            (side.bundle_id, String::from_utf8_lossy(&output.data).into_owned())
        };
        assert_eq!(output(shown.live), ("v1".to_owned(), "7".to_owned()));
        assert_eq!(output(shown.shadow), ("v2".to_owned(), "107".to_owned()));
    }
}

/// The newest release, as its report tells of it.
async fn reported(client: &Client, judged: &str) -> String {
    let request = v1::GetReleaseReportRequest { agent_id: "support".into(), ..Default::default() };
    let report = client.reports().release(request).await.expect("it is read").report;
    let report = report.expect("it is in the answer");
    let release = report.release.expect("it is of a release");
    assert!(release.ended_at.is_some(), "{release:?}");
    let baseline = report.baseline.expect("v1 was live");
    assert!(baseline.bundle_id == "v1" && baseline.completed > 0, "{baseline:?}");
    let page = report.markdown;
    let parts = ["## Timeline", "## Verdicts", "## Metrics", "## Cost", "undo", "| started |"];
    for part in parts.into_iter().chain([format!("| {judged} |").as_str()]) {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    page
}

#[tokio::test]
async fn a_step_of_the_candidate_judges_pairs() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let mut policy = policy();
    let gates = policy.gates.get_or_insert_default();
    gates.smoke = Some(v1::SmokeGate { mode: StageMode::Off.into(), ..Default::default() });
    gates.shadow = Some(v1::ShadowGate {
        mode: StageMode::Required.into(),
        timeout: Some(duration(30_000)),
        share_bp: vec![10_000, 10_000],
        min_pairs: Some(3),
        compare: v1::Compare::Judge.into(),
        judge_step: "grade".into(),
        ..Default::default()
    });
    scene(&client, policy).await;
    let live = worker(&client, "v1", 0);
    let echo = |_: StepContext, ask: u32| async move {
        let answer: StepResult<Next> = Ok(Next::done(ask + 1));
        answer
    };
    // Both outputs are near enough for this judge, and it has seen the input too.
    let grade = |_: StepContext, pair: serde_json::Value| async move {
        let number = |name: &str| pair[name].as_u64().unwrap_or(0);
        let same = number("input") == number("live") && number("shadow") == number("live") + 1;
        let answer: StepResult<Next> =
            Ok(Next::done(serde_json::json!({ "same": same, "why": "too far" })));
        answer
    };
    let builder: WorkerBuilder = Worker::builder(client.clone())
        .agent("support")
        .bundle("v2")
        .code("abc")
        .slots(8)
        .shadow_safe()
        .step("main", echo)
        .step("grade", grade);
    let candidate = tokio::spawn(builder.run_until(std::future::pending()));
    let first: u32 = client.run("support", 7_u32).await.expect("it completes");
    assert_eq!(first, 7);
    start(&client).await;
    let judged = |now: &v1::Release| gate(now, Stage::Shadow).verdict() == Verdict::Pass;
    let end = until(&client, judged).await;
    assert!(gate(&end, Stage::Shadow).reason.starts_with("0 of "), "{end:?}");
    let request = v1::ListShadowPairsRequest {
        agent_id: "support".into(),
        state: v1::PairState::Same.into(),
        ..Default::default()
    };
    let listed = client.shadows().pairs(request).await.expect("a list");
    assert!(listed.pairs.iter().all(|pair| pair.judge_run_id.contains(".judge.")), "{listed:?}");
    assert!(listed.pairs.len() >= 3, "{listed:?}");
    live.abort();
    candidate.abort();
    nodes.stop_all().await;
}

#[tokio::test]
async fn mirrored_runs_compare_the_candidate_with_what_is_live() {
    for (extra, expected) in [(0, Verdict::Pass), (100, Verdict::Fail)] {
        let nodes = Nodes::start(1).await;
        let client = nodes.client();
        let mut policy = policy();
        let gates = policy.gates.get_or_insert_default();
        gates.smoke = Some(v1::SmokeGate { mode: StageMode::Off.into(), ..Default::default() });
        gates.shadow = Some(v1::ShadowGate {
            mode: StageMode::Required.into(),
            timeout: Some(duration(30_000)),
            share_bp: vec![10_000, 10_000],
            min_pairs: Some(5),
            ..Default::default()
        });
        scene(&client, policy).await;
        let workers = [worker(&client, "v1", 0), worker(&client, "v2", extra)];
        let first: u32 = client.run("support", 1_u32).await.expect("it completes");
        assert_eq!(first, 1, "shadow runs answer nobody");
        start(&client).await;
        let judged = |now: &v1::Release| {
            let verdict = gate(now, Stage::Shadow).verdict();
            !matches!(verdict, Verdict::Pending | Verdict::Running)
        };
        let end = until(&client, judged).await;
        let shadow = gate(&end, Stage::Shadow);
        assert_eq!(shadow.verdict(), expected, "{} {}", shadow.reason, shadow.evidence);
        if expected == Verdict::Fail {
            assert_eq!(end.state(), ReleaseState::Failed);
            assert!(shadow.evidence.contains("\"why\":\"/: 7 and 107\""), "{}", shadow.evidence);
            side_by_side(&client).await;
            reported(&client, "shadow").await;
        }
        workers.iter().for_each(JoinHandle::abort);
        nodes.stop_all().await;
    }
}
