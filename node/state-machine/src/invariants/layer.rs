//! P8: a run sees another bundle's write only through its layer's base.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::{MemoryRecord, RunRecord};

use crate::key::{Kind, Parts, Timer};
use crate::memory::cost;
use crate::store::Fault;
use crate::txn::decode;

use super::{Found, Scene, broken, scratch};

/// What is seen of a base ends at its freeze; no layer stands on itself; runs write to their own bundle's layers.
pub(super) fn layers_form_a_tree(scene: &Scene<'_>, found: &mut Found) {
    for layer in scene.layers.values() {
        for base in &layer.ancestors {
            let known = scene.layers.get(&base.layer);
            let frozen = known.is_some_and(|k| k.frozen_revision >= base.up_to_revision);
            if !frozen || base.layer == layer.number {
                let detail =
                    format!("layer {} stands on {}, which may change", layer.number, base.layer);
                found.say("P8", detail);
            }
        }
        if layer.number >= scene.agent.next_layer {
            found.say("P8", format!("layer {} will be opened again", layer.number));
        }
    }
    for record in scene.bundles.values().filter(|record| record.layer != 0) {
        let own = scene.layers.get(&record.layer).map(|layer| &layer.bundle_id);
        if own != Some(&record.bundle_id) {
            found.say("P8", format!("{} writes to the layer of {own:?}", record.bundle_id));
        }
        let moving = scene.layers.get(&record.layer).is_some_and(|layer| layer.moving);
        // Where it is released once more, its new layer moves until that is over.
        let is_candidate = scene.agent.candidate_bundle_id == record.bundle_id;
        if moving && record.was_live && !is_candidate {
            found.say("P8", format!("the base of {} still moves", record.bundle_id));
        }
    }
    let of_layers = |run: &&RunRecord| !run.bundle_id.is_empty() && run.scratch.is_none();
    for run in scene.runs.values().filter(of_layers) {
        let layer = scene.layers.get(&run.layer).map(|layer| &layer.bundle_id);
        if layer != Some(&run.bundle_id) {
            found.say("P8", format!("{} writes to the layer of {layer:?}", run.run_id));
        }
    }
}

/// Every version is of a layer that exists, the index says which keys a layer has, and its counter how many.
pub(super) fn versions_are_of_known_layers(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut written: BTreeSet<(u32, String)> = BTreeSet::new();
    let mut bytes = 0;
    for (key, value) in scene.rows(Kind::Memory)? {
        let record: MemoryRecord = decode(&key, &value)?;
        let mut parts = Parts::new(&key);
        let (_, Some(path)) = (parts.u32(), parts.text()) else { return Err(broken(&key)) };
        bytes += cost(path, &record);
        if !scene.layers.contains_key(&record.layer) {
            found.say("P8", format!("a version of {path} is of no layer"));
        }
        written.insert((record.layer, path.to_owned()));
    }
    bytes += scratch::bytes(scene)?;
    if bytes != scene.agent.memory_bytes {
        found.say("P8", format!("memory of {bytes} bytes, counted {}", scene.agent.memory_bytes));
    }
    let mut indexed: BTreeSet<(u32, String)> = BTreeSet::new();
    for (key, _) in scene.rows(Kind::LayerKey)? {
        let mut parts = Parts::new(&key);
        let (_, Some(layer), Some(path)) = (parts.u32(), parts.u32(), parts.last()) else {
            return Err(broken(&key));
        };
        indexed.insert((layer, path.to_owned()));
    }
    if indexed != written {
        found.say("P8", format!("keys of layers: {indexed:?}, versions of {written:?}"));
    }
    let mut keys: BTreeMap<u32, u64> = BTreeMap::new();
    for (layer, _) in &indexed {
        *keys.entry(*layer).or_default() += 1;
    }
    for layer in scene.layers.values() {
        let recount = keys.get(&layer.number).copied().unwrap_or(0);
        if recount != layer.keys {
            let detail = format!("layer {}: {recount} keys, counted {}", layer.number, layer.keys);
            found.say("P8", detail);
        }
    }
    Ok(())
}

/// Every version that is younger than what was swept is among the changes, and while there are any a sweep comes.
pub(super) fn changes_lead_to_versions(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let mut changes: BTreeSet<(u64, String)> = BTreeSet::new();
    for (key, _) in scene.rows(Kind::MemoryChange)? {
        let mut parts = Parts::new(&key);
        let (_, Some(revision), Some(path)) = (parts.u32(), parts.u64(), parts.last()) else {
            return Err(broken(&key));
        };
        changes.insert((revision, path.to_owned()));
    }
    for (key, _) in scene.rows(Kind::Memory)? {
        let mut parts = Parts::new(&key);
        let (_, Some(path), Some(inverted)) = (parts.u32(), parts.text(), parts.u64()) else {
            return Err(broken(&key));
        };
        let revision = u64::MAX - inverted;
        let is_swept = revision <= scene.agent.memory_compacted;
        if !is_swept && !changes.contains(&(revision, path.to_owned())) {
            found.say("P8", format!("a watch misses {path} at {revision}"));
        }
    }
    let sweep_ms = scene.agent.memory_sweep_ms;
    if !changes.is_empty() && !scene.has_timer(Timer::MemoryVersions, sweep_ms, &[]) {
        found.say("P8", format!("no sweep comes by {} changes of memory", changes.len()));
    }
    Ok(())
}
