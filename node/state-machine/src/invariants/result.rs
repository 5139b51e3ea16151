//! P2: a step's result is recorded at most once.

use pinrail_proto::v1::StepState;

use crate::run::is_over;
use crate::step::is_closed;

use super::{Found, Scene};

/// Every step that is over has its one result, steps are numbered without a gap, what is over is closed, and what is open
/// has something to do.
pub(super) fn results_are_recorded_once(scene: &Scene<'_>, found: &mut Found) {
    for run in scene.runs.values().filter(|run| !run.external) {
        let numbers: Vec<u32> = scene.steps_of(run).map(|step| step.number).collect();
        let is_whole = numbers.iter().copied().eq(1..=run.step);
        // The rows of a run that is over go in bounded batches.
        if !is_whole && !is_over(run.state()) {
            found.say("P2", format!("{} has the steps {numbers:?} of {}", run.run_id, run.step));
        }
        for step in scene.steps_of(run) {
            let is_last = step.number == run.trunk;
            let is_completed = step.state() == StepState::Completed;
            if !is_last && step.join == 0 && !is_completed {
                found.say("P2", format!("{}/{} was passed over", run.run_id, step.number));
            }
            if is_completed && (step.completion_digest.is_empty() || step.token.is_none()) {
                found.say("P2", format!("{}/{} has no result", run.run_id, step.number));
            }
            let is_run_over = is_over(run.state());
            if is_run_over && !is_closed(step.state()) {
                let state = step.state();
                found.say("P2", format!("{} is over, its step is {state:?}", run.run_id));
            }
            if is_last && is_completed && !is_run_over {
                found.say("P2", format!("{} is open behind its last result", run.run_id));
            }
            if step.state() == StepState::Unspecified {
                found.say("P2", format!("{}/{} has no state", run.run_id, step.number));
            }
        }
    }
}
