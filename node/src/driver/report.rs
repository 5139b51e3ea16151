//! What a worker reports, in the order in which it reported: packed into commands, proposed together, answered one by
//! one. Reports are never shed: they free what the cluster has too much of.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message as Response;
use pinrail_proto::{id, limits, log, reason, time, v1};
use pinrail_state_machine::effect::{Rank, StepId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::desk::PROPOSALS;
use super::dispatch::{Granted, encode, pause, send};
use super::hello::rejection;
use super::lease::Token;
use super::queues::SessionId;
use super::session::Introduction;
use super::{Dispatch, PROPOSE_TIMEOUT, metrics};
use crate::raft::ProposeError;

/// Proposals of one worker that may be on their way at once: what it reports meanwhile does not wait for the log.
const IN_FLIGHT: usize = 4;

/// A report on its way through the log.
struct Report {
    sequence: u64,
    token: Token,
    step: StepId,
    command: Bytes,
    /// When it is accepted, the lease is over so.
    ends: Option<metrics::StepOutcome>,
    /// Of the step that it makes, if that is one.
    next_input: Option<v1::Payload>,
}

/// What became of a pack of reports.
enum Became {
    Answered(Vec<log::Outcome>),
    Unknown(String),
    TooLarge,
    /// This node leads no more. The worker's stream ends, and the worker reports again to the next leader.
    NotHere,
}

/// Proposes a worker's reports until its stream or the leadership is over.
pub(super) async fn run(
    dispatch: Dispatch,
    id: SessionId,
    intro: Introduction,
    mut inbox: mpsc::Receiver<v1::WorkRequest>,
) {
    let mut waiting: Vec<v1::WorkRequest> = Vec::new();
    let mut flying = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(goes_on) = flying.next(), if !flying.is_empty() => {
                if goes_on { continue }
                break;
            }
            received = inbox.recv_many(&mut waiting, PROPOSALS), if flying.len() < IN_FLIGHT => {
                if received == 0 { break }
            }
        }
        let mut reports = Vec::new();
        for request in waiting.drain(..) {
            let sequence = request.sequence;
            match report(&intro, in_turn(&dispatch, &intro, request)) {
                Ok(report) => reports.push(report),
                Err(refused) => answer(&dispatch, id, sequence, refuse(*refused, 0)),
            }
        }
        // Nothing follows a report that ends its lease. Others may be followed by one that does, and come before it.
        let is_followed = reports.iter().any(|report| report.ends.is_none());
        while !reports.is_empty() {
            let rest = reports.split_off(pack(&reports));
            flying.push(propose(&dispatch, id, &intro, reports));
            reports = rest;
            if is_followed && !land(&mut flying).await {
                return;
            }
        }
    }
    land(&mut flying).await;
}

/// Waits for all proposals that are on their way. False: the session is over.
async fn land(flying: &mut FuturesUnordered<impl Future<Output = bool>>) -> bool {
    let mut goes_on = true;
    while let Some(one) = flying.next().await {
        goes_on &= one;
    }
    goes_on
}

/// A worker that would go on with its run lets what is more urgent pass.
fn in_turn(
    dispatch: &Dispatch,
    intro: &Introduction,
    mut request: v1::WorkRequest,
) -> v1::WorkRequest {
    if let Some(Request::Complete(it)) = &mut request.message
        && it.lease_next
        && let Some(token) = it.token.as_ref().map(Token::from)
    {
        it.lease_next = dispatch.with_desk(|desk| desk.may_go_on(intro, token)).unwrap_or_default();
    }
    request
}

/// How many of these go into one proposal: at least one, at most a batch's bytes.
fn pack(reports: &[Report]) -> usize {
    let mut bytes = 0;
    let fits = reports.iter().take_while(|report| {
        bytes += report.command.len();
        bytes <= limits::BATCH_BYTES
    });
    fits.count().max(1)
}

/// False: the session is over.
async fn propose(
    dispatch: &Dispatch,
    id: SessionId,
    intro: &Introduction,
    reports: Vec<Report>,
) -> bool {
    let mark = |ending| {
        dispatch.with_desk(|desk| {
            for report in reports.iter().filter(|report| report.ends.is_some()) {
                desk.leases.set_ending(report.token, ending);
            }
        });
    };
    mark(true);
    let commands: Vec<Bytes> = reports.iter().map(|report| report.command.clone()).collect();
    match decide(dispatch, id, commands).await {
        Became::Answered(outcomes) => {
            let settled = reports.iter().zip(outcomes);
            let granted: Vec<Granted> = settled
                .filter_map(|(report, outcome)| settle(dispatch, id, intro, report, outcome))
                .collect();
            send(dispatch, &granted);
            dispatch.inner.assign.notify_one();
        }
        Became::Unknown(message) => {
            mark(false);
            for report in &reports {
                let unknown = v1::Unknown { message: message.clone() };
                answer(dispatch, id, report.sequence, Response::Unknown(unknown));
            }
        }
        Became::TooLarge => {
            mark(false);
            for report in &reports {
                let size = report.command.len();
                let max = limits::COMMAND_BYTES;
                let message = format!("the report has {size} bytes; at most {max} are allowed");
                let refused = rejection(reason::LIMIT_EXCEEDED, message);
                answer(dispatch, id, report.sequence, refuse(refused, 0));
            }
        }
        Became::NotHere => return false,
    }
    true
}

/// Proposes until the log took the commands, or it is certain that this node cannot say what became of them.
async fn decide(dispatch: &Dispatch, id: SessionId, commands: Vec<Bytes>) -> Became {
    loop {
        let known = dispatch.with_desk(|desk| desk.intro(id).is_some());
        if known != Some(true) {
            return Became::NotHere;
        }
        match dispatch.inner.replica.propose_here(commands.clone(), PROPOSE_TIMEOUT).await {
            Ok(outcomes) => return Became::Answered(outcomes),
            Err(ProposeError::Unknown { why }) => return Became::Unknown(why),
            Err(ProposeError::TooLarge { .. }) => return Became::TooLarge,
            Err(ProposeError::NotLeader { .. } | ProposeError::Stopping) => return Became::NotHere,
            Err(
                error @ (ProposeError::Overloaded { .. }
                | ProposeError::NoLeader
                | ProposeError::NoQuorum),
            ) => sleep(pause(&error)).await,
        }
    }
}

/// Answers a report. The run's next step, if the worker that reported goes on with it.
fn settle(
    dispatch: &Dispatch,
    id: SessionId,
    intro: &Introduction,
    report: &Report,
    outcome: log::Outcome,
) -> Option<Granted> {
    let revision = outcome.revision;
    let (closed, next) = match outcome.result {
        Some(Answer::Rejection(refused)) => {
            dispatch.with_desk(|desk| desk.leases.set_ending(report.token, false));
            answer(dispatch, id, report.sequence, refuse(refused, revision));
            return None;
        }
        Some(Answer::Step(result)) => {
            let step = StepId { step: result.step, ..report.step.clone() };
            (result.closed, result.token.map(|token| (step, Token::from(&token))))
        }
        // A memory write, or an answer without content.
        Some(_) | None => (false, None),
    };
    let mut rank = Rank::default();
    if let Some(ended) = report.ends {
        metrics::step(&intro.agent_id, &intro.bundle_id, ended);
        tracing::debug!(
            agent = intro.agent_id,
            bundle = intro.bundle_id,
            run = report.step.run_id,
            step = report.step.step,
            outcome = ended.name(),
            "step reported"
        );
        let before = dispatch.with_desk(|desk| desk.reported(report.token)).flatten();
        // The run's next step has its run's place among others; whom it prefers counts in a queue.
        rank = Rank { prefers: String::new(), ..before.unwrap_or_default() };
    }
    let done = v1::Done { revision, closed };
    answer(dispatch, id, report.sequence, Response::Done(done));
    // The run's next step is leased already; its worker kept the slot.
    let (step, token) = next.filter(|_| report.ends.is_some())?;
    let is_granted =
        dispatch.with_desk(|desk| desk.granted(id, token, &step, &rank, Instant::now()));
    let input = report.next_input.clone();
    (is_granted == Some(true)).then_some(Granted { session: id, step, token, input })
}

fn answer(dispatch: &Dispatch, id: SessionId, sequence: u64, message: Response) {
    dispatch.with_desk(|desk| desk.answer(id, sequence, message));
}

fn refuse(rejection: log::Rejection, revision: u64) -> Response {
    Response::Refused(v1::Refused {
        code: reason::find(&rejection.reason).map_or(INTERNAL, |reason| reason.code),
        reason: rejection.reason,
        message: rejection.message,
        revision,
        metadata: rejection.metadata,
    })
}

/// gRPC's code of a reason that this binary does not know.
const INTERNAL: i32 = 13;

type Refusal = Box<log::Rejection>;

/// Checks a report and encodes its command.
fn report(intro: &Introduction, request: v1::WorkRequest) -> Result<Report, Refusal> {
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
        Kind::CompleteStep(log::CompleteStep {
            outcome: Some(log::complete_step::Outcome::Next(next)),
            ..
        }) => next.input.clone(),
        _ => None,
    };
    let command = encode(kind);
    if command.len() > limits::COMMAND_BYTES {
        let (size, max) = (command.len(), limits::COMMAND_BYTES);
        return Err(too_large("report", size, max));
    }
    Ok(Report { sequence: request.sequence, token, step, command, ends, next_input })
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
    let taker =
        || log::Taker { worker_id: intro.worker_id.clone(), bundle_id: intro.bundle_id.clone() };
    Ok(Kind::CompleteStep(log::CompleteStep {
        step: Some(step_ref(step)),
        token: Some(token.into()),
        outcome: Some(outcome),
        usage: it.usage,
        lease_next: it.lease_next.then(taker),
        memory,
    }))
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

fn step_ref(step: &StepId) -> log::StepRef {
    super::dispatch::step_ref(step)
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

#[cfg(test)]
mod tests;
