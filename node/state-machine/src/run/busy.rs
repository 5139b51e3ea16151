//! How long a run has been at work: the time since it was pinned, less the time in which it had nothing to do. Waiting for
//! an outside signal, for a time or for its turn, or being paused by somebody, is nobody's latency; waiting for a worker,
//! for another attempt or for a child is.

use pinrail_proto::log::{PinRecord, RunRecord, StepRecord};
use pinrail_proto::v1::{RunKind, RunState, StepState};

use crate::txn::Txn;

use super::{Subject, is_over, pin_key};

/// Whether it has nothing to do. A fan-out whose branches all wait counts as such.
pub(crate) fn is_idle(run: &RunRecord, step: Option<&StepRecord>) -> bool {
    match run.state() {
        RunState::Queued => run.awaits_turn,
        RunState::Waiting => step.is_none_or(|step| {
            let is_fanned_out = step.join != 0 || step.branches_open > 0;
            is_fanned_out || step.state() != StepState::Waiting || step.wait_child.is_empty()
        }),
        RunState::Paused => run.held,
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Running
        | RunState::Cancelling
        | RunState::Completed
        | RunState::Failed
        | RunState::Cancelled
        | RunState::Expired
        | RunState::Continued => false,
    }
}

/// Notes when a run begins to have nothing to do, and when it goes on.
pub(super) fn follow(txn: &mut Txn<'_>, subject: &mut Subject) {
    let Subject { agent, run, step, .. } = subject;
    let is_idle = is_idle(run, step.as_deref());
    if is_idle == (run.idle_since_ms != 0) {
        return;
    }
    if is_idle {
        run.idle_since_ms = txn.now;
    } else {
        run.idle_ms += txn.now.saturating_sub(run.idle_since_ms);
        run.idle_since_ms = 0;
    }
    if !is_over(run.state()) {
        txn.put(pin_key(agent.number, run), &pin_record(run));
    }
}

/// The time at work counts anew from a pin on.
pub(super) fn begin(run: &mut RunRecord) {
    run.idle_ms = 0;
    run.idle_since_ms = 0;
    run.cost_before_micros = cost(run);
}

/// How long it has been at work on the bundle that it is pinned to.
pub(crate) fn busy_ms(run: &RunRecord, now: u64) -> u64 {
    let record =
        PinRecord { kind: run.kind, idle_ms: run.idle_ms, idle_since_ms: run.idle_since_ms };
    busy_of_pin(run.pinned_ms, &record, now)
}

/// The same by what the row of an open pin says.
pub(crate) fn busy_of_pin(pinned_ms: u64, pin: &PinRecord, now: u64) -> u64 {
    let until_ms = if pin.idle_since_ms == 0 { now } else { pin.idle_since_ms };
    until_ms.saturating_sub(pinned_ms).saturating_sub(pin.idle_ms)
}

/// What the row of an open pin says.
pub(crate) fn pin_record(run: &RunRecord) -> PinRecord {
    let serves = match run.kind() {
        RunKind::Live | RunKind::Canary => true,
        RunKind::Unspecified
        | RunKind::Shadow
        | RunKind::Eval
        | RunKind::Smoke
        | RunKind::Drill => false,
    };
    if !serves || !run.parent_run_id.is_empty() {
        return PinRecord::default();
    }
    PinRecord { kind: run.kind, idle_ms: run.idle_ms, idle_since_ms: run.idle_since_ms }
}

/// What it has cost on the bundle that it is pinned to.
pub(crate) fn cost_here(run: &RunRecord) -> u64 {
    cost(run).saturating_sub(run.cost_before_micros)
}

fn cost(run: &RunRecord) -> u64 {
    let models = run.usage.iter().flat_map(|usage| &usage.models);
    models.fold(0, |sum: u64, model| sum.saturating_add(model.cost_micros))
}
