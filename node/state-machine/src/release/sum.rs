//! What a release came to, kept at its end: the slices that it rests on are dropped later, and bundles are released again.

use pinrail_proto::log::{AgentRecord, ReleaseRecord, ReleaseSumRecord};
use pinrail_proto::v1::RunKind;

use crate::key::Kind;
use crate::store::{Fault, Read};
use crate::txn::{Txn, get};
use crate::{bundle, memory, signal};

use super::row;

/// What was kept at its end; of one that goes on, what it came to so far.
pub(crate) fn sum(
    read: &dyn Read,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    now_ms: u64,
) -> Result<ReleaseSumRecord, Fault> {
    match get(read, &row(Kind::ReleaseSum, agent.number, release.number))? {
        Some(kept) => Ok(kept),
        None => so_far(read, agent, release, now_ms),
    }
}

/// Keeps what it came to.
pub(super) fn keep(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<(), Fault> {
    let sum = so_far(txn.read(), agent, release, txn.now)?;
    txn.put(row(Kind::ReleaseSum, agent.number, release.number), &sum);
    Ok(())
}

fn so_far(
    read: &dyn Read,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    now_ms: u64,
) -> Result<ReleaseSumRecord, Fault> {
    let since_ms = release.started_ms;
    let candidate = bundle::find(read, agent.number, &release.bundle_id)?.unwrap_or_default();
    let baseline = bundle::find(read, agent.number, &release.baseline_bundle_id)?;
    let baseline = baseline.unwrap_or_default();
    let layer = |number| memory::layer(read, agent.number, number);
    let mut sum = ReleaseSumRecord {
        until_ms: now_ms,
        candidate: Some(signal::sum(read, agent, &release.bundle_id, &signal::SERVING, since_ms)?),
        effects: candidate.effects,
        memory_keys: layer(candidate.layer)?.map_or(0, |layer| layer.keys),
        late_writes: layer(baseline.layer)?.map_or(0, |layer| layer.late_writes),
        ..ReleaseSumRecord::default()
    };
    (sum.baseline_since_ms, sum.baseline_until_ms, sum.baseline) =
        match signal::frozen(read, agent.number, release.number)? {
            Some(frozen) => (frozen.since_ms, frozen.until_ms, frozen.sum),
            None => {
                let id = &release.baseline_bundle_id;
                let sum = signal::sum(read, agent, id, &[RunKind::Live], since_ms)?;
                (since_ms, now_ms, Some(sum))
            }
        };
    Ok(sum)
}
