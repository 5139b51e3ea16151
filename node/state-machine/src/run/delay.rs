//! Delayed starts: a run that is accepted now and takes its pin from the route when it is due.

use pinrail_proto::log::{AgentRecord, RunRecord, StartRun};
use pinrail_proto::v1::{Failure, RunState};

use crate::event;
use crate::event::With as _;
use crate::key::Timer;
use crate::level;
use crate::outcome::Stop;
use crate::shared::Shared;
use crate::txn::Txn;

use super::begin::{count_in, enter, go};
use super::start::{choose, route};
use super::{End, Subject, close, session, set_state, state_key};

/// Accepts a run that begins later. It has no pin until then.
pub(super) fn schedule(
    txn: &mut Txn<'_>,
    agent: Shared<AgentRecord>,
    mut run: RunRecord,
    it: &StartRun,
) -> Result<Subject, Stop> {
    run.due_ms = txn.now + it.delay_ms;
    run.external = agent.external;
    enter(txn, &mut run, agent.number, it.input.as_ref());
    set_state(txn, agent.number, &mut run, RunState::Scheduled);
    txn.set_timer(agent.number, run.due_ms, Timer::StartDue, run.run_id.as_bytes());
    let mut subject = Subject { agent, bundle: Shared::default(), run: run.into(), step: None };
    count_in(txn, &mut subject)?;
    subject.save(txn)?;
    let Subject { agent, run, .. } = &subject;
    txn.event(event::of_run("run.scheduled", agent, "", &run.run_id).with("due_ms", run.due_ms));
    Ok(subject)
}

/// Pins a delayed run that is due and lets it begin. One that finds no bundle, or its session busy where that is refused, fails:
/// nobody would start it later. The caller saves the subject.
pub(super) fn begin_if_due(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    if subject.run.state() != RunState::Scheduled || txn.now < subject.run.due_ms {
        return Ok(());
    }
    let chosen = choose(txn.read(), txn.now, &subject.agent, &subject.run);
    let admitted = match txn.cluster.feature_level >= level::BUSY_SESSIONS_FAIL_DELAYED_RUNS {
        true => session::reject_if_busy(txn, &subject.agent, &subject.run),
        false => Ok(()),
    };
    let (bundle, pin_reason) = match chosen.and_then(|chosen| admitted.map(|()| chosen)) {
        Ok(chosen) => chosen,
        Err(Stop::Rejected(refused)) => {
            let failure =
                Failure { reason: refused.reason, message: refused.message, ..Failure::default() };
            return close(txn, subject, End::Failed(failure));
        }
        Err(fault @ Stop::Fault(_)) => return Err(fault),
    };
    let (number, run_id) = (subject.agent.number, subject.run.run_id.clone());
    txn.clear_timer(number, subject.run.due_ms, Timer::StartDue, run_id.as_bytes());
    // The index of states knows the bundle: leave it before there is one.
    txn.delete(state_key(number, &subject.run));
    let mut run = subject.run.clone().into_inner();
    run.set_state(RunState::Unspecified);
    let (agent, bundle, run) = route(txn, subject.agent.clone(), bundle, pin_reason, run);
    *subject = Subject { agent, bundle, run: run.into(), step: None };
    go(txn, subject, None)
}
