//! The audit's chain finds what somebody did to the store behind the cluster's back.

use bytes::Bytes;
use pinrail_proto::log::{AuditEntry, AuditRecord};
use pinrail_state_machine::key::{Key, Kind, RowKey};
use pinrail_state_machine::query::AuditCheck;
use pinrail_state_machine::{invariants, query};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::replica::{Replica, create_agent, create_bundle, switch};

fn audited() -> Replica {
    let mut replica = Replica::formed();
    replica.must(create_agent("support", false));
    for bundle in ["v1", "v2", "v3"] {
        replica.must(create_bundle("support", bundle));
        replica.must(switch("support", bundle));
    }
    replica
}

fn row(sequence: u64) -> RowKey {
    Key::new(Kind::Audit).u64(sequence).build()
}

fn record(replica: &Replica, sequence: u64) -> AuditRecord {
    AuditRecord::decode(replica.read().get(&row(sequence)).unwrap().unwrap()).unwrap()
}

/// The entry with another actor.
fn forged(record: &AuditRecord) -> Bytes {
    let mut entry = AuditEntry::decode(record.entry.clone()).unwrap();
    "nobody".clone_into(&mut entry.actor);
    entry.encode_to_vec().into()
}

fn broken(replica: &Replica) -> Option<u64> {
    let found = query::verify_audit(replica.read(), &AuditCheck::default()).unwrap();
    assert_eq!(found.broken_sequence.is_some(), !found.problem.is_empty());
    let promises = invariants::check(&replica.store).unwrap();
    assert_eq!(promises.iter().any(|it| it.promise == "audit"), found.broken_sequence.is_some());
    found.broken_sequence
}

#[test]
fn an_untouched_chain_is_whole() {
    assert_eq!(broken(&audited()), None);
    let last = query::verify_audit(audited().read(), &AuditCheck::default()).unwrap();
    assert_eq!((last.checked, last.last_sequence), (8, 8));
    let from_hash = hex::encode(record(&audited(), 4).hash);
    let half = AuditCheck { from_sequence: 5, from_hash, ..AuditCheck::default() };
    assert_eq!(query::verify_audit(audited().read(), &half).unwrap().checked, 4);
}

#[test]
fn an_entry_that_was_noted_down_must_be_there() {
    let replica = audited();
    let expect = |expect_sequence, expect_hash: String| {
        let check = AuditCheck { expect_sequence, expect_hash, ..AuditCheck::default() };
        query::verify_audit(replica.read(), &check).unwrap().broken_sequence
    };
    assert_eq!(expect(4, hex::encode(record(&replica, 4).hash)), None);
    assert_eq!(expect(4, hex::encode(record(&replica, 5).hash)), Some(4));
    assert_eq!(expect(9, "00".to_owned()), Some(9));
}

#[test]
fn an_altered_entry_is_found() {
    let mut replica = audited();
    let before = record(&replica, 4);
    let altered = AuditRecord { entry: forged(&before), hash: before.hash };
    replica.store.write([(row(4), Some(altered.encode_to_vec().into()))]);
    assert_eq!(broken(&replica), Some(4));
}

#[test]
fn an_entry_that_was_altered_with_its_hash_breaks_the_next_one() {
    let mut replica = audited();
    let entry = forged(&record(&replica, 4));
    let mut hash = Sha256::new();
    hash.update(record(&replica, 3).hash);
    hash.update(&entry);
    let altered = AuditRecord { entry, hash: Bytes::copy_from_slice(&hash.finalize()) };
    replica.store.write([(row(4), Some(altered.encode_to_vec().into()))]);
    assert_eq!(broken(&replica), Some(5));
}

#[test]
fn a_gap_is_found_wherever_it_is() {
    for gone in [1, 4, 8] {
        let mut replica = audited();
        replica.store.write([(row(gone), None)]);
        assert_eq!(broken(&replica), Some(gone));
    }
}

#[test]
fn a_chain_that_was_made_anew_to_its_end_is_not_the_one_that_the_cluster_remembers() {
    let mut replica = audited();
    let mut before = record(&replica, 3).hash;
    for sequence in 4..=8 {
        let entry = forged(&record(&replica, sequence));
        let mut hash = Sha256::new();
        hash.update(&before);
        hash.update(&entry);
        before = Bytes::copy_from_slice(&hash.finalize());
        let altered = AuditRecord { entry, hash: before.clone() };
        replica.store.write([(row(sequence), Some(altered.encode_to_vec().into()))]);
    }
    assert_eq!(broken(&replica), Some(8));
}
