//! What a mirrored run must not do twice: a destructive tool is called once for a live run, also through a second agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pinrail_client::worker::{Next, StepContext, StepError, WorkerBuilder};
use pinrail_client::{Client, Worker, v1};
use pinrail_proto::v1::{RunKind, RunState, StageMode};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent_named};

const SHOP: &str = "shop";
const BILLING: &str = "billing";
const RUNS: u32 = 5;

/// Two bundles of the shop that have the tool, and a release that mirrors every run.
async fn scene(client: &Client) {
    let off = StageMode::Off.into();
    let shadow = v1::ShadowGate {
        mode: StageMode::Required.into(),
        share_bp: vec![10_000, 10_000],
        min_pairs: Some(1_000),
        ..Default::default()
    };
    let gates = v1::GatesPolicy {
        smoke: Some(v1::SmokeGate { mode: off, ..Default::default() }),
        evals: Some(v1::EvalsGate { mode: off, ..Default::default() }),
        shadow: Some(shadow),
        ..Default::default()
    };
    let request = v1::CreateAgentRequest {
        agent_id: SHOP.into(),
        policy: Some(v1::Policy { gates: Some(gates), ..Default::default() }),
        ..Default::default()
    };
    client.agents().create(request).await.expect("the agent is created");
    let charge = v1::ToolPart {
        version: "1".into(),
        side_effects: v1::SideEffects::Destructive.into(),
        // The mirrored run goes on behind it, to the second agent.
        stub_json: "7".into(),
        ..Default::default()
    };
    for bundle_id in ["v1", "v2"] {
        let model = v1::ModelPart {
            provider: "p".into(),
            name: "m".into(),
            snapshot: bundle_id.into(),
            ..Default::default()
        };
        let manifest = v1::BundleManifest {
            code: Some(v1::CodePart { git_commit: bundle_id.into(), ..Default::default() }),
            models: [("default".to_owned(), model)].into(),
            tools: [("charge".to_owned(), charge.clone())].into(),
            ..Default::default()
        };
        let request = v1::CreateBundleRequest {
            agent_id: SHOP.into(),
            bundle_id: bundle_id.into(),
            manifest: Some(manifest),
            ..Default::default()
        };
        client.bundles().create(request).await.expect("the bundle is created");
    }
    let request =
        v1::SwitchRequest { agent_id: SHOP.into(), bundle_id: "v1".into(), ..Default::default() };
    client.releases().switch(request).await.expect("it goes live");
}

/// A worker of the shop, which counts what it charges and has the other agent send a bill.
fn shop(client: &Client, bundle_id: &str, charged: &Arc<AtomicU32>) -> WorkerBuilder {
    let charged = Arc::clone(charged);
    let sell = move |ctx: StepContext, price: u32| {
        let charged = Arc::clone(&charged);
        async move {
            let paid: u32 = ctx
                .tool("charge")
                .call(price, |price, _| async move {
                    charged.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, StepError>(price)
                })
                .await?;
            ctx.start_run(BILLING, paid).await?;
            Ok(Next::done(paid))
        }
    };
    Worker::builder(client.clone())
        .agent(SHOP)
        .bundle(bundle_id)
        .code(bundle_id)
        .shadow_safe()
        .step("main", sell)
}

async fn runs(client: &Client, agent: &str, kind: RunKind) -> Vec<v1::Run> {
    let request =
        v1::ListRunsRequest { agent_id: agent.into(), kind: kind.into(), ..Default::default() };
    client.runs().list(request).await.expect("they are listed").runs
}

#[tokio::test]
async fn a_destructive_tool_is_called_once_for_a_mirrored_run_also_through_a_second_agent() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent_named(&client, BILLING).await;
    scene(&client).await;
    let charged = Arc::new(AtomicU32::new(0));
    let workers = ["v1", "v2"].map(|bundle_id| {
        tokio::spawn(shop(&client, bundle_id, &charged).run_until(std::future::pending()))
    });
    let request = v1::StartReleaseRequest {
        agent_id: SHOP.into(),
        bundle_id: "v2".into(),
        ..Default::default()
    };
    client.releases().start(request).await.expect("the release begins");
    let deadline = Instant::now() + SOON;
    let mut sold = 0;
    // Until as many mirrored runs are over as were asked for.
    loop {
        let mirrored = runs(&client, SHOP, RunKind::Shadow).await;
        let over = mirrored.iter().filter(|run| run.ended_at.is_some()).count();
        if u32::try_from(over).expect("few") >= RUNS {
            assert!(
                mirrored.iter().all(|run| run.state() != RunState::Completed),
                "what starts another agent's run stops there: {mirrored:?}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "{over} mirrored runs are over");
        let paid: u32 = client.run(SHOP, 7_u32).await.expect("live runs go on");
        assert_eq!(paid, 7);
        sold += 1;
        sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(charged.load(Ordering::Relaxed), sold, "each sale was charged once");
    let bills = runs(&client, BILLING, RunKind::Unspecified).await;
    assert_eq!(u32::try_from(bills.len()).expect("few"), sold, "and billed once");
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    nodes.stop_all().await;
}
