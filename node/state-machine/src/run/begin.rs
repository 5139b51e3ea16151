//! How every run begins, whatever asked for it: its record, its pin, its first step.

use pinrail_proto::log::{AgentRecord, BundleRecord, RunRecord, StartRun, Taker};
use pinrail_proto::v1::{Payload, RunState};

use crate::bundle;
use crate::eval;
use crate::event;
use crate::event::With as _;
use crate::key::Timer;
use crate::level;
use crate::memory;
use crate::namespace::quota::{self, Quota};
use crate::outcome::Stop;
use crate::shared::Shared;
use crate::step;
use crate::txn::Txn;

use super::child::{check_room, child_key};
use super::{Subject, busy, find, is_over, open_of, payloads, pin_key, save, session, set_state};

/// The record of a run that is not pinned yet. It has no state: that is what makes it new to the indexes.
pub(super) fn record(txn: &Txn<'_>, it: &StartRun, digest: [u8; 32]) -> RunRecord {
    RunRecord {
        run_id: it.run_id.clone(),
        kind: it.kind,
        started_ms: txn.now,
        labels: it.labels.clone(),
        start_digest: digest.to_vec().into(),
        actor: txn.header.actor.clone(),
        entry: it.entry.clone(),
        asked_max_age_ms: it.max_age_ms,
        asked_bundle_id: it.bundle_id.clone(),
        session: it.session.clone(),
        priority: it.priority,
        fairness_key: it.fairness_key.clone(),
        trace_parent: it.trace_parent.clone(),
        callback: it.callback.clone(),
        ..RunRecord::default()
    }
}

/// Pins a run whose record says to what, and lets it begin: with `taker`, if that may have its first step.
pub(super) fn begin(
    txn: &mut Txn<'_>,
    agent: Shared<AgentRecord>,
    bundle: Shared<BundleRecord>,
    mut run: RunRecord,
    input: Option<&Payload>,
    taker: Option<&Taker>,
) -> Result<Subject, Stop> {
    if !run.parent_run_id.is_empty() {
        check_room(txn, agent.number, &run.parent_run_id)?;
        txn.mark(child_key(agent.number, &run), &[]);
    }
    enter(txn, &mut run, agent.number, input);
    let mut subject = Subject { agent, bundle, run: run.into(), step: None };
    count_in(txn, &mut subject)?;
    go(txn, &mut subject, taker)?;
    subject.save(txn)?;
    Ok(subject)
}

/// Counts a run that is open from here on.
pub(super) fn count_in(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    txn.cluster.open_runs += 1;
    subject.agent.open_runs += 1;
    quota::add(txn, &subject.agent.namespace, Quota::OpenRuns, 1)
}

/// Stores the input of a new run.
pub(super) fn enter(txn: &mut Txn<'_>, run: &mut RunRecord, agent: u32, input: Option<&Payload>) {
    let none = Payload::default();
    let input = input.unwrap_or(&none);
    run.stored_bytes += input.data.len() as u64;
    payloads::put_input(txn, agent, run, input);
}

/// Pins a run to what its record says and opens its first step. The caller saves the subject.
pub(super) fn go(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    taker: Option<&Taker>,
) -> Result<(), Stop> {
    session::enter(txn, subject)?;
    let run: &mut RunRecord = &mut subject.run;
    run.grace_ms = subject.agent.grace_ms;
    run.holds_ended = txn.cluster.feature_level >= level::RUNS_HOLD_ENDED_STEPS;
    (run.pinned_ms, run.pinned_revision) = (txn.now, txn.revision);
    run.first_bundle_id.clone_from(&run.bundle_id);
    run.first_revision = txn.revision;
    set_state(txn, subject.agent.number, run, RunState::Queued);
    eval::count_label(txn, &subject.agent, &subject.run)?;
    let Subject { agent, bundle, run, .. } = &mut *subject;
    memory::enter_scratch(txn, agent.number, run)?;
    pin(txn, agent, bundle, run);
    if subject.run.external {
        begin_external(txn, subject);
    } else if !subject.run.awaits_turn {
        open_entry(txn, subject, taker)?;
    }
    let Subject { agent, run, .. } = subject;
    let mut started = event::of_run("run.started", agent, &run.bundle_id, &run.run_id);
    if !run.parent_run_id.is_empty() {
        started = started.with("parent", &run.parent_run_id);
    }
    txn.event(started);
    Ok(())
}

/// Opens the first step.
pub(super) fn open_entry(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    taker: Option<&Taker>,
) -> Result<(), Stop> {
    let entry = entry(&subject.run, &subject.bundle).to_owned();
    step::open_first(txn, subject, &entry, taker)
}

/// Name of a run's first step: the one that its start asked for, or the bundle's.
pub(super) fn entry<'a>(run: &'a RunRecord, bundle: &'a BundleRecord) -> &'a str {
    match run.entry.as_str() {
        "" => &bundle.entry,
        asked => asked,
    }
}

/// Sets up what every pin has: its row, its counter, its timers.
pub(super) fn pin(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    bundle: &mut BundleRecord,
    run: &mut RunRecord,
) {
    busy::begin(run);
    txn.put(pin_key(agent.number, run), &busy::pin_record(run));
    bundle::count_pin(bundle, run.kind(), true);
    // A drain that was over is not over any more.
    bundle.drained_ms = 0;
    let object = run.run_id.as_bytes();
    txn.set_timer(agent.number, run.expires_ms, Timer::RunExpires, object);
    run.hard_end_follows = txn.cluster.feature_level >= level::HARD_ENDS_FOLLOW;
    if !run.hard_end_follows {
        set_hard_end(txn, agent.number, run);
    }
}

/// The timer of a pin's soft end has come and its row is gone: the one of the hard end takes over, if the run goes on.
pub(crate) fn follow_soft_end(txn: &mut Txn<'_>, agent: u32, run_id: &str) -> Result<(), Stop> {
    let Some(mut run) = find(txn.read(), agent, run_id)? else { return Ok(()) };
    if run.hard_end_follows && run.expires_ms <= txn.now && !is_over(run.state()) {
        set_hard_end(txn, agent, &mut run);
        let open = open_of(txn.read(), agent, &run)?;
        save(txn, agent, &run, open.as_ref());
    }
    Ok(())
}

fn set_hard_end(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord) {
    let due_ms = run.expires_ms + run.grace_ms;
    txn.set_timer(agent, due_ms, Timer::RunHardEnd, run.run_id.as_bytes());
    run.hard_end_follows = false;
}

fn begin_external(txn: &mut Txn<'_>, subject: &mut Subject) {
    set_state(txn, subject.agent.number, &mut subject.run, RunState::Running);
    if subject.agent.keep_alive_ms != 0 {
        subject.run.keep_until_ms = txn.now + subject.agent.keep_alive_ms;
        let due_ms = subject.run.keep_until_ms;
        let object = subject.run.run_id.clone();
        txn.set_timer(subject.agent.number, due_ms, Timer::KeepAlive, object.as_bytes());
    }
}
