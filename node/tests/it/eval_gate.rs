//! The gate `evals` in a release: the cluster runs both bundles on the examples of a set, and the worse one does not pass.

use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker, v1};
use tokio::time::{Instant, sleep};
use v1::{ReleaseState, Stage, StageMode, Verdict};

use crate::nodes::{Nodes, SOON, agent};

const EXAMPLES: usize = 40;

async fn good(_: StepContext, question: String) -> StepResult<Next> {
    Ok(Next::done(format!("about your {question}")))
}

/// Knows nothing of every fifth question.
async fn worse(_: StepContext, question: String) -> StepResult<Next> {
    let is_hard = question.ends_with('0') || question.ends_with('5');
    Ok(Next::done(if is_hard { "no idea".to_owned() } else { format!("about your {question}") }))
}

fn off<T>(gate: impl FnOnce(i32) -> T) -> Option<T> {
    Some(gate(StageMode::Off.into()))
}

/// Only the evals count, and the cluster runs them.
async fn set_policy(client: &Client) {
    let evals = v1::EvalsGate {
        mode: StageMode::Required.into(),
        set: "core@1".into(),
        start_runs: true,
        sensitivity: Some(false),
        ..Default::default()
    };
    let gates = v1::GatesPolicy {
        prepare: off(|mode| v1::PrepareGate { mode, ..Default::default() }),
        smoke: off(|mode| v1::SmokeGate { mode, ..Default::default() }),
        evals: Some(evals),
        shadow: off(|mode| v1::ShadowGate { mode, ..Default::default() }),
        canary: off(|mode| v1::CanaryGate { mode, ..Default::default() }),
    };
    let policy = v1::Policy { gates: Some(gates), ..Default::default() };
    let agent_id = "support".to_owned();
    let policy = Some(policy);
    let request = v1::UpdateAgentRequest { agent_id, policy, ..Default::default() };
    client.agents().update(request).await.expect("the policy is set");
}

async fn create_set(client: &Client) {
    let example = |index: usize| {
        let question = format!("order {index:02}");
        let data = serde_json::to_vec(&question).expect("JSON").into();
        v1::EvalExample {
            id: format!("{index:02}"),
            input: Some(v1::Payload { content_type: "application/json".into(), data }),
            expect: Some(v1::EvalExpectation { contains: vec![question], ..Default::default() }),
            ..Default::default()
        }
    };
    let request = v1::CreateEvalSetRequest {
        agent_id: "support".into(),
        name: "core".into(),
        version: "1".into(),
        examples: (0..EXAMPLES).map(example).collect(),
        ..Default::default()
    };
    client.evals().create_set(request).await.expect("the set is registered");
}

async fn create_bundle(client: &Client, bundle_id: &str) {
    let request = v1::GetBundleRequest {
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        ..Default::default()
    };
    let first = client.bundles().get(request).await.expect("it is read").bundle;
    let request = v1::CreateBundleRequest {
        agent_id: "support".into(),
        bundle_id: bundle_id.into(),
        manifest: first.and_then(|bundle| bundle.manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("another bundle");
}

/// Releases a bundle and waits until its evals are judged: what the gate said, and where the release is then.
async fn release(client: &Client, bundle_id: &str) -> (v1::Gate, ReleaseState) {
    let request = v1::StartReleaseRequest {
        agent_id: "support".into(),
        bundle_id: bundle_id.into(),
        ..Default::default()
    };
    client.releases().start(request).await.expect("the release begins");
    let deadline = Instant::now() + SOON;
    loop {
        let request = v1::GetReleaseRequest { agent_id: "support".into(), ..Default::default() };
        let release = client.releases().get(request).await.expect("it is read").release;
        let release = release.expect("there is one");
        let gate = release.gates.iter().find(|gate| gate.stage() == Stage::Evals).cloned();
        let gate = gate.unwrap_or_default();
        if !matches!(gate.verdict(), Verdict::Pending | Verdict::Running | Verdict::Unspecified) {
            return (gate, release.state());
        }
        assert!(Instant::now() < deadline, "not judged in time: {gate:?}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn reports(client: &Client, bundle_id: &str) -> Vec<v1::EvalReport> {
    let request = v1::ListEvalReportsRequest {
        agent_id: "support".into(),
        bundle_id: bundle_id.into(),
        ..Default::default()
    };
    client.evals().list_reports(request).await.expect("the reports").reports
}

#[tokio::test]
async fn the_cluster_runs_both_bundles_and_stops_the_worse_one() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    create_set(&client).await;
    set_policy(&client).await;
    create_bundle(&client, "v2").await;
    create_bundle(&client, "v3").await;
    let worker = |bundle: &str| {
        Worker::builder(client.clone()).agent("support").bundle(bundle).code("abc").slots(8)
    };
    for bundle in ["v1", "v3"] {
        let worker = worker(bundle).step("main", good);
        tokio::spawn(worker.run_until(std::future::pending()));
    }
    tokio::spawn(worker("v2").step("main", worse).run_until(std::future::pending()));

    let (gate, state) = release(&client, "v2").await;
    assert_eq!((gate.verdict(), state), (Verdict::Fail, ReleaseState::Failed), "{gate:?}");
    assert_eq!(gate.reason, "pass rate 0.800 on core@1 (40 cases); needs 0.900");
    let evidence: serde_json::Value = serde_json::from_str(&gate.evidence).expect("JSON");
    assert_eq!(evidence["comparison"]["only_baseline_passed"], 8, "{evidence}");
    for (bundle, passed) in [("v1", 40), ("v2", 32)] {
        let all = reports(&client, bundle).await;
        assert_eq!(all.len(), 1, "{bundle}");
        let summary = all[0].summary.clone().expect("a summary");
        assert_eq!((summary.passed, summary.errors, all[0].format.as_str()), (passed, 0, "runs"));
    }

    let (gate, state) = release(&client, "v3").await;
    assert_eq!(gate.verdict(), Verdict::Pass, "{gate:?}");
    assert!(matches!(state, ReleaseState::Switching | ReleaseState::Switched), "{state:?}");
    // The live bundle was measured on this version already.
    assert_eq!(reports(&client, "v1").await.len(), 1);
    nodes.stop_all().await;
}
