//! Ends of a lease without a result: handed back by its worker, or expired by the leader.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{ExpireLease, HandBackStep, StepResult};

use crate::event;
use crate::event::With as _;
use crate::outcome::Stop;
use crate::run::{Subject, is_over, stop_if_ending};
use crate::txn::Txn;

use super::checkpoint::add_usage_so_far;
use super::fail::{failure, note_progress, retry_or_end};
use super::queue::{enqueue, unleash};
use super::{held, leased};

/// The worker gives the lease back unused: it costs no attempt.
pub(crate) fn hand_back(txn: &mut Txn<'_>, it: &HandBackStep) -> Result<Answer, Stop> {
    let mut subject = held(txn, it.step.as_ref(), it.token.as_ref())?;
    add_usage_so_far(txn, &mut subject, it.usage.as_ref())?;
    unleash(txn, &mut subject);
    note_progress(&mut subject, it.progress.as_ref());
    if let Some(step) = &mut subject.step {
        step.attempt = step.attempt.saturating_sub(1);
    }
    go_on(txn, &mut subject)?;
    answer(txn, &mut subject)
}

/// The leader has not heard of the worker for a lease's time. The attempt counts, and the step waits for another
/// worker at once.
pub(crate) fn expire(txn: &mut Txn<'_>, it: &ExpireLease) -> Result<Answer, Stop> {
    let mut subject = leased(txn, it.step.as_ref(), it.token.as_ref())?;
    unleash(txn, &mut subject);
    note_progress(&mut subject, it.progress.as_ref());
    let (name, attempt, used_up) = subject.step.as_ref().map_or_else(Default::default, |s| {
        (s.name.clone(), s.attempt, s.attempt >= s.max_attempts)
    });
    txn.event(
        event::of_run(
            "step.lease_expired",
            &subject.agent,
            &subject.run.bundle_id,
            &subject.run.run_id,
        )
        .with("step", name)
        .with("attempt", attempt),
    );
    if used_up {
        let failure =
            failure("LEASE_EXPIRED", "the worker was not heard of for a lease's time", false);
        retry_or_end(txn, &mut subject, failure)?;
    } else {
        go_on(txn, &mut subject)?;
    }
    answer(txn, &mut subject)
}

fn go_on(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    if !stop_if_ending(txn, subject)? {
        enqueue(txn, subject)?;
    }
    Ok(())
}

fn answer(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<Answer, Stop> {
    subject.save(txn)?;
    Ok(Answer::Step(StepResult {
        closed: is_over(subject.run.state()),
        step: subject.run.step,
        ..StepResult::default()
    }))
}
