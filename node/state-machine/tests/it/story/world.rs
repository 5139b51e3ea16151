//! A cluster of one state machine: its store, its clock, the log so far, and the tokens that workers were given.

use std::collections::BTreeMap;

use bytes::Bytes;
use pinrail_proto::log::{self, Token};
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::store::{MemoryStore, Read};
use pinrail_state_machine::{Machine, invariants, query};
use prost::Message as _;

/// Cluster time at the beginning of a story.
pub(super) const BEGIN_MS: u64 = 1_700_000_000_000;

/// A right to execute an attempt of a step, as its worker remembers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) step: u32,
    pub(super) token: Token,
}

#[derive(Debug, Default)]
pub(super) struct World {
    store: MemoryStore,
    log: Vec<Bytes>,
    elapsed_ms: u64,
    /// Rows that the last command wrote, the cluster's among them.
    pub(super) written: usize,
    /// For long preparations: the promises are checked by whoever sets this.
    pub(super) unchecked: bool,
    /// By run, in the order in which they were given.
    pub(super) held: BTreeMap<String, Vec<Held>>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn read(&self) -> &dyn Read {
        &self.store
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&RowKey, &Bytes)> {
        self.store.rows()
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.elapsed_ms += ms;
    }

    pub(super) fn now_ms(&self) -> u64 {
        BEGIN_MS + self.elapsed_ms
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms
    }

    /// Applies one command in an entry of its own and writes what came of it.
    pub(super) fn apply(&mut self, header: log::Header, kind: log::command::Kind) -> Applied {
        let command = log::Command { header: Some(header), kind: Some(kind) };
        let batch = log::Batch {
            stamp_ms: BEGIN_MS + self.elapsed_ms,
            commands: vec![Bytes::from(command.encode_to_vec())],
        };
        let entry = Bytes::from(batch.encode_to_vec());
        self.log.push(entry.clone());
        let mut machine = Machine::open(&self.store).unwrap();
        let mut applied = machine.apply_batch(&entry).unwrap();
        let written = machine.finish();
        self.written = written.writes.len();
        self.store.write(written.writes);
        assert_eq!(applied.len(), 1, "one command has one answer");
        let applied = applied.remove(0);
        self.remember_leases(&applied);
        if !self.unchecked {
            self.check_promises();
        }
        applied
    }

    fn remember_leases(&mut self, applied: &Applied) {
        for effect in &applied.effects {
            if let Effect::Leased { step, token, .. } = effect {
                let held = Held { step: step.step, token: *token };
                self.held.entry(step.run_id.clone()).or_default().push(held);
            }
        }
    }

    pub(super) fn check_promises(&self) {
        let violations = invariants::check(&self.store).unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// The same log, applied by a machine that keeps all writes in its overlay, comes to the same state.
    pub(super) fn check_replay(&self) {
        let empty = MemoryStore::default();
        let mut machine = Machine::open(&empty).unwrap();
        for entry in &self.log {
            machine.apply_batch(entry).unwrap();
        }
        let written = machine.finish();
        assert_eq!(written.cluster, query::cluster(&self.store).unwrap());
        let mut replayed = MemoryStore::default();
        replayed.write(written.writes);
        assert!(replayed.rows().eq(self.store.rows()), "the replay left other rows");
    }
}
