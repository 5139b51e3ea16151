//! What a worker's report asks for, as a command of the log.

use pinrail_proto::log::command::Kind;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::{id, limits, log, reason, time, v1};
use pinrail_state_machine::completion_digest;
use pinrail_state_machine::effect::StepId;

use crate::driver::dispatch::{encode, step_ref};
use crate::driver::hello::rejection;
use crate::driver::lease::Token;
use crate::driver::metrics;
use crate::driver::session::Introduction;

use super::Report;

pub(super) type Refusal = Box<log::Rejection>;

/// Checks a report and encodes its command.
pub(super) fn report(intro: &Introduction, request: v1::WorkRequest) -> Result<Report, Refusal> {
    let (step, token, kind, ends) = match request.message {
        Some(Request::Complete(it)) => {
            let (step, token) = subject(intro, &it.run_id, it.step, it.token.as_ref())?;
            (
                step.clone(),
                token,
                complete(intro, &step, token, it)?,
                Some(metrics::StepOutcome::Completed),
            )
        }
        Some(Request::Fail(it)) => {
            let (step, token) = subject(intro, &it.run_id, it.step, it.token.as_ref())?;
            (step.clone(), token, fail(&step, token, it), Some(metrics::StepOutcome::Failed))
        }
        Some(Request::Checkpoint(it)) => {
            let (step, token) = subject(intro, &it.run_id, it.step, it.token.as_ref())?;
            (step.clone(), token, checkpoint(&step, token, it)?, None)
        }
        Some(Request::HandBack(it)) => {
            let (step, token) = subject(intro, &it.run_id, it.step, it.token.as_ref())?;
            let kind = Kind::HandBackStep(log::HandBackStep {
                step: Some(step_ref(&step)),
                token: Some(token.into()),
                progress: it.progress,
                usage: it.usage,
            });
            (step, token, kind, Some(metrics::StepOutcome::HandedBack))
        }
        Some(Request::MemoryPut(it)) => {
            let (step, token) = subject(intro, &it.run_id, it.step, it.token.as_ref())?;
            (step.clone(), token, memory(intro, &step, token, it)?, None)
        }
        Some(Request::Hello(_) | Request::Credit(_) | Request::Heartbeat(_) | Request::Emit(_))
        | None => {
            return Err(bad("not a report"));
        }
    };
    let next_input = match &kind {
        Kind::CompleteStep(completion) => next_input(completion),
        _ => None,
    };
    let command = encode(kind);
    if command.len() > limits::COMMAND_BYTES {
        let (size, max) = (command.len(), limits::COMMAND_BYTES);
        return Err(too_large("report", size, max));
    }
    Ok(Report { sequence: request.sequence, token, step, command, ends, next_input })
}

/// What the one step that a completion makes is to work on.
fn next_input(completion: &log::CompleteStep) -> Option<v1::Payload> {
    use log::complete_step::Outcome;
    match completion.outcome.as_ref()? {
        Outcome::Next(next) => next.input.clone(),
        Outcome::ContinueAsNew(next) => next.input.clone(),
        Outcome::Done(_) | Outcome::Wait(_) | Outcome::All(_) | Outcome::Child(_) => None,
    }
}

/// What a report is about.
fn subject(
    intro: &Introduction,
    run_id: &str,
    step: u32,
    token: Option<&v1::StepToken>,
) -> Result<(StepId, Token), Refusal> {
    id::check_token("run id", run_id).map_err(bad_id)?;
    let token = token.map(Token::from).ok_or_else(|| bad("the report has no token"))?;
    Ok((StepId { agent: intro.agent, run_id: run_id.to_owned(), step }, token))
}

fn complete(
    intro: &Introduction,
    step: &StepId,
    token: Token,
    it: v1::CompleteStep,
) -> Result<Kind, Refusal> {
    use log::complete_step::Outcome;
    use v1::complete_step::Outcome as Reported;
    let outcome = match it.outcome {
        Some(Reported::Next(next)) => Outcome::Next(self::next(next)?),
        Some(Reported::Wait(wait)) => Outcome::Wait(self::wait(wait)?),
        Some(Reported::All(all)) => Outcome::All(fan_out(all)?),
        Some(Reported::Child(it)) => Outcome::Child(child(it)?),
        Some(Reported::ContinueAsNew(it)) => Outcome::ContinueAsNew(log::ContinueRun {
            input: check_payload("the input", it.input)?,
            on_live_bundle: it.on_live_bundle,
        }),
        Some(Reported::Done(output)) => {
            Outcome::Done(check_payload("the output", Some(output))?.unwrap_or_default())
        }
        None => {
            return Err(bad("a completion says what is next, what to wait for, or the output"));
        }
    };
    let memory = it.memory.into_iter().map(carried).collect::<Result<_, _>>()?;
    // What a run that continues begins with is not said here.
    let serves = match &outcome {
        Outcome::ContinueAsNew(_) => intro.profile.serves.iter().cloned().collect(),
        _ => Vec::new(),
    };
    let taker = || log::Taker {
        worker_id: intro.worker_id.clone(),
        bundle_id: intro.bundle_id.clone(),
        serves,
    };
    let mut completion = log::CompleteStep {
        step: Some(step_ref(step)),
        token: Some(token.into()),
        outcome: Some(outcome),
        usage: it.usage,
        lease_next: it.lease_next.then(taker),
        memory,
        ..log::CompleteStep::default()
    };
    completion.digest = completion_digest(&mut completion);
    Ok(Kind::CompleteStep(completion))
}

/// A memory write that a completion carries.
fn carried(it: v1::CompletionWrite) -> Result<log::MemoryWrite, Refusal> {
    id::check_memory_key(&it.key).map_err(bad_id)?;
    Ok(log::MemoryWrite {
        key: it.key,
        value: check_payload("the value", it.value)?,
        ttl_ms: ttl_ms(it.ttl.as_ref())?,
        expected_key_revision: it.expected_revision,
    })
}

/// 0: none.
fn ttl_ms(ttl: Option<&prost_types::Duration>) -> Result<u64, Refusal> {
    let bad_ttl = || bad("ttl is negative or too large");
    ttl.map_or(Ok(0), |ttl| time::millis(ttl).ok_or_else(bad_ttl))
}

fn next(next: v1::NextStep) -> Result<log::NextStep, Refusal> {
    id::check_name("step", &next.name).map_err(bad_id)?;
    let input = check_payload("the next step's input", next.input)?;
    Ok(log::NextStep { name: next.name, input })
}

fn child(it: v1::ChildRun) -> Result<log::ChildRun, Refusal> {
    if !it.entry.is_empty() {
        id::check_name("step", &it.entry).map_err(bad_id)?;
    }
    let input = check_payload("the child's input", it.input)?;
    let then = Some(next(it.then.ok_or_else(|| bad("a child says what comes then"))?)?);
    Ok(log::ChildRun { entry: it.entry, input, then })
}

fn fan_out(it: v1::FanOut) -> Result<log::FanOut, Refusal> {
    if it.branches.is_empty() {
        return Err(bad("a fan-out has at least one branch"));
    }
    let (count, most) = (it.branches.len(), limits::FAN_OUT);
    if count > most {
        let message = format!("{count} branches; at most {most} are allowed");
        return Err(Box::new(rejection(reason::LIMIT_EXCEEDED, message)));
    }
    id::check_name("step", &it.join).map_err(bad_id)?;
    let branches = it.branches.into_iter().map(next).collect::<Result<_, _>>()?;
    Ok(log::FanOut { branches, join: it.join, settle: it.settle })
}

fn wait(it: v1::WaitStep) -> Result<log::WaitStep, Refusal> {
    if !it.signal.is_empty() {
        id::check_name("signal", &it.signal).map_err(bad_id)?;
    }
    let timeout_ms = match &it.timeout {
        Some(timeout) => {
            Some(time::millis(timeout).ok_or_else(|| bad("timeout is negative or too large"))?)
        }
        None => None,
    };
    let then = Some(next(it.then.ok_or_else(|| bad("a wait says what comes then"))?)?);
    Ok(log::WaitStep { signal: it.signal, timeout_ms, then })
}

fn fail(step: &StepId, token: Token, it: v1::FailStep) -> Kind {
    let mut failure = it.failure.unwrap_or_default();
    failure.reason = clip(failure.reason, limits::NAME_BYTES);
    failure.message = clip(failure.message, limits::TEXT_BYTES);
    Kind::FailStep(log::FailStep {
        step: Some(step_ref(step)),
        token: Some(token.into()),
        failure: Some(failure),
        usage: it.usage,
        progress: it.progress,
    })
}

fn checkpoint(step: &StepId, token: Token, it: v1::RecordCheckpoint) -> Result<Kind, Refusal> {
    let checkpoint = it.checkpoint.ok_or_else(|| bad("the checkpoint is missing"))?;
    id::check_token("checkpoint name", &checkpoint.name).map_err(bad_id)?;
    Ok(Kind::RecordCheckpoint(log::RecordCheckpoint {
        step: Some(step_ref(step)),
        token: Some(token.into()),
        name: checkpoint.name,
        value: check_payload("the checkpoint", checkpoint.value)?,
        order: checkpoint.order,
        usage: it.usage,
    }))
}

fn memory(
    intro: &Introduction,
    step: &StepId,
    token: Token,
    it: v1::WorkerMemoryPut,
) -> Result<Kind, Refusal> {
    id::check_memory_key(&it.key).map_err(bad_id)?;
    let ttl_ms = ttl_ms(it.ttl.as_ref())?;
    let agent = Some(log::AgentRef {
        namespace: intro.namespace.clone(),
        agent_id: intro.agent_id.clone(),
    });
    let lease = log::LeasedRun { step: Some(step_ref(step)), token: Some(token.into()) };
    let target = Some(log::MemoryTarget { target: Some(log::memory_target::Target::Lease(lease)) });
    let expected_key_revision = it.expected_revision;
    Ok(match check_payload("the value", it.value)? {
        Some(value) => Kind::PutMemory(log::PutMemory {
            agent,
            target,
            key: it.key,
            value: Some(value),
            ttl_ms,
            expected_key_revision,
        }),
        None => Kind::DeleteMemory(log::DeleteMemory {
            agent,
            target,
            key: it.key,
            expected_key_revision,
        }),
    })
}

fn check_payload(what: &str, payload: Option<v1::Payload>) -> Result<Option<v1::Payload>, Refusal> {
    if let Some(payload) = &payload {
        let (size, max) = (payload.data.len(), limits::PAYLOAD_BYTES);
        if size > max {
            return Err(too_large(what, size, max));
        }
        if payload.content_type.len() > limits::ID_BYTES {
            return Err(too_large("a content type", payload.content_type.len(), limits::ID_BYTES));
        }
    }
    Ok(payload)
}

fn too_large(what: &str, size: usize, max: usize) -> Refusal {
    let message = format!("{what} has {size} bytes; at most {max} are allowed");
    Box::new(rejection(reason::LIMIT_EXCEEDED, message))
}

fn bad(message: &str) -> Refusal {
    Box::new(rejection(reason::INVALID_REQUEST, message.to_owned()))
}

fn bad_id(error: id::IdError) -> Refusal {
    Box::new(rejection(reason::INVALID_ID, error.to_string()))
}

/// The longest beginning of at most `max` bytes.
fn clip(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
