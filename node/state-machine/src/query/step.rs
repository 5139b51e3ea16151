//! Reads of steps.

use pinrail_proto::limits;
use pinrail_proto::log::{BranchRecord, RunRecord, StepRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, Payload, StepState};
use prost::Message as _;

use crate::key::{Key, Kind};
use crate::outcome::Stop;
use crate::overlay::Overlay;
use crate::run::{self, step_in_row};
use crate::step::{self, find};
use crate::store::{Fault, Order, Read, Row};
use crate::txn::{decode, get};

use super::dispatch::input;
use super::page::{resume, size_of};
use super::run::locate;

/// A page of a run's steps, oldest first, and the token of the next page.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn steps(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    run_id: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Step>, String), Stop> {
    let (agent, run) = locate(read, namespace, agent, run_id)?;
    let range = Key::of(Kind::Step, agent.number).text(run_id).range();
    let rest = resume(&range, token)?;
    let size = size_of(page_size) as usize;
    let rows = all(read, agent.number, &run)?.scan(&rest, Order::Ascending, size + 1)?;
    let steps = that_fit(read, agent.number, &run, rows.iter().take(size))?;
    let last = rows.get(steps.len().wrapping_sub(1)).filter(|_| steps.len() < rows.len());
    let next = last.map_or_else(String::new, |(key, _)| hex::encode(key));
    Ok((steps, next))
}

/// The newest steps of a run, oldest first, as many as fit a page.
pub(super) fn newest(read: &dyn Read, agent: u32, run: &RunRecord) -> Result<Vec<v1::Step>, Stop> {
    let range = Key::of(Kind::Step, agent).text(&run.run_id).range();
    let rows = all(read, agent, run)?.scan(&range, Order::Descending, size_of(0) as usize)?;
    let mut steps = that_fit(read, agent, run, rows.iter())?;
    steps.reverse();
    Ok(steps)
}

/// Whether an open step of a run waits for the signal of this name: that of its trunk, or one of a branch.
pub(super) fn waits_for(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
    signal: &str,
) -> Result<bool, Fault> {
    let of_branches = Key::of(Kind::OpenBranch, agent).text(&run.run_id).range();
    let branches = read.scan(&of_branches, Order::Ascending, limits::RUN_STEPS as usize)?;
    let numbers = branches.iter().filter_map(|(key, _)| key.last_chunk::<4>());
    for number in numbers.map(|number| u32::from_be_bytes(*number)).chain([run.trunk]) {
        let Some(step) = find(read, agent, &run.run_id, number)? else { continue };
        if step.state() == StepState::Waiting && step.wait_signal == signal && !step.held {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All steps of a run under keys of their own; some lie in the run's row.
fn all<'r>(read: &'r dyn Read, agent: u32, run: &RunRecord) -> Result<Overlay<'r>, Fault> {
    let mut all = Overlay::new(read);
    let key = |number| step::key(agent, &run.run_id, number);
    for ended in &run.ended {
        all.put(key(ended.number), ended.record.clone());
    }
    if let Some(trunk) = step_in_row(read, agent, &run.run_id, run.trunk)? {
        all.put(key(trunk.number), trunk.encode_to_vec().into());
    }
    Ok(all)
}

/// The first of these steps, as many as fit a page together.
fn that_fit<'r>(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
    rows: impl Iterator<Item = &'r Row>,
) -> Result<Vec<v1::Step>, Fault> {
    let (mut steps, mut bytes) = (Vec::new(), 0);
    for (key, value) in rows {
        let step = message(read, agent, run, &decode(key, value)?)?;
        bytes += step.encoded_len();
        if bytes > limits::STEP_PAGE_BYTES && !steps.is_empty() {
            break;
        }
        steps.push(step);
    }
    Ok(steps)
}

/// One step of a run by its number. `None`: the run has no such step.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`.
pub fn step(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    run_id: &str,
    number: u32,
) -> Result<Option<v1::Step>, Stop> {
    let (agent, run) = locate(read, namespace, agent, run_id)?;
    let Some(record) = find(read, agent.number, run_id, number)? else { return Ok(None) };
    Ok(Some(message(read, agent.number, &run, &record)?))
}

/// How branches of a fan-out ended, in their order, as far as they have: a page, and the token of the next one.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn branches(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    run_id: &str,
    join: u32,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Branch>, String), Stop> {
    let (agent, _) = locate(read, namespace, agent, run_id)?;
    let range = step::branches(agent.number, run_id, join).range();
    let rest = resume(&range, token)?;
    let size = size_of(page_size) as usize;
    let rows = read.scan(&rest, Order::Ascending, size + 1)?;
    let (mut branches, mut bytes, mut last) = (Vec::new(), 0, Vec::new());
    for (key, value) in &rows {
        if branches.len() == size || (bytes + value.len() > limits::BRANCH_PAGE_BYTES && bytes > 0)
        {
            return Ok((branches, hex::encode(last)));
        }
        bytes += value.len();
        last = key.to_vec();
        let record: BranchRecord = decode(key, value)?;
        branches.push(v1::Branch {
            index: key.last_chunk::<4>().map_or(0, |index| u32::from_be_bytes(*index)),
            output: record.output,
            failure: record.failure,
        });
    }
    Ok((branches, String::new()))
}

/// What a completed step answered: the input of the step that it made, or the output of its branch or of the run. None
/// behind a fan-out, which made several.
fn output(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
    step: &StepRecord,
) -> Result<Option<Payload>, Fault> {
    if step.state() != StepState::Completed || step.made > 1 {
        return Ok(None);
    }
    if step.made == 1 {
        if step.result.is_some() {
            return Ok(step.result.clone());
        }
        let Some(next) = find(read, agent, &run.run_id, step.next)? else { return Ok(None) };
        return Ok(Some(input(read, agent, run, &next)?));
    }
    if step.join != 0 {
        let row = step::branches(agent, &run.run_id, step.join).u32(step.branch).build();
        return Ok(get::<BranchRecord>(read, &row)?.and_then(|branch| branch.output));
    }
    run::output(read, agent, run)
}

fn message(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
    step: &StepRecord,
) -> Result<v1::Step, Fault> {
    Ok(v1::Step {
        number: step.number,
        name: step.name.clone(),
        state: step.state,
        attempt: step.attempt,
        max_attempts: step.max_attempts,
        worker_id: step.worker_id.clone(),
        input: Some(input(read, agent, run, step)?),
        output: output(read, agent, run, step)?,
        failure: step.failure.clone(),
        ready_at: timestamp(step.ready_ms),
        leased_at: timestamp(step.leased_ms),
        ended_at: timestamp(step.ended_ms),
        bundle_id: step.bundle_id.clone(),
        usage: step.usage.clone(),
        checkpoints: step.checkpoints,
        join: step.join,
        branch: step.branch,
        branches: step.branches,
        branches_open: step.branches_open,
        wait_child: step.wait_child.clone(),
        held: step.held,
        progress: step.progress.clone(),
        wait_signal: step.wait_signal.clone(),
        wait_until: match step.state() {
            StepState::Waiting => timestamp(step.timer_ms),
            StepState::Unspecified
            | StepState::Ready
            | StepState::Leased
            | StepState::Backoff
            | StepState::Dead
            | StepState::Completed
            | StepState::Failed
            | StepState::Cancelled => None,
        },
    })
}
