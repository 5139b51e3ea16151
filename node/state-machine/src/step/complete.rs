//! Completion: the result is recorded once, and the run ends or goes on with its next step, which the same
//! worker may get in this one command.

use pinrail_proto::log::complete_step::Outcome;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{CompleteStep, NextStep, StepResult, Token, WaitStep};
use pinrail_proto::v1::{Payload, RunState, StepState};
use pinrail_proto::{id, limits, reason};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::agent::policy::too_large;
use crate::key::{Key, Kind};
use crate::memory;
use crate::outcome::{Stop, reject};
use crate::run::{End, Subject, add_usage, cancel_now, close, ends, is_over, settle};
use crate::txn::Txn;

use super::lease::{grant, may_lease};
use super::queue::{enqueue, open, unleash};
use super::{find, held, save, wait};

pub(crate) fn complete(txn: &mut Txn<'_>, it: &CompleteStep) -> Result<Answer, Stop> {
    check(it)?;
    let digest = digest(it);
    if let Some(answer) = recorded(txn, it, &digest)? {
        return Ok(answer);
    }
    let mut subject = held(txn, it.step.as_ref(), it.token.as_ref())?;
    memory::carried(txn, &mut subject.agent, &subject.run, &it.memory)?;
    if let Some(usage) = &it.usage {
        add_usage(txn, &mut subject, usage)?;
    }
    record(txn, &mut subject, &digest);
    let (closed, token) = match &it.outcome {
        Some(Outcome::Done(output)) => {
            store(txn, &mut subject, Kind::RunOutput, output);
            close(txn, &mut subject, End::Completed);
            (true, None)
        }
        Some(Outcome::Next(next)) => go_on(txn, &mut subject, next, None, it)?,
        Some(Outcome::Wait(wait)) => {
            let then = wait.then.clone().unwrap_or_default();
            go_on(txn, &mut subject, &then, Some(wait), it)?
        }
        None => {
            return Err(reject(
                reason::INVALID_REQUEST,
                "a completion names a next step, a wait or an output",
            ));
        }
    };
    subject.save(txn);
    Ok(Answer::Step(StepResult { closed, token, step: subject.run.step }))
}

/// Ends the attempt with its result.
fn record(txn: &mut Txn<'_>, subject: &mut Subject, digest: &[u8; 32]) {
    unleash(txn, subject);
    let Some(step) = &mut subject.step else { return };
    step.set_state(StepState::Completed);
    step.ended_ms = txn.now;
    step.completion_digest = digest.to_vec().into();
    step.completion_revision = txn.revision;
}

fn go_on(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    next: &NextStep,
    wait: Option<&WaitStep>,
    it: &CompleteStep,
) -> Result<(bool, Option<Token>), Stop> {
    let past = txn.now >= ends(&subject.run, &subject.bundle).soft_ms;
    if past || subject.run.state() == RunState::Cancelling {
        cancel_now(txn, subject);
        return Ok((true, None));
    }
    if subject.run.step >= limits::RUN_STEPS {
        let message = format!("the run has {} steps", subject.run.step);
        return Err(reject(reason::STEP_LIMIT, message).with("limit", limits::RUN_STEPS));
    }
    let input = next.input.clone().unwrap_or_default();
    let stored = subject.run.stored_bytes + input.data.len() as u64;
    if stored > limits::RUN_STORED_BYTES {
        let message = format!("the run would store {stored} bytes");
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::RUN_STORED_BYTES));
    }
    subject.run.stored_bytes = stored;
    let agent = subject.agent.number;
    // The finished step's row is written here: the subject goes on with the next one.
    if let Some(step) = &subject.step {
        save(txn, agent, &subject.run.run_id, step);
    }
    open(txn, subject, &next.name)?;
    let row =
        Key::of(Kind::StepInput, agent).text(&subject.run.run_id).u32(subject.run.step).build();
    txn.put(row, &input);
    if let Some(wait) = wait
        && wait::begin(txn, subject, wait)?
    {
        return Ok((false, None));
    }
    match &it.lease_next {
        Some(taker) if may_lease(txn, subject, taker).is_ok() => {
            Ok((false, Some(grant(txn, subject, taker)?)))
        }
        Some(_) | None => {
            enqueue(txn, subject)?;
            Ok((false, None))
        }
    }
}

fn store(txn: &mut Txn<'_>, subject: &mut Subject, kind: Kind, payload: &Payload) {
    subject.run.stored_bytes += payload.data.len() as u64;
    txn.put(Key::of(kind, subject.agent.number).last(&subject.run.run_id), payload);
}

/// The answer of a completion that was recorded before, for the worker that did not hear it.
fn recorded(
    txn: &mut Txn<'_>,
    it: &CompleteStep,
    digest: &[u8; 32],
) -> Result<Option<Answer>, Stop> {
    let asked = it.step.clone().unwrap_or_default();
    if id::check_token("run id", &asked.run_id).is_err() {
        return Ok(None);
    }
    let Some(step) = find(txn.read(), asked.agent, &asked.run_id, asked.step)? else {
        return Ok(None);
    };
    let same = step.state() == StepState::Completed
        && step.token == it.token
        && step.completion_digest == digest.as_slice();
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
        subject.save(txn);
    }
    let number = subject.run.step;
    // The lease that came with the first answer, if the same worker still holds it.
    let token = subject
        .step
        .filter(|s| number == asked.step + 1 && s.state() == StepState::Leased)
        .and_then(|s| s.token)
        .filter(|token| token.revision == step.completion_revision);
    let closed = is_over(subject.run.state());
    Ok(Some(Answer::Step(StepResult { closed, token, step: number })))
}

fn check(it: &CompleteStep) -> Result<(), Stop> {
    let (what, payload) = match &it.outcome {
        Some(Outcome::Done(output)) => ("output bytes", Some(output)),
        Some(Outcome::Next(next)) => {
            check_next(next)?;
            ("step input bytes", next.input.as_ref())
        }
        Some(Outcome::Wait(wait)) => {
            wait::check(wait)?;
            let then = wait.then.as_ref();
            check_next(then.unwrap_or(&NextStep::default()))?;
            ("step input bytes", then.and_then(|then| then.input.as_ref()))
        }
        None => ("", None),
    };
    let size = payload.map_or(0, |payload| payload.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large(what, size, limits::PAYLOAD_BYTES));
    }
    Ok(())
}

fn check_next(next: &NextStep) -> Result<(), Stop> {
    id::check_name("step", &next.name)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))
}

fn digest(it: &CompleteStep) -> [u8; 32] {
    let same = CompleteStep { lease_next: None, ..it.clone() };
    Sha256::digest(same.encode_to_vec()).into()
}
