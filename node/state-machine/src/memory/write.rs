//! Writes to a layer: by the run that is pinned to it, or by an operator.

use std::collections::BTreeSet;

use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, AgentRef, DeleteMemory, LayerRecord, MemoryRecord, MemoryResult, MemoryTarget,
    MemoryWrite, PutMemory, RunRecord, Scratch,
};
use pinrail_proto::time::timestamp;
use pinrail_proto::{id, limits, reason, v1};

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::key::{RowKey, Timer};
use crate::mutant::{Mutant, is_planted};
use crate::namespace::quota::{self, Quota};
use crate::outcome::{Stop, reject};
use crate::store::Fault;
use crate::txn::Txn;
use crate::{agent, bundle, event, step};

use super::version::{self, cost};
use super::{Chain, Found, View, layer, scratch, version_key};

/// Where a write goes, and who writes.
struct Place {
    agent: AgentRecord,
    layer: u32,
    /// In place of the layer.
    scratch: Option<Scratch>,
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
    let record = put_value(txn, &mut place, &it.key, value, it.ttl_ms, it.expected_key_revision)?;
    agent::save(txn, &place.agent);
    Ok(answer(txn, &place, &it.key, Some(record)))
}

fn put_value(
    txn: &mut Txn<'_>,
    place: &mut Place,
    key: &str,
    value: v1::Payload,
    ttl_ms: u64,
    expected: Option<u64>,
) -> Result<MemoryRecord, Stop> {
    let before = visible(txn, place, key)?;
    expect(before.as_ref(), expected)?;
    let expires_ms = if ttl_ms == 0 { 0 } else { txn.now.saturating_add(ttl_ms) };
    let record = MemoryRecord {
        layer: place.layer,
        value: Some(value),
        written_ms: txn.now,
        expires_ms,
        run_id: place.run_id.clone(),
        ended: false,
    };
    must_fit(txn, &place.agent, cost(key, &record))?;
    if place.scratch.is_none() {
        end_in_time(txn, place.agent.number, key, expires_ms);
    }
    write(txn, place, key, &record)?;
    Ok(record)
}

/// Sees to it that a version written now ends with its time to live.
pub(super) fn end_in_time(txn: &mut Txn<'_>, agent: u32, key: &str, expires_ms: u64) {
    if expires_ms != 0 {
        let object = ttl_object(key, txn.revision);
        txn.set_timer(agent, expires_ms, Timer::MemoryTtl, &object);
    }
}

pub(crate) fn delete(txn: &mut Txn<'_>, it: &DeleteMemory) -> Result<Answer, Stop> {
    check_key(&it.key)?;
    let mut place = place(txn, it.agent.as_ref(), it.target.as_ref())?;
    let record = delete_value(txn, &mut place, &it.key, it.expected_key_revision)?;
    if record.is_some() {
        agent::save(txn, &place.agent);
    }
    Ok(answer(txn, &place, &it.key, record))
}

/// `None`: there was nothing to delete.
fn delete_value(
    txn: &mut Txn<'_>,
    place: &mut Place,
    key: &str,
    expected: Option<u64>,
) -> Result<Option<MemoryRecord>, Stop> {
    let before = visible(txn, place, key)?;
    expect(before.as_ref(), expected)?;
    if before.is_none() {
        return Ok(None);
    }
    // Never refused for the quota: deleting is how one gets below it.
    let record = MemoryRecord {
        layer: place.layer,
        written_ms: txn.now,
        run_id: place.run_id.clone(),
        ..MemoryRecord::default()
    };
    write(txn, place, key, &record)?;
    Ok(Some(record))
}

/// Writes that a completion carries, to the layer of its run: all of them, or the completion is refused. The caller
/// saves the agent.
pub(crate) fn carried(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    run: &RunRecord,
    writes: &[MemoryWrite],
) -> Result<(), Stop> {
    check_carried(writes)?;
    let mut place = Place {
        agent: agent.clone(),
        layer: run.layer,
        scratch: run.scratch,
        bundle_id: run.bundle_id.clone(),
        run_id: run.run_id.clone(),
    };
    for it in writes {
        let expected = it.expected_key_revision;
        match it.value.clone() {
            Some(value) => {
                put_value(txn, &mut place, &it.key, value, it.ttl_ms, expected)?;
            }
            None => {
                delete_value(txn, &mut place, &it.key, expected)?;
            }
        }
    }
    *agent = place.agent;
    Ok(())
}

fn check_carried(writes: &[MemoryWrite]) -> Result<(), Stop> {
    if writes.len() > limits::COMPLETION_WRITES {
        return Err(too_large("memory writes", writes.len(), limits::COMPLETION_WRITES));
    }
    let mut keys = BTreeSet::new();
    let mut bytes = 0;
    for it in writes {
        check_key(&it.key)?;
        bytes += it.value.as_ref().map_or(0, |value| value.data.len());
        if !keys.insert(it.key.as_str()) {
            let message = format!("the completion writes key {:?} twice", it.key);
            return Err(reject(reason::INVALID_REQUEST, message));
        }
    }
    if bytes > limits::PAYLOAD_BYTES {
        return Err(too_large("bytes of memory writes", bytes, limits::PAYLOAD_BYTES));
    }
    Ok(())
}

/// The end of a version's time to live: a deletion at this revision, if it is still its layer's newest.
pub(crate) fn expire(txn: &mut Txn<'_>, agent: u32, object: &[u8]) -> Result<(), Stop> {
    let Some((key, revision)) = parse_ttl_object(object) else { return Ok(()) };
    let Some(record) = txn.get::<MemoryRecord>(&version_key(agent, &key, revision))? else {
        return Ok(());
    };
    let newest = Chain::of(agent, &key).next_of(txn.read(), record.layer)?;
    let newer = newest.is_some_and(|newest| newest.revision > revision);
    if newer || record.expires_ms > txn.now {
        return Ok(());
    }
    let tombstone = version_key(agent, &key, txn.revision);
    if txn.exists(&tombstone)? {
        // Another layer's version of the key ended in this very command: a revision holds one version of a key.
        txn.set_timer(agent, txn.now + 1, Timer::MemoryTtl, object);
        return Ok(());
    }
    let over = MemoryRecord {
        layer: record.layer,
        written_ms: txn.now,
        ended: true,
        ..MemoryRecord::default()
    };
    let mut of = agent::load(txn, agent)?;
    let mut layer = existing_layer(txn, agent, record.layer)?;
    version::store(txn, &mut of, &mut layer, &key, &over)?;
    agent::save(txn, &of);
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
                scratch: held.run.scratch,
                bundle_id: held.run.bundle_id.clone(),
                run_id: held.run.run_id.clone(),
                agent: held.agent.into_inner(),
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
    Ok(Place { agent, layer, scratch: None, bundle_id, run_id: String::new() })
}

fn visible(txn: &Txn<'_>, place: &Place, key: &str) -> Result<Option<Found>, Fault> {
    let view = match place.scratch {
        Some(scratch) => View::of_scratch(txn.read(), &place.agent, scratch, 0, txn.now)?,
        None => View::open(txn.read(), &place.agent, place.layer, 0, txn.now)?,
    };
    view.find(txn.read(), key)
}

fn expect(before: Option<&Found>, expected: Option<u64>) -> Result<(), Stop> {
    let current = before.map_or(0, |found| found.revision);
    match expected {
        Some(_) if is_planted(Mutant::IgnoresExpectedRevision) => Ok(()),
        Some(expected) if expected != current => {
            let message = format!("the key is at revision {current}, not {expected}");
            Err(reject(reason::REVISION_MISMATCH, message).with("current", current))
        }
        Some(_) | None => Ok(()),
    }
}

/// # Errors
/// `QUOTA_EXCEEDED` when the memory of the agent or of its namespace has no room for so many bytes more.
pub(super) fn must_fit(txn: &Txn<'_>, agent: &AgentRecord, bytes: u64) -> Result<(), Stop> {
    let memory = agent::of_policy(txn.read(), agent.number, |policy| policy.memory)?;
    let limit = memory.unwrap_or_default().quota_bytes.unwrap_or(0);
    let used = agent.memory_bytes;
    if used + bytes > limit {
        let of = format!("agent {}", agent.agent_id);
        return Err(quota::exceeded(&of, Quota::MemoryBytes, used, limit));
    }
    quota::admit(txn, &agent.namespace, Quota::MemoryBytes, bytes)
}

fn write(
    txn: &mut Txn<'_>,
    place: &mut Place,
    key: &str,
    record: &MemoryRecord,
) -> Result<(), Stop> {
    let number = place.agent.number;
    if let Some(scratch) = place.scratch {
        return scratch::store(txn, &mut place.agent, scratch, key, record);
    }
    let mut layer = existing_layer(txn, number, place.layer)?;
    let before = layer.clone();
    version::store(txn, &mut place.agent, &mut layer, key, record)?;
    if layer.frozen_revision != 0 && !is_live(txn, place)? {
        layer.late_writes += 1;
    }
    if layer != before {
        version::save_layer(txn, number, &layer);
    }
    Ok(())
}

fn existing_layer(txn: &Txn<'_>, agent: u32, number: u32) -> Result<LayerRecord, Stop> {
    layer(txn.read(), agent, number)?
        .ok_or_else(|| Fault(format!("agent {agent} has no memory layer {number}")).into())
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

fn ttl_object(key: &str, revision: u64) -> RowKey {
    let mut object = RowKey::from_slice(key.as_bytes());
    object.push(0);
    object.extend_from_slice(&revision.to_be_bytes());
    object
}

fn parse_ttl_object(object: &[u8]) -> Option<(String, u64)> {
    let (head, revision) = object.split_last_chunk::<8>()?;
    let key = std::str::from_utf8(head.strip_suffix(&[0])?).ok()?;
    Some((key.to_owned(), u64::from_be_bytes(*revision)))
}
