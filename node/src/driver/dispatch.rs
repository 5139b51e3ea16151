//! Ready steps to free slots: takes what fits, proposes one `LeaseStep` each, many at once, and sends the assignments of
//! those that apply granted.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::{log, reason, v1};
use pinrail_state_machine::effect::StepId;
use pinrail_state_machine::query;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::desk::Assigned;
use super::gates::Gate;
use super::lease::Token;
use super::queues::{Match, SessionId};
use super::state::ask;
use super::{Dispatch, PROPOSE_TIMEOUT};
use crate::raft::ProposeError;

/// Proposals with assignments that may be on their way at once.
const IN_FLIGHT: usize = 4;
/// Queues that were left alone for a moment are looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// After a proposal that nothing became of.
const PAUSE: Duration = Duration::from_millis(50);

/// Assigns until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch) {
    let mut flying = FuturesUnordered::new();
    loop {
        if flying.len() < IN_FLIGHT {
            let taken = take(&dispatch);
            if !taken.is_empty() {
                flying.push(assign(&dispatch, taken));
                continue;
            }
        }
        let wait = dispatch.with_desk(|desk| desk.look_again_in(Instant::now(), LOOK_AGAIN));
        tokio::select! {
            biased;
            Some(()) = flying.next(), if !flying.is_empty() => {}
            _ = timeout(wait.unwrap_or(LOOK_AGAIN), dispatch.inner.assign.notified()) => {}
        }
    }
}

fn take(dispatch: &Dispatch) -> Vec<Match> {
    let load = |agent: u32, bundle: &str| load_gate(dispatch, agent, bundle);
    dispatch.with_desk(|desk| desk.take(Instant::now(), load)).unwrap_or_default()
}

/// Reads what holds a bundle's steps back.
pub(super) fn load_gate(dispatch: &Dispatch, agent: u32, bundle: &str) -> Option<Gate> {
    let gate =
        ask(&dispatch.inner.replica, |read| Ok(query::dispatch::agent_gate(read, agent, bundle)?));
    match gate {
        Ok(gate) => Some(Gate {
            paused: gate.paused,
            max_running: gate.max_running,
            max_running_per_key: gate.max_running_per_key,
            max_per_second: gate.max_per_second,
        }),
        Err(error) => {
            tracing::warn!(agent, bundle, %error, "the agent's gate cannot be read");
            None
        }
    }
}

async fn assign(dispatch: &Dispatch, taken: Vec<Match>) {
    let commands = dispatch
        .with_desk(|desk| {
            taken
                .iter()
                .map(|m| desk.intro(m.session).map(|intro| lease(m, &intro.worker_id)))
                .collect::<Vec<_>>()
        })
        .unwrap_or_default();
    let (mut asked, mut commands_asked, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (taken, command) in taken.into_iter().zip(commands) {
        match command {
            Some(command) => {
                asked.push(taken);
                commands_asked.push(command);
            }
            None => lost.push(taken),
        }
    }
    settle(dispatch, lost.into_iter().map(|taken| (taken, Assigned::Undecided)));
    if asked.is_empty() {
        return;
    }
    match dispatch.inner.replica.propose_here(commands_asked, PROPOSE_TIMEOUT).await {
        Ok(outcomes) => {
            let became = outcomes.iter().map(became);
            settle(dispatch, asked.into_iter().zip(became));
        }
        Err(error) => {
            settle(dispatch, asked.into_iter().map(|taken| (taken, Assigned::Undecided)));
            sleep(pause(&error)).await;
        }
    }
    dispatch.inner.assign.notify_one();
}

/// How long to leave the log alone after it did not take a proposal.
pub(super) fn pause(error: &ProposeError) -> Duration {
    match error {
        ProposeError::Overloaded { retry_after } => *retry_after,
        ProposeError::NoLeader
        | ProposeError::NoQuorum
        | ProposeError::NotLeader { .. }
        | ProposeError::Unknown { .. }
        | ProposeError::TooLarge { .. }
        | ProposeError::Stopping => PAUSE,
    }
}

fn lease(taken: &Match, worker_id: &str) -> Bytes {
    let waiting = &taken.waiting;
    encode(Kind::LeaseStep(log::LeaseStep {
        step: Some(step_ref(&waiting.step)),
        attempt: waiting.attempt,
        taker: Some(log::Taker {
            worker_id: worker_id.to_owned(),
            bundle_id: waiting.bundle_id.clone(),
            serves: Vec::new(),
        }),
    }))
}

fn became(outcome: &log::Outcome) -> Assigned {
    match &outcome.result {
        Some(Answer::Step(result)) => {
            result.token.as_ref().map_or(Assigned::Gone, |token| Assigned::Leased(token.into()))
        }
        Some(Answer::Rejection(rejection)) => {
            let not_now = [reason::AGENT_PAUSED.name, reason::QUOTA_EXCEEDED.name];
            if not_now.contains(&rejection.reason.as_str()) {
                Assigned::NotNow
            } else {
                Assigned::Gone
            }
        }
        // No other answer belongs to a lease.
        Some(_) | None => Assigned::Gone,
    }
}

/// Takes in what became of assignments, and sends those that were granted.
pub(super) fn settle(dispatch: &Dispatch, settled: impl Iterator<Item = (Match, Assigned)>) {
    let now = Instant::now();
    let mut granted = Vec::new();
    dispatch.with_desk(|desk| {
        for (taken, became) in settled {
            let (session, step) = (taken.session, taken.waiting.step.clone());
            if desk.settle(taken, became, now)
                && let Assigned::Leased(token) = became
            {
                granted.push(Granted { session, step, token, input: None });
            }
        }
    });
    send(dispatch, &granted);
}

/// A lease that was granted to a session.
pub(super) struct Granted {
    pub(super) session: SessionId,
    pub(super) step: StepId,
    pub(super) token: Token,
    /// The step's, where the leader saw it come.
    pub(super) input: Option<v1::Payload>,
}

/// Reads what leased steps are and puts them on their workers' streams. What cannot be read is not sent; its lease ends.
pub(super) fn send(dispatch: &Dispatch, granted: &[Granted]) {
    if granted.is_empty() {
        return;
    }
    let steps = granted.iter().map(|it| (&it.step, it.input.as_ref()));
    let assignments =
        dispatch.inner.replica.read_latest(|read| query::dispatch::assignments(read, steps));
    let assignments = match assignments {
        Ok(assignments) => assignments,
        Err(error) => return tracing::warn!(%error, "leased steps cannot be read"),
    };
    for (Granted { session, step, token, .. }, assignment) in granted.iter().zip(assignments) {
        match assignment {
            Ok(assignment) if assignment.token.as_ref().map(Token::from) == Some(*token) => {
                tracing::debug!(
                    agent = assignment.agent_id,
                    bundle = assignment.bundle_id,
                    run = assignment.run_id,
                    step = assignment.step,
                    attempt = assignment.attempt,
                    "step assigned"
                );
                dispatch.with_desk(|desk| desk.send_assignment(*session, assignment));
            }
            Ok(_) => {
                tracing::debug!(run = step.run_id, step = step.step, "the lease is over already");
            }
            Err(gone) => {
                let why = gone.message;
                tracing::warn!(run = step.run_id, step = step.step, why, "step cannot be read");
            }
        }
    }
}

pub(super) fn step_ref(step: &StepId) -> log::StepRef {
    log::StepRef { agent: step.agent, run_id: step.run_id.clone(), step: step.step }
}

pub(super) fn encode(kind: Kind) -> Bytes {
    Bytes::from(pinrail_proto::encode(&log::Command { header: None, kind: Some(kind) }))
}
