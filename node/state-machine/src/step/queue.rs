//! How a step enters and leaves the queue of its bundle, and how it gives up what it holds.

use pinrail_proto::limits;
use pinrail_proto::log::{RunRecord, StepRecord, Taker};
use pinrail_proto::v1::{RunKind, StepState};

use crate::bundle::{self, StepPolicy};
use crate::effect::{Effect, Rank};
use crate::key::{Key, Kind, RowKey, Timer};
use crate::level;
use crate::outcome::Stop;
use crate::run::Subject;
use crate::txn::Txn;

use super::fan_out::open_steps;
use super::lease::offer;
use super::state::turn;
use super::{object, standing, step_id};

/// Opens a run's first step; its input is the run's.
pub(crate) fn open_first(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    name: &str,
    taker: Option<&Taker>,
) -> Result<(), Stop> {
    open(txn, subject, name, Place::default())?;
    offer(txn, subject, taker)?;
    Ok(())
}

/// The branch that a step is in; the default: none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Number of the join.
    pub(super) join: u32,
    pub(super) branch: u32,
}

impl Place {
    /// A step stays in the branch of the one before it.
    pub(super) fn behind(step: Option<&StepRecord>) -> Self {
        step.map_or_else(Self::default, |s| Self { join: s.join, branch: s.branch })
    }
}

/// Makes a new step; it is not in the queue yet.
pub(super) fn open(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    name: &str,
    place: Place,
) -> Result<(), Stop> {
    let policy =
        bundle::step_policy(txn.read(), subject.agent.number, &subject.bundle.bundle_id, name)?;
    let run: &mut RunRecord = &mut subject.run;
    run.step += 1;
    if place.join == 0 {
        run.trunk = run.step;
        name.clone_into(&mut run.step_name);
    }
    let step = StepRecord {
        number: run.step,
        name: name.to_owned(),
        max_attempts: policy.max_attempts,
        lease_ms: policy.lease_ms,
        bundle_id: run.bundle_id.clone(),
        priority: run.priority,
        shadow: run.kind() == RunKind::Shadow,
        fairness_key: match run.fairness_key.as_str() {
            "" => run.session.clone(),
            key => key.to_owned(),
        },
        join: place.join,
        branch: place.branch,
        in_run: place.join == 0 && txn.cluster.feature_level >= level::TRUNKS_LIE_IN_RUNS,
        ..StepRecord::default()
    };
    subject.step = Some(step.into());
    Ok(())
}

/// Puts the open step into the queue of its bundle. Its time to wait for a worker counts anew with each attempt.
pub(super) fn enqueue(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let agent = subject.agent.number;
    let Subject { bundle, run, step: Some(step), .. } = subject else { return Ok(()) };
    let policy = bundle::step_policy(txn.read(), agent, &run.bundle_id, &step.name)?;
    begin_clock(txn.now, step, &policy);
    if run.held {
        step.held = true;
        turn(txn, agent, run, step, StepState::Waiting);
        return Ok(());
    }
    let start_by_ms = match policy.schedule_to_start_ms {
        0 => u64::MAX,
        wait => txn.now + wait,
    };
    let close_by_ms = if step.close_by_ms == 0 { u64::MAX } else { step.close_by_ms };
    step.start_by_ms = match start_by_ms.min(close_by_ms) {
        u64::MAX => 0,
        by_ms => by_ms,
    };
    turn(txn, agent, run, step, StepState::Ready);
    step.ready_ms = txn.now;
    step.ready_revision = txn.revision;
    step.token = None;
    step.worker_id.clear();
    // A worker that failed it, or was not heard of, is none to wait for.
    step.prefers_worker_id =
        if step.attempt == 0 { run.last_worker_id.clone() } else { String::new() };
    txn.mark(ready_key(agent, &run.bundle_id, &run.run_id, step), &[]);
    bundle.ready_steps += 1;
    if step.start_by_ms != 0 {
        step.timer_ms = step.start_by_ms;
        txn.set_timer(agent, step.timer_ms, Timer::StartBy, &object(&run.run_id, step.number));
    }
    txn.effect(Effect::StepReady {
        step: step_id(agent, run, step),
        bundle_id: run.bundle_id.clone(),
        name: step.name.clone(),
        attempt: step.attempt + 1,
        ready_revision: step.ready_revision,
        rank: rank(&run.run_id, step),
    });
    Ok(())
}

/// What decides when a step's turn comes.
pub(crate) fn rank(run_id: &str, step: &StepRecord) -> Rank {
    Rank {
        priority: if step.priority == 0 { limits::DEFAULT_PRIORITY } else { step.priority },
        key: match step.fairness_key.as_str() {
            "" => run_id.to_owned(),
            key => key.to_owned(),
        },
        prefers: step.prefers_worker_id.clone(),
        shadow: step.shadow,
    }
}

/// Schedule-to-close counts from when a step could first be leased, over all of its attempts.
pub(super) fn begin_clock(now: u64, step: &mut StepRecord, policy: &StepPolicy) {
    if step.close_by_ms == 0 && policy.schedule_to_close_ms != 0 {
        step.close_by_ms = now + policy.schedule_to_close_ms;
    }
}

/// Takes the steps of a paused run out of the queue.
pub(crate) fn hold(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    for step in open_steps(txn, subject)? {
        if step.state() == StepState::Ready {
            subject.go_on_with(txn, step);
            withdraw(txn, subject);
            let Subject { agent, run, step: Some(step), .. } = &mut *subject else { continue };
            step.held = true;
            turn(txn, agent.number, run, step, StepState::Waiting);
        }
    }
    Ok(())
}

/// Puts back what waited only because its run was paused.
pub(crate) fn let_go(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    for mut step in open_steps(txn, subject)? {
        if step.held {
            step.held = false;
            subject.go_on_with(txn, step);
            enqueue(txn, subject)?;
        }
    }
    Ok(())
}

/// Takes a step out of the queue for good: the leader forgets it.
pub(super) fn withdraw(txn: &mut Txn<'_>, subject: &mut Subject) {
    let Some(step) = &subject.step else { return };
    let withdrawn = Effect::StepWithdrawn {
        step: step_id(subject.agent.number, &subject.run, step),
        bundle_id: subject.run.bundle_id.clone(),
    };
    dequeue(txn, subject);
    txn.effect(withdrawn);
}

/// Takes a step that waits for a worker out of the queue.
pub(super) fn dequeue(txn: &mut Txn<'_>, subject: &mut Subject) {
    let agent = subject.agent.number;
    let Subject { bundle, run, step: Some(step), .. } = subject else { return };
    txn.delete(ready_key(agent, &run.bundle_id, &run.run_id, step));
    bundle.ready_steps = bundle.ready_steps.saturating_sub(1);
    clear_timer(txn, agent, &run.run_id, step, Timer::StartBy);
}

/// Ends the lease of the open step; the worker's slot is free.
pub(crate) fn unleash(txn: &mut Txn<'_>, subject: &mut Subject) {
    let agent_number = subject.agent.number;
    let Subject { run, step: Some(step), .. } = subject else { return };
    standing::take(txn, agent_number, run, step);
    txn.count_lease(agent_number, -1);
    // What becomes of the step is said next.
    turn(txn, agent_number, run, step, StepState::Unspecified);
    txn.effect(Effect::LeaseEnded {
        step: step_id(agent_number, run, step),
        token: step.token.unwrap_or_default(),
        worker_id: step.worker_id.clone(),
    });
}

/// A step whose lease or backoff is over waits for a worker again.
pub(crate) fn ready_again(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    enqueue(txn, subject)
}

/// Closes an open step, whatever it was doing.
pub(super) fn close(txn: &mut Txn<'_>, subject: &mut Subject, state: StepState) {
    let Some(step) = &subject.step else { return };
    match step.state() {
        StepState::Ready => withdraw(txn, subject),
        StepState::Leased => unleash(txn, subject),
        StepState::Backoff => {
            let Subject { agent, run, step: Some(step), .. } = subject else { return };
            clear_timer(txn, agent.number, &run.run_id, step, Timer::Backoff);
        }
        StepState::Waiting => {
            let Subject { agent, run, step: Some(step), .. } = subject else { return };
            clear_timer(txn, agent.number, &run.run_id, step, Timer::Wait);
        }
        StepState::Unspecified | StepState::Dead => {}
        StepState::Completed | StepState::Failed | StepState::Cancelled => return,
    }
    let Subject { agent, run, step: Some(step), .. } = subject else { return };
    turn(txn, agent.number, run, step, state);
    step.ended_ms = txn.now;
}

pub(super) fn clear_timer(
    txn: &mut Txn<'_>,
    agent: u32,
    run_id: &str,
    step: &mut StepRecord,
    timer: Timer,
) {
    if step.timer_ms != 0 {
        txn.clear_timer(agent, step.timer_ms, timer, &object(run_id, step.number));
        step.timer_ms = 0;
    }
}

fn ready_key(agent: u32, bundle_id: &str, run_id: &str, step: &StepRecord) -> RowKey {
    let mut key = Key::of(Kind::Ready, agent).text(bundle_id).u64(step.ready_revision).build();
    key.extend_from_slice(&object(run_id, step.number));
    key
}
