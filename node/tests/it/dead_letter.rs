//! A step that used up its attempts waits for a person, and goes on where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepError, StepResult};
use pinrail_client::{Client, Error, Worker, payload, v1};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent, start};

const RUN: &str = "order-77";

/// What the step calls: it counts its effect, and works once it is repaired.
#[derive(Debug, Default)]
struct Outside {
    is_repaired: AtomicBool,
    charged: AtomicU32,
}

async fn charge(outside: &Outside, ctx: StepContext) -> StepResult<Next> {
    let charged = ctx
        .checkpoint("charge", async || {
            StepResult::Ok(outside.charged.fetch_add(1, Ordering::SeqCst) + 1)
        })
        .await?;
    if !outside.is_repaired.load(Ordering::SeqCst) {
        return Err(StepError::fatal("MAIL_DOWN", "no mail leaves"));
    }
    Ok(Next::done(charged))
}

async fn pause_when_exhausted(client: &Client) {
    let steps =
        v1::StepPolicy { on_exhausted: v1::OnExhausted::Pause.into(), ..v1::StepPolicy::default() };
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy { steps: Some(steps), ..Default::default() }),
        ..Default::default()
    };
    client.agents().update(request).await.expect("the policy is changed");
}

async fn reaches(client: &Client, state: v1::RunState) -> v1::Run {
    let deadline = Instant::now() + SOON;
    loop {
        let request = v1::GetRunRequest {
            agent_id: "support".into(),
            run_id: RUN.into(),
            ..Default::default()
        };
        let run = client.runs().get(request).await.expect("it is read").run.expect("it is there");
        if run.state() == state {
            return run;
        }
        assert!(Instant::now() < deadline, "{run:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn retry(client: &Client) -> Result<v1::RetryRunResponse, Error> {
    let request = v1::RetryRunRequest {
        agent_id: "support".into(),
        run_id: RUN.into(),
        ..Default::default()
    };
    client.runs().retry(request).await
}

#[tokio::test]
async fn a_dead_step_is_inspected_and_retried_without_repeating_its_effect() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    pause_when_exhausted(&client).await;
    let outside = Arc::new(Outside::default());
    let handler = {
        let outside = Arc::clone(&outside);
        move |ctx: StepContext, _: u32| {
            let outside = Arc::clone(&outside);
            async move { charge(&outside, ctx).await }
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", handler)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    start(&client, RUN).await;
    reaches(&client, v1::RunState::Paused).await;
    let request = v1::ListStepsRequest {
        agent_id: "support".into(),
        run_id: RUN.into(),
        ..Default::default()
    };
    let steps = client.runs().steps(request).await.expect("they are listed").steps;
    assert_eq!(steps[0].state(), v1::StepState::Dead);
    assert_eq!(steps[0].failure.as_ref().expect("it says why").reason, "MAIL_DOWN");
    outside.is_repaired.store(true, Ordering::SeqCst);
    retry(&client).await.expect("it goes on");
    let run = reaches(&client, v1::RunState::Completed).await;
    let charged: u32 = payload::decode(run.output.as_ref()).expect("the output is a number");
    assert_eq!((charged, outside.charged.load(Ordering::SeqCst)), (1, 1), "the effect came once");
    let refused = retry(&client).await.expect_err("the run is over");
    assert!(refused.to_string().contains("RUN_CLOSED"), "{refused}");
    drop(stop);
    worker.await.expect("it does not panic").expect("it ends well");
    nodes.stop_all().await;
}
