//! P2: a fan-out joins exactly once.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::{RunRecord, StepRecord};
use pinrail_proto::v1::{RunState, StepState};

use crate::key::{Kind, Parts};
use crate::run::{is_over, state_of_steps};
use crate::step::is_closed;
use crate::store::Fault;

use super::{Found, Scene, broken};

/// Numbers by run and join: of branches, or of steps.
type ByJoin = BTreeMap<(String, u32), BTreeSet<u32>>;

/// A join waits as long as branches are open, each of which has its one open step and no outcome; every other branch has
/// an outcome. The runs' counters are those of the steps of their branches.
pub(super) fn fan_outs_join_once(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let outcomes = by_join(scene, Kind::Branch)?;
    let open = by_join(scene, Kind::OpenBranch)?;
    for (run_id, join) in outcomes.keys().chain(open.keys()) {
        if !scene.runs.contains_key(run_id) {
            found.say("P2", format!("branches of {run_id}/{join}, which is not there"));
        }
    }
    for run in scene.runs.values().filter(|run| !is_over(run.state())) {
        for join in scene.steps_of(run).filter(|step| step.branches > 0) {
            let id = (run.run_id.clone(), join.number);
            let over = outcomes.get(&id).cloned().unwrap_or_default();
            let open = open.get(&id).cloned().unwrap_or_default();
            join_waits_for_its_branches(scene, run, join, &over, &open, found);
        }
        counters_are_exact(scene, run, found);
    }
    for (run_id, _) in open.keys() {
        if scene.runs.get(run_id).is_some_and(|run| is_over(run.state())) {
            found.say("P2", format!("{run_id} is over and has open branches"));
        }
    }
    Ok(())
}

fn join_waits_for_its_branches(
    scene: &Scene<'_>,
    run: &RunRecord,
    join: &StepRecord,
    over: &BTreeSet<u32>,
    open: &BTreeSet<u32>,
    found: &mut Found,
) {
    let mut say = |detail: &str| {
        found.say("P2", format!("join {}/{} {detail}", run.run_id, join.number));
    };
    if (join.state() == StepState::Waiting) != (join.branches_open > 0)
        && !join.held
        && join.state() != StepState::Failed
        && join.state() != StepState::Cancelled
    {
        say("does not wait for its branches");
    }
    let is_lost = matches!(join.state(), StepState::Failed | StepState::Cancelled);
    if !is_lost && over.len() as u64 != u64::from(join.branches - join.branches_open) {
        say("has another number of outcomes than of branches that are over");
    }
    let wanted = if is_lost { 0 } else { join.branches_open };
    if open.len() as u64 != u64::from(wanted) {
        say("has another number of open steps than of open branches");
    }
    for number in open {
        let step = scene.steps.get(&(run.run_id.clone(), *number));
        let fits = step.is_some_and(|step| {
            step.join == join.number && !is_closed(step.state()) && !over.contains(&step.branch)
        });
        if !fits {
            say("has an open step that is over, or of a branch that is");
        }
    }
}

fn counters_are_exact(scene: &Scene<'_>, run: &RunRecord, found: &mut Found) {
    let (mut leased, mut queued, mut waiting, mut dead) = (0, 0, 0, 0);
    for step in scene.open_steps(run).filter(|step| step.join != 0) {
        match step.state() {
            StepState::Leased => leased += 1,
            StepState::Ready | StepState::Backoff => queued += 1,
            StepState::Waiting if step.branches == 0 => waiting += 1,
            StepState::Dead => dead += 1,
            StepState::Unspecified
            | StepState::Waiting
            | StepState::Completed
            | StepState::Failed
            | StepState::Cancelled => {}
        }
    }
    let counted =
        (run.branches_leased, run.branches_queued, run.branches_waiting, run.branches_dead);
    if counted != (leased, queued, waiting, dead) {
        let recount = (leased, queued, waiting, dead);
        found.say("P2", format!("{}: branches {recount:?}, counted {counted:?}", run.run_id));
    }
}

/// The state of a run that workers execute is what its steps say.
pub(super) fn runs_are_what_their_steps_are(scene: &Scene<'_>, found: &mut Found) {
    for run in scene.open_runs().filter(|run| run.state() != RunState::Cancelling) {
        let said = scene.trunk_of(run).and_then(|step| state_of_steps(run, step));
        if said.is_some_and(|said| said != run.state()) {
            found.say("P2", format!("{} is {:?}, its steps {said:?}", run.run_id, run.state()));
        }
    }
}

fn by_join(scene: &Scene<'_>, kind: Kind) -> Result<ByJoin, Fault> {
    let mut found = ByJoin::new();
    for (key, _) in scene.rows(kind)? {
        let mut parts = Parts::new(&key);
        let (_, run_id, join, number) = (parts.u32(), parts.text(), parts.u32(), parts.u32());
        let (Some(run_id), Some(join), Some(number)) = (run_id, join, number) else {
            return Err(broken(&key));
        };
        found.entry((run_id.to_owned(), join)).or_default().insert(number);
    }
    Ok(found)
}
