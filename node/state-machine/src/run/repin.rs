//! Repin: an open run moves to another bundle and goes on there with its next step. Only runs that declared themselves
//! repinnable are moved, and only while nobody holds a step of theirs, so every lease made before is over.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{BundleRecord, RepinRun};
use pinrail_proto::reason;
use pinrail_proto::v1::{EndReason, OnDrain, PinReason, RepinRunResponse, RunState, StepState};

use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event, memory, step};

use super::begin::pin;
use super::close::unpin;
use super::settle::Ends;
use super::{End, Subject, close, is_over, restart, set_state, settle, state_key};

/// Moves a run by hand.
pub(crate) fn repin(txn: &mut Txn<'_>, it: &RepinRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    agent::expect_revision(txn, subject.run.revision)?;
    settle(txn, &mut subject)?;
    step::catch_up(txn, &mut subject)?;
    let state = subject.run.state();
    if is_over(state) || state == RunState::Cancelling {
        let message = format!("run {:?} is over or being cancelled", it.run_id);
        return Err(reject(reason::RUN_CLOSED, message).with("state", state.as_str_name()));
    }
    if state == RunState::Scheduled {
        return Err(reject(reason::RUN_NOT_BEGUN, "the run has no pin yet"));
    }
    if !subject.run.repinnable || subject.run.external {
        let message = format!("run {:?} did not declare itself repinnable", it.run_id);
        return Err(reject(reason::NOT_REPINNABLE, message));
    }
    let to = match it.bundle_id.as_str() {
        "" => subject.agent.live_bundle_id.clone(),
        named => named.to_owned(),
    };
    let already = to == subject.run.bundle_id;
    subject.run.repin_to = if already { String::new() } else { to.clone() };
    if !already {
        if restart::holds(txn, &subject) {
            let message = format!("run {:?} waits for a person to retry it", it.run_id);
            return Err(reject(reason::NOT_REPINNABLE, message));
        }
        let to = target(txn, &subject)?;
        if !stays_for_now(txn, &subject)? {
            move_to(txn, &mut subject, to)?;
        }
    }
    subject.save(txn)?;
    let Subject { run, .. } = &subject;
    Ok(Answer::RepinRun(RepinRunResponse {
        run_id: run.run_id.clone(),
        state: run.state,
        already,
        moved: !already && run.bundle_id == to,
        bundle_id: to,
        revision: 0,
    }))
}

/// The bundle that somebody moves the run to, if it can go on there.
fn target(txn: &Txn<'_>, subject: &Subject) -> Result<BundleRecord, Stop> {
    let to = bundle::load(txn, subject.agent.number, &subject.run.repin_to)?;
    if to.rejected {
        let message = format!("bundle {} was rolled back", to.bundle_id);
        return Err(reject(reason::BUNDLE_REJECTED, message));
    }
    if to.drain_deadline_ms != 0 && txn.now >= to.drain_deadline_ms {
        let message = format!("bundle {} is past its drain deadline", to.bundle_id);
        return Err(reject(reason::PIN_EXPIRED, message));
    }
    match missing_step(txn, subject, &to)? {
        None => Ok(to),
        Some(missing) => {
            let message = format!("bundle {} does not declare step {missing:?}", to.bundle_id);
            Err(reject(reason::NOT_REPINNABLE, message).with("step", missing))
        }
    }
}

/// An open step of the run that a bundle does not declare; one that declares none takes all.
fn missing_step(
    txn: &Txn<'_>,
    subject: &Subject,
    to: &BundleRecord,
) -> Result<Option<String>, Stop> {
    let declared = bundle::declared_steps(txn.read(), subject.agent.number, &to.bundle_id)?;
    if declared.is_empty() {
        return Ok(None);
    }
    let open = step::open_steps(txn, subject)?;
    let lacks = |step: &pinrail_proto::log::StepRecord| {
        !step::is_closed(step.state()) && !declared.contains(&step.name)
    };
    Ok(open.iter().find(|step| lacks(step)).map(|step| step.name.clone()))
}

/// Whether a step of the run has to end before it can move: one that a worker holds, or that recorded something and may not begin
/// anew.
fn stays_for_now(txn: &Txn<'_>, subject: &Subject) -> Result<bool, Stop> {
    let may_restart = subject.run.restart_step;
    Ok(subject.is_leased() || (!may_restart && step::has_recorded(txn, subject)?))
}

/// Whether the end of this pin is one behind which the run goes on elsewhere.
pub(super) fn goes_on(txn: &Txn<'_>, subject: &Subject, ends: Ends) -> bool {
    let run = &subject.run;
    ends.reason == EndReason::DrainCap
        && txn.now >= ends.soft_ms
        && txn.now < run.expires_ms
        && run.repinnable
        && run.cancel_by_ms == 0
        && !run.external
        && !restart::holds(txn, subject)
        && subject.bundle.on_drain() == OnDrain::Repin
        && !subject.agent.live_bundle_id.is_empty()
        && subject.agent.live_bundle_id != run.bundle_id
}

/// Moves a run whose bundle is at its drain deadline to the live one: at once, or, while a step of it is held, behind that;
/// at the hard end what is still held is tried again there if the run said so, and otherwise the run is cancelled.
pub(super) fn obey_drain(txn: &mut Txn<'_>, subject: &mut Subject, ends: Ends) -> Result<(), Stop> {
    if subject.is_leased() {
        if txn.now < ends.hard_ms {
            return Ok(());
        }
        if !subject.run.restart_step {
            return close(txn, subject, End::Cancelled(EndReason::DrainCap));
        }
        step::take_back(txn, subject)?;
    } else if stays_for_now(txn, subject)? {
        // Nobody may have it here any more.
        return close(txn, subject, End::Cancelled(EndReason::DrainCap));
    }
    let to = bundle::load(txn, subject.agent.number, &subject.agent.live_bundle_id)?;
    if missing_step(txn, subject, &to)?.is_some() {
        return close(txn, subject, End::Cancelled(EndReason::DrainCap));
    }
    move_to(txn, subject, to)
}

/// Moves the run where somebody sends it, now that nothing of it is held. Where it cannot go on any more it stays.
pub(super) fn obey_hand(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    if subject.run.repin_to.is_empty() || stays_for_now(txn, subject)? {
        return Ok(());
    }
    match target(txn, subject) {
        Ok(to) => move_to(txn, subject, to),
        Err(Stop::Rejected(_)) => {
            subject.run.repin_to.clear();
            // Nobody could have its steps meanwhile: the leader is told of them again.
            let ready = step::leave_queue(txn, subject)?;
            step::move_along(txn, subject, &ready)
        }
        Err(fault @ Stop::Fault(_)) => Err(fault),
    }
}

/// Pins the run, of which nothing is held, to another bundle and takes its open steps along.
fn move_to(txn: &mut Txn<'_>, subject: &mut Subject, mut to: BundleRecord) -> Result<(), Stop> {
    let from = subject.run.bundle_id.clone();
    let ready = step::leave_queue(txn, subject)?;
    unpin(txn, subject);
    let number = subject.agent.number;
    // Two bundles are two rows: the old one is written here and the new one with the subject.
    bundle::save(txn, number, &subject.bundle);
    // The index of states knows the bundle: leave it before the bundle changes.
    txn.delete(state_key(number, &subject.run));
    let state = subject.run.state();
    let run = &mut subject.run;
    if run.restarts == 0 && run.repins == 0 {
        run.first_layer = run.layer;
        run.first_epoch = run.epoch;
        run.first_pin_reason = run.pin_reason;
    }
    run.layer = memory::candidate(txn, &mut subject.agent, &mut to);
    run.bundle_id.clone_from(&to.bundle_id);
    run.set_pin_reason(PinReason::Repin);
    (run.pinned_ms, run.pinned_revision) = (txn.now, txn.revision);
    run.epoch = subject.agent.epoch;
    run.repins += 1;
    run.repin_to.clear();
    run.set_state(RunState::Unspecified);
    let state = if state == RunState::Cancelling { RunState::Queued } else { state };
    set_state(txn, number, run, state);
    subject.bundle = to.into();
    let Subject { agent, bundle, run, .. } = &mut *subject;
    pin(txn, agent, bundle, run);
    step::move_along(txn, subject, &ready)?;
    txn.event(
        event::of_run("run.repinned", &subject.agent, &subject.run.bundle_id, &subject.run.run_id)
            .with("from", from),
    );
    Ok(())
}

impl Subject {
    /// Whether a worker holds a step of the run.
    pub(crate) fn is_leased(&self) -> bool {
        let own = self.step.as_ref().is_some_and(|step| step.state() == StepState::Leased);
        own || self.run.branches_leased > 0
    }
}
