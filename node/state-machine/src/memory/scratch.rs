//! The memory of runs that serve no user: what they wrote, over what a layer saw at one revision. It is a place of its own,
//! so that nobody else sees it, and what others read costs the same however much there is of it.
//!
//! It is there from the start of the first run in it until a while after the end of the last: children and runs that
//! continue another share it. For so long the revision that it begins with is kept.

use pinrail_proto::log::{
    AgentRecord, LayerRecord, MemoryRecord, RunRecord, Scratch, ScratchRecord, StartRun,
};
use pinrail_proto::{limits, reason};

use crate::agent;
use crate::bundle;
use crate::key::{Key, Kind, Parts, RowKey, Timer};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, KeyRange, Order, Read};
use crate::txn::{Txn, decode, get};

use super::{cost, layer, version};

/// What such a run began with waits for its end before it is dropped: when to look again.
pub(super) const HELD_LOOK_MS: u64 = 60_000;
/// Versions that are read in one go to be dropped.
const CHUNK: usize = 8;

/// What a run that serves no user begins with, as its start says.
///
/// # Errors
/// `INVALID_REQUEST` for a revision that is not yet, or a layer that may change behind it; `COMPACTED` for a revision whose
/// versions are not all kept any more.
pub(crate) fn scratch_of(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    it: &StartRun,
) -> Result<Scratch, Stop> {
    let empty = Scratch { number: txn.revision, base_layer: 0, base_revision: 0 };
    let revision = it.memory_revision;
    if revision == 0 && it.memory_layer != 0 {
        let message = "a layer is read at a revision, which is missing";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    if revision == 0 {
        return Ok(empty);
    }
    if revision > txn.revision {
        let message = format!("memory cannot be read at revision {revision} yet");
        return Err(reject(reason::INVALID_REQUEST, message).with("revision", txn.revision));
    }
    if revision < agent.memory_compacted {
        let message = format!("versions up to revision {} may be gone", agent.memory_compacted);
        return Err(reject(reason::COMPACTED, message).with("oldest", agent.memory_compacted));
    }
    let base = match it.memory_layer {
        0 => bundle::find(txn.read(), agent.number, &agent.live_bundle_id)?.map(|live| live.layer),
        named => Some(named),
    };
    let Some(base) = base else { return Ok(empty) };
    match layer(txn.read(), agent.number, base)? {
        Some(layer) if !layer.moving => {
            Ok(Scratch { base_layer: base, base_revision: revision, ..empty })
        }
        Some(_) => {
            let message = format!("layer {base} is a candidate's, whose base still moves");
            Err(reject(reason::INVALID_REQUEST, message))
        }
        None => Err(reject(reason::INVALID_REQUEST, "there is no such memory layer")),
    }
}

/// A run begins in its scratch memory, if it has one; the first one opens it.
pub(crate) fn enter_scratch(txn: &mut Txn<'_>, agent: u32, run: &RunRecord) -> Result<(), Stop> {
    let Some(scratch) = run.scratch else { return Ok(()) };
    let mut record = match find(txn.read(), agent, scratch)? {
        Some(record) => record,
        None => ScratchRecord { run_id: run.run_id.clone(), ..ScratchRecord::default() },
    };
    if record.drop_ms != 0 {
        txn.clear_timer(agent, record.drop_ms, Timer::Scratch, &object(scratch));
        record.drop_ms = 0;
    }
    record.open_runs += 1;
    txn.put(row(agent, scratch), &record);
    Ok(())
}

/// A run in a scratch memory is over. The last one leaves it to be dropped.
pub(crate) fn leave_scratch(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    run: &RunRecord,
) -> Result<(), Stop> {
    let Some(scratch) = run.scratch else { return Ok(()) };
    let Some(mut record) = find(txn.read(), agent.number, scratch)? else { return Ok(()) };
    record.open_runs = record.open_runs.saturating_sub(1);
    if record.open_runs == 0 {
        record.drop_ms = txn.now + agent.retention_ms.min(limits::SCRATCH_KEEP_MS);
        txn.set_timer(agent.number, record.drop_ms, Timer::Scratch, &object(scratch));
    }
    txn.put(row(agent.number, scratch), &record);
    Ok(())
}

/// Drops versions of a scratch memory whose runs are over, with at most `left` units of work. Answers how many it took, at
/// least one.
pub(crate) fn drop_scratch(
    txn: &mut Txn<'_>,
    number: u32,
    timer: &[u8],
    object: &[u8],
    left: u32,
) -> Result<u32, Stop> {
    let mut agent = agent::load(txn, number)?;
    let scratch = parse(object)?;
    let all = all(number, scratch.number).range();
    let (mut dropped, mut bytes, mut freed) = (0_u32, 0, 0);
    loop {
        let most = CHUNK.min((left - dropped) as usize);
        let rows = txn.scan(&all, most)?;
        for (key, value) in &rows {
            let mut parts = Parts::new(key);
            let (_, _, path) = (parts.u32(), parts.u64(), parts.text().unwrap_or_default());
            let record: MemoryRecord = decode(key, value)?;
            freed += cost(path, &record);
            txn.delete(RowKey::from_slice(key));
            bytes += value.len();
            dropped += 1;
        }
        let is_gone = rows.len() < most;
        if is_gone {
            txn.delete(row(number, scratch));
            txn.delete(RowKey::from_slice(timer));
        }
        if is_gone || dropped >= left || bytes >= limits::MEMORY_BATCH_BYTES {
            version::count_out(txn, &mut agent, freed)?;
            agent::save(txn, &agent);
            return Ok(dropped.max(1));
        }
    }
}

/// Stores a version at this revision. The caller saves the agent.
pub(super) fn store(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    scratch: Scratch,
    key: &str,
    record: &MemoryRecord,
) -> Result<(), Stop> {
    txn.put(version_key(agent.number, scratch.number, key, txn.revision), record);
    version::count_in(txn, agent, cost(key, record))
}

/// The oldest revision that a scratch memory begins with: what was to be seen then is kept.
pub(super) fn oldest_base(read: &dyn Read, agent: u32) -> Result<Option<u64>, Fault> {
    let mut oldest = None;
    // Few layers are read from at a time, mostly one: from each to the next.
    let mut base = 1;
    loop {
        let mut rest = Key::of(Kind::Scratch, agent).range();
        rest.start = Key::of(Kind::Scratch, agent).u32(base).build();
        let rows = read.scan(&rest, Order::Ascending, 1)?;
        let Some((key, _)) = rows.first() else { return Ok(oldest) };
        let mut parts = Parts::new(key);
        parts.u32();
        let first = parse(parts.rest())?;
        oldest = Some(oldest.map_or(first.base_revision, |it: u64| it.min(first.base_revision)));
        let Some(next) = first.base_layer.checked_add(1) else { return Ok(oldest) };
        base = next;
    }
}

/// Whether a scratch memory begins with what a layer saw behind its last freeze.
pub(super) fn is_base(read: &dyn Read, agent: u32, layer: &LayerRecord) -> Result<bool, Fault> {
    let mut on_it = Key::of(Kind::Scratch, agent).u32(layer.number).range();
    let behind = layer.frozen_revision + 1;
    on_it.start = Key::of(Kind::Scratch, agent).u32(layer.number).u64(behind).build();
    Ok(!read.scan(&on_it, Order::Ascending, 1)?.is_empty())
}

pub(crate) fn find(
    read: &dyn Read,
    agent: u32,
    scratch: Scratch,
) -> Result<Option<ScratchRecord>, Fault> {
    get(read, &row(agent, scratch))
}

/// All versions of a scratch memory; a key follows.
pub(super) fn all(agent: u32, number: u64) -> Key {
    Key::of(Kind::ScratchMemory, agent).u64(number)
}

/// The versions of a key before a revision, newest first.
pub(super) fn versions(agent: u32, number: u64, key: &str, before: u64) -> KeyRange {
    let versions = all(agent, number).text(key).range();
    versions.after(&version_key(agent, number, key, before))
}

fn version_key(agent: u32, number: u64, key: &str, revision: u64) -> RowKey {
    all(agent, number).text(key).u64(u64::MAX - revision).build()
}

fn row(agent: u32, scratch: Scratch) -> RowKey {
    let Scratch { number, base_layer, base_revision } = scratch;
    Key::of(Kind::Scratch, agent).u32(base_layer).u64(base_revision).u64(number).build()
}

/// What is behind the agent in its row.
fn object(scratch: Scratch) -> RowKey {
    RowKey::from_slice(&row(0, scratch)[Key::of(Kind::Scratch, 0).build().len()..])
}

fn parse(object: &[u8]) -> Result<Scratch, Fault> {
    let broken = || Fault(format!("scratch {} does not come apart", hex::encode(object)));
    let (layer, rest) = object.split_first_chunk::<4>().ok_or_else(broken)?;
    let (revision, rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
    let number: &[u8; 8] = rest.try_into().map_err(|_| broken())?;
    Ok(Scratch {
        number: u64::from_be_bytes(*number),
        base_layer: u32::from_be_bytes(*layer),
        base_revision: u64::from_be_bytes(*revision),
    })
}
