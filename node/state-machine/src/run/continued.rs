//! Continue as new: a run ends and another one takes its place, so that a history need not grow for ever.

use pinrail_proto::log::{ContinueRun, RunRecord, Taker, Token};
use pinrail_proto::v1::{PinReason, RunState};
use pinrail_proto::{id, reason};
use sha2::{Digest as _, Sha256};

use crate::bundle;
use crate::level;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;

use super::begin::{begin, entry};
use super::start::{choose, route};
use super::{End, Subject, close, find};

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
    let next = successor(txn, subject)?;
    subject.run.continued_to.clone_from(&next.run_id);
    close(txn, subject, End::Continued)?;
    // What tries a bundle stays on it.
    let (agent, bundle, next) = if it.on_live_bundle && subject.run.kind().serves_users() {
        bundle::save(txn, subject.agent.number, &subject.bundle);
        let (live, pin_reason) =
            choose(txn.read(), txn.now, &subject.agent, &RunRecord::default())?;
        route(txn, subject.agent.clone(), live, pin_reason, next)
    } else {
        (subject.agent.clone(), subject.bundle.clone(), next)
    };
    let taker = taker.filter(|it| takes_entry(txn, it, entry(&next, &bundle)));
    let begun = begin(txn, agent, bundle, next, it.input.as_ref(), taker)?;
    let token = begun.step.as_ref().and_then(|step| step.token);
    subject.agent = begun.agent;
    if begun.bundle.bundle_id == subject.bundle.bundle_id {
        subject.bundle = begun.bundle;
    }
    Ok(token)
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
