//! P2: what ended a wait is recorded once, and no signal is lost or given twice.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::{RunRecord, StepRecord};
use pinrail_proto::v1::StepState;

use crate::key::{Kind, Parts};
use crate::run::is_over;
use crate::store::Fault;

use super::{Found, Scene, broken};

/// A step that waits was not woken, no signal is kept that it waits for, and
/// kept signals are counted.
pub(super) fn waits_end_once(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let (mut pending, mut names) = (BTreeMap::<String, u32>::new(), BTreeSet::new());
    for (key, _) in scene.rows(Kind::Signal)? {
        let mut parts = Parts::new(&key);
        let (_, Some(run_id), Some(name)) = (parts.u32(), parts.text(), parts.text()) else {
            return Err(broken(&key));
        };
        *pending.entry(run_id.to_owned()).or_default() += 1;
        names.insert((run_id.to_owned(), name.to_owned()));
    }
    let mut woken = BTreeSet::new();
    for (key, _) in scene.rows(Kind::Woken)? {
        let mut parts = Parts::new(&key);
        let (_, Some(run_id), Some(number)) = (parts.u32(), parts.text(), parts.u32()) else {
            return Err(broken(&key));
        };
        woken.insert((run_id.to_owned(), number));
    }
    for run_id in pending.keys().chain(woken.iter().map(|(run_id, _)| run_id)) {
        if !scene.runs.contains_key(run_id) {
            found.say("P2", format!("signals of {run_id}, which is not there"));
        }
    }
    for run in scene.runs.values() {
        let kept = pending.get(&run.run_id).copied().unwrap_or_default();
        // The rows of a run that is over go in bounded batches.
        if kept != run.pending_signals && !is_over(run.state()) {
            let detail = format!("{}: {kept} signals, counted {}", run.run_id, run.pending_signals);
            found.say("P2", detail);
        }
        for step in scene.open_steps(run).filter(|step| step.state() == StepState::Waiting) {
            // A paused run holds back what was woken; a child's end is told to its parent in a command of its own.
            if step.held {
                continue;
            }
            let is_woken = woken.contains(&(run.run_id.clone(), step.number));
            if is_woken && step.wait_child.is_empty() {
                found.say("P2", format!("{}/{} was woken and waits", run.run_id, step.number));
            }
            // A signal that came when the time of the wait was over is for the next wait.
            let in_time = step.timer_ms == 0 || scene.now_ms < step.timer_ms;
            if in_time
                && !step.wait_signal.is_empty()
                && names.contains(&(run.run_id.clone(), step.wait_signal.clone()))
            {
                found.say("P2", format!("{} waits for a signal that came", run.run_id));
            }
            let waits_for_child =
                !step.wait_child.is_empty() && { is_woken || child_is_open(scene, run, step) };
            let waits =
                !step.wait_signal.is_empty() || step.timer_ms != 0 || step.branches_open > 0;
            if !waits && !waits_for_child {
                found.say("P2", format!("{}/{} waits for nothing", run.run_id, step.number));
            }
        }
    }
    Ok(())
}

/// Whether the child that a step waits for, or the run that continues it, is still to end.
fn child_is_open(scene: &Scene<'_>, parent: &RunRecord, step: &StepRecord) -> bool {
    scene.open_runs().any(|child| {
        child.parent_run_id == parent.run_id
            && child.parent_step == step.number
            && (child.run_id == step.wait_child || child.first_run_id == step.wait_child)
    })
}
