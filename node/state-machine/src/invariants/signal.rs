//! P6: what releases are judged by is what runs say.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::{FiringRecord, PinRecord, ReleaseRecord, RunRecord, SliceRecord};
use pinrail_proto::v1::{EndReason, RunKind, RunState};

use crate::key::{Key, Kind, Parts};
use crate::run::{is_over, pin_key, pin_record};
use crate::signal::Windows;
use crate::store::Fault;
use crate::txn::{decode, get};

use super::{Found, Scene, broken, records};

/// Ended runs by bundle and kind: completed, failed, cancelled, and their scores.
type Counts = BTreeMap<(String, i32), [u64; 4]>;

/// The slices hold every run that is kept and ended within the baseline's time; they also hold forgotten ones.
pub(super) fn windows_hold_what_runs_say(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut there = Counts::new();
    for (key, value) in scene.rows(Kind::SignalSlice)? {
        let mut parts = Parts::new(&key);
        let (_, Some(bundle_id), Some(kind)) = (parts.u32(), parts.text(), parts.u8()) else {
            return Err(broken(&key));
        };
        let slice: SliceRecord = decode(&key, &value)?;
        let completed: u64 = slice.latency.values().sum();
        let cut: u64 = slice.cut.values().sum();
        if completed != slice.completed || cut != slice.failed + slice.cancelled {
            found.say(
                "P6",
                format!("{bundle_id}: {completed} latencies and {cut} ages of {slice:?}"),
            );
        }
        let sums = there.entry((bundle_id.to_owned(), i32::from(kind))).or_default();
        let these = [slice.completed, slice.failed, slice.cancelled, slice.scored];
        sums.iter_mut().zip(these).for_each(|(sum, it)| *sum += it);
    }
    for (cohort, counts) in said_by_runs(scene) {
        let sums = there.get(&cohort).copied().unwrap_or_default();
        if counts.iter().zip(sums).any(|(said, counted)| *said > counted) {
            found.say("P6", format!("{cohort:?}: runs say {counts:?}, counted {sums:?}"));
        }
    }
    Ok(())
}

fn said_by_runs(scene: &Scene<'_>) -> Counts {
    let kept_ms = Windows::of_agent(&scene.agent).baseline_ms;
    let since_ms = scene.now_ms.saturating_sub(kept_ms);
    let mut said = Counts::new();
    let ended = scene.runs.values().filter(|run| is_over(run.state()) && run.ended_ms >= since_ms);
    let forgotten = |run: &RunRecord| {
        let bundle = scene.bundles.get(&run.bundle_id);
        bundle.is_some_and(|bundle| run.pinned_revision < bundle.recycled_revision)
    };
    for run in ended.filter(|run| is_compared(run) && !forgotten(run)) {
        let counts = said.entry((run.bundle_id.clone(), run.kind)).or_default();
        if let Some(place) = place(run).filter(|_| run.parent_run_id.is_empty()) {
            counts[place] += 1;
        }
        counts[3] += u64::from(!run.scores.is_empty());
    }
    said
}

fn is_compared(run: &RunRecord) -> bool {
    // A run that never was due was on no bundle.
    let kind = run.kind();
    !run.bundle_id.is_empty() && matches!(kind, RunKind::Live | RunKind::Canary | RunKind::Shadow)
}

fn place(run: &RunRecord) -> Option<usize> {
    let out_of_time = matches!(run.end_reason(), EndReason::MaxAge | EndReason::KeepAlive);
    match run.state() {
        RunState::Completed => Some(0),
        RunState::Failed => Some(1),
        RunState::Expired if out_of_time => Some(1),
        RunState::Expired | RunState::Cancelled => Some(2),
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Cancelling
        | RunState::Continued => None,
    }
}

/// What a release says fires is what was written down, each signal at most once.
pub(super) fn firings_are_written_down(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let releases = Key::of(Kind::Release, scene.agent.number);
    for release in records::<ReleaseRecord>(scene.read, releases)? {
        let mut seen = BTreeSet::new();
        for open in &release.open_firings {
            let row = Key::of(Kind::SignalFiring, scene.agent.number)
                .u32(release.number)
                .u32(open.index)
                .build();
            let firing: Option<FiringRecord> = get(scene.read, &row)?;
            let is_kept = firing.is_some_and(|firing| {
                let is_acked = firing.acked_ms != 0;
                firing.signal == open.signal && firing.cleared_ms == 0 && is_acked == open.acked
            });
            if !is_kept || !seen.insert(open.signal) {
                found.say("P6", format!("release {}: {open:?} is not so", release.number));
            }
        }
    }
    Ok(())
}

/// The rows of open pins say how long their runs have had nothing to do.
pub(super) fn pins_say_who_is_idle(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    for run in scene.open_runs().filter(|run| run.state() != RunState::Scheduled) {
        let row: Option<PinRecord> = get(scene.read, &pin_key(scene.agent.number, run))?;
        let wanted = pin_record(run);
        if row.is_some_and(|row| row != wanted) {
            found.say("P6", format!("{}: its pin says {row:?}, not {wanted:?}", run.run_id));
        }
    }
    Ok(())
}
