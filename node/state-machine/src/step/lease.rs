//! Leasing: a worker of the pinned bundle gets the right to execute one attempt.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{LeaseStep, RunRecord, StepRecord, StepResult, Taker, Token};
use pinrail_proto::reason;
use pinrail_proto::v1::{RunState, StepState};

use crate::effect::Effect;
use crate::mutant::{Mutant, is_planted};
use crate::outcome::{Stop, reject};
use crate::run::{Subject, ends, is_over, settle};
use crate::txn::Txn;
use crate::{agent, bundle};

use super::queue::{begin_clock, dequeue, enqueue, rank};
use super::state::turn;
use super::transfer::stays_behind;
use super::{standing, step_id};

pub(crate) fn lease(txn: &mut Txn<'_>, it: &LeaseStep) -> Result<Answer, Stop> {
    let asked = it.step.clone().unwrap_or_default();
    let taker = it.taker.clone().unwrap_or_default();
    let Some(mut subject) = Subject::at(txn, asked.agent, &asked.run_id, asked.step)? else {
        return Err(not_ready("the run or its step is gone"));
    };
    settle(txn, &mut subject)?;
    let ready = subject.step.as_ref().is_some_and(|step| {
        step.number == asked.step
            && step.state() == StepState::Ready
            && step.attempt + 1 == it.attempt
            && (step.start_by_ms == 0 || txn.now < step.start_by_ms)
    });
    if !ready {
        return Err(not_ready("the step does not wait for a worker in this attempt"));
    }
    may_lease(txn, &subject, &taker)?;
    dequeue(txn, &mut subject);
    let token = grant(txn, &mut subject, &taker)?;
    subject.save(txn)?;
    Ok(Answer::Step(StepResult { token: Some(token), step: asked.step, ..StepResult::default() }))
}

/// Leases the open step, which is in no queue, to a worker that is there for it, if that may have it; otherwise the
/// step waits for one. That it may not is no refusal: nobody asked for this worker.
pub(super) fn offer(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    taker: Option<&Taker>,
) -> Result<Option<Token>, Stop> {
    match taker {
        Some(taker) if may_lease(txn, subject, taker).is_ok() => {
            Ok(Some(grant(txn, subject, taker)?))
        }
        Some(_) | None => {
            enqueue(txn, subject)?;
            Ok(None)
        }
    }
}

/// Whether the open step may go to this worker now. P1: only to one of the pinned bundle.
fn may_lease(txn: &Txn<'_>, subject: &Subject, taker: &Taker) -> Result<(), Stop> {
    if taker.bundle_id != subject.run.bundle_id && !is_planted(Mutant::LeasesToOtherBundles) {
        let message = format!(
            "the run is pinned to bundle {}; the worker serves {}",
            subject.run.bundle_id, taker.bundle_id
        );
        return Err(reject(reason::BUNDLE_MISMATCH, message));
    }
    if is_over(subject.run.state()) || subject.run.state() == RunState::Cancelling {
        return Err(reject(reason::RUN_CLOSED, "the run is over or being cancelled"));
    }
    if txn.now >= ends(&subject.run, &subject.bundle).soft_ms {
        return Err(reject(reason::PIN_EXPIRED, "the end of the run's pin is past"));
    }
    // A step that has recorded something ends where it began.
    let stays = stays_behind(txn)
        && !subject.run.restart_step
        && subject.step.as_ref().is_some_and(|step| step.checkpoints > 0);
    if !subject.run.repin_to.is_empty() && !stays {
        return Err(not_ready("the run moves to another bundle first"));
    }
    if subject.run.held {
        return Err(reject(reason::RUN_PAUSED, "the run is paused"));
    }
    if subject.agent.paused || subject.bundle.paused {
        return Err(reject(reason::AGENT_PAUSED, "the agent or the bundle is paused"));
    }
    let running = agent::running_steps(txn, &subject.agent);
    if running >= subject.agent.max_running {
        let message = format!("the agent has {running} running steps");
        return Err(
            reject(reason::QUOTA_EXCEEDED, message).with("limit", subject.agent.max_running)
        );
    }
    Ok(())
}

/// Hands out the lease of the open step, which is in no queue.
fn grant(txn: &mut Txn<'_>, subject: &mut Subject, taker: &Taker) -> Result<Token, Stop> {
    let token = Token { incarnation: txn.cluster.incarnation, revision: txn.revision };
    let number = subject.agent.number;
    let Subject { bundle, run, step: Some(step), .. } = subject else {
        return Err(not_ready("the run has no open step"));
    };
    let (run, step): (&mut RunRecord, &mut StepRecord) = (run, step);
    let policy = bundle::step_policy(txn.read(), number, &bundle.bundle_id, &step.name)?;
    turn(txn, number, run, step, StepState::Leased);
    if !bundle.had_worker {
        bundle.had_worker = true;
    }
    step.attempt += 1;
    step.token = Some(token);
    step.worker_id.clone_from(&taker.worker_id);
    run.last_worker_id.clone_from(&taker.worker_id);
    step.leased_ms = txn.now;
    step.lease_ms = policy.lease_ms;
    begin_clock(txn.now, step, &policy);
    let close_by_ms = if step.close_by_ms == 0 { u64::MAX } else { step.close_by_ms };
    step.attempt_deadline_ms = (txn.now + policy.start_to_close_ms).min(close_by_ms);
    standing::put(txn, number, run, step);
    txn.count_lease(number, 1);
    txn.effect(Effect::Leased {
        step: step_id(number, run, step),
        bundle_id: run.bundle_id.clone(),
        attempt: step.attempt,
        token,
        worker_id: step.worker_id.clone(),
        lease_ms: step.lease_ms,
        rank: rank(&run.run_id, step),
    });
    Ok(token)
}

fn not_ready(why: &str) -> Stop {
    reject(reason::STEP_NOT_READY, why)
}
