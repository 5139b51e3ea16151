//! Old versions: kept for the policy's time behind a newer one, and for ever where a layer froze on them; then
//! dropped, oldest change first, a bounded number at a time; what a run that serves no user may read waits for its end. What a layer sees now, and what its children see of it,
//! never changes by it.

use pinrail_proto::log::{AgentRecord, LayerRecord, MemoryRecord};

use crate::agent;
use crate::key::{Key, Kind, Parts, RowKey, Timer};
use crate::outcome::Stop;
use crate::store::Fault;
use crate::txn::Txn;

use super::scratch::{HELD_LOOK_MS, oldest_base};
use super::version::{forget_key, keep, remove, save_layer};
use super::{Chain, Found, layer, version_key};

/// Works off what changed in an agent's memory long enough ago, at most `left` changes, and sets the timer of the
/// next sweep. Answers how many it took: at least one.
pub(crate) fn drop_old(txn: &mut Txn<'_>, number: u32, row: &[u8], left: u32) -> Result<u32, Stop> {
    let mut agent = agent::load(txn, number)?;
    // What was taken is deleted: a look from the start would step over it again.
    let all = Key::of(Kind::MemoryChange, number);
    let changes = all.clone().range().since(all.u64(agent.memory_compacted).build());
    let rows = txn.scan(&changes, left as usize)?;
    let held = oldest_base(txn.read(), number)?.unwrap_or(u64::MAX);
    let mut taken = 0;
    let mut next_ms = 0;
    for (change, _) in &rows {
        let (revision, key) = parse(change)?;
        let version = txn.get::<MemoryRecord>(&version_key(number, &key, revision))?;
        let due_ms = version.as_ref().map_or(0, |it| it.written_ms + agent.memory_keep_ms);
        if due_ms > txn.now {
            next_ms = due_ms;
            break;
        }
        if revision > held {
            next_ms = txn.now + HELD_LOOK_MS;
            break;
        }
        if let Some(record) = version {
            replace(txn, &mut agent, &key, Found { revision, record })?;
        }
        txn.delete(RowKey::from_slice(change));
        agent.memory_compacted = revision;
        taken += 1;
    }
    if next_ms == 0 && rows.len() == left as usize {
        // More may be due: the row stays, and the next sweep goes on.
        agent::save(txn, &agent);
        return Ok(left.max(1));
    }
    txn.delete(RowKey::from_slice(row));
    agent.memory_sweep_ms = next_ms;
    if next_ms != 0 {
        txn.set_timer(number, next_ms, Timer::MemoryVersions, &[]);
    }
    agent::save(txn, &agent);
    Ok(taken.max(1))
}

fn parse(change: &[u8]) -> Result<(u64, String), Fault> {
    let mut parts = Parts::new(change);
    let (_, revision) = (parts.u32(), parts.u64());
    match (revision, parts.last()) {
        (Some(revision), Some(key)) => Ok((revision, key.to_owned())),
        (_, _) => Err(Fault(format!("change {} does not come apart", hex::encode(change)))),
    }
}

/// A version was there long enough to drop what it replaced in its layer, and itself if it is a deletion that hides
/// nothing any more.
fn replace(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    key: &str,
    newer: Found,
) -> Result<(), Stop> {
    let number = agent.number;
    let Some(mut of) = layer(txn.read(), number, newer.record.layer)? else { return Ok(()) };
    let older = Chain::older_than(number, key, newer.revision).next_of(txn.read(), of.number)?;
    let mut deletion = newer;
    if let Some(older) = older
        && !is_protected(&of, older.revision, deletion.revision)
    {
        remove(txn, agent, key, &older)?;
        if deletion.record.ended {
            // The end of a time to live speaks of the version before it: both become one deletion in its place.
            remove(txn, agent, key, &deletion)?;
            deletion = Found {
                revision: older.revision,
                record: MemoryRecord { ended: false, ..deletion.record },
            };
            keep(txn, agent, key, &deletion)?;
        }
    }
    if deletion.record.value.is_none() && hides_nothing(txn, number, &of, key, &deletion)? {
        remove(txn, agent, key, &deletion)?;
        forget_key(txn, number, &mut of, key)?;
        save_layer(txn, number, &of);
    }
    Ok(())
}

/// Whether a layer froze on this one while the older version was the newest.
fn is_protected(of: &LayerRecord, older: u64, newer: u64) -> bool {
    of.freezes.iter().any(|at| (older..newer).contains(at))
}

/// Whether nobody would see anything else if a deletion were not there: it is its layer's newest version, and no layer
/// has an older one that it could hide.
fn hides_nothing(
    txn: &Txn<'_>,
    agent: u32,
    of: &LayerRecord,
    key: &str,
    deletion: &Found,
) -> Result<bool, Fault> {
    let newest = Chain::of(agent, key).next_of(txn.read(), of.number)?;
    if newest.is_none_or(|newest| newest.revision != deletion.revision) {
        return Ok(false);
    }
    Ok(Chain::older_than(agent, key, deletion.revision).next(txn.read())?.is_none())
}
