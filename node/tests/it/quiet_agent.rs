//! An agent with ten runs a day is released with the default policy, days in a moment: no stage has data enough, and it comes
//! to its end all the same, with one word of a person. The candidate's steps all have other names.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Config, Worker, v1};
use pinrail_node::testing::Cluster;
use pinrail_proto::v1::{HoldCause, ReleaseState, Stage, Verdict};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::nodes::SOON;

const AGENT: &str = "quiet";
/// Ten a day.
const APART: Duration = Duration::from_secs(24 * 360);
const A_DAY: usize = 10;

async fn bundle(client: &Client, bundle_id: &str, entry: &str) {
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "m".into(),
        snapshot: bundle_id.into(),
        ..Default::default()
    };
    let manifest = v1::BundleManifest {
        entry: entry.into(),
        code: Some(v1::CodePart { git_commit: bundle_id.into(), ..Default::default() }),
        models: [("default".to_owned(), model)].into(),
        ..Default::default()
    };
    let request = v1::CreateBundleRequest {
        agent_id: AGENT.into(),
        bundle_id: bundle_id.into(),
        manifest: Some(manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("the bundle is created");
}

fn worker(client: &Client, bundle_id: &str) -> pinrail_client::worker::WorkerBuilder {
    Worker::builder(client.clone()).agent(AGENT).bundle(bundle_id).code(bundle_id).shadow_safe()
}

async fn done(_: StepContext, ask: u32) -> StepResult<Next> {
    Ok(Next::done(ask))
}

async fn plan(_: StepContext, ask: u32) -> StepResult<Next> {
    Ok(Next::step("reply", ask))
}

async fn release(client: &Client) -> v1::Release {
    let request = v1::GetReleaseRequest { agent_id: AGENT.into(), ..Default::default() };
    client.releases().get(request).await.expect("it is read").release.expect("there is one")
}

async fn until(client: &Client, wanted: impl Fn(&v1::Release) -> bool) -> v1::Release {
    let deadline = Instant::now() + SOON;
    loop {
        let now = release(client).await;
        if wanted(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "it stands at {now:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Time goes by with the usual runs, each of which has an answer.
async fn live_for(cluster: &Cluster, client: &Client, runs: usize) {
    for _ in 0..runs {
        cluster.advance(APART);
        let answer: u32 = client.run(AGENT, 7_u32).await.expect("live runs go on");
        assert_eq!(answer, 7);
    }
}

#[tokio::test]
async fn ten_runs_a_day_reach_recycle_with_the_default_policy_and_one_promote() {
    let cluster = Cluster::start(1).await;
    let client = Client::new(Config { endpoints: cluster.endpoints(), ..Config::default() });
    let client = client.expect("a client");
    let request = v1::CreateAgentRequest { agent_id: AGENT.into(), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    bundle(&client, "v1", "main").await;
    bundle(&client, "v2", "plan").await;
    let old = worker(&client, "v1").step("main", done);
    let new = worker(&client, "v2").step("plan", plan).step("reply", done);
    let workers: [JoinHandle<_>; 2] =
        [old, new].map(|builder| tokio::spawn(builder.run_until(std::future::pending())));
    let request =
        v1::SwitchRequest { agent_id: AGENT.into(), bundle_id: "v1".into(), ..Default::default() };
    client.releases().switch(request).await.expect("v1 goes live");
    live_for(&cluster, &client, A_DAY).await;

    let request = v1::StartReleaseRequest {
        agent_id: AGENT.into(),
        bundle_id: "v2".into(),
        ..Default::default()
    };
    client.releases().start(request).await.expect("the release begins");
    until(&client, |now| now.state() == ReleaseState::Shadow).await;
    live_for(&cluster, &client, 1).await;
    let held = until(&client, |now| now.hold.is_some()).await;
    let hold = held.hold.clone().expect("it is held");
    assert_eq!(hold.cause(), HoldCause::InsufficientData, "{hold:?}");
    let request = v1::PromoteReleaseRequest { agent_id: AGENT.into(), ..Default::default() };
    client.releases().promote(request).await.expect("a person lets it on");
    until(&client, |now| now.state() == ReleaseState::Canary).await;
    cluster.advance(Duration::from_secs(3600));
    until(&client, |now| now.state() == ReleaseState::Switched).await;
    live_for(&cluster, &client, A_DAY).await;
    let now = release(&client).await;
    assert_eq!(now.stage(), Stage::Quarantine, "a day is over, with too few runs to judge by");
    live_for(&cluster, &client, 2 * A_DAY).await;
    let end = until(&client, |now| now.ended_at.is_some()).await;
    assert_eq!(end.state(), ReleaseState::Recycled, "{}", end.end_reason);
    let verdict = |stage| {
        let mut gates = end.gates.iter().filter(|gate| gate.stage() == stage);
        gates.next().map(v1::Gate::verdict)
    };
    assert_eq!(verdict(Stage::Prepare), Some(Verdict::Pass));
    assert_eq!(verdict(Stage::Shadow), Some(Verdict::InsufficientData));
    assert_eq!(verdict(Stage::Quarantine), Some(Verdict::Pass));
    workers.iter().for_each(JoinHandle::abort);
    cluster.stop_all().await;
}
