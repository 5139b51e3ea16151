//! The state of a run. While workers execute it, it follows from the states of its open steps.

use pinrail_proto::log::{RunRecord, StepRecord};
use pinrail_proto::v1::{RunState, StepState};

use crate::txn::Txn;

use super::{Subject, lasting_keys, state_key};

/// Whether nothing can happen to it any more.
pub(crate) fn is_over(state: RunState) -> bool {
    match state {
        RunState::Completed
        | RunState::Failed
        | RunState::Cancelled
        | RunState::Expired
        | RunState::Continued => true,
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Cancelling => false,
    }
}

/// Moves a run to another state, its place in the index of states with it. A run that had no state is new in the
/// other indexes too.
pub(crate) fn set_state(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord, state: RunState) {
    if run.state() == state {
        return;
    }
    if run.state() == RunState::Unspecified {
        for key in lasting_keys(agent, run) {
            txn.mark(key, &[]);
        }
    } else if run.revision == 0 {
        // It was never saved: this command put the mark as well.
        txn.withdraw(state_key(agent, run));
    } else {
        txn.delete(state_key(agent, run));
    }
    run.set_state(state);
    txn.mark(state_key(agent, run), &[]);
}

/// Lets an open run follow its steps. One that is being cancelled is that until it is over.
pub(super) fn follow(txn: &mut Txn<'_>, subject: &mut Subject) {
    let Subject { agent, run, step: Some(step), .. } = subject else { return };
    if is_over(run.state()) || run.state() == RunState::Cancelling {
        return;
    }
    if let Some(state) = state_of_steps(run, step) {
        set_state(txn, agent.number, run, state);
    }
}

/// What the steps of a run say of its state, by any of those that are open; what goes on counts before what waits. None:
/// the step is over, and the run's state was set by what ended it.
pub(crate) fn state_of_steps(run: &RunRecord, step: &StepRecord) -> Option<RunState> {
    if step.join != 0 || step.branches_open > 0 {
        return Some(if run.branches_leased > 0 {
            RunState::Running
        } else if run.held {
            RunState::Paused
        } else if run.branches_queued > 0 {
            RunState::Queued
        } else if run.branches_waiting > 0 {
            RunState::Waiting
        } else {
            RunState::Paused
        });
    }
    match step.state() {
        StepState::Leased => Some(RunState::Running),
        StepState::Ready | StepState::Backoff | StepState::Waiting if run.held => {
            Some(RunState::Paused)
        }
        StepState::Ready | StepState::Backoff => Some(RunState::Queued),
        StepState::Waiting => Some(RunState::Waiting),
        StepState::Dead => Some(RunState::Paused),
        StepState::Unspecified
        | StepState::Completed
        | StepState::Failed
        | StepState::Cancelled => None,
    }
}
