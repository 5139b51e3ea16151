//! Continue as new: a run ends and another one takes its place, so that a history need not grow for ever.

use pinrail_proto::log::{ContinueRun, RunRecord, Taker, Token};
use pinrail_proto::v1::{PinReason, RunState};
use pinrail_proto::{id, limits, reason};
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{bundle, level, step};

use super::begin::{begin, entry};
use super::start::{route, routed};
use super::{End, Subject, close, find, repin};

/// Closes the subject's run as continued and starts the one that continues it: with `taker`, if that may have its first step,
/// whose token is answered then. The caller saves the subject.
pub(crate) fn continue_as_new(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    it: &ContinueRun,
    taker: Option<&Taker>,
) -> Result<Option<Token>, Stop> {
    if subject.step.as_ref().is_some_and(|step| step.join != 0) {
        let message = "a branch of a fan-out cannot continue as a new run";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    if it.on_live_bundle && !subject.run.parent_run_id.is_empty() {
        let message = "a child stays on its parent's bundle";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    let mut next = successor(txn, subject)?;
    if txn.cluster.feature_level >= level::CONTINUED_RUNS_OBEY {
        next.held = subject.run.held;
        next.repin_to = std::mem::take(&mut subject.run.repin_to);
        carry_signals(txn, subject, &mut next)?;
    }
    subject.run.continued_to.clone_from(&next.run_id);
    close(txn, subject, End::Continued)?;
    // What tries a bundle stays on it.
    let (agent, bundle, next) = if it.on_live_bundle && subject.run.kind().serves_users() {
        bundle::save(txn, subject.agent.number, &subject.bundle);
        let of_nobody = RunRecord::default();
        let asked = match txn.cluster.feature_level >= level::CONTINUED_RUNS_OBEY {
            true => &next,
            false => &of_nobody,
        };
        let (live, pin_reason) = routed(txn.read(), &subject.agent, asked)?;
        route(txn, subject.agent.clone(), live, pin_reason, next)
    } else {
        (subject.agent.clone(), subject.bundle.clone(), next)
    };
    let taker = taker.filter(|it| takes_entry(txn, it, entry(&next, &bundle)));
    let mut begun = begin(txn, agent, bundle, next, it.input.as_ref(), taker)?;
    let token = begun.step.as_ref().and_then(|step| step.token);
    if !begun.run.repin_to.is_empty() {
        repin::obey_hand(txn, &mut begun)?;
        begun.save(txn)?;
    }
    subject.agent = begun.agent;
    let number = subject.agent.number;
    subject.bundle = bundle::lend(txn.read(), number, &subject.bundle.bundle_id)?;
    Ok(token)
}

/// Signals that no step has waited for yet are told to the run that goes on: who sent them was answered that they are kept.
fn carry_signals(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    next: &mut RunRecord,
) -> Result<(), Stop> {
    if subject.run.pending_signals == 0 {
        return Ok(());
    }
    next.stored_bytes = step::pending_bytes(txn, subject)?;
    let of = |run_id: &str| Key::of(Kind::Signal, subject.agent.number).text(run_id);
    let (from, to) = (of(&subject.run.run_id), of(&next.run_id).build());
    let skip = from.clone().build().len();
    for (key, value) in txn.scan(&from.range(), limits::PENDING_SIGNALS as usize)? {
        let mut row = to.clone();
        row.extend_from_slice(&key[skip..]);
        txn.put_encoded(row, value);
        txn.delete(RowKey::from_slice(&key));
    }
    next.pending_signals = std::mem::take(&mut subject.run.pending_signals);
    Ok(())
}

fn takes_entry(txn: &Txn<'_>, taker: &Taker, entry: &str) -> bool {
    let serves = &taker.serves;
    txn.cluster.feature_level >= level::CONTINUED_RUNS_STAY
        && (serves.is_empty() || serves.iter().any(|name| name == entry))
}

/// The record of the run that continues another: with its pin, its end, and what it was started with.
fn successor(txn: &Txn<'_>, subject: &Subject) -> Result<RunRecord, Stop> {
    let run = &subject.run;
    let first = if run.first_run_id.is_empty() { &run.run_id } else { &run.first_run_id };
    let continues = run.continues + 1;
    let run_id = format!("{first}+{continues}");
    id::check_token("run id", &run_id)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    if find(txn.read(), subject.agent.number, &run_id)?.is_some() {
        let message = format!("the run id {run_id:?} is taken");
        return Err(reject(reason::RUN_EXISTS, message));
    }
    Ok(RunRecord {
        start_digest: Sha256::digest(&run_id).to_vec().into(),
        run_id,
        kind: run.kind,
        external: run.external,
        bundle_id: run.bundle_id.clone(),
        layer: run.layer,
        scratch: run.scratch,
        pin_reason: PinReason::Continued.into(),
        epoch: run.epoch,
        started_ms: txn.now,
        expires_ms: run.expires_ms,
        labels: run.labels.clone(),
        actor: run.actor.clone(),
        entry: run.entry.clone(),
        asked_max_age_ms: run.asked_max_age_ms,
        parent_run_id: run.parent_run_id.clone(),
        parent_step: run.parent_step,
        first_run_id: first.clone(),
        repinnable: run.repinnable,
        restart_step: run.restart_step,
        session: run.session.clone(),
        session_place: run.session_place,
        priority: run.priority,
        fairness_key: run.fairness_key.clone(),
        trace_parent: run.trace_parent.clone(),
        last_worker_id: run.last_worker_id.clone(),
        callback: run.callback.clone(),
        continues,
        state: RunState::Unspecified.into(),
        ..RunRecord::default()
    })
}
