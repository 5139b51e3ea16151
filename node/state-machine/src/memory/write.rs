//! Writes to a layer: by the run that is pinned to it, or by an operator.

use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, AgentRef, DeleteMemory, MemoryRecord, MemoryResult, MemoryTarget, PutMemory,
};
use pinrail_proto::time::timestamp;
use pinrail_proto::{id, limits, reason, v1};

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::key::{Key, Kind, Timer};
use crate::outcome::{Stop, reject};
use crate::store::Fault;
use crate::txn::Txn;
use crate::{agent, bundle, event, step};

use super::{Found, View, layer, layer_key, version_key};

/// What a version costs beside its key and value, for the quota.
const VERSION_OVERHEAD: u64 = 64;

/// Where a write goes, and who writes.
struct Place {
    agent: AgentRecord,
    layer: u32,
    bundle_id: String,
    /// Empty: an operator.
    run_id: String,
}

pub(crate) fn put(txn: &mut Txn<'_>, it: &PutMemory) -> Result<Answer, Stop> {
    check_key(&it.key)?;
    let value =
        it.value.clone().ok_or_else(|| reject(reason::INVALID_REQUEST, "value is missing"))?;
    if value.data.len() > limits::PAYLOAD_BYTES {
        return Err(too_large("value bytes", value.data.len(), limits::PAYLOAD_BYTES));
    }
    let mut place = place(txn, it.agent.as_ref(), it.target.as_ref())?;
    let before = visible(txn, &place, &it.key)?;
    expect(before.as_ref(), it.expected_key_revision)?;
    let bytes = (it.key.len() + value.data.len()) as u64 + VERSION_OVERHEAD;
    charge(txn, &mut place.agent, bytes)?;
    let expires_ms = if it.ttl_ms == 0 { 0 } else { txn.now.saturating_add(it.ttl_ms) };
    let record = MemoryRecord {
        layer: place.layer,
        value: Some(value),
        written_ms: txn.now,
        expires_ms,
        run_id: place.run_id.clone(),
    };
    if expires_ms != 0 {
        let object = ttl_object(&it.key, txn.revision);
        txn.set_timer(place.agent.number, expires_ms, Timer::MemoryTtl, &object);
    }
    write(txn, &place, &it.key, &record)?;
    Ok(answer(txn, &place, &it.key, Some(record)))
}

pub(crate) fn delete(txn: &mut Txn<'_>, it: &DeleteMemory) -> Result<Answer, Stop> {
    check_key(&it.key)?;
    let mut place = place(txn, it.agent.as_ref(), it.target.as_ref())?;
    let before = visible(txn, &place, &it.key)?;
    expect(before.as_ref(), it.expected_key_revision)?;
    if before.is_none() {
        return Ok(answer(txn, &place, &it.key, None));
    }
    // Never refused for the quota: deleting is how one gets below it.
    place.agent.memory_bytes += it.key.len() as u64 + VERSION_OVERHEAD;
    agent::save(txn, &place.agent);
    let record = MemoryRecord {
        layer: place.layer,
        written_ms: txn.now,
        run_id: place.run_id.clone(),
        ..MemoryRecord::default()
    };
    write(txn, &place, &it.key, &record)?;
    Ok(answer(txn, &place, &it.key, Some(record)))
}

/// The end of a version's time to live: a deletion at this revision, if it is still its layer's newest.
pub(crate) fn expire(txn: &mut Txn<'_>, agent: u32, object: &[u8]) -> Result<(), Stop> {
    let Some((key, revision)) = parse_ttl_object(object) else { return Ok(()) };
    let Some(record) = txn.get::<MemoryRecord>(&version_key(agent, &key, revision))? else {
        return Ok(());
    };
    let newer = super::versions(txn.read(), agent, &key)?
        .into_iter()
        .any(|v| v.record.layer == record.layer && v.revision > revision);
    if newer || record.expires_ms > txn.now {
        return Ok(());
    }
    let tombstone = version_key(agent, &key, txn.revision);
    if txn.exists(&tombstone)? {
        // Another layer's version of the key ended in this very command: a revision holds one version of a key.
        txn.set_timer(agent, txn.now + 1, Timer::MemoryTtl, object);
        return Ok(());
    }
    let over = MemoryRecord { layer: record.layer, written_ms: txn.now, ..MemoryRecord::default() };
    txn.put(tombstone, &over);
    Ok(())
}

fn check_key(key: &str) -> Result<(), Stop> {
    id::check_memory_key(key).map_err(|error| reject(reason::INVALID_ID, error.to_string()))
}

fn place(
    txn: &mut Txn<'_>,
    agent: Option<&AgentRef>,
    target: Option<&MemoryTarget>,
) -> Result<Place, Stop> {
    match target.and_then(|target| target.target.clone()) {
        Some(Target::Lease(lease)) => {
            let held = step::held(txn, lease.step.as_ref(), lease.token.as_ref())?;
            Ok(Place {
                layer: held.run.layer,
                bundle_id: held.run.bundle_id,
                run_id: held.run.run_id,
                agent: held.agent,
            })
        }
        Some(Target::BundleId(named)) => of_bundle(txn, agent, &named),
        None => of_bundle(txn, agent, ""),
    }
}

fn of_bundle(txn: &mut Txn<'_>, agent: Option<&AgentRef>, named: &str) -> Result<Place, Stop> {
    let mut agent = agent::load_by_ref(txn, agent)?;
    let bundle_id = if named.is_empty() { agent.live_bundle_id.clone() } else { named.to_owned() };
    if bundle_id.is_empty() {
        return Err(reject(reason::NO_LIVE_BUNDLE, "no bundle is live: name one"));
    }
    let mut record = bundle::load(txn, agent.number, &bundle_id)?;
    let layer = super::candidate(txn, &mut agent, &mut record);
    txn.event(event::of_bundle("memory.written", &agent, &bundle_id).with("layer", layer));
    Ok(Place { agent, layer, bundle_id, run_id: String::new() })
}

fn visible(txn: &Txn<'_>, place: &Place, key: &str) -> Result<Option<Found>, Fault> {
    View::open(txn.read(), &place.agent, place.layer, 0, txn.now)?.find(txn.read(), key)
}

fn expect(before: Option<&Found>, expected: Option<u64>) -> Result<(), Stop> {
    let current = before.map_or(0, |found| found.revision);
    match expected {
        Some(expected) if expected != current => {
            let message = format!("the key is at revision {current}, not {expected}");
            Err(reject(reason::REVISION_MISMATCH, message).with("current", current))
        }
        Some(_) | None => Ok(()),
    }
}

fn charge(txn: &mut Txn<'_>, agent: &mut AgentRecord, bytes: u64) -> Result<(), Stop> {
    let memory = agent::policy(txn.read(), agent.number)?.memory.unwrap_or_default();
    let quota = memory.quota_bytes.unwrap_or(0);
    if agent.memory_bytes + bytes > quota {
        let message = format!("memory uses {} of {quota} bytes", agent.memory_bytes);
        return Err(reject(reason::QUOTA_EXCEEDED, message).with("quota", quota));
    }
    agent.memory_bytes += bytes;
    agent::save(txn, agent);
    Ok(())
}

fn write(txn: &mut Txn<'_>, place: &Place, key: &str, record: &MemoryRecord) -> Result<(), Stop> {
    let number = place.agent.number;
    let mut layer = layer(txn.read(), number, place.layer)?
        .ok_or_else(|| Fault(format!("agent {number} has no memory layer {}", place.layer)))?;
    let index = Key::of(Kind::LayerKey, number).u32(place.layer).last(key);
    let first = !txn.exists(&index)?;
    if first {
        txn.mark(index, &[]);
        layer.keys += 1;
    }
    let late = layer.frozen_revision != 0 && !is_live(txn, place)?;
    if late {
        layer.late_writes += 1;
    }
    if first || late {
        txn.put(layer_key(number, place.layer), &layer);
    }
    txn.put(version_key(number, key, txn.revision), record);
    Ok(())
}

/// A rollback brings a layer back on which another one stands: what is written to it then is not late.
fn is_live(txn: &Txn<'_>, place: &Place) -> Result<bool, Fault> {
    let live = bundle::find(txn.read(), place.agent.number, &place.agent.live_bundle_id)?;
    Ok(live.is_some_and(|live| live.layer == place.layer))
}

fn answer(txn: &Txn<'_>, place: &Place, key: &str, record: Option<MemoryRecord>) -> Answer {
    let version = record.map(|record| v1::MemoryVersion {
        key: key.to_owned(),
        deleted: record.value.is_none(),
        value: record.value,
        revision: txn.revision,
        written_at: timestamp(record.written_ms),
        expires_at: timestamp(record.expires_ms),
        layer: u64::from(record.layer),
        bundle_id: place.bundle_id.clone(),
        run_id: record.run_id,
    });
    Answer::Memory(MemoryResult { version })
}

fn ttl_object(key: &str, revision: u64) -> Vec<u8> {
    let mut object = key.as_bytes().to_vec();
    object.push(0);
    object.extend_from_slice(&revision.to_be_bytes());
    object
}

fn parse_ttl_object(object: &[u8]) -> Option<(String, u64)> {
    let (head, revision) = object.split_last_chunk::<8>()?;
    let key = std::str::from_utf8(head.strip_suffix(&[0])?).ok()?;
    Some((key.to_owned(), u64::from_be_bytes(*revision)))
}
