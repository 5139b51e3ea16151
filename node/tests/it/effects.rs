//! A tool with side effects that was called has been called, whatever becomes of the attempt: it counts at once.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepError};
use pinrail_client::{Client, Worker, v1};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON};

const AGENT: &str = "shop";

async fn shop(client: &Client) {
    let request = v1::CreateAgentRequest { agent_id: AGENT.into(), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    for bundle_id in ["v1", "v2"] {
        let model = v1::ModelPart {
            provider: "p".into(),
            name: "m".into(),
            snapshot: bundle_id.into(),
            ..Default::default()
        };
        let refund = v1::ToolPart {
            version: "1".into(),
            side_effects: v1::SideEffects::Destructive.into(),
            ..Default::default()
        };
        let manifest = v1::BundleManifest {
            code: Some(v1::CodePart { git_commit: "abc".into(), ..Default::default() }),
            models: [("default".to_owned(), model)].into(),
            tools: [("refund".to_owned(), refund)].into(),
            ..Default::default()
        };
        let request = v1::CreateBundleRequest {
            agent_id: AGENT.into(),
            bundle_id: bundle_id.into(),
            manifest: Some(manifest),
            ..Default::default()
        };
        client.bundles().create(request).await.expect("the bundle is created");
        let request = v1::SwitchRequest {
            agent_id: AGENT.into(),
            bundle_id: bundle_id.into(),
            force: true,
            options: Some(v1::WriteOptions { reason: "test".into(), ..Default::default() }),
            ..Default::default()
        };
        client.releases().switch(request).await.expect("it goes live");
    }
}

async fn run(client: &Client, run_id: &str) -> v1::Run {
    let request =
        v1::GetRunRequest { agent_id: AGENT.into(), run_id: run_id.into(), ..Default::default() };
    client.runs().get(request).await.expect("it is read").run.expect("it is there")
}

fn refunds(run: &v1::Run) -> u64 {
    run.usage.iter().flat_map(|usage| &usage.tools).map(|tool| tool.calls).sum()
}

async fn until(client: &Client, run_id: &str, wanted: impl Fn(&v1::Run) -> bool) -> v1::Run {
    let deadline = Instant::now() + SOON;
    loop {
        let run = run(client, run_id).await;
        if wanted(&run) {
            return run;
        }
        assert!(Instant::now() < deadline, "{run:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_tool_that_was_called_counts_before_its_step_ends_and_when_it_is_handed_back() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    shop(&client).await;
    let called = Arc::new(Notify::new());
    let main = {
        let called = Arc::clone(&called);
        move |ctx: StepContext, kind: u32| {
            let called = Arc::clone(&called);
            async move {
                let refund = ctx.tool("refund").call(kind, |kind, _| async move {
                    called.notify_one();
                    if kind == 2 {
                        // Nobody hears what it did.
                        pending::<()>().await;
                    }
                    Ok::<_, StepError>(kind)
                });
                let _: u32 = refund.await?;
                ctx.cancelled().await;
                Err::<Next, _>(StepError::retry("it has to stop"))
            }
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::builder(client.clone())
        .agent(AGENT)
        .bundle("v2")
        .code("abc")
        .shutdown_grace(Duration::from_millis(200))
        .step("main", main)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    for (run_id, kind) in [("heard", "1"), ("unheard", "2")] {
        let request = v1::StartRunRequest {
            agent_id: AGENT.into(),
            run_id: run_id.into(),
            input: Some(v1::Payload { content_type: "application/json".into(), data: kind.into() }),
            ..Default::default()
        };
        client.runs().start(request).await.expect("the run starts");
        called.notified().await;
    }
    let heard = until(&client, "heard", |run| refunds(run) == 1).await;
    assert_eq!(heard.state(), v1::RunState::Running, "its step goes on");
    drop(stop);
    worker.await.expect("it does not panic").expect("it ends well");
    assert_eq!(refunds(&run(&client, "heard").await), 1, "and it does not count again");
    until(&client, "unheard", |run| refunds(run) == 1).await;
    let request = v1::RollbackRequest {
        agent_id: AGENT.into(),
        from_bundle_id: "v2".into(),
        in_flight: v1::InFlight::Restart.into(),
        ..Default::default()
    };
    let answer = client.releases().rollback(request).await.expect("it is rolled back");
    let undone: Vec<_> =
        answer.side_effects.iter().map(|it| (it.tool.as_str(), it.calls)).collect();
    assert_eq!(undone, [("refund", 2)]);
    for run_id in ["heard", "unheard"] {
        until(&client, run_id, |run| run.state() == v1::RunState::Paused).await;
    }
    nodes.stop_all().await;
}
