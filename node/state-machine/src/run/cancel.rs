//! Cancelling a run: cooperative first, forced after the grace.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{CancelRun, RunResult};
use pinrail_proto::v1::{EndReason, RunState};

use crate::agent;
use crate::key::Timer;
use crate::outcome::Stop;
use crate::txn::Txn;

use super::settle::{end, tell_holders};
use super::{End, Subject, close, ends, is_over, repin, set_state, settle};

pub(crate) fn cancel(txn: &mut Txn<'_>, it: &CancelRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    agent::expect_revision(txn, subject.run.revision)?;
    if is_over(subject.run.state()) {
        // Nothing changes, the run's revision neither.
        return Ok(Answer::Run(RunResult {
            state: subject.run.state,
            already: true,
            keep_until_ms: 0,
            delivered: false,
        }));
    }
    settle(txn, &mut subject)?;
    let already = is_over(subject.run.state());
    if !already {
        request(txn, &mut subject, EndReason::Requested)?;
    }
    subject.save(txn)?;
    Ok(Answer::Run(RunResult {
        state: subject.run.state,
        already,
        keep_until_ms: 0,
        delivered: false,
    }))
}

/// Asks a run to end: at once, or within its grace while somebody holds a step of it.
pub(super) fn request(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    reason: EndReason,
) -> Result<(), Stop> {
    if !subject.is_leased() {
        return close(txn, subject, End::Cancelled(reason));
    }
    if subject.run.state() == RunState::Cancelling {
        return Ok(());
    }
    let grace_ms = subject.run.grace_ms;
    let by_ms = (txn.now + grace_ms).min(ends(&subject.run, &subject.bundle).hard_ms);
    subject.run.cancel_by_ms = by_ms;
    subject.run.set_end_reason(reason);
    set_state(txn, subject.agent.number, &mut subject.run, RunState::Cancelling);
    let object = subject.run.run_id.clone();
    txn.set_timer(subject.agent.number, by_ms, Timer::CancelBy, object.as_bytes());
    tell_holders(txn, subject, reason, by_ms - txn.now)
}

/// Ends a run that may not go on, now that an attempt of it is over, or moves it where it may; its open steps are those that
/// go along. While others are still held it waits for them. True: the run is over.
pub(crate) fn stop_if_ending(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<bool, Stop> {
    repin::obey_hand(txn, subject)?;
    let ends = ends(&subject.run, &subject.bundle);
    if repin::goes_on(txn, subject, ends) && !subject.is_leased() {
        repin::obey_drain(txn, subject, ends)?;
        return Ok(is_over(subject.run.state()));
    }
    cancel_if_ending(txn, subject)
}

/// The same before the result of an attempt has made the steps that the run goes on with: it does not move yet.
pub(crate) fn cancel_if_ending(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<bool, Stop> {
    let ends = ends(&subject.run, &subject.bundle);
    let is_ending = txn.now >= ends.soft_ms || subject.run.state() == RunState::Cancelling;
    let goes_on = repin::goes_on(txn, subject, ends);
    if !is_ending || goes_on || subject.is_leased() || is_over(subject.run.state()) {
        return Ok(false);
    }
    cancel_now(txn, subject)?;
    Ok(true)
}

fn cancel_now(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let how = match subject.run.end_reason() {
        reason @ (EndReason::Requested | EndReason::Rollback | EndReason::Parent) => {
            End::Cancelled(reason)
        }
        // The end that was announced counts, even when a route change has cleared it since.
        reason @ (EndReason::MaxAge | EndReason::DrainCap | EndReason::KeepAlive) => {
            end(&subject.run, reason)
        }
        EndReason::Unspecified => {
            let reason = ends(&subject.run, &subject.bundle).reason;
            end(&subject.run, reason)
        }
    };
    close(txn, subject, how)
}
