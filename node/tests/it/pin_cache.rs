//! A router keeps pins: it asks once, hears that a run moves or ends, and goes on without the cluster for a while.

use std::sync::Arc;
use std::time::Duration;

use pinrail_client::{PinCache, v1};
use pinrail_proto::time;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, agent, switch_to};
use crate::repin::start;

/// Looks up until what it finds is as wanted. What happens is heard a moment later.
async fn until(
    pins: &PinCache,
    run_id: &str,
    mut wanted: impl FnMut(&Arc<v1::LookupPinResponse>) -> bool,
) -> Arc<v1::LookupPinResponse> {
    let deadline = Instant::now() + SOON;
    loop {
        let pin = pins.lookup(run_id).await.expect("the run is there");
        if wanted(&pin) {
            return pin;
        }
        assert!(Instant::now() < deadline, "{pin:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Looks up until a pin is kept: the same one is answered twice.
async fn until_kept(pins: &PinCache, run_id: &str) -> Arc<v1::LookupPinResponse> {
    let mut before = None;
    until(pins, run_id, |pin| {
        let before = before.replace(Arc::clone(pin));
        before.is_some_and(|before| Arc::ptr_eq(&before, pin))
    })
    .await
}

#[tokio::test]
async fn a_router_keeps_pins_and_hears_what_becomes_of_them() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "moves", true).await;
    start(&client, "ends", true).await;
    let pins = PinCache::new(&client, "support");
    for run_id in ["moves", "ends"] {
        assert_eq!(until_kept(&pins, run_id).await.bundle_id, "v1");
    }
    assert!(pins.is_live());
    let missing = pins.lookup("missing").await.expect_err("there is none");
    assert_eq!(missing.reason(), "RUN_NOT_FOUND");

    switch_to(&client, "v2").await;
    let repin = v1::RepinRunRequest {
        agent_id: "support".into(),
        run_id: "moves".into(),
        ..Default::default()
    };
    assert!(client.runs().repin(repin).await.expect("nobody holds it").moved);
    until(&pins, "moves", |pin| pin.bundle_id == "v2").await;
    // No event of the run's, and its pin ends sooner.
    let shorten = v1::SetDrainRequest {
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        cap: Some(time::duration(600_000)),
        ..Default::default()
    };
    client.pins().set_drain(shorten).await.expect("it drains");
    let drains = |pin: &Arc<v1::LookupPinResponse>| {
        let seconds = |at: Option<prost_types::Timestamp>| at.map(|at| at.seconds);
        let pin = pin.pin.as_ref().expect("it has one");
        pin.bundle_id == "v1" && seconds(pin.soft_end) < seconds(pin.expires_at)
    };
    until(&pins, "ends", drains).await;
    let cancel = v1::CancelRunRequest {
        agent_id: "support".into(),
        run_id: "ends".into(),
        ..Default::default()
    };
    client.runs().cancel(cancel).await.expect("it is open");
    until(&pins, "ends", |pin| !pin.open).await;

    until_kept(&pins, "moves").await;
    nodes.stop_all().await;
    let pin = pins.lookup("moves").await.expect("nobody has to be asked");
    assert_eq!(pin.bundle_id, "v2");
}
