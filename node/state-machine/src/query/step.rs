//! Reads of steps.

use pinrail_proto::log::StepRecord;
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, Payload, StepState};

use crate::key::{Key, Kind};
use crate::outcome::Stop;
use crate::step::find;
use crate::store::{Fault, Read};
use crate::txn::{decode, get};

use super::dispatch::input;
use super::page::page;
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
    let (rows, next) = page(read, &range, page_size, token)?;
    let mut steps = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record: StepRecord = decode(&key, &value)?;
        let output = output(read, agent.number, run_id, record.number, run.step)?;
        steps.push(message(read, agent.number, run_id, &record, output)?);
    }
    Ok((steps, next))
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
    let output = output(read, agent.number, run_id, number, run.step)?;
    Ok(Some(message(read, agent.number, run_id, &record, output)?))
}

/// A step's output is the next one's input, or the run's output when it was the last.
fn output(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
    number: u32,
    last: u32,
) -> Result<Option<Payload>, Fault> {
    if number < last {
        return Ok(Some(input(read, agent, run_id, number + 1)?));
    }
    get(read, &Key::of(Kind::RunOutput, agent).last(run_id))
}

fn message(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
    step: &StepRecord,
    output: Option<Payload>,
) -> Result<v1::Step, Fault> {
    Ok(v1::Step {
        number: step.number,
        name: step.name.clone(),
        state: step.state,
        attempt: step.attempt,
        max_attempts: step.max_attempts,
        worker_id: step.worker_id.clone(),
        input: Some(input(read, agent, run_id, step.number)?),
        output: output.filter(|_| step.state() == StepState::Completed),
        failure: step.failure.clone(),
        ready_at: timestamp(step.ready_ms),
        leased_at: timestamp(step.leased_ms),
        ended_at: timestamp(step.ended_ms),
        bundle_id: step.bundle_id.clone(),
        usage: step.usage.clone(),
        checkpoints: step.checkpoints,
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
