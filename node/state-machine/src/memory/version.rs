//! Versions of keys as rows: each has its place in the key's chain, among the changes and in its layer's list of
//! keys, and counts for the agent's quota as long as it is there.

use pinrail_proto::log::{AgentRecord, LayerRecord, MemoryRecord};

use crate::key::{Key, Kind, RowKey, Timer};
use crate::namespace::quota::{self, Quota};
use crate::outcome::Stop;
use crate::store::Fault;
use crate::txn::Txn;

use super::visible::{Chain, Found};
use super::{change_key, layer_key, version_key};

/// What a version costs beside its key and value, for the quota.
const OVERHEAD: u64 = 64;

/// What a version counts for the quota, in bytes.
pub(crate) fn cost(key: &str, record: &MemoryRecord) -> u64 {
    let value = record.value.as_ref().map_or(0, |value| value.data.len());
    (key.len() + value) as u64 + OVERHEAD
}

/// Key of a layer's row for one of its keys.
pub(super) fn index_key(agent: u32, layer: u32, key: &str) -> RowKey {
    Key::of(Kind::LayerKey, agent).u32(layer).last(key)
}

/// Stores a version at this revision. The caller saves the agent and, where it changed, the layer; a command stores
/// at most one version of a key.
pub(super) fn store(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    layer: &mut LayerRecord,
    key: &str,
    record: &MemoryRecord,
) -> Result<(), Stop> {
    let number = agent.number;
    let index = index_key(number, layer.number, key);
    if !txn.exists(&index)? {
        txn.mark(index, &[]);
        layer.keys += 1;
    }
    txn.put(version_key(number, key, txn.revision), record);
    txn.mark(change_key(number, txn.revision, key), &layer.number.to_be_bytes());
    count_in(txn, agent, cost(key, record))?;
    if agent.memory_sweep_ms == 0 {
        agent.memory_sweep_ms = txn.now + agent.memory_keep_ms;
        txn.set_timer(number, agent.memory_sweep_ms, Timer::MemoryVersions, &[]);
    }
    Ok(())
}

/// Drops a version; the caller saves the agent. The layer's list of keys is another matter: see [`forget_key`].
pub(super) fn remove(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    key: &str,
    found: &Found,
) -> Result<(), Stop> {
    txn.delete(version_key(agent.number, key, found.revision));
    count_out(txn, agent, cost(key, &found.record))
}

/// Puts a version where an older one was that counted for its layer's key already. The caller saves the agent.
pub(super) fn keep(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    key: &str,
    found: &Found,
) -> Result<(), Stop> {
    txn.put(version_key(agent.number, key, found.revision), &found.record);
    count_in(txn, agent, cost(key, &found.record))
}

/// Counts bytes of memory in. The caller saves the agent.
pub(super) fn count_in(txn: &mut Txn<'_>, agent: &mut AgentRecord, bytes: u64) -> Result<(), Stop> {
    agent.memory_bytes += bytes;
    quota::add(txn, &agent.namespace, Quota::MemoryBytes, bytes)
}

/// Counts bytes of memory out. The caller saves the agent.
pub(super) fn count_out(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    bytes: u64,
) -> Result<(), Stop> {
    agent.memory_bytes = agent.memory_bytes.saturating_sub(bytes);
    quota::take(txn, &agent.namespace, Quota::MemoryBytes, bytes)
}

/// Takes a key off its layer's list when the layer has no version of it any more. The caller saves the layer.
pub(super) fn forget_key(
    txn: &mut Txn<'_>,
    agent: u32,
    layer: &mut LayerRecord,
    key: &str,
) -> Result<(), Fault> {
    if Chain::of(agent, key).next_of(txn.read(), layer.number)?.is_none() {
        txn.delete(index_key(agent, layer.number, key));
        layer.keys = layer.keys.saturating_sub(1);
    }
    Ok(())
}

pub(super) fn save_layer(txn: &mut Txn<'_>, agent: u32, layer: &LayerRecord) {
    txn.put(layer_key(agent, layer.number), layer);
}
