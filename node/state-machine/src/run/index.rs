//! Where a run stands in the indexes that its lists are read from. All of them end in start and id, so that a place
//! in one is a place in each.

use pinrail_proto::log::RunRecord;
use pinrail_proto::v1::{RunKind, RunState};
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind, RowKey};

/// Bytes of a label's digest in its key.
const LABEL_BYTES: usize = 16;

/// Rows that a run has from its start until it is forgotten, whatever becomes of it.
pub(crate) fn lasting_keys(agent: u32, run: &RunRecord) -> Vec<RowKey> {
    let tail = |key: Key| key.u64(run.started_ms).last(&run.run_id);
    let mut keys = vec![tail(Key::of(Kind::RunByStart, agent))];
    if let Some(key) = kind_prefix(agent, run.kind()) {
        keys.push(tail(key));
    }
    keys.extend(run.labels.iter().map(|(key, value)| tail(label_prefix(agent, key, value))));
    keys
}

/// Place of a run in the index of states; it moves with state and bundle.
pub(crate) fn state_key(agent: u32, run: &RunRecord) -> RowKey {
    state_prefix(agent, run.state()).text(&run.bundle_id).u64(run.started_ms).last(&run.run_id)
}

/// What the runs of a state have in common; a bundle follows.
pub(crate) fn state_prefix(agent: u32, state: RunState) -> Key {
    Key::of(Kind::RunByState, agent).u8(u8::try_from(i32::from(state)).unwrap_or(0))
}

/// What the runs of a kind have in common; live ones have no rows of their own.
pub(crate) fn kind_prefix(agent: u32, kind: RunKind) -> Option<Key> {
    match kind {
        RunKind::Unspecified | RunKind::Live => None,
        RunKind::Canary | RunKind::Shadow | RunKind::Eval | RunKind::Smoke | RunKind::Drill => {
            let number = u8::try_from(i32::from(kind)).unwrap_or(0);
            Some(Key::of(Kind::RunByKind, agent).u8(number))
        }
    }
}

/// What the runs with a label have in common: the digest of both of its texts, which may hold any byte. Who reads
/// by it compares the label itself.
pub(crate) fn label_prefix(agent: u32, key: &str, value: &str) -> Key {
    let mut digest = Sha256::new();
    digest.update((key.len() as u64).to_be_bytes());
    digest.update(key);
    digest.update(value);
    Key::of(Kind::RunByLabel, agent).bytes(&digest.finalize()[..LABEL_BYTES])
}
