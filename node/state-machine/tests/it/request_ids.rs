//! What is asked again is answered again, for an hour or a million writes, and nothing is refused for what was asked before.

use pinrail_proto::limits::{DEDUPE_MS, DEDUPE_ROWS};
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::{ClusterRecord, MemoryTarget, PauseAgent, PutMemory};
use pinrail_state_machine::FEATURE_LEVEL;
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::outcome::Applied;
use prost::Message as _;

use crate::replica::{Replica, agent, create_agent, create_bundle, payload, reason, switch};

const AGENT: &str = "fleet";

/// An agent with a memory.
fn with_memory(feature_level: u32) -> Replica {
    let mut replica = Replica::formed_at(feature_level);
    for command in [create_agent(AGENT, true), create_bundle(AGENT, "v1"), switch(AGENT, "v1")] {
        replica.must(command);
    }
    replica
}

/// Puts a value under the name of the request id.
fn put(replica: &mut Replica, id: &str) -> Applied {
    let put = PutMemory {
        agent: agent(AGENT),
        target: Some(MemoryTarget { target: Some(Target::BundleId("v1".to_owned())) }),
        key: id.to_owned(),
        value: Some(payload(id)),
        ..PutMemory::default()
    };
    let applied = replica.ask(id, Command::PutMemory(put));
    assert_eq!(reason(&applied), None, "{id}: {applied:?}");
    applied
}

fn pause(replica: &mut Replica, id: &str) -> Applied {
    replica.ask(id, Command::PauseAgent(PauseAgent { agent: agent(AGENT), ..Default::default() }))
}

/// The cluster's row becomes another, as if much had been asked in between.
fn change(replica: &mut Replica, change: impl FnOnce(&mut ClusterRecord)) {
    let key = Key::new(Kind::Cluster).build();
    let row = replica.read().get(&key).unwrap().unwrap();
    let mut cluster = ClusterRecord::decode(row).unwrap();
    change(&mut cluster);
    replica.store.write([(key, Some(cluster.encode_to_vec().into()))]);
}

fn is_remembered(replica: &Replica, id: &str) -> bool {
    replica.read().get(&Key::new(Kind::Dedupe).last(id)).unwrap().is_some()
}

#[test]
fn the_oldest_id_of_traffic_makes_room_and_nothing_is_refused() {
    let mut replica = with_memory(FEATURE_LEVEL);
    let first = put(&mut replica, "a");
    put(&mut replica, "b");
    replica.check_promises();
    change(&mut replica, |cluster| cluster.traffic_ids_end = DEDUPE_ROWS);
    assert_eq!(put(&mut replica, "a").outcome.result, first.outcome.result, "it is answered again");
    put(&mut replica, "c");
    assert_eq!(["a", "b", "c"].map(|id| is_remembered(&replica, id)), [false, true, true]);
    put(&mut replica, "d");
    assert_eq!(["b", "c", "d"].map(|id| is_remembered(&replica, id)), [false, true, true]);
    assert_eq!(replica.count(Kind::TrafficId), 2, "what is forgotten has no place either");
    assert_eq!(reason(&pause(&mut replica, "p")), None, "an operator is heard");
}

#[test]
fn ids_of_traffic_go_after_an_hour_when_later_ones_come() {
    let mut replica = with_memory(FEATURE_LEVEL);
    for number in 0..6 {
        replica.now_ms += 1_000;
        put(&mut replica, &format!("old-{number}"));
    }
    replica.now_ms += DEDUPE_MS - 3_000;
    for number in 0..3 {
        put(&mut replica, &format!("new-{number}"));
    }
    let kept = (0..6).map(|number| is_remembered(&replica, &format!("old-{number}")));
    assert_eq!(kept.collect::<Vec<_>>(), [false, false, false, true, true, true]);
    replica.check_promises();
    replica.now_ms += DEDUPE_MS;
    for number in 3..12 {
        put(&mut replica, &format!("new-{number}"));
    }
    assert_eq!(replica.count(Kind::TrafficId), 9, "two go for each that comes");
    replica.check_promises();
}

#[test]
fn ids_of_administration_go_by_their_timer() {
    let mut replica = with_memory(FEATURE_LEVEL);
    assert_eq!(reason(&pause(&mut replica, "p")), None);
    put(&mut replica, "a");
    replica.check_promises();
    replica.now_ms += DEDUPE_MS;
    replica.sweep(0);
    assert_eq!(["p", "a"].map(|id| is_remembered(&replica, id)), [false, true]);
    replica.check_promises();
}

#[test]
fn below_the_level_traffic_is_refused_as_ever() {
    let mut replica = with_memory(4);
    put(&mut replica, "a");
    assert_eq!(replica.count(Kind::TrafficId), 0);
    replica.check_promises();
    change(&mut replica, |cluster| cluster.dedupe_rows = DEDUPE_ROWS);
    assert_eq!(reason(&pause(&mut replica, "p")), Some("OVERLOADED"));
}
