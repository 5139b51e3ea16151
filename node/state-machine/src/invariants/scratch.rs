//! P8: runs that serve no user read at one recorded revision, and what they write is seen by them only.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::{MemoryRecord, RunRecord, ScratchRecord};

use crate::key::{Key, Kind, Parts, RowKey, Timer};
use crate::memory::cost;
use crate::run::is_over;
use crate::store::Fault;
use crate::txn::decode;

use super::{Found, Scene, broken};

/// Exactly the runs that serve no user have a scratch memory, whose base is there; it is shared only by children and by
/// runs that continue another; it counts the open ones, is dropped behind the last, and what it holds is of nobody else.
pub(super) fn who_serves_no_user_has_a_memory_of_its_own(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut open: BTreeMap<RowKey, u32> = BTreeMap::new();
    for run in scene.runs.values() {
        let Some(row) = row_of(scene, run) else {
            if !run.kind().serves_users() {
                found.say("P8", format!("{} serves no user and writes to a layer", run.run_id));
            }
            continue;
        };
        if run.kind().serves_users() || run.layer != 0 {
            found.say("P8", format!("{} serves users and has a scratch memory", run.run_id));
        }
        if !is_over(run.state()) {
            *open.entry(row).or_default() += 1;
        }
        let Some(scratch) = run.scratch else { continue };
        let is_first = run.parent_run_id.is_empty() && run.first_run_id.is_empty();
        if is_first && scratch.number != run.pinned_revision {
            found.say("P8", format!("{} is in the scratch memory of another run", run.run_id));
        }
        let kin = [&run.parent_run_id, &run.first_run_id];
        for kin in kin.into_iter().filter_map(|kin| scene.runs.get(kin)) {
            if kin.scratch != run.scratch {
                found.say("P8", format!("{} and {} do not share one", run.run_id, kin.run_id));
            }
        }
    }
    let mut numbers = BTreeSet::new();
    let mut ending = 0;
    for (key, value) in scene.rows(Kind::Scratch)? {
        let record: ScratchRecord = decode(&key, &value)?;
        let mut parts = Parts::new(&key);
        parts.u32();
        let object = parts.rest();
        let (base, revision, number) = (parts.u32(), parts.u64(), parts.u64());
        let (Some(base), Some(revision), Some(number)) = (base, revision, number) else {
            return Err(broken(&key));
        };
        numbers.insert(number);
        let recount = open.remove(key.as_ref()).unwrap_or(0);
        if recount != record.open_runs {
            let detail = format!("{recount} runs in the scratch memory of {}", record.run_id);
            found.say("P8", format!("{detail}, counted {}", record.open_runs));
        }
        let is_dropped = scene.has_timer(Timer::Scratch, record.drop_ms, object);
        if (recount == 0) != (record.drop_ms != 0) || (record.drop_ms != 0) != is_dropped {
            found.say("P8", format!("the scratch memory of {} stays", record.run_id));
        }
        ending += usize::from(record.drop_ms != 0);
        let layer = scene.layers.get(&base);
        if base != 0 && layer.is_none_or(|layer| layer.moving) {
            found.say("P8", format!("{} began with layer {base}, which moves", record.run_id));
        }
        if base != 0 && scene.agent.memory_compacted > revision {
            found.say("P8", format!("what {} began with is not kept", record.run_id));
        }
    }
    let timers = scene.timers.iter().filter(|due| due.timer == Timer::Scratch).count();
    if timers != ending || !open.is_empty() {
        let missing = open.len();
        found.say("P8", format!("{ending} scratch memories end, {timers} do; {missing} lack"));
    }
    for (key, _) in scene.rows(Kind::ScratchMemory)? {
        let mut parts = Parts::new(&key);
        parts.u32();
        let number = parts.u64().ok_or_else(|| broken(&key))?;
        if !numbers.contains(&number) {
            found.say("P8", format!("a version is of no scratch memory {number}"));
        }
    }
    Ok(())
}

/// What scratch memories count for the quota.
pub(super) fn bytes(scene: &Scene<'_>) -> Result<u64, Fault> {
    let mut bytes = 0;
    for (key, value) in scene.rows(Kind::ScratchMemory)? {
        let record: MemoryRecord = decode(&key, &value)?;
        let mut parts = Parts::new(&key);
        let (_, _, Some(path)) = (parts.u32(), parts.u64(), parts.text()) else {
            return Err(broken(&key));
        };
        bytes += cost(path, &record);
    }
    Ok(bytes)
}

fn row_of(scene: &Scene<'_>, run: &RunRecord) -> Option<RowKey> {
    let scratch = run.scratch?;
    let of = Key::of(Kind::Scratch, scene.agent.number).u32(scratch.base_layer);
    Some(of.u64(scratch.base_revision).u64(scratch.number).build())
}
