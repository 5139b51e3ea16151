//! Fan-out and join. The join is a step that waits for its branches; each branch is a chain of steps that ends with an
//! output, which is kept in the branch's place until the join reads it there. A branch may fan out in its turn.

use pinrail_proto::log::{BranchRecord, FanOut, StepRecord};
use pinrail_proto::v1::{Failure, StepState};
use pinrail_proto::{limits, reason};

use crate::agent::policy::too_large;
use crate::key::{Key, Kind, Parts};
use crate::outcome::{Stop, reject};
use crate::run::{End, Subject, close as close_run};
use crate::shared::Shared;
use crate::store::Fault;
use crate::txn::Txn;

use super::complete::check_next;
use super::queue::{Place, close, enqueue, open};
use super::state::{open_branches, turn};
use super::{find, save, standing};

pub(super) fn check(it: &FanOut) -> Result<(), Stop> {
    if it.branches.is_empty() {
        return Err(reject(reason::INVALID_REQUEST, "a fan-out has at least one branch"));
    }
    if it.branches.len() > limits::FAN_OUT {
        return Err(too_large("branches", it.branches.len(), limits::FAN_OUT));
    }
    check_next(&it.join, None)?;
    it.branches.iter().try_for_each(|branch| check_next(&branch.name, branch.input.as_ref()))
}

/// Makes the join and the branches behind the step that was just completed. The subject goes on with the first branch,
/// which is in no queue yet; the others are.
pub(super) fn begin(txn: &mut Txn<'_>, subject: &mut Subject, it: &FanOut) -> Result<(), Stop> {
    let agent = subject.agent.number;
    let count = u32::try_from(it.branches.len()).unwrap_or(u32::MAX);
    open(txn, subject, &it.join, Place::behind(subject.step.as_deref()))?;
    let Subject { run, step: Some(join), .. } = &mut *subject else { return Ok(()) };
    (join.branches, join.branches_open, join.settle) = (count, count, it.settle);
    turn(txn, agent, run, join, StepState::Waiting);
    save(txn, agent, run, join);
    let (join, mut first) = (join.number, None);
    for (branch, next) in (0..count).zip(&it.branches) {
        open(txn, subject, &next.name, Place { join, branch })?;
        let row = Key::of(Kind::StepInput, agent).text(&subject.run.run_id).u32(subject.run.step);
        txn.put(row.build(), &next.input.clone().unwrap_or_default());
        if branch == 0 {
            first = subject.step.take();
        } else {
            enqueue(txn, subject)?;
            subject.write_step(txn);
        }
    }
    subject.step = first;
    Ok(())
}

/// The branch of the step that the subject is about ended so. The subject goes on with the join. True: that was the last
/// branch, and the join may go on; it is in no queue yet.
pub(super) fn arrive(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    outcome: &BranchRecord,
) -> Result<bool, Stop> {
    let agent = subject.agent.number;
    let Some(last) = &subject.step else { return Ok(false) };
    let mut join = existing(txn, subject, last.join)?;
    txn.put(branches(agent, &subject.run.run_id, join.number).u32(last.branch).build(), outcome);
    subject.write_step(txn);
    join.branches_open = join.branches_open.saturating_sub(1);
    let is_whole = join.branches_open == 0;
    subject.step = Some(join);
    Ok(is_whole)
}

/// The step that the subject is about is over without a result: its branch has failed, or the whole run.
pub(super) fn fail(txn: &mut Txn<'_>, subject: &mut Subject, failure: Failure) -> Result<(), Stop> {
    loop {
        let Some(step) = &subject.step else { return Ok(()) };
        if step.join == 0 {
            return close_run(txn, subject, End::Failed(failure));
        }
        let join = existing(txn, subject, step.join)?;
        if join.settle {
            let outcome = BranchRecord { output: None, failure: Some(failure) };
            if arrive(txn, subject, &outcome)? {
                enqueue(txn, subject)?;
            }
            return Ok(());
        }
        subject.write_step(txn);
        close_branches(txn, subject, join.number)?;
        subject.step = Some(join);
        let Subject { agent, run, step: Some(join), .. } = &mut *subject else { return Ok(()) };
        turn(txn, agent.number, run, join, StepState::Failed);
        join.ended_ms = txn.now;
        join.failure = Some(failure.clone());
    }
}

/// Closes every open step of a run that ends. The subject goes on with the step that is in no branch.
pub(crate) fn close_all(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    state: StepState,
) -> Result<(), Fault> {
    let Some(step) = &subject.step else { return Ok(()) };
    if step.join != 0 || step.branches_open > 0 {
        subject.write_step(txn);
        let trunk = existing(txn, subject, subject.run.trunk)?;
        close_branches(txn, subject, trunk.number)?;
        subject.step = Some(trunk);
    }
    close(txn, subject, state);
    standing::clear(txn, subject.agent.number, &mut subject.run);
    Ok(())
}

/// Closes what is open in the branches of a join, and in theirs. The caller says what the subject goes on with.
fn close_branches(txn: &mut Txn<'_>, subject: &mut Subject, join: u32) -> Result<(), Fault> {
    let agent = subject.agent.number;
    let mut joins = vec![join];
    while let Some(join) = joins.pop() {
        let range = open_branches(agent, &subject.run.run_id).u32(join).range();
        for (key, _) in txn.scan(&range, limits::FAN_OUT)? {
            let step = existing(txn, subject, number(&key))?;
            if step.branches_open > 0 {
                joins.push(step.number);
            }
            subject.step = Some(step);
            close(txn, subject, StepState::Cancelled);
            subject.write_step(txn);
        }
    }
    Ok(())
}

/// The open steps of a run: the one in no branch, and those of its branches while it is fanned out; the subject's own
/// as it is in memory.
pub(crate) fn open_steps(
    txn: &Txn<'_>,
    subject: &Subject,
) -> Result<Vec<Shared<StepRecord>>, Fault> {
    let Some(own) = &subject.step else { return Ok(Vec::new()) };
    if own.join == 0 && own.branches_open == 0 {
        return Ok(vec![own.clone()]);
    }
    let range = open_branches(subject.agent.number, &subject.run.run_id).range();
    let rows = txn.scan(&range, limits::RUN_STEPS as usize)?;
    let numbers = rows.iter().map(|(key, _)| number(key));
    let mut numbers: Vec<u32> = numbers.chain([subject.run.trunk]).collect();
    numbers.sort_unstable();
    let step = |number| {
        if number == own.number { Ok(own.clone()) } else { existing(txn, subject, number) }
    };
    numbers.into_iter().map(step).collect()
}

/// How the branches of a join ended, in their order; the number of a branch follows.
pub(crate) fn branches(agent: u32, run_id: &str, join: u32) -> Key {
    Key::of(Kind::Branch, agent).text(run_id).u32(join)
}

fn existing(txn: &Txn<'_>, subject: &Subject, number: u32) -> Result<Shared<StepRecord>, Fault> {
    let run_id = &subject.run.run_id;
    find(txn.read(), subject.agent.number, run_id, number)?
        .ok_or_else(|| Fault(format!("step {number} of run {run_id} is not there")))
}

/// The step that a row of open branches is about.
fn number(key: &[u8]) -> u32 {
    let mut parts = Parts::new(key);
    parts.u32();
    parts.text();
    parts.u32();
    parts.u32().unwrap_or(0)
}
