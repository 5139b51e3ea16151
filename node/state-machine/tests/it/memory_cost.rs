//! What memory costs, in rows: opening a layer and reading through many releases; and what a rollback gives back.

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, PutMemory};
use pinrail_proto::v1;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::{Machine, query};
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use crate::counting::Counting;
use crate::replica::{Replica, agent, batch, create_agent, create_bundle, payload, switch};

const AGENT: &str = "support";

fn formed(bundles: u32) -> Replica {
    let mut replica = Replica::formed();
    replica.must(create_agent(AGENT, false));
    for number in 1..=bundles {
        replica.must(create_bundle(AGENT, &format!("v{number}")));
    }
    replica.must(switch(AGENT, "v1"));
    replica
}

fn put(bundle_id: &str, key: &str, value: &str) -> Command {
    let target = log::memory_target::Target::BundleId(bundle_id.to_owned());
    Command::PutMemory(PutMemory {
        agent: agent(AGENT),
        target: Some(log::MemoryTarget { target: Some(target) }),
        key: key.to_owned(),
        value: Some(payload(value)),
        ..PutMemory::default()
    })
}

/// Many commands in one entry.
fn apply(replica: &mut Replica, commands: impl Iterator<Item = Command>) {
    let encode =
        |kind| Bytes::from(log::Command { header: None, kind: Some(kind) }.encode_to_vec());
    let entry = batch(replica.now_ms, commands.map(encode).collect());
    let mut machine = Machine::open(&replica.store).unwrap();
    for applied in machine.apply_batch(&entry).unwrap() {
        assert!(!matches!(applied.outcome.result, Some(Answer::Rejection(_))), "{applied:?}");
    }
    replica.store.write(machine.finish().writes);
}

/// A hash over all that a layer sees, in key order: keys, values, revisions.
fn content(replica: &Replica, layer: u64) -> u128 {
    let scope = v1::MemoryScope { scope: Some(Scope::Layer(layer)) };
    let (mut hash, mut token) = (Xxh3::new(), String::new());
    loop {
        let page = query::memory_list(
            replica.read(),
            "",
            AGENT,
            Some(&scope),
            "",
            0,
            false,
            1_000,
            &token,
        );
        let page = page.unwrap();
        for version in page.versions {
            hash.update(&version.encode_to_vec());
        }
        token = page.next_page_token;
        if token.is_empty() {
            return hash.digest128();
        }
    }
}

fn live_layer(replica: &Replica) -> u64 {
    query::memory_get(replica.read(), "", AGENT, None, "none", 0).unwrap().layer
}

#[test]
fn a_rollback_gives_the_old_layer_back_byte_for_byte() {
    let mut replica = formed(2);
    let key = |number: usize| format!("users/{number}");
    apply(&mut replica, (0..2_000).map(|n| put("v1", &key(n), &format!("one {n}"))));
    apply(&mut replica, (0..500).map(|n| put("v1", &key(n), &format!("two {n}"))));
    let old = live_layer(&replica);
    let before = content(&replica, old);

    replica.must(switch(AGENT, "v2"));
    apply(&mut replica, (0..1_500).map(|n| put("v2", &key(n), &format!("three {n}"))));
    for number in 1_500..1_700 {
        replica.must(Command::DeleteMemory(log::DeleteMemory {
            agent: agent(AGENT),
            key: key(number),
            ..log::DeleteMemory::default()
        }));
    }
    assert_ne!(content(&replica, live_layer(&replica)), before);
    // All that may go goes, in between and afterwards.
    replica.now_ms += 60_000;
    replica.sweep(1);
    replica.must(Command::Rollback(log::Rollback {
        agent: agent(AGENT),
        from_bundle_id: "v2".to_owned(),
        ..log::Rollback::default()
    }));
    replica.now_ms += 60_000;
    replica.sweep(1);
    assert_eq!(live_layer(&replica), old);
    assert_eq!(content(&replica, old), before);
    replica.check_promises();
}

#[test]
fn a_read_after_a_hundred_releases_reads_as_much_as_after_one() {
    let mut replica = formed(5);
    replica.must(put("v1", "old", "from the first release"));
    replica.must(put("v1", "often", "0"));
    let reads = |replica: &Replica, key: &str| {
        let counting = Counting::new(replica.read());
        assert!(query::memory_get(&counting, "", AGENT, None, key, 0).unwrap().found);
        counting.reads()
    };
    let mut first = None;
    for release in 1..=100 {
        let bundle = format!("v{}", release % 5 + 1);
        replica.must(switch(AGENT, &bundle));
        replica.must(put(&bundle, "often", &release.to_string()));
        let now = ["old", "often"].map(|key| reads(&replica, key));
        assert_eq!(*first.get_or_insert(now), now, "after {release} releases");
    }
    assert_eq!(live_layer(&replica), 101);
}

#[test]
fn a_layer_is_opened_by_as_many_rows_however_many_keys_there_are() {
    let rows = |keys: usize| {
        let mut replica = formed(2);
        for first in (0..keys).step_by(1_000) {
            let all = first..(first + 1_000).min(keys);
            apply(&mut replica, all.map(|n| put("v1", &format!("k/{n}"), "v")));
        }
        let command = log::Command { header: None, kind: Some(switch(AGENT, "v2")) };
        let entry = batch(replica.now_ms, vec![command.encode_to_vec().into()]);
        let counting = Counting::new(replica.read());
        let mut machine = Machine::open(&counting).unwrap();
        machine.apply_batch(&entry).unwrap();
        let written: Vec<RowKey> = machine.finish().writes.into_keys().collect();
        let kinds: Vec<u8> = written.iter().map(|key| key[0]).collect();
        (kinds, counting.reads())
    };
    assert_eq!(rows(1_000), rows(100_000));
}
