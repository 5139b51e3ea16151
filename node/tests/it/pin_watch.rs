//! Somebody who keeps all pins of an agent is told of each, at whatever member they ask.

use std::collections::BTreeMap;

use pinrail_client::service::PinWatch;
use pinrail_client::{Client, v1};
use tokio::time::timeout;

use crate::nodes::{Nodes, SOON, agent, switch_to};
use crate::repin::start;

fn watch(client: &Client, after_revision: u64) -> PinWatch {
    let agent_id = "support".into();
    client.pins().watch(v1::WatchPinsRequest { agent_id, after_revision, ..Default::default() })
}

async fn next(pins: &mut PinWatch) -> v1::WatchPinsResponse {
    timeout(SOON, pins.next()).await.expect("there is news").expect("the watch goes on")
}

/// The next pin of a run that is told.
async fn next_of(pins: &mut PinWatch, run_id: &str) -> v1::LookupPinResponse {
    loop {
        let told = next(pins).await;
        assert!(!told.begins, "one list is enough");
        if let Some(pin) = told.pins.into_iter().find(|pin| pin.run_id == run_id) {
            return pin;
        }
    }
}

/// Bundles of all open pins by run, and the revision behind the list.
async fn list(pins: &mut PinWatch) -> (BTreeMap<String, String>, u64) {
    let mut told = next(pins).await;
    assert!(told.begins);
    let mut open = BTreeMap::new();
    loop {
        open.extend(told.pins.into_iter().map(|pin| (pin.run_id, pin.bundle_id)));
        if told.revision != 0 {
            return (open, told.revision);
        }
        told = next(pins).await;
        assert!(!told.begins);
    }
}

#[tokio::test]
async fn open_pins_are_listed_and_then_what_becomes_of_them() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let mut pins = watch(&client, 0);
    assert_eq!(list(&mut pins).await.0, BTreeMap::new(), "whoever waits hears that there is none");
    start(&client, "moves", true).await;
    let made = next_of(&mut pins, "moves").await;
    assert_eq!((made.bundle_id.as_str(), made.open, made.movable), ("v1", true, true));
    start(&client, "ends", true).await;
    next_of(&mut pins, "ends").await;

    // By the drain deadline of its bundle: no event of the run's.
    switch_to(&client, "v2").await;
    let drains = next_of(&mut pins, "ends").await.pin.expect("it has one");
    assert_eq!(drains.bundle_id, "v1");

    let (agent_id, run_id) = ("support".to_owned(), "moves".to_owned());
    let repin = v1::RepinRunRequest { agent_id, run_id, ..Default::default() };
    assert!(client.runs().repin(repin).await.expect("nobody holds it").moved);
    while next_of(&mut pins, "moves").await.bundle_id != "v2" {}
    let (open, revision) = list(&mut watch(&client, 0)).await;
    let wanted = [("ends", "v1"), ("moves", "v2")];
    assert_eq!(open, wanted.map(|(run, bundle)| (run.to_owned(), bundle.to_owned())).into());

    let (agent_id, run_id) = ("support".to_owned(), "ends".to_owned());
    let cancel = v1::CancelRunRequest { agent_id, run_id, ..Default::default() };
    client.runs().cancel(cancel).await.expect("it is open");
    while next_of(&mut pins, "ends").await.open {}
    for member in 0..3 {
        let mut resumed = watch(&nodes.client_of(member), revision);
        assert!(!next_of(&mut resumed, "ends").await.open, "member {member}");
    }
    drop(pins);
    nodes.stop_all().await;
}

#[tokio::test]
async fn pins_of_an_agent_that_does_not_exist_are_refused() {
    let nodes = Nodes::start(1).await;
    let refused = watch(&nodes.client(), 0).next().await.expect_err("there is none");
    assert_eq!(refused.reason(), "AGENT_NOT_FOUND");
    nodes.stop_all().await;
}
