//! P2: a step's result is recorded at most once.

use pinrail_proto::v1::StepState;

use crate::run::is_over;

use super::{Found, Scene};

/// Every step but the last has its one result, steps are numbered without a gap, and what is over is closed.
pub(super) fn results_are_recorded_once(scene: &Scene<'_>, found: &mut Found) {
    for run in scene.runs.values().filter(|run| !run.external) {
        let steps = scene.steps.range((run.run_id.clone(), 0)..=(run.run_id.clone(), u32::MAX));
        let numbers: Vec<u32> = steps.clone().map(|((_, number), _)| *number).collect();
        let is_whole = numbers.iter().copied().eq(1..=run.step);
        // The rows of a run that is over go in bounded batches.
        if !is_whole && !is_over(run.state()) {
            found.say("P2", format!("{} has the steps {numbers:?} of {}", run.run_id, run.step));
        }
        for (_, step) in steps {
            let is_last = step.number == run.step;
            let is_completed = step.state() == StepState::Completed;
            if !is_last && !is_completed {
                found.say("P2", format!("{}/{} was passed over", run.run_id, step.number));
            }
            if is_completed && (step.completion_digest.is_empty() || step.token.is_none()) {
                found.say("P2", format!("{}/{} has no result", run.run_id, step.number));
            }
            let is_run_over = is_over(run.state());
            if is_last && is_run_over && !is_closed(step.state()) {
                let state = step.state();
                found.say("P2", format!("{} is over, its step is {state:?}", run.run_id));
            }
            if is_last && is_completed && !is_run_over {
                found.say("P2", format!("{} is open behind its last result", run.run_id));
            }
        }
    }
}

fn is_closed(state: StepState) -> bool {
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
