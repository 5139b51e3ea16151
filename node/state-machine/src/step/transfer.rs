//! How the open steps of a run go along when the run moves to another bundle.

use pinrail_proto::log::StepRecord;
use pinrail_proto::v1::StepState;

use crate::key::{Key, Kind, RowKey};
use crate::level;
use crate::outcome::Stop;
use crate::run::Subject;
use crate::txn::Txn;

use super::fan_out::open_steps;
use super::find;
use super::queue::{enqueue, unleash, withdraw};

/// Takes back what workers hold: the next attempt begins without checkpoints, since other code takes it up.
pub(crate) fn take_back(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    for step in open_steps(txn, subject)? {
        if step.state() != StepState::Leased {
            continue;
        }
        subject.go_on_with(txn, step);
        unleash(txn, subject);
        forget_recorded(txn, subject)?;
        if let Some(step) = &mut subject.step {
            // What was held is what was tried last: it may be tried once more there.
            step.max_attempts = step.max_attempts.max(step.attempt + 1);
        }
        enqueue(txn, subject)?;
    }
    Ok(())
}

/// Forgets what attempts of the present step recorded.
fn forget_recorded(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let Subject { agent, run, step: Some(step), .. } = subject else { return Ok(()) };
    let of_step = Key::of(Kind::Checkpoint, agent.number).text(&run.run_id).u32(step.number);
    for (key, _) in txn.scan(&of_step.range(), usize::MAX)? {
        txn.delete(RowKey::from_slice(&key));
    }
    step.checkpoints = 0;
    step.progress = None;
    Ok(())
}

/// Whether a step that is not over has recorded something: only the code that did can take it up.
pub(crate) fn has_recorded(txn: &Txn<'_>, subject: &Subject) -> Result<bool, Stop> {
    let has = |step: &StepRecord| step.checkpoints > 0 && !super::is_closed(step.state());
    Ok(stays_behind(txn) && open_steps(txn, subject)?.iter().any(|step| has(step)))
}

/// Whether what a step recorded stays with the code that recorded it.
pub(super) fn stays_behind(txn: &Txn<'_>) -> bool {
    txn.cluster.feature_level >= level::CHECKPOINTS_STAY_BEHIND
}

/// Takes the steps of a run out of the queue of its bundle. Answers their numbers.
pub(crate) fn leave_queue(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<Vec<u32>, Stop> {
    let mut ready = Vec::new();
    for step in open_steps(txn, subject)? {
        if step.state() == StepState::Ready {
            ready.push(step.number);
            subject.go_on_with(txn, step);
            withdraw(txn, subject);
        }
    }
    Ok(ready)
}

/// Puts the open steps of a run under its new bundle, and those that waited for a worker into its queue.
pub(crate) fn move_along(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    ready: &[u32],
) -> Result<(), Stop> {
    let present = subject.step.as_ref().map_or(0, |step| step.number);
    for mut step in open_steps(txn, subject)? {
        let number = step.number;
        if super::is_closed(step.state()) {
            continue;
        }
        step.bundle_id.clone_from(&subject.run.bundle_id);
        let has_recorded = step.checkpoints > 0 || step.progress.is_some();
        subject.go_on_with(txn, step);
        if has_recorded && stays_behind(txn) {
            forget_recorded(txn, subject)?;
        }
        if ready.contains(&number) {
            enqueue(txn, subject)?;
        }
    }
    // The command goes on with the step that it was about.
    subject.write_step(txn);
    if present != 0 {
        let agent = subject.agent.number;
        subject.step = find(txn.read(), agent, &subject.run.run_id, present)?;
    }
    Ok(())
}
