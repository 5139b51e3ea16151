//! P4: every pin ends.

use pinrail_proto::log::{RunRecord, StepRecord};
use pinrail_proto::v1::{RunState, StepState};

use crate::front;
use crate::key::Timer;
use crate::run::{ends, is_over};
use crate::step::{TRUNK, object as step_object, parse_object, stands};
use crate::store::Fault;

use super::{Due, Found, Scene};

/// Each open pin has a timer at its hard end, or at its soft end one that sets it, and each drain one at its own; where
/// nothing is due, nothing is past its end.
pub(super) fn pins_end(scene: &Scene<'_>, found: &mut Found) {
    let nothing_due = scene.timers.iter().all(|due| due.at_ms > scene.now_ms);
    for run in scene.open_runs() {
        if run.state() == RunState::Scheduled {
            if !scene.has_timer(Timer::StartDue, run.due_ms, run.run_id.as_bytes()) {
                found.say("P4", format!("{} is never due", run.run_id));
            }
            continue;
        }
        let object = run.run_id.as_bytes();
        if !run.hard_end_follows
            && !scene.has_timer(Timer::RunHardEnd, run.expires_ms + run.grace_ms, object)
        {
            found.say("P4", format!("the pin of {} has no end", run.run_id));
        }
        if (run.hard_end_follows || run.expires_ms > scene.now_ms)
            && !scene.has_timer(Timer::RunExpires, run.expires_ms, object)
        {
            found.say("P4", format!("the pin of {} has no soft end", run.run_id));
        }
        for (timer, at_ms) in
            [(Timer::KeepAlive, run.keep_until_ms), (Timer::CancelBy, run.cancel_by_ms)]
        {
            if at_ms != 0 && !scene.has_timer(timer, at_ms, object) {
                found.say("P4", format!("{} has no {timer:?} at {at_ms}", run.run_id));
            }
        }
        let (stands_ms, trunk) = (run.lease_timer_ms, step_object(&run.run_id, TRUNK));
        if stands_ms != 0 && !scene.has_timer(Timer::AttemptEnd, stands_ms, &trunk) {
            found.say("P4", format!("{} has no timer that stands at {stands_ms}", run.run_id));
        }
        if nothing_due && is_late(scene, run) {
            found.say("P4", format!("{} is past its end and nothing is due", run.run_id));
        }
        for step in scene.open_steps(run) {
            step_has_its_timer(scene, run, step, found);
        }
    }
    for record in scene.bundles.values() {
        let hard_ms = record.drain_deadline_ms + record.drain_grace_ms;
        let ends = scene.has_timer(Timer::DrainHard, hard_ms, record.bundle_id.as_bytes());
        if record.drain_deadline_ms != 0 && crate::bundle::open_pins(record) > 0 && !ends {
            found.say("P4", format!("the drain of {} has no end", record.bundle_id));
        }
    }
}

/// The sweep finds every deadline: none is before where it begins to look.
pub(super) fn deadlines_are_behind_the_front(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let front_ms = front::at(scene.read, scene.agent.number)?;
    for due in scene.timers.iter().filter(|due| due.at_ms < front_ms) {
        let timer = due.timer;
        found.say("P4", format!("{timer:?} at {} is before the front, {front_ms}", due.at_ms));
    }
    Ok(())
}

fn is_late(scene: &Scene<'_>, run: &RunRecord) -> bool {
    let Some(bundle) = scene.bundles.get(&run.bundle_id) else { return true };
    let ends = ends(run, bundle);
    let is_leased = scene.open_steps(run).any(|step| step.state() == StepState::Leased);
    let end_ms = if is_leased || run.external { ends.hard_ms } else { ends.soft_ms };
    scene.now_ms >= end_ms
}

fn step_has_its_timer(scene: &Scene<'_>, run: &RunRecord, step: &StepRecord, found: &mut Found) {
    let has = timer_of(step).is_none_or(|timer| {
        if step.state() == StepState::Leased && stands(step) {
            return run.lease_timer_ms != 0 && run.lease_timer_ms <= step.attempt_deadline_ms;
        }
        scene.timers.iter().any(|due| {
            due.timer == timer
                && due.at_ms == step.timer_ms
                && parse_object(&due.object) == Some((run.run_id.clone(), step.number))
        })
    });
    if !has {
        found.say("P4", format!("{}/{} waits for nothing", run.run_id, step.number));
    }
}

/// The timer that a step's state needs.
fn timer_of(step: &StepRecord) -> Option<Timer> {
    match step.state() {
        StepState::Leased => Some(Timer::AttemptEnd),
        StepState::Backoff => Some(Timer::Backoff),
        StepState::Ready if step.start_by_ms != 0 => Some(Timer::StartBy),
        // Without a timer a signal or the last branch ends the wait, or the end of the pin.
        StepState::Waiting if step.timer_ms != 0 => Some(Timer::Wait),
        StepState::Ready
        | StepState::Unspecified
        | StepState::Completed
        | StepState::Failed
        | StepState::Waiting
        | StepState::Dead
        | StepState::Cancelled => None,
    }
}

/// No timer outlives what it is about: a closed run has nothing but its retention, a step the timer of its state.
pub(super) fn timers_are_of_what_is_open(scene: &Scene<'_>, found: &mut Found) {
    for due in &scene.timers {
        if !is_wanted(scene, due) {
            let object = String::from_utf8_lossy(&due.object).into_owned();
            found.say(
                "P4",
                format!("{:?} at {} of {object} is about nothing", due.timer, due.at_ms),
            );
        }
    }
}

fn is_wanted(scene: &Scene<'_>, due: &Due) -> bool {
    let text = String::from_utf8_lossy(&due.object).into_owned();
    let run = scene.runs.get(&text);
    let open = run.filter(|run| !is_over(run.state()));
    let bundle = scene.bundles.get(&text);
    match due.timer {
        Timer::RunExpires => open.is_some_and(|run| run.expires_ms == due.at_ms),
        Timer::RunHardEnd => open
            .is_some_and(|run| !run.hard_end_follows && run.expires_ms + run.grace_ms == due.at_ms),
        Timer::KeepAlive => open.is_some_and(|run| run.keep_until_ms == due.at_ms),
        Timer::CancelBy => open.is_some_and(|run| run.cancel_by_ms == due.at_ms),
        Timer::Retention => run.is_some_and(|run| is_over(run.state())),
        Timer::DrainSoft => bundle.is_some_and(|b| b.drain_deadline_ms == due.at_ms),
        Timer::DrainHard => {
            bundle.is_some_and(|b| b.drain_deadline_ms + b.drain_grace_ms == due.at_ms)
        }
        Timer::RollbackSweep => bundle.is_some_and(|b| b.mark.is_some()),
        Timer::StartDue => {
            open.is_some_and(|run| run.state() == RunState::Scheduled && run.due_ms == due.at_ms)
        }
        // The run may have ended, or got its turn, before it is told; a session may be pinned anew, or ended by hand.
        Timer::SessionTurn | Timer::Session => true,
        // Of a run that is over, or forgotten already.
        Timer::Children => open.is_none(),
        // The parent may have ended or begun anew before it is told.
        Timer::ChildOver => true,
        Timer::Backoff | Timer::StartBy | Timer::AttemptEnd | Timer::Wait => {
            let Some((run_id, number)) = parse_object(&due.object) else { return false };
            if number == TRUNK {
                let open = scene.runs.get(&run_id).filter(|run| !is_over(run.state()));
                return open.is_some_and(|run| run.lease_timer_ms == due.at_ms);
            }
            scene
                .steps
                .get(&(run_id, number))
                .is_some_and(|step| timer_of(step) == Some(due.timer) && step.timer_ms == due.at_ms)
        }
        // A version may be overwritten or dropped before its time.
        Timer::MemoryTtl => true,
        // `scratch.rs` compares them.
        Timer::Scratch => true,
        // What it is about may have been accepted or forgotten before.
        Timer::DriftQuiet => true,
        Timer::MemoryVersions => scene.agent.memory_sweep_ms == due.at_ms,
        // Of a layer whose bundle is recycled.
        Timer::LayerDrop => true,
        Timer::Dedupe | Timer::Events | Timer::Audit => false,
    }
}
