//! What a worker reports, in the order in which it reported: packed into commands, proposed together, answered one by
//! one. Reports are never shed: they free what the cluster has too much of.

mod command;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message as Response;
use pinrail_proto::{limits, log, reason, v1};
use pinrail_state_machine::effect::{Rank, StepId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::desk::PROPOSALS;
use super::dispatch::{Granted, pause, send};
use super::hello::rejection;
use super::lease::Token;
use super::queues::SessionId;
use super::session::Introduction;
use super::{Dispatch, PROPOSE_TIMEOUT, metrics};
use crate::raft::ProposeError;

use command::report;

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
            let accepted =
                reports.iter().zip(&outcomes).filter(|(_, outcome)| !is_refused(outcome));
            let ended = accepted.filter_map(|(report, _)| report.ends);
            metrics::steps(&intro.agent_id, &intro.bundle_id, ended);
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
    let (closed, continued_as, next) = match outcome.result {
        Some(Answer::Rejection(refused)) => {
            dispatch.with_desk(|desk| desk.leases.set_ending(report.token, false));
            answer(dispatch, id, report.sequence, refuse(refused, revision));
            return None;
        }
        Some(Answer::Step(result)) => {
            let mut step = StepId { step: result.step, ..report.step.clone() };
            if !result.run_id.is_empty() {
                step.run_id.clone_from(&result.run_id);
            }
            let next = result.token.map(|token| (step, Token::from(&token)));
            (result.closed, result.run_id, next)
        }
        // A memory write, or an answer without content.
        Some(_) | None => (false, String::new(), None),
    };
    let mut rank = Rank::default();
    if let Some(ended) = report.ends {
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
    let done = v1::Done { revision, closed, continued_as };
    answer(dispatch, id, report.sequence, Response::Done(done));
    // The run's next step is leased already; its worker kept the slot.
    let (step, token) = next.filter(|_| report.ends.is_some())?;
    let is_granted =
        dispatch.with_desk(|desk| desk.granted(id, token, &step, &rank, Instant::now()));
    let input = report.next_input.clone();
    (is_granted == Some(true)).then_some(Granted { session: id, step, token, input })
}

fn is_refused(outcome: &log::Outcome) -> bool {
    matches!(outcome.result, Some(Answer::Rejection(_)))
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

#[cfg(test)]
mod tests;
