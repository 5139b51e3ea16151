//! Brings a run up to date: the rollback's mark and the ends of its pin, judged by cluster time.

use pinrail_proto::log::{BundleRecord, RunRecord};
use pinrail_proto::v1::{EndReason, InFlight, RunState, StepState};

use crate::effect::Effect;
use crate::level;
use crate::mutant::{Mutant, is_planted};
use crate::outcome::Stop;
use crate::step::{self, step_id};
use crate::txn::Txn;

use super::child::obey_parent;
use super::delay::begin_if_due;
use super::{End, Subject, close, is_over, repin, restart, set_state};

/// When a pin ends, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// From here on: no new lease, no new step.
    pub(crate) soft_ms: u64,
    /// From here on nothing is accepted any more.
    pub(crate) hard_ms: u64,
    pub(crate) reason: EndReason,
}

/// The soft end is the earlier of the pin's own and its bundle's drain deadline; the hard end a grace later, and
/// never later than the end of the drain: the two graces may be of different policies.
pub(crate) fn ends(run: &RunRecord, bundle: &BundleRecord) -> Ends {
    let own_hard_ms = run.expires_ms + run.grace_ms;
    let drain_ms = match is_planted(Mutant::DrainsEndEarly) {
        true => bundle.drain_deadline_ms - (bundle.drain_deadline_ms - bundle.left_ms) / 2,
        false => bundle.drain_deadline_ms,
    };
    if drain_ms == 0 {
        return Ends { soft_ms: run.expires_ms, hard_ms: own_hard_ms, reason: EndReason::MaxAge };
    }
    let hard_ms = own_hard_ms.min(drain_ms + bundle.drain_grace_ms);
    if run.expires_ms <= drain_ms {
        Ends { soft_ms: run.expires_ms, hard_ms, reason: EndReason::MaxAge }
    } else {
        Ends { soft_ms: drain_ms, hard_ms, reason: EndReason::DrainCap }
    }
}

/// Obeys what has come to be true of a run since it was last touched. The caller saves the subject.
pub(crate) fn settle(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    begin_if_due(txn, subject)?;
    if is_over(subject.run.state()) || subject.run.state() == RunState::Scheduled {
        return Ok(());
    }
    obey_mark(txn, subject)?;
    if is_over(subject.run.state()) {
        return Ok(());
    }
    obey_ends(txn, subject)?;
    if is_over(subject.run.state()) {
        return Ok(());
    }
    obey_parent(txn, subject)
}

fn obey_mark(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    if is_planted(Mutant::RollbackForgetsRuns) {
        return Ok(());
    }
    let Some(mark) = subject.bundle.mark.clone() else { return Ok(()) };
    if subject.run.pinned_revision > mark.revision {
        return Ok(());
    }
    match mark.in_flight() {
        InFlight::Unspecified | InFlight::Keep => Ok(()),
        InFlight::Cancel => close(txn, subject, End::Cancelled(EndReason::Rollback)),
        InFlight::Restart => {
            let is_ending = txn.now >= ends(&subject.run, &subject.bundle).soft_ms;
            if !is_ending && txn.cluster.feature_level >= level::EXACT_RESTARTS {
                take_back_warning(txn, subject);
            }
            restart::restart(txn, subject, &mark)
        }
    }
}

fn obey_ends(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let ends = ends(&subject.run, &subject.bundle);
    let run = &subject.run;
    // What was due first counts, however late it is looked at: a cancel's grace ends at the hard end at the latest.
    if run.cancel_by_ms != 0 && txn.now >= run.cancel_by_ms {
        let reason = run.end_reason();
        return close(txn, subject, End::Cancelled(reason));
    }
    let silent_ms = if run.keep_until_ms == 0 { u64::MAX } else { run.keep_until_ms };
    if run.external && txn.now >= silent_ms && silent_ms < ends.hard_ms {
        return close(txn, subject, End::Expired(EndReason::KeepAlive));
    }
    if repin::goes_on(txn, subject, ends) {
        return repin::obey_drain(txn, subject, ends);
    }
    let run = &subject.run;
    if txn.now >= ends.hard_ms {
        let how = end(run, ends.reason);
        return close(txn, subject, how);
    }
    if run.external {
        return Ok(());
    }
    if txn.now < ends.soft_ms {
        take_back_warning(txn, subject);
        return Ok(());
    }
    if subject.is_leased() {
        warn(txn, subject, ends)
    } else {
        close(txn, subject, end(&subject.run, ends.reason))
    }
}

/// How a run ends at an end of its pin. An external run always expires; the reason tells which end it was.
pub(super) fn end(run: &RunRecord, reason: EndReason) -> End {
    if reason == EndReason::DrainCap && !run.external {
        End::Cancelled(reason)
    } else {
        End::Expired(reason)
    }
}

/// Tells the lease holders once; their results are accepted until the hard end.
fn warn(txn: &mut Txn<'_>, subject: &mut Subject, ends: Ends) -> Result<(), Stop> {
    if subject.run.state() == RunState::Cancelling {
        return Ok(());
    }
    set_state(txn, subject.agent.number, &mut subject.run, RunState::Cancelling);
    tell_holders(txn, subject, ends.reason, ends.hard_ms.saturating_sub(txn.now))
}

/// A route change back took the drain deadline away: the run goes on, unless somebody asked for its end.
fn take_back_warning(txn: &mut Txn<'_>, subject: &mut Subject) {
    if subject.run.state() != RunState::Cancelling || subject.run.cancel_by_ms != 0 {
        return;
    }
    let state = if subject.is_leased() { RunState::Running } else { RunState::Queued };
    set_state(txn, subject.agent.number, &mut subject.run, state);
}

pub(super) fn tell_holders(
    txn: &mut Txn<'_>,
    subject: &Subject,
    reason: EndReason,
    grace_ms: u64,
) -> Result<(), Stop> {
    let mut leased = step::open_steps(txn, subject)?;
    leased.retain(|step| step.state() == StepState::Leased);
    for step in leased {
        txn.effect(Effect::CancelRequested {
            step: step_id(subject.agent.number, &subject.run, &step),
            token: step.token.unwrap_or_default(),
            worker_id: step.worker_id.clone(),
            reason,
            grace_ms,
        });
    }
    Ok(())
}
