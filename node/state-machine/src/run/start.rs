//! The start of a run: the route is resolved here, in the command that creates the run and its pin.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, RunRecord, StartRun, StartRunResult};
use pinrail_proto::v1::{PinReason, RunKind, RunState};
use pinrail_proto::{id, limits, reason};
use sha2::{Digest as _, Sha256};

use crate::agent::policy::{check_labels, too_large};
use crate::key::{Key, Kind, Timer};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event, memory, step};

use super::{Subject, find, pin_key, pin_message, set_state};

pub(crate) fn start(txn: &mut Txn<'_>, it: &StartRun) -> Result<Answer, Stop> {
    check(it)?;
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let digest = digest(it);
    if let Some(existing) = find(txn.read(), agent.number, &it.run_id)? {
        return start_again(txn, &agent, &existing, &digest);
    }
    admit(txn, &agent)?;
    let (mut bundle, pin_reason) = choose(txn, &agent, it)?;
    if bundle.paused && bundle.reject_starts {
        let message = format!("bundle {} is paused and refuses starts", bundle.bundle_id);
        return Err(reject(reason::AGENT_PAUSED, message).with("bundle_id", &bundle.bundle_id));
    }
    let layer = memory::candidate(txn, &mut agent, &mut bundle);
    let max_age_ms = match it.max_age_ms {
        0 => agent.max_age_ms,
        asked => asked.min(agent.max_age_ms),
    };
    let mut run = RunRecord {
        run_id: it.run_id.clone(),
        kind: RunKind::Live.into(),
        external: agent.external,
        bundle_id: bundle.bundle_id.clone(),
        layer,
        pin_reason: pin_reason.into(),
        pinned_ms: txn.now,
        pinned_revision: txn.revision,
        epoch: agent.epoch,
        started_ms: txn.now,
        expires_ms: txn.now + max_age_ms,
        grace_ms: agent.grace_ms,
        labels: it.labels.clone(),
        start_digest: digest.to_vec().into(),
        first_bundle_id: bundle.bundle_id.clone(),
        first_revision: txn.revision,
        actor: txn.header.actor.clone(),
        ..RunRecord::default()
    };
    let input = it.input.clone().unwrap_or_default();
    run.stored_bytes = input.data.len() as u64;
    txn.put(Key::of(Kind::RunInput, agent.number).last(&run.run_id), &input);
    set_state(txn, agent.number, &mut run, RunState::Queued);
    pin(txn, &mut agent, &mut bundle, &run);
    txn.cluster.open_runs += 1;
    agent.open_runs += 1;
    let entry = if it.entry.is_empty() { bundle.entry.clone() } else { it.entry.clone() };
    let mut subject = Subject { agent, bundle, run, step: None };
    if subject.run.external {
        begin_external(txn, &mut subject);
    } else {
        step::open_first(txn, &mut subject, &entry)?;
    }
    subject.save(txn);
    txn.event(event::of_run("run.started", &subject.agent, &subject.run.bundle_id, &it.run_id));
    Ok(answer(&subject, false))
}

/// Sets up what every pin has: its row, its counter, its timers.
pub(super) fn pin(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    bundle: &mut BundleRecord,
    run: &RunRecord,
) {
    txn.mark(pin_key(agent.number, run), &[]);
    bundle::count_pin(bundle, run.kind(), true);
    // A drain that was over is not over any more.
    bundle.drained_ms = 0;
    let object = run.run_id.as_bytes();
    txn.set_timer(agent.number, run.expires_ms, Timer::RunExpires, object);
    txn.set_timer(agent.number, run.expires_ms + run.grace_ms, Timer::RunHardEnd, object);
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

/// The same start again gets its first answer, with its original pin, whatever has happened to the run since.
fn start_again(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    existing: &RunRecord,
    digest: &[u8; 32],
) -> Result<Answer, Stop> {
    if existing.start_digest != digest.as_slice() {
        let message = format!("run {:?} was started with another input", existing.run_id);
        return Err(reject(reason::RUN_EXISTS, message)
            .with("existing_digest", hex::encode(&existing.start_digest))
            .with("digest", hex::encode(digest)));
    }
    let bundle = bundle::load(txn, agent.number, &existing.first_bundle_id)?;
    let mut first = RunRecord {
        bundle_id: existing.first_bundle_id.clone(),
        pinned_revision: existing.first_revision,
        ..existing.clone()
    };
    if existing.restarts > 0 {
        first.pinned_ms = existing.started_ms;
        first.layer = existing.first_layer;
        first.epoch = existing.first_epoch;
        first.pin_reason = existing.first_pin_reason;
    }
    Ok(Answer::StartRun(StartRunResult {
        pin: Some(pin_message(&first, &bundle)),
        state: existing.state,
        already: true,
    }))
}

fn answer(subject: &Subject, already: bool) -> Answer {
    Answer::StartRun(StartRunResult {
        pin: Some(pin_message(&subject.run, &subject.bundle)),
        state: subject.run.state,
        already,
    })
}

fn check(it: &StartRun) -> Result<(), Stop> {
    let invalid = |error: id::IdError| reject(reason::INVALID_ID, error.to_string());
    id::check_token("run id", &it.run_id).map_err(invalid)?;
    if !it.entry.is_empty() {
        id::check_name("entry step", &it.entry).map_err(invalid)?;
    }
    check_labels(&it.labels)?;
    let size = it.input.as_ref().map_or(0, |input| input.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large("input bytes", size, limits::PAYLOAD_BYTES));
    }
    match it.kind() {
        RunKind::Unspecified | RunKind::Live => Ok(()),
        RunKind::Canary | RunKind::Shadow | RunKind::Eval | RunKind::Smoke | RunKind::Drill => {
            let message =
                "only live runs can be started by hand; the others come with the release procedure";
            Err(reject(reason::INVALID_REQUEST, message))
        }
    }
}

fn admit(txn: &Txn<'_>, agent: &AgentRecord) -> Result<(), Stop> {
    if agent.paused && agent.reject_starts {
        let message = format!("agent {} is paused and refuses starts", agent.agent_id);
        return Err(reject(reason::AGENT_PAUSED, message));
    }
    if agent.open_runs >= agent.max_open {
        let message = format!("agent {} has {} open runs", agent.agent_id, agent.open_runs);
        return Err(reject(reason::QUOTA_EXCEEDED, message).with("limit", agent.max_open));
    }
    if txn.cluster.open_runs >= limits::OPEN_RUNS {
        let message = format!("the cluster has {} open runs", txn.cluster.open_runs);
        return Err(reject(reason::QUOTA_EXCEEDED, message).with("limit", limits::OPEN_RUNS));
    }
    Ok(())
}

/// The bundle of a new run: the live one, unless the start names another, which is audited.
fn choose(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    it: &StartRun,
) -> Result<(BundleRecord, PinReason), Stop> {
    if it.bundle_id.is_empty() {
        if agent.live_bundle_id.is_empty() {
            let message = format!("agent {} has no live bundle", agent.agent_id);
            return Err(reject(reason::NO_LIVE_BUNDLE, message));
        }
        return Ok((bundle::load(txn, agent.number, &agent.live_bundle_id)?, PinReason::Route));
    }
    let bundle = bundle::load(txn, agent.number, &it.bundle_id)?;
    if bundle.rejected {
        let message = format!("bundle {} was rolled back", bundle.bundle_id);
        return Err(reject(reason::BUNDLE_REJECTED, message));
    }
    if bundle.drain_deadline_ms != 0 && txn.now >= bundle.drain_deadline_ms {
        let message = format!("bundle {} is past its drain deadline", bundle.bundle_id);
        return Err(reject(reason::PIN_EXPIRED, message));
    }
    Ok((bundle, PinReason::Explicit))
}

/// Everything that makes a start the same start.
fn digest(it: &StartRun) -> [u8; 32] {
    use prost::Message as _;
    let same = StartRun { agent: None, ..it.clone() };
    Sha256::digest(same.encode_to_vec()).into()
}
