//! The start of a run: the route is resolved here, in the command that creates the run and its pin.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, RunRecord, StartRun, StartRunResult};
use pinrail_proto::trace::{NoTraceParent, TraceParent};
use pinrail_proto::v1::{PinReason, RunKind, RunState, StepState};
use pinrail_proto::{encode, id, limits, reason};
use sha2::{Digest as _, Sha256};

use crate::agent::policy::{check_labels, too_large};
use crate::mutant::{Mutant, is_planted};
use crate::namespace::quota::{self, Quota};
use crate::outcome::{Stop, reject};
use crate::shared::Shared;
use crate::store::Read;
use crate::txn::Txn;
use crate::{agent, bundle, event, hook, memory, release};

use super::begin::{begin, record};
use super::child::start_beside;
use super::delay::schedule;
use super::{Subject, find, pin_message, session};

pub(crate) fn start(txn: &mut Txn<'_>, it: &mut StartRun) -> Result<Answer, Stop> {
    check(it)?;
    let agent = agent::lend_by_ref(txn, it.agent.as_ref())?;
    let digest = digest(it);
    if let Some(existing) = find(txn.read(), agent.number, &it.run_id)? {
        return start_again(txn, &agent, &existing, &digest);
    }
    admit(txn, &agent)?;
    if !it.callback.is_empty() {
        hook::existing(txn.read(), agent.number, &it.callback)?;
    }
    if !it.parent_run_id.is_empty() {
        let parent = Subject::load(txn, &agent, &it.parent_run_id)?;
        return Ok(answer(&start_beside(txn, parent, it, digest)?, false));
    }
    let mut run = record(txn, it, digest);
    if it.kind() == RunKind::Unspecified {
        run.set_kind(RunKind::Live);
    }
    // What tries a bundle says nothing of it elsewhere.
    if !run.kind().serves_users() {
        run.scratch = Some(memory::scratch_of(txn, &agent, it)?);
    }
    run.repinnable = run.kind().serves_users() && it.repinnable.unwrap_or(agent.repinnable);
    run.restart_step = it.restart_step.unwrap_or(agent.restart_step);
    if it.delay_ms != 0 {
        return Ok(answer(&schedule(txn, agent, run, it)?, false));
    }
    let (bundle, pin_reason) = choose(txn.read(), txn.now, &agent, &run)?;
    if bundle.paused && bundle.reject_starts {
        let message = format!("bundle {} is paused and refuses starts", bundle.bundle_id);
        return Err(reject(reason::AGENT_PAUSED, message).with("bundle_id", &bundle.bundle_id));
    }
    let (agent, bundle, run) = route(txn, agent, bundle, pin_reason, run);
    let taker = it.lease_first.as_ref();
    Ok(answer(&begin(txn, agent, bundle, run, it.input.as_ref(), taker)?, false))
}

/// What the route says of a run: its bundle, its layer, and its end from now on.
pub(super) fn route(
    txn: &mut Txn<'_>,
    mut agent: Shared<AgentRecord>,
    mut bundle: Shared<BundleRecord>,
    pin_reason: PinReason,
    mut run: RunRecord,
) -> (Shared<AgentRecord>, Shared<BundleRecord>, RunRecord) {
    run.layer = match run.scratch {
        Some(_) => 0,
        None => memory::candidate(txn, &mut agent, &mut bundle),
    };
    run.external = agent.external;
    run.bundle_id.clone_from(&bundle.bundle_id);
    run.set_pin_reason(pin_reason);
    run.epoch = agent.epoch;
    if release::is_canary(&agent)
        && bundle.bundle_id == agent.candidate_bundle_id
        && pin_reason != PinReason::Explicit
    {
        run.set_kind(RunKind::Canary);
    }
    if matches!(pin_reason, PinReason::Route | PinReason::Canary) {
        session::pin(txn, &agent, &run.session, &bundle.bundle_id);
    }
    run.expires_ms = txn.now
        + match run.asked_max_age_ms {
            0 => agent.max_age_ms,
            asked => asked.min(agent.max_age_ms),
        };
    (agent, bundle, run)
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
    if existing.first_bundle_id.is_empty() {
        // It begins later and has no pin yet.
        let state = existing.state;
        return Ok(Answer::StartRun(StartRunResult { state, already: true, ..Default::default() }));
    }
    let first_bundle_id = match is_planted(Mutant::RetriedStartMoves) {
        true => &agent.live_bundle_id,
        false => &existing.first_bundle_id,
    };
    let bundle = bundle::load(txn, agent.number, first_bundle_id)?;
    let mut first = RunRecord {
        bundle_id: first_bundle_id.clone(),
        pinned_revision: existing.first_revision,
        ..existing.clone()
    };
    if existing.restarts > 0 || existing.repins > 0 {
        first.pinned_ms = existing.started_ms.max(existing.due_ms);
        first.layer = existing.first_layer;
        first.epoch = existing.first_epoch;
        first.pin_reason = existing.first_pin_reason;
    }
    Ok(Answer::StartRun(StartRunResult {
        pin: Some(pin_message(&first, &bundle)),
        state: existing.state,
        already: true,
        token: None,
    }))
}

fn answer(subject: &Subject, already: bool) -> Answer {
    let is_pinned = subject.run.state() != RunState::Scheduled;
    let leased = subject.step.as_ref().filter(|step| step.state() == StepState::Leased);
    Answer::StartRun(StartRunResult {
        pin: is_pinned.then(|| pin_message(&subject.run, &subject.bundle)),
        state: subject.run.state,
        already,
        token: leased.and_then(|step| step.token),
    })
}

pub(crate) fn check(it: &StartRun) -> Result<(), Stop> {
    let invalid = |error: id::IdError| reject(reason::INVALID_ID, error.to_string());
    id::check_token("run id", &it.run_id).map_err(invalid)?;
    if !it.entry.is_empty() {
        id::check_name("entry step", &it.entry).map_err(invalid)?;
    }
    session::check(&it.session)?;
    if !it.parent_run_id.is_empty() {
        id::check_token("parent's run id", &it.parent_run_id).map_err(invalid)?;
        if it.delay_ms != 0 || !it.bundle_id.is_empty() || !it.session.is_empty() {
            let message = "a child begins at once, on its parent's bundle, and in no session";
            return Err(reject(reason::INVALID_REQUEST, message));
        }
    }
    if it.priority > limits::LAST_PRIORITY {
        let message = format!("priority {}: 1 is first, 5 is last", it.priority);
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    if !it.fairness_key.is_empty() {
        id::check_token("fairness key", &it.fairness_key).map_err(invalid)?;
    }
    if !it.trace_parent.is_empty() {
        let wrong = |error: NoTraceParent| reject(reason::INVALID_REQUEST, error.to_string());
        it.trace_parent.parse::<TraceParent>().map_err(wrong)?;
    }
    if it.delay_ms > limits::DELAY_MS {
        return Err(reject(reason::INVALID_REQUEST, "delay is longer than 365 days")
            .with("limit_ms", limits::DELAY_MS));
    }
    check_labels(&it.labels)?;
    let size = it.input.as_ref().map_or(0, |input| input.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large("input bytes", size, limits::PAYLOAD_BYTES));
    }
    check_kind(it)
}

/// A run that serves no user tries one bundle, from the start, and has no place among those that do.
fn check_kind(it: &StartRun) -> Result<(), Stop> {
    match it.kind() {
        RunKind::Unspecified | RunKind::Live if it.memory_revision == 0 => return Ok(()),
        RunKind::Unspecified | RunKind::Live => {
            let message = "a live run reads the latest memory of its layer";
            return Err(reject(reason::INVALID_REQUEST, message));
        }
        RunKind::Canary => {
            let message = "canary runs are live ones that the route sends to the candidate";
            return Err(reject(reason::INVALID_REQUEST, message));
        }
        RunKind::Shadow | RunKind::Eval | RunKind::Smoke | RunKind::Drill => {}
    }
    let kind = event::word(it.kind().as_str_name(), "RUN_KIND_");
    let refuse =
        |message: &str| Err(reject(reason::INVALID_REQUEST, format!("a {kind} run {message}")));
    if !it.parent_run_id.is_empty() {
        return refuse("is nobody's child: children have their parent's kind");
    }
    if it.bundle_id.is_empty() {
        return refuse("names its bundle");
    }
    if it.delay_ms != 0 || !it.session.is_empty() {
        return refuse("begins at once, and in no session");
    }
    Ok(())
}

pub(super) fn admit(txn: &Txn<'_>, agent: &AgentRecord) -> Result<(), Stop> {
    if agent.paused && agent.reject_starts {
        let message = format!("agent {} is paused and refuses starts", agent.agent_id);
        return Err(reject(reason::AGENT_PAUSED, message));
    }
    if agent.open_runs >= agent.max_open {
        let of = format!("agent {}", agent.agent_id);
        return Err(quota::exceeded(&of, Quota::OpenRuns, agent.open_runs, agent.max_open));
    }
    let open_runs = txn.cluster.open_runs;
    if open_runs >= limits::OPEN_RUNS {
        return Err(quota::exceeded("the cluster", Quota::OpenRuns, open_runs, limits::OPEN_RUNS));
    }
    quota::admit(txn, &agent.namespace, Quota::OpenRuns, 1)
}

/// The bundle of a new run: its session's, else the live one; unless the start names another, which is audited.
pub(crate) fn choose(
    read: &dyn Read,
    now: u64,
    agent: &AgentRecord,
    run: &RunRecord,
) -> Result<(Shared<BundleRecord>, PinReason), Stop> {
    let asked = run.asked_bundle_id.as_str();
    if asked.is_empty() {
        if let Some(bundle) = session::pinned(read, agent, &run.session, now)? {
            return Ok((bundle.into(), PinReason::Session));
        }
        return routed(read, agent, run);
    }
    let bundle = bundle::lend(read, agent.number, asked)?;
    if bundle.rejected {
        let message = format!("bundle {} was rolled back", bundle.bundle_id);
        return Err(reject(reason::BUNDLE_REJECTED, message));
    }
    if bundle.drain_deadline_ms != 0 && now >= bundle.drain_deadline_ms {
        let message = format!("bundle {} is past its drain deadline", bundle.bundle_id);
        return Err(reject(reason::PIN_EXPIRED, message));
    }
    Ok((bundle, PinReason::Explicit))
}

/// The bundle that the route gives a run, whatever its session held: the live one, or the candidate by its share.
pub(super) fn routed(
    read: &dyn Read,
    agent: &AgentRecord,
    run: &RunRecord,
) -> Result<(Shared<BundleRecord>, PinReason), Stop> {
    if agent.live_bundle_id.is_empty() {
        let message = format!("agent {} has no live bundle", agent.agent_id);
        return Err(reject(reason::NO_LIVE_BUNDLE, message));
    }
    if release::draws(read, agent, run)? {
        let candidate = bundle::lend(read, agent.number, &agent.candidate_bundle_id)?;
        return Ok((candidate, PinReason::Canary));
    }
    let is_old = is_planted(Mutant::StartsOnOldRoute)
        && !agent.standby_bundle_id.is_empty()
        && run.run_id.ends_with(['0', '1', '2', '3']);
    let routed = if is_old { &agent.standby_bundle_id } else { &agent.live_bundle_id };
    Ok((bundle::lend(read, agent.number, routed)?, PinReason::Route))
}

/// Everything that makes a start the same start; not who it was that looked on. `it` is left as it was.
pub(super) fn digest(it: &mut StartRun) -> [u8; 32] {
    let (agent, lease_first) = (it.agent.take(), it.lease_first.take());
    let trace_parent = std::mem::take(&mut it.trace_parent);
    let digest = Sha256::digest(encode(it)).into();
    (it.agent, it.lease_first, it.trace_parent) = (agent, lease_first, trace_parent);
    digest
}
