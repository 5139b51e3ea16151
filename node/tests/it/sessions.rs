//! Sessions over a whole node: their runs stay on one bundle and take turns.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker, v1};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent, switch_to};

async fn main(ctx: StepContext, _: Option<u32>) -> StepResult<Next> {
    Ok(Next::done(ctx.bundle().id()))
}

async fn start(client: &Client, run_id: &str) -> v1::StartRunResponse {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        session: "talk".into(),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the run starts")
}

async fn session(client: &Client) -> v1::Session {
    let request = v1::GetSessionRequest {
        agent_id: "support".into(),
        session: "talk".into(),
        ..Default::default()
    };
    let answer = client.pins().session(request).await.expect("the session is there");
    answer.session.expect("it is in the answer")
}

#[tokio::test]
async fn runs_of_a_session_take_turns_on_one_bundle() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "one").await;
    start(&client, "two").await;
    assert_eq!(session(&client).await.open_run_ids, ["one", "two"]);
    switch_to(&client, "v2").await;
    // Within the cut-off the session stays where it is; others go where the route leads.
    let third = start(&client, "three").await;
    assert_eq!(third.bundle_id, "v1");
    assert_eq!(third.pin.expect("a pin").reason(), v1::PinReason::Session);
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .slots(8)
        .step("main", main);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    for run_id in ["one", "two", "three"] {
        let result = client.wait_for_result("support", run_id).await.expect("it completes");
        assert_eq!(result.bundle_id, "v1");
    }
    let mut before = None;
    for run_id in ["one", "two", "three"] {
        let request = v1::ListStepsRequest {
            agent_id: "support".into(),
            run_id: run_id.into(),
            ..Default::default()
        };
        let steps = client.runs().steps(request).await.expect("they are read").steps;
        let ms = pinrail_proto::time::timestamp_millis;
        let (begun, ended) = (ms(steps[0].ready_at.as_ref()), ms(steps[0].ended_at.as_ref()));
        assert!(before.is_none_or(|before| begun >= before), "{run_id} began before its turn");
        before = Some(ended);
    }
    let end = v1::EndSessionRequest {
        agent_id: "support".into(),
        session: "talk".into(),
        ..Default::default()
    };
    client.pins().end_session(end).await.expect("it is ended");
    assert_eq!(start(&client, "four").await.bundle_id, "v2");
    let deadline = Instant::now() + SOON;
    while session(&client).await.open_run_ids != ["four"] {
        assert!(Instant::now() < deadline, "{:?}", session(&client).await);
        sleep(Duration::from_millis(10)).await;
    }
    worker.abort();
    nodes.stop_all().await;
}
