//! The end of a run, whatever the way: one place for its counters, indexes, timers, effects and event.

use pinrail_proto::v1::{EndReason, Failure, RunState, StepState};

use crate::effect::Effect;
use crate::event::With as _;
use crate::key::Timer;
use crate::namespace::quota::{self, Quota};
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{bundle, event, memory, signal, step};

use super::{Subject, child, finished, pin_key, session, set_state};

/// How a run ends.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Completed,
    Failed(Failure),
    Cancelled(EndReason),
    Expired(EndReason),
    /// Another run takes its place.
    Continued,
}

/// Closes a run that is open. The caller saves the subject.
pub(crate) fn close(txn: &mut Txn<'_>, subject: &mut Subject, end: End) -> Result<(), Stop> {
    let (state, step_state, kind) = match &end {
        End::Completed => (RunState::Completed, StepState::Completed, "run.completed"),
        End::Failed(_) => (RunState::Failed, StepState::Failed, "run.failed"),
        End::Cancelled(_) => (RunState::Cancelled, StepState::Cancelled, "run.cancelled"),
        End::Expired(_) => (RunState::Expired, StepState::Cancelled, "run.expired"),
        End::Continued => (RunState::Continued, StepState::Completed, "run.continued"),
    };
    step::close_all(txn, subject, step_state)?;
    let reason = match end {
        End::Completed | End::Continued => EndReason::Unspecified,
        End::Failed(failure) => {
            subject.run.failure = Some(failure);
            EndReason::Unspecified
        }
        End::Cancelled(reason) | End::Expired(reason) => reason,
    };
    subject.run.set_end_reason(reason);
    let agent = subject.agent.number;
    if subject.run.state() == RunState::Scheduled {
        txn.clear_timer(agent, subject.run.due_ms, Timer::StartDue, subject.run.run_id.as_bytes());
    } else {
        signal::ended(txn, subject, state, reason)?;
        unpin(txn, subject);
        memory::leave_scratch(txn, &subject.agent, &subject.run)?;
    }
    set_state(txn, agent, &mut subject.run, state);
    subject.run.ended_ms = txn.now;
    subject.agent.open_runs = subject.agent.open_runs.saturating_sub(1);
    txn.cluster.open_runs = txn.cluster.open_runs.saturating_sub(1);
    quota::take(txn, &subject.agent.namespace, Quota::OpenRuns, 1)?;
    let keep_until_ms = txn.now + subject.agent.retention_ms;
    txn.set_timer(agent, keep_until_ms, Timer::Retention, subject.run.run_id.as_bytes());
    txn.effect(Effect::RunClosed { agent, run_id: subject.run.run_id.clone() });
    let is_continued = state == RunState::Continued;
    child::ended(txn, subject, is_continued)?;
    session::leave(txn, agent, &subject.run, is_continued)?;
    let mut ended =
        event::of_run(kind, &subject.agent, &subject.run.bundle_id, &subject.run.run_id);
    if is_continued {
        ended = ended.with("to", &subject.run.continued_to);
    }
    txn.event(if reason == EndReason::Unspecified {
        ended
    } else {
        ended.with("end_reason", event::word(reason.as_str_name(), "END_REASON_"))
    });
    if !is_continued {
        finished::tell(txn, subject)?;
    }
    Ok(())
}

/// Takes a pin away from its bundle: row, counter, timers; and notes the end of a drain.
pub(super) fn unpin(txn: &mut Txn<'_>, subject: &mut Subject) {
    let agent = subject.agent.number;
    let run = &subject.run;
    txn.delete(pin_key(agent, run));
    let object = run.run_id.as_bytes();
    txn.clear_timer(agent, run.expires_ms, Timer::RunExpires, object);
    if !run.hard_end_follows {
        txn.clear_timer(agent, run.expires_ms + run.grace_ms, Timer::RunHardEnd, object);
    }
    if run.keep_until_ms != 0 {
        txn.clear_timer(agent, run.keep_until_ms, Timer::KeepAlive, object);
    }
    if run.cancel_by_ms != 0 {
        txn.clear_timer(agent, run.cancel_by_ms, Timer::CancelBy, object);
    }
    bundle::count_pin(&mut subject.bundle, run.kind(), false);
    let drained = bundle::open_pins(&subject.bundle) == 0 && subject.bundle.drain_deadline_ms != 0;
    if drained && subject.bundle.drained_ms == 0 {
        subject.bundle.drained_ms = txn.now;
        txn.event(event::of_bundle("bundle.drained", &subject.agent, &subject.run.bundle_id));
    }
}
