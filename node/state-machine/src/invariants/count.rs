//! P5: drain counts are exact.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::{CostRecord, RunRecord};
use pinrail_proto::v1::{OpenPins, RunKind, RunState, StepState};

use crate::key::{Kind, RowKey};
use crate::run::session::{has_place, place};
use crate::run::{child_key, lasting_keys, pin_key, state_key};
use crate::store::Fault;
use crate::txn::decode;

use super::{Found, Scene};

/// Counters equal a recount by kind, and the indexes of open pins and of states hold each run once.
pub(super) fn counts_are_exact(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let number = scene.agent.number;
    let mut pins: BTreeMap<&str, OpenPins> = BTreeMap::new();
    let pinned = |run: &&RunRecord| run.state() != RunState::Scheduled;
    for run in scene.open_runs().filter(pinned) {
        count(pins.entry(&run.bundle_id).or_default(), run.kind());
    }
    let open = scene.open_runs().count() as u64;
    if open != scene.agent.open_runs {
        found.say("P5", format!("{open} open runs, counted {}", scene.agent.open_runs));
    }
    for record in scene.bundles.values() {
        let recount = pins.get(record.bundle_id.as_str()).copied().unwrap_or_default();
        let counted = record.open_pins.unwrap_or_default();
        if counted != recount {
            let detail = format!("{}: {recount:?}, counted {counted:?}", record.bundle_id);
            found.say("P5", detail);
        }
        let waits = |step: &&pinrail_proto::log::StepRecord| {
            step.state() == StepState::Ready && step.bundle_id == record.bundle_id
        };
        let ready = scene.steps.values().filter(waits).count() as u64;
        if ready != record.ready_steps {
            let detail =
                format!("{}: {ready} steps wait, counted {}", record.bundle_id, record.ready_steps);
            found.say("P5", detail);
        }
    }
    let open_keys = scene.open_runs().filter(pinned).map(|run| pin_key(number, run)).collect();
    same_keys(scene, Kind::OpenPin, &open_keys, found)?;
    let children = scene.open_runs().filter(|run| !run.parent_run_id.is_empty());
    let child_keys = children.map(|run| child_key(number, run)).collect();
    same_keys(scene, Kind::Child, &child_keys, found)?;
    let placed = scene.runs.values().filter(|run| has_place(run));
    let places = placed.map(|run| place(number, run)).collect();
    same_keys(scene, Kind::SessionRun, &places, found)?;
    let state_keys = scene.runs.values().map(|run| state_key(number, run)).collect();
    same_keys(scene, Kind::RunByState, &state_keys, found)?;
    let lasting: BTreeSet<RowKey> =
        scene.runs.values().flat_map(|run| lasting_keys(number, run)).collect();
    for kind in [Kind::RunByStart, Kind::RunByKind, Kind::RunByLabel] {
        let wanted = lasting.iter().filter(|key| key[0] == kind as u8).cloned().collect();
        same_keys(scene, kind, &wanted, found)?;
    }
    Ok(())
}

/// What kept runs used is in the costs, which also hold what forgotten ones did; and the rows are counted.
pub(super) fn costs_hold_what_runs_used(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let rows = scene.rows(Kind::Cost)?;
    if rows.len() as u64 != scene.agent.cost_rows {
        let counted = scene.agent.cost_rows;
        found.say("P5", format!("{} rows of costs, counted {counted}", rows.len()));
    }
    let mut booked = 0_u64;
    for (key, value) in &rows {
        booked = booked.saturating_add(decode::<CostRecord>(key, value)?.cost_micros);
    }
    let usages = scene.runs.values().filter_map(|run| run.usage.as_ref());
    let used = usages.flat_map(|usage| &usage.models).map(|model| model.cost_micros);
    let used = used.fold(0_u64, u64::saturating_add);
    if used > booked {
        found.say("P5", format!("runs cost {used}, {booked} is booked"));
    }
    Ok(())
}

fn count(pins: &mut OpenPins, kind: RunKind) {
    pins.total += 1;
    *match kind {
        RunKind::Unspecified | RunKind::Live => &mut pins.live,
        RunKind::Canary => &mut pins.canary,
        RunKind::Shadow => &mut pins.shadow,
        RunKind::Eval => &mut pins.eval,
        RunKind::Smoke => &mut pins.smoke,
        RunKind::Drill => &mut pins.drill,
    } += 1;
}

fn same_keys(
    scene: &Scene<'_>,
    kind: Kind,
    wanted: &BTreeSet<RowKey>,
    found: &mut Found,
) -> Result<(), Fault> {
    let there: BTreeSet<RowKey> =
        scene.rows(kind)?.into_iter().map(|(key, _)| RowKey::from_slice(&key)).collect();
    let differ: Vec<String> = there
        .symmetric_difference(wanted)
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .collect();
    if !differ.is_empty() {
        found.say("P5", format!("{kind:?} differs from the runs in {differ:?}"));
    }
    Ok(())
}
