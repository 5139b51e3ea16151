//! What the leader found, and where it leads.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AdvanceCanary, AgentRecord, GateRecord, RecordVerdict, ReleaseRecord, ReleaseResult,
};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{HoldCause, OnGateFailure, ReleaseState, Stage, Verdict};
use pinrail_proto::{limits, reason};

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event, signal};

use super::stage::{self, canary_steps, go_on, hold, is_held, is_required, planned, raise};
use super::{end, find, id, is_over, message, note, policy, quarantine, save, save_gate, word};

/// Records the verdict of the present attempt and moves on by it.
pub(crate) fn record(txn: &mut Txn<'_>, it: &RecordVerdict) -> Result<Answer, Stop> {
    let mut agent = agent::load(txn, it.agent)?;
    let mut release = present(txn, &agent, it.release)?;
    if release.stage() != it.stage() || release.attempt != it.attempt {
        return Err(stale(&release, "another stage or attempt is under way"));
    }
    let size = it.evidence.len() + it.reason.len();
    if size > limits::EVIDENCE_BYTES {
        return Err(too_large("evidence bytes", size, limits::EVIDENCE_BYTES));
    }
    if it.verdict() == Verdict::Running {
        return waits(txn, &agent, &release, it);
    }
    if it.stage() == Stage::Canary && it.verdict() == Verdict::Pass {
        last_step_is_over(txn, &agent, &release)?;
    }
    if matches!(it.stage(), Stage::Canary | Stage::Quarantine) && it.verdict() == Verdict::Pass {
        nothing_fires(txn, &agent, &release)?;
    }
    if matches!(it.stage(), Stage::Quarantine | Stage::Recycle) && agent.drill_turned {
        return Err(stale(&release, "a drill has turned the route"));
    }
    if matches!(it.stage(), Stage::Quarantine | Stage::Recycle) && it.verdict() != Verdict::Pass {
        return Err(reject(reason::INVALID_REQUEST, "behind the switch only a pass is recorded"));
    }
    let early = release.deadline_ms != 0 && txn.now < release.deadline_ms;
    if it.verdict() == Verdict::InsufficientData && early {
        return Err(stale(&release, "the stage's time is not over"));
    }
    write(txn, &agent, &release, it)?;
    match it.verdict() {
        Verdict::Pass => passed(txn, &mut agent, &mut release)?,
        Verdict::Fail => failed(txn, &mut agent, &mut release, &it.reason)?,
        Verdict::InsufficientData => lacks_data(txn, &mut agent, &mut release, &it.reason)?,
        Verdict::Error if is_required(&release, it.stage()) => {
            failed(txn, &mut agent, &mut release, &it.reason)?;
        }
        Verdict::Error => hold(txn, &agent, &mut release, HoldCause::GateFailed, &it.reason),
        Verdict::Unspecified | Verdict::Pending | Verdict::Running | Verdict::Skipped => {
            return Err(reject(reason::INVALID_REQUEST, "this is no verdict of a gate"));
        }
    }
    save(txn, agent.number, &mut release);
    agent.revision = txn.revision;
    agent::save(txn, &agent);
    answer(txn, &agent, &release, false)
}

/// What the present attempt waits for. It decides nothing, and whoever steers the release by its revision is not disturbed.
fn waits(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    it: &RecordVerdict,
) -> Result<Answer, Stop> {
    let running = undecided(txn, agent, release)?;
    let gate = GateRecord { reason: it.reason.clone(), ..running };
    save_gate(txn, agent.number, release, (it.stage(), it.attempt), gate);
    answer(txn, agent, release, false)
}

/// The gate of the present attempt, while nobody judged it.
fn undecided(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<GateRecord, Stop> {
    let gate = stage::decided(txn, agent, release)?;
    if gate.verdict() == Verdict::Running {
        Ok(gate)
    } else {
        Err(stale(release, "the attempt was judged already"))
    }
}

/// The next share of the canary.
pub(crate) fn advance_canary(txn: &mut Txn<'_>, it: &AdvanceCanary) -> Result<Answer, Stop> {
    let mut agent = agent::load(txn, it.agent)?;
    let mut release = present(txn, &agent, it.release)?;
    let same = release.stage() == Stage::Canary
        && release.attempt == it.attempt
        && release.canary_step == it.step;
    if !same {
        return Err(stale(&release, "another step is under way"));
    }
    let steps = canary_steps(txn, &agent, &release)?;
    step_is_over(txn, &release, &steps)?;
    if usize::try_from(it.step).unwrap_or(usize::MAX) >= steps.len() {
        return Err(stale(&release, "this is the last step"));
    }
    nothing_fires(txn, &agent, &release)?;
    raise(txn, &mut agent, &mut release)?;
    let state = release.state();
    note(txn, &agent, &mut release, "release.raised", state, &it.evidence);
    save(txn, agent.number, &mut release);
    agent::save(txn, &agent);
    answer(txn, &agent, &release, false)
}

pub(super) fn answer(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    already: bool,
) -> Result<Answer, Stop> {
    let release = message(txn.read(), agent, release, true)?;
    Ok(Answer::Release(Box::new(ReleaseResult { release: Some(release), already })))
}

/// The release, if something may still be found out about it.
fn present(txn: &Txn<'_>, agent: &AgentRecord, number: u32) -> Result<ReleaseRecord, Stop> {
    let Some(release) = find(txn.read(), agent.number, number)? else {
        let message = format!("there is no release {}", id(number));
        return Err(reject(reason::RELEASE_NOT_FOUND, message));
    };
    if is_over(release.state()) || is_held(&release) {
        return Err(stale(&release, "it is over, or waits for a person"));
    }
    Ok(release)
}

fn stale(release: &ReleaseRecord, why: &str) -> Stop {
    let message = format!("release {}: {why}", id(release.number));
    reject(reason::GATE_STALE, message)
        .with("stage", word(release.stage()))
        .with("attempt", release.attempt)
}

/// Nothing goes on by itself while a signal fires that nobody acknowledged or muted.
fn nothing_fires(txn: &Txn<'_>, agent: &AgentRecord, release: &ReleaseRecord) -> Result<(), Stop> {
    match signal::blocking(txn.read(), agent.number, release, txn.now)? {
        None => Ok(()),
        Some(fires) => {
            let signal = signal::word(fires);
            Err(stale(release, &format!("{signal} fires")).with("signal", signal))
        }
    }
}

fn step_is_over(
    txn: &Txn<'_>,
    release: &ReleaseRecord,
    steps: &[pinrail_proto::v1::CanaryStep],
) -> Result<(), Stop> {
    let index = usize::try_from(release.canary_step).unwrap_or(usize::MAX).saturating_sub(1);
    let hold_ms = steps.get(index).and_then(|step| step.hold.as_ref()).and_then(millis);
    if txn.now < release.canary_step_ms + hold_ms.unwrap_or(0) {
        return Err(stale(release, "the step is held for longer"));
    }
    Ok(())
}

fn last_step_is_over(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<(), Stop> {
    let steps = canary_steps(txn, agent, release)?;
    if usize::try_from(release.canary_step).unwrap_or(0) < steps.len() {
        return Err(stale(release, "the canary has steps to come"));
    }
    step_is_over(txn, release, &steps)
}

fn write(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    it: &RecordVerdict,
) -> Result<(), Stop> {
    let before = undecided(txn, agent, release)?;
    let gate = GateRecord {
        verdict: it.verdict,
        reason: it.reason.clone(),
        evidence: it.evidence.clone(),
        decided_ms: txn.now,
        ..before
    };
    save_gate(txn, agent.number, release, (it.stage(), it.attempt), gate);
    let verdict = event::word(it.verdict().as_str_name(), "VERDICT_");
    let mut decided = event::of_bundle("gate.decided", agent, &release.bundle_id)
        .with("release", id(release.number))
        .with("stage", word(it.stage()))
        .with("attempt", it.attempt)
        .with("verdict", verdict);
    if !it.reason.is_empty() {
        decided = decided.with("why", &it.reason);
    }
    txn.event(decided);
    Ok(())
}

fn passed(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    match release.stage() {
        Stage::Quarantine => quarantine::over(txn, agent, release, false),
        Stage::Recycle => super::recycle::at_the_end(txn, agent, release),
        Stage::Switch => {
            remember_pass(txn, agent, release)?;
            stage::switch(txn, agent, release)?;
            Ok(())
        }
        Stage::Unspecified
        | Stage::Prepare
        | Stage::Smoke
        | Stage::Evals
        | Stage::Shadow
        | Stage::Canary => {
            remember_pass(txn, agent, release)?;
            go_on(txn, agent, release)
        }
    }
}

/// A switch by hand asks which stages the bundle has passed.
fn remember_pass(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<(), Stop> {
    let mut candidate = bundle::load(txn, agent.number, &release.bundle_id)?;
    if !candidate.passed.contains(&release.stage) {
        candidate.passed.push(release.stage);
        candidate.passed.sort_unstable();
        bundle::save(txn, agent.number, &candidate);
    }
    Ok(())
}

/// A gate failed: so does the release, unless the policy has it wait.
fn failed(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
    why: &str,
) -> Result<(), Stop> {
    let policy = policy(txn.read(), agent.number, release.number)?;
    let on_failure = policy.release.unwrap_or_default().on_gate_failure();
    let why = format!("{}: {why}", word(release.stage()));
    match on_failure {
        OnGateFailure::Hold => {
            hold(txn, agent, release, HoldCause::GateFailed, &why);
            Ok(())
        }
        OnGateFailure::Unspecified | OnGateFailure::Fail => {
            end::end_active(txn, agent, release, ReleaseState::Failed, &why)
        }
    }
}

fn lacks_data(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
    why: &str,
) -> Result<(), Stop> {
    let stage = release.stage();
    if is_required(release, stage) {
        return failed(txn, agent, release, &format!("insufficient data: {why}"));
    }
    if planned(release, stage).lenient {
        return go_on(txn, agent, release);
    }
    hold(txn, agent, release, HoldCause::InsufficientData, &format!("{}: {why}", word(stage)));
    Ok(())
}
