//! Completion: the result is recorded once, and the run ends or goes on with its next step, which the same
//! worker may get in this one command.

use bytes::Bytes;
use pinrail_proto::log::complete_step::Outcome;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    BranchRecord, ChildRun, CompleteStep, NextStep, RunRecord, StepRecord, StepRef, StepResult,
    Token,
};
use pinrail_proto::v1::{Payload, StepState};
use pinrail_proto::{encode, id, limits, reason};
use sha2::{Digest as _, Sha256};

use crate::agent::policy::too_large;
use crate::key::{Key, Kind};
use crate::level;
use crate::memory;
use crate::outcome::{Stop, reject};
use crate::run::{
    End, Subject, add_usage, cancel_if_ending, child_id, close, continue_as_new, is_over,
    put_output, settle, start_awaited, stop_if_ending, take_room,
};
use crate::txn::Txn;

use super::lease::offer;
use super::queue::{Place, open, unleash};
use super::state::turn;
use super::{fan_out, find, held, save, wait};

/// Number of a run's first step.
const FIRST: u32 = 1;

pub(crate) fn complete(txn: &mut Txn<'_>, it: &mut CompleteStep) -> Result<Answer, Stop> {
    check(it)?;
    let digest = match it.digest.is_empty() {
        true => completion_digest(it),
        // What the leader says of it is what each member would find out. It is copied to let go of the log entry.
        false => Bytes::copy_from_slice(&it.digest),
    };
    debug_assert_eq!(digest, completion_digest(it), "a leader says what it is");
    if let Some(answer) = recorded(txn, it, &digest)? {
        return Ok(answer);
    }
    let mut subject = held(txn, it.step.as_ref(), it.token.as_ref())?;
    if !it.memory.is_empty() {
        memory::carried(txn, &mut subject.agent, &subject.run, &it.memory)?;
    }
    if let Some(usage) = &it.usage {
        add_usage(txn, &mut subject, usage)?;
    }
    record(txn, &mut subject, digest);
    let token = match &it.outcome {
        Some(Outcome::Done(output)) => done(txn, &mut subject, output, it)?,
        Some(Outcome::Next(next)) => {
            make(txn, &mut subject, it, &Made::one(next), |txn, subject| {
                next_step(txn, subject, next)?;
                Ok(true)
            })?
        }
        Some(Outcome::Wait(wait)) => {
            let then = wait.then.clone().unwrap_or_default();
            make(txn, &mut subject, it, &Made::one(&then), |txn, subject| {
                next_step(txn, subject, &then)?;
                Ok(!wait::begin(txn, subject, wait)?)
            })?
        }
        Some(Outcome::All(all)) => {
            make(txn, &mut subject, it, &Made::branches(&all.branches), |txn, subject| {
                fan_out::begin(txn, subject, all)?;
                Ok(true)
            })?
        }
        Some(Outcome::Child(child)) => {
            let then = child.then.clone().unwrap_or_default();
            make(txn, &mut subject, it, &Made::one(&then), |txn, subject| {
                next_step(txn, subject, &then)?;
                wait_for_child(txn, subject, child)?;
                Ok(false)
            })?
        }
        Some(Outcome::ContinueAsNew(next)) => match cancel_if_ending(txn, &mut subject)? {
            true => None,
            false => continue_as_new(txn, &mut subject, next, it.lease_next.as_ref())?,
        },
        None => {
            return Err(reject(
                reason::INVALID_REQUEST,
                "a completion names what comes next, or an output",
            ));
        }
    };
    subject.save(txn)?;
    let number = subject.step.as_ref().map_or(0, |step| step.number);
    Ok(answer(&subject.run, token.map(|token| (number, token))))
}

/// `leased`: a step of the run that goes on, with its token; where the run was continued, it is the first one of the next run.
fn answer(run: &RunRecord, leased: Option<(u32, Token)>) -> Answer {
    let mut result =
        StepResult { closed: is_over(run.state()), step: run.step, ..StepResult::default() };
    if let Some((number, token)) = leased {
        (result.step, result.token) = (number, Some(token));
        if !run.continued_to.is_empty() {
            result.step = FIRST;
            result.run_id.clone_from(&run.continued_to);
        }
    }
    Answer::Step(result)
}

/// Ends the attempt with its result.
fn record(txn: &mut Txn<'_>, subject: &mut Subject, digest: Bytes) {
    unleash(txn, subject);
    let Subject { agent, run, step: Some(step), .. } = subject else { return };
    let step: &mut StepRecord = step;
    turn(txn, agent.number, run, step, StepState::Completed);
    step.ended_ms = txn.now;
    step.completion_digest = digest;
    step.completion_revision = txn.revision;
}

/// The output of the run, or of a branch of it.
fn done(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    output: &Payload,
    it: &CompleteStep,
) -> Result<Option<Token>, Stop> {
    let Some(step) = subject.step.as_mut().filter(|step| step.join != 0) else {
        subject.run.stored_bytes += output.data.len() as u64;
        put_output(txn, subject.agent.number, &mut subject.run, output);
        close(txn, subject, End::Completed)?;
        return Ok(None);
    };
    step.next = step.join;
    take_room(subject, output.data.len() as u64)?;
    let outcome = BranchRecord { output: Some(output.clone()), failure: None };
    if fan_out::arrive(txn, subject, &outcome)? {
        return give(txn, subject, it);
    }
    stop_if_ending(txn, subject)?;
    Ok(None)
}

/// What a result makes.
struct Made<'a> {
    steps: u32,
    /// Of their inputs.
    bytes: u64,
    /// The only one.
    next: Option<&'a NextStep>,
}

impl<'a> Made<'a> {
    fn one(next: &'a NextStep) -> Self {
        Self { steps: 1, bytes: next_bytes(next), next: Some(next) }
    }

    /// A fan-out makes its join, too.
    fn branches(branches: &[NextStep]) -> Self {
        let steps = u32::try_from(branches.len()).unwrap_or(u32::MAX).saturating_add(1);
        Self { steps, bytes: branches.iter().map(next_bytes).sum(), next: None }
    }
}

/// Makes the steps that the result asks for, and gives the first of them to a worker. `open` makes them, and says whether
/// the one that the subject is about then may be had.
fn make(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    it: &CompleteStep,
    made: &Made<'_>,
    open: impl FnOnce(&mut Txn<'_>, &mut Subject) -> Result<bool, Stop>,
) -> Result<Option<Token>, Stop> {
    if cancel_if_ending(txn, subject)? {
        return Ok(None);
    }
    if subject.run.step.saturating_add(made.steps) > limits::RUN_STEPS {
        let message = format!("the run has {} steps", subject.run.step);
        return Err(reject(reason::STEP_LIMIT, message).with("limit", limits::RUN_STEPS));
    }
    take_room(subject, made.bytes)?;
    let first = subject.run.step + 1;
    if let Subject { agent, run, step: Some(step), .. } = &mut *subject {
        let ended: &mut StepRecord = step;
        ended.made = made.steps;
        // A fan-out's join is made first, and then its branches.
        ended.next = if made.steps == 1 { first } else { first + 1 };
        if let Some(next) = made.next.filter(|_| results_are_inputs(txn)) {
            ended.result = Some(next.input.clone().unwrap_or_default());
        }
        // The finished step's row is written here: the subject goes on with another one.
        save(txn, agent.number, run, step);
    }
    if open(txn, subject)? {
        return give(txn, subject, it);
    }
    stop_if_ending(txn, subject)?;
    Ok(None)
}

/// Leases the open step to the worker that asks for it, if it may have it; otherwise it waits for one.
fn give(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    it: &CompleteStep,
) -> Result<Option<Token>, Stop> {
    let token = offer(txn, subject, it.lease_next.as_ref())?;
    if token.is_none() {
        stop_if_ending(txn, subject)?;
    }
    Ok(token)
}

fn next_step(txn: &mut Txn<'_>, subject: &mut Subject, next: &NextStep) -> Result<(), Stop> {
    let before = subject.step.as_ref().map_or(0, |step| step.number);
    open(txn, subject, &next.name, Place::behind(subject.step.as_deref()))?;
    if let Some(step) = subject.step.as_mut().filter(|_| results_are_inputs(txn)) {
        step.made_by = before;
        return Ok(());
    }
    let row = Key::of(Kind::StepInput, subject.agent.number)
        .text(&subject.run.run_id)
        .u32(subject.run.step)
        .build();
    txn.put(row, next.input.as_ref().unwrap_or(&Payload::default()));
    Ok(())
}

/// Lets the open step wait for a child, which starts here.
fn wait_for_child(txn: &mut Txn<'_>, subject: &mut Subject, it: &ChildRun) -> Result<(), Stop> {
    let Subject { agent, run, step: Some(step), .. } = &mut *subject else { return Ok(()) };
    step.wait_child = child_id(run, step.number);
    turn(txn, agent.number, run, step, StepState::Waiting);
    start_awaited(txn, subject, it)
}

/// Whether a step's input is the result of the step before it, and no row of its own.
fn results_are_inputs(txn: &Txn<'_>) -> bool {
    txn.cluster.feature_level >= level::TRUNKS_LIE_IN_RUNS
}

fn next_bytes(next: &NextStep) -> u64 {
    next.input.as_ref().map_or(0, |input| input.data.len() as u64)
}

/// The answer of a completion that was recorded before, for the worker that did not hear it.
fn recorded(txn: &mut Txn<'_>, it: &CompleteStep, digest: &[u8]) -> Result<Option<Answer>, Stop> {
    let none = StepRef::default();
    let asked = it.step.as_ref().unwrap_or(&none);
    if id::check_token("run id", &asked.run_id).is_err() {
        return Ok(None);
    }
    let Some(step) = find(txn.read(), asked.agent, &asked.run_id, asked.step)? else {
        return Ok(None);
    };
    let same = step.state() == StepState::Completed
        && step.token == it.token
        && step.completion_digest == digest;
    if !same {
        return Ok(None);
    }
    let Some(mut subject) = Subject::find(txn, asked.agent, &asked.run_id)? else {
        return Ok(None);
    };
    let before = subject.run.clone();
    settle(txn, &mut subject)?;
    if subject.run.pinned_revision != before.pinned_revision {
        // The run begins anew: what was recorded is gone with its steps.
        return Ok(None);
    }
    if subject.run != before {
        subject.save(txn)?;
    }
    // The lease that came with the first answer, if the same worker still holds it.
    let (run_id, number) = match subject.run.continued_to.as_str() {
        "" => (asked.run_id.as_str(), step.next),
        continued_to => (continued_to, FIRST),
    };
    let leased = find(txn.read(), asked.agent, run_id, number)?
        .filter(|next| next.state() == StepState::Leased)
        .and_then(|next| Some((next.number, next.token?)))
        .filter(|(_, token)| token.revision == step.completion_revision);
    Ok(Some(answer(&subject.run, leased)))
}

fn check(it: &CompleteStep) -> Result<(), Stop> {
    match &it.outcome {
        Some(Outcome::Done(output)) => check_size("output bytes", Some(output)),
        Some(Outcome::Next(next)) => check_next(&next.name, next.input.as_ref()),
        Some(Outcome::Wait(wait)) => {
            wait::check(wait)?;
            let then = wait.then.clone().unwrap_or_default();
            check_next(&then.name, then.input.as_ref())
        }
        Some(Outcome::All(all)) => fan_out::check(all),
        Some(Outcome::Child(child)) => {
            if !child.entry.is_empty() {
                check_next(&child.entry, None)?;
            }
            check_size("input bytes", child.input.as_ref())?;
            let then = child.then.clone().unwrap_or_default();
            check_next(&then.name, then.input.as_ref())
        }
        Some(Outcome::ContinueAsNew(next)) => check_size("input bytes", next.input.as_ref()),
        None => Ok(()),
    }
}

/// Name and input of a step that is to be made.
pub(super) fn check_next(name: &str, input: Option<&Payload>) -> Result<(), Stop> {
    id::check_name("step", name).map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    check_size("step input bytes", input)
}

fn check_size(what: &str, payload: Option<&Payload>) -> Result<(), Stop> {
    let size = payload.map_or(0, |payload| payload.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large(what, size, limits::PAYLOAD_BYTES));
    }
    Ok(())
}

/// SHA-256 of everything that makes a completion the same completion; not of who would go on. `it` is left as it was.
pub fn completion_digest(it: &mut CompleteStep) -> Bytes {
    let (taker, said) = (it.lease_next.take(), std::mem::take(&mut it.digest));
    let digest = Sha256::digest(encode(it));
    (it.lease_next, it.digest) = (taker, said);
    Bytes::copy_from_slice(&digest)
}
