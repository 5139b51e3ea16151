//! The state of a step. Steps of branches are counted in their run by it, and found by their join while they are open.

use pinrail_proto::log::{RunRecord, StepRecord};
use pinrail_proto::v1::StepState;

use crate::key::{Key, Kind, RowKey};
use crate::txn::Txn;

/// Moves a step to another state.
pub(super) fn turn(
    txn: &mut Txn<'_>,
    agent: u32,
    run: &mut RunRecord,
    step: &mut StepRecord,
    state: StepState,
) {
    if step.join != 0 {
        let row = open_branch_key(agent, &run.run_id, step);
        if is_closed(state) {
            txn.delete(row);
        } else if step.state() == StepState::Unspecified {
            txn.mark(row, &[]);
        }
        if let Some(count) = counter(run, step, step.state()) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = counter(run, step, state) {
            *count += 1;
        }
    }
    step.set_state(state);
}

/// Whether nothing can happen to it any more.
pub(crate) fn is_closed(state: StepState) -> bool {
    match state {
        StepState::Completed | StepState::Failed | StepState::Cancelled => true,
        StepState::Unspecified
        | StepState::Ready
        | StepState::Leased
        | StepState::Backoff
        | StepState::Waiting
        | StepState::Dead => false,
    }
}

/// Where a run counts the steps of its branches that are in this state. A join that waits is none of them: what it
/// waits for is.
fn counter<'a>(run: &'a mut RunRecord, step: &StepRecord, state: StepState) -> Option<&'a mut u32> {
    match state {
        StepState::Leased => Some(&mut run.branches_leased),
        StepState::Ready | StepState::Backoff => Some(&mut run.branches_queued),
        StepState::Waiting if step.branches == 0 => Some(&mut run.branches_waiting),
        StepState::Dead => Some(&mut run.branches_dead),
        StepState::Unspecified
        | StepState::Waiting
        | StepState::Completed
        | StepState::Failed
        | StepState::Cancelled => None,
    }
}

fn open_branch_key(agent: u32, run_id: &str, step: &StepRecord) -> RowKey {
    open_branches(agent, run_id).u32(step.join).u32(step.number).build()
}

/// The open steps of all branches of a run; the number of a join follows, then the step's.
pub(super) fn open_branches(agent: u32, run_id: &str) -> Key {
    Key::of(Kind::OpenBranch, agent).text(run_id)
}
