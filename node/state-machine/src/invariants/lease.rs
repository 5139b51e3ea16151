//! P1: a run executes every step on the bundle that it is pinned to.

use std::collections::BTreeSet;

use pinrail_proto::v1::{RunState, StepState};

use crate::key::{Kind, Parts};
use crate::run::is_over;
use crate::step::{TRUNK, is_closed};
use crate::store::Fault;

use super::{Found, Scene, broken};

/// What is leased or waits for a worker is so under the bundle that its run is pinned to, and the other way
/// round: each step that says it is leased or ready has its row.
pub(super) fn leases_are_on_the_pinned_bundle(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let leased = leased(scene, found)?;
    let ready = ready(scene, found)?;
    let mut tokens = BTreeSet::new();
    for ((run_id, number), step) in &scene.steps {
        let id = (run_id.clone(), *number);
        if (step.state() == StepState::Leased) != leased.contains(&id) {
            found.say("P1", format!("{run_id}/{number} is {:?}: other than its row", step.state()));
        }
        if (step.state() == StepState::Ready) != ready.contains(&id) {
            found.say("P1", format!("{run_id}/{number} is {:?}: other than queued", step.state()));
        }
        let token = step.token.map(|token| (token.incarnation, token.revision));
        if step.state() == StepState::Leased && token.is_none_or(|token| !tokens.insert(token)) {
            found.say("P1", format!("the token of {run_id}/{number} is no one's or another's"));
        }
    }
    if leased.len() as u64 != scene.agent.running_steps {
        let detail = format!("{} leases, counted {}", leased.len(), scene.agent.running_steps);
        found.say("P1", detail);
    }
    Ok(())
}

fn leased(scene: &Scene<'_>, found: &mut Found) -> Result<BTreeSet<(String, u32)>, Fault> {
    let mut leased = BTreeSet::new();
    for (key, _) in scene.rows(Kind::Leased)? {
        let mut parts = Parts::new(&key);
        let (_, Some(run_id), Some(number)) = (parts.u32(), parts.text(), parts.u32()) else {
            return Err(broken(&key));
        };
        let number = match number {
            TRUNK => scene.runs.get(run_id).map_or(TRUNK, |run| run.trunk),
            number => number,
        };
        if !is_open_step(scene, run_id, number) {
            found.say("P1", format!("the lease of {run_id}/{number} is not its pin's"));
        }
        leased.insert((run_id.to_owned(), number));
    }
    Ok(leased)
}

fn ready(scene: &Scene<'_>, found: &mut Found) -> Result<BTreeSet<(String, u32)>, Fault> {
    let mut ready = BTreeSet::new();
    for (key, _) in scene.rows(Kind::Ready)? {
        let mut parts = Parts::new(&key);
        let (_, bundle, _) = (parts.u32(), parts.text(), parts.u64());
        let (Some(bundle), Some(run_id), Some(number)) = (bundle, parts.text(), parts.u32()) else {
            return Err(broken(&key));
        };
        let pinned = scene.runs.get(run_id).is_some_and(|run| run.bundle_id == bundle);
        if !pinned || !is_open_step(scene, run_id, number) {
            found.say("P1", format!("{run_id}/{number} waits in the queue of {bundle}"));
        }
        ready.insert((run_id.to_owned(), number));
    }
    Ok(ready)
}

/// Whether this is an open step of an open run, under the run's bundle.
fn is_open_step(scene: &Scene<'_>, run_id: &str, number: u32) -> bool {
    let Some(run) = scene.runs.get(run_id) else { return false };
    let Some(step) = scene.steps.get(&(run_id.to_owned(), number)) else { return false };
    !is_closed(step.state())
        && step.bundle_id == run.bundle_id
        && !is_over(run.state())
        && run.state() != RunState::Paused
}
