//! What a rollback with `restart` does to a run: the same run id starts anew on the good bundle.

use pinrail_proto::log::RollbackMark;
use pinrail_proto::v1::{EndReason, PinReason, RunState, StepState};

use crate::event::With as _;
use crate::key::{Key, Kind};
use crate::outcome::Stop;
use crate::store::KeyRange;
use crate::txn::Txn;
use crate::{bundle, event, step};

use super::close::unpin;
use super::start::pin;
use super::{End, Subject, close, set_state};

/// Moves a run to the mark's bundle and begins it again. A run that reported a destructive effect is paused
/// instead: nobody but a person can say whether that may happen twice.
pub(super) fn restart(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    mark: &RollbackMark,
) -> Result<(), Stop> {
    if subject.run.state() == RunState::Paused {
        return Ok(());
    }
    if subject.run.state() == RunState::Cancelling || subject.run.external {
        close(txn, subject, End::Cancelled(EndReason::Rollback));
        return Ok(());
    }
    let from = subject.run.bundle_id.clone();
    step::close(txn, subject, StepState::Cancelled);
    if subject.run.destructive {
        set_state(txn, subject.agent.number, &mut subject.run, RunState::Paused);
        txn.event(event::of_run("run.restart_held", &subject.agent, &from, &subject.run.run_id));
        return Ok(());
    }
    unpin(txn, subject);
    forget_steps(txn, subject)?;
    // The old bundle's record changes here and the new one's afterwards: they are two rows.
    bundle::save(txn, subject.agent.number, &subject.bundle);
    subject.bundle = bundle::load(txn, subject.agent.number, &mark.to_bundle_id)?;
    move_to(txn, subject, mark);
    let entry = subject.bundle.entry.clone();
    step::open_first(txn, subject, &entry)?;
    txn.event(
        event::of_run("run.restarted", &subject.agent, &subject.run.bundle_id, &subject.run.run_id)
            .with("from", from),
    );
    Ok(())
}

fn move_to(txn: &mut Txn<'_>, subject: &mut Subject, mark: &RollbackMark) {
    let agent = subject.agent.number;
    // The index of states knows the bundle: leave it before the bundle changes.
    txn.delete(super::state_key(agent, &subject.run));
    if subject.run.restarts == 0 {
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
    subject.run.failure = None;
    subject.run.set_state(RunState::Unspecified);
    set_state(txn, agent, &mut subject.run, RunState::Queued);
    let Subject { agent, bundle, run, .. } = subject;
    pin(txn, agent, bundle, run);
}

/// Rows of the steps so far: at most 10,000 steps with their payloads and checkpoints, bounded by the 64 MiB
/// that a run may store.
fn forget_steps(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let agent = subject.agent.number;
    for kind in [Kind::Step, Kind::StepInput, Kind::StepOutput, Kind::Checkpoint] {
        let range: KeyRange = Key::of(kind, agent).text(&subject.run.run_id).range();
        for (key, _) in txn.scan(&range, usize::MAX)? {
            txn.delete(key.to_vec());
        }
    }
    subject.step = None;
    Ok(())
}
