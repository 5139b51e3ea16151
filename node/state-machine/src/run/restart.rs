//! What a rollback with `restart` does to a run: the same run id starts anew on the good bundle.

use pinrail_proto::log::RollbackMark;
use pinrail_proto::v1::{EndReason, InFlight, PinReason, RunState, StepState};

use crate::event::With as _;
use crate::key::{Key, Kind, RowKey};
use crate::level;
use crate::outcome::Stop;
use crate::store::KeyRange;
use crate::txn::Txn;
use crate::{bundle, event, step};

use super::begin::pin;
use super::close::unpin;
use super::ended::forget_ended;
use super::{End, Subject, close, payloads, set_state};

/// Moves a run to the mark's bundle and begins it again. A run that reported a destructive effect is paused
/// instead: nobody but a person can say whether that may happen twice.
pub(super) fn restart(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    mark: &RollbackMark,
) -> Result<(), Stop> {
    let held = subject.run.destructive;
    if held && subject.run.state() == RunState::Paused {
        return Ok(());
    }
    let Some(mark) = last_mark(txn, subject.agent.number, mark)? else {
        return close(txn, subject, End::Cancelled(EndReason::Rollback));
    };
    // A parent that begins anew makes its children anew; what tries the bad bundle has nothing to do on the good one.
    let stays = !subject.run.parent_run_id.is_empty() || !subject.run.kind().serves_users();
    if subject.run.state() == RunState::Cancelling || subject.run.external || stays {
        return close(txn, subject, End::Cancelled(EndReason::Rollback));
    }
    let from = subject.run.bundle_id.clone();
    step::close_all(txn, subject, StepState::Cancelled)?;
    if held {
        set_state(txn, subject.agent.number, &mut subject.run, RunState::Paused);
        txn.event(event::of_run("run.restart_held", &subject.agent, &from, &subject.run.run_id));
        return Ok(());
    }
    let asked = asked_entry(txn, subject)?;
    unpin(txn, subject);
    forget_steps(txn, subject)?;
    // The old bundle's record changes here and the new one's afterwards: they are two rows.
    bundle::save(txn, subject.agent.number, &subject.bundle);
    subject.bundle = bundle::lend(txn.read(), subject.agent.number, &mark.to_bundle_id)?;
    move_to(txn, subject, &mark);
    // Signals that nothing waited for yet are kept: the run that begins anew may wait for them.
    subject.run.stored_bytes = input_bytes(txn, subject)? + step::pending_bytes(txn, subject)?;
    if !subject.run.awaits_turn {
        let entry = asked.unwrap_or_else(|| subject.bundle.entry.clone());
        step::open_first(txn, subject, &entry, None)?;
    }
    txn.event(
        event::of_run("run.restarted", &subject.agent, &subject.run.bundle_id, &subject.run.run_id)
            .with("from", from),
    );
    Ok(())
}

/// Whether the run waits for a person, since a rollback would have begun it anew and it did what cannot be undone.
pub(super) fn holds(txn: &Txn<'_>, subject: &Subject) -> bool {
    let Subject { run, bundle, .. } = subject;
    let is_marked = bundle.mark.as_ref().is_some_and(|mark| {
        mark.in_flight() == InFlight::Restart && run.pinned_revision <= mark.revision
    });
    txn.cluster.feature_level >= level::CHECKPOINTS_STAY_BEHIND
        && is_marked
        && run.destructive
        && run.state() == RunState::Paused
}

/// Where the run would be if every rollback since had been swept at once: the bundle that it restarts on may
/// have been rolled back in its turn. `None`: one of those rollbacks cancels it.
fn last_mark(
    txn: &Txn<'_>,
    agent: u32,
    first: &RollbackMark,
) -> Result<Option<RollbackMark>, Stop> {
    let mut mark = first.clone();
    // Each mark is younger than the one before, so this ends.
    loop {
        let to = bundle::load(txn, agent, &mark.to_bundle_id)?;
        let Some(next) = to.mark.filter(|next| next.revision > mark.revision) else {
            return Ok(Some(mark));
        };
        match next.in_flight() {
            InFlight::Restart => mark = next,
            InFlight::Cancel => return Ok(None),
            InFlight::Unspecified | InFlight::Keep => return Ok(Some(mark)),
        }
    }
}

/// The entry step that the start named, if it was not just the bundle's.
fn asked_entry(txn: &Txn<'_>, subject: &Subject) -> Result<Option<String>, Stop> {
    let first = step::find(txn.read(), subject.agent.number, &subject.run.run_id, 1)?;
    Ok(first.map(|step| step.name.clone()).filter(|name| *name != subject.bundle.entry))
}

fn input_bytes(txn: &Txn<'_>, subject: &Subject) -> Result<u64, Stop> {
    let input = payloads::input(txn.read(), subject.agent.number, &subject.run)?;
    Ok(input.map_or(0, |input| input.data.len() as u64))
}

fn move_to(txn: &mut Txn<'_>, subject: &mut Subject, mark: &RollbackMark) {
    let agent = subject.agent.number;
    // The index of states knows the bundle: leave it before the bundle changes.
    txn.delete(super::state_key(agent, &subject.run));
    subject.run.repin_to.clear();
    if subject.run.restarts == 0 && subject.run.repins == 0 {
        subject.run.first_layer = subject.run.layer;
        subject.run.first_epoch = subject.run.epoch;
        subject.run.first_pin_reason = subject.run.pin_reason;
    }
    subject.run.bundle_id.clone_from(&mark.to_bundle_id);
    subject.run.layer = mark.to_layer;
    subject.run.set_pin_reason(PinReason::Restart);
    subject.run.pinned_ms = txn.now;
    subject.run.pinned_revision = txn.revision;
    subject.run.epoch = mark.epoch;
    subject.run.restarts += 1;
    subject.run.step = 0;
    subject.run.trunk = 0;
    subject.run.failure = None;
    subject.run.set_state(RunState::Unspecified);
    set_state(txn, agent, &mut subject.run, RunState::Queued);
    let Subject { agent, bundle, run, .. } = subject;
    pin(txn, agent, bundle, run);
}

/// The rows of a run's steps.
pub(super) const STEP_ROWS: [Kind; 7] = [
    Kind::Step,
    Kind::StepInput,
    Kind::StepOutput,
    Kind::Checkpoint,
    Kind::Woken,
    Kind::OpenBranch,
    Kind::Branch,
];

/// Rows of the steps so far: at most 10,000 steps with their payloads and checkpoints, bounded by the 64 MiB
/// that a run may store.
fn forget_steps(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let agent = subject.agent.number;
    if let Some(step) = subject.step.as_ref().filter(|step| step.in_run) {
        txn.delete(step::key(agent, &subject.run.run_id, step.number));
    }
    forget_ended(txn, agent, &mut subject.run);
    for kind in STEP_ROWS {
        let range: KeyRange = Key::of(kind, agent).text(&subject.run.run_id).range();
        for (key, _) in txn.scan(&range, usize::MAX)? {
            txn.delete(RowKey::from_slice(&key));
        }
    }
    subject.step = None;
    Ok(())
}
