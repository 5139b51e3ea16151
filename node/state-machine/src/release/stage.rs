//! From stage to stage.

use pinrail_proto::log::{AgentRecord, GateRecord, ReleaseRecord, StagePlan};
use pinrail_proto::v1::{self, HoldCause, ReleaseState, Stage, StageMode, Verdict};

use crate::event::With as _;
use crate::level;
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{bundle, event, memory, route, signal};

use super::{end, gate, gate_hooks, id, note, policy, quarantine, save_gate, state_of, word};

/// The replicated id of an attempt at a stage: what its runs and webhooks carry.
pub(crate) fn attempt_id(release: u32, stage: Stage, attempt: u32) -> String {
    format!("{}.{}.{attempt}", id(release), word(stage))
}

/// The plan of a stage in this release.
pub(super) fn planned(release: &ReleaseRecord, stage: Stage) -> StagePlan {
    let found = release.plan.iter().find(|plan| plan.stage() == stage);
    found.cloned().unwrap_or_else(|| StagePlan { stage: stage.into(), ..StagePlan::default() })
}

/// Whether the release fails, or needs force, without a pass of the stage.
pub(super) fn is_required(release: &ReleaseRecord, stage: Stage) -> bool {
    planned(release, stage).mode() == StageMode::Required
}

/// Goes on to the next stage that is not skipped, or waits for a person before it. The caller saves agent and release.
pub(super) fn go_on(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    let rest: Vec<StagePlan> =
        release.plan.iter().filter(|plan| plan.stage > release.stage).cloned().collect();
    for plan in rest {
        let stage = plan.stage();
        if !plan.skipped.is_empty() {
            let skipped = GateRecord {
                verdict: Verdict::Skipped.into(),
                reason: plan.skipped.clone(),
                started_ms: txn.now,
                decided_ms: txn.now,
                ..GateRecord::default()
            };
            save_gate(txn, agent.number, release, (stage, 1), skipped);
            continue;
        }
        enter(release, stage, txn.now);
        if plan.hold_before {
            let why = format!("the policy waits for a person before {}", word(stage));
            hold(txn, agent, release, HoldCause::HoldBefore, &why);
            return Ok(());
        }
        return begin(txn, agent, release);
    }
    Ok(())
}

/// The release is at a stage that has not begun.
fn enter(release: &mut ReleaseRecord, stage: Stage, now: u64) {
    release.set_stage(stage);
    release.set_state(state_of(stage));
    release.attempt = 0;
    release.stage_ms = now;
    release.deadline_ms = 0;
    release.left_ms = 0;
}

/// Begins the next attempt at the present stage.
pub(super) fn begin(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    let stage = release.stage();
    let from = release.state();
    release.attempt += 1;
    release.stage_ms = txn.now;
    clear_hold(release);
    let timeout_ms = planned(release, stage).timeout_ms;
    release.deadline_ms = if timeout_ms == 0 { 0 } else { txn.now + timeout_ms };
    if stage == Stage::Switch && !waits_for_hooks(txn, agent, release)? {
        switch(txn, agent, release)?;
        return Ok(());
    }
    let running = GateRecord {
        verdict: Verdict::Running.into(),
        started_ms: txn.now,
        deadline_ms: release.deadline_ms,
        ..GateRecord::default()
    };
    save_gate(txn, agent.number, release, (stage, release.attempt), running);
    note(txn, agent, release, "release.entered", from, "");
    // A canary that is tried again keeps the share that it has.
    if stage == Stage::Canary && release.canary_step == 0 {
        raise(txn, agent, release)?;
    } else if stage == Stage::Canary {
        release.canary_step_ms = txn.now;
    }
    Ok(())
}

/// The switch itself has nothing to judge by; only hooks can hold it up.
fn waits_for_hooks(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<bool, Stop> {
    let policy = policy(txn.read(), agent.number, release.number)?;
    Ok(gate_hooks(&policy, Stage::Switch).next().is_some())
}

/// The next step of the canary: its share of the traffic, from now on.
pub(super) fn raise(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    release.canary_step += 1;
    release.canary_step_ms = txn.now;
    let steps = canary_steps(txn, agent, release)?;
    let index = usize::try_from(release.canary_step).unwrap_or(usize::MAX).saturating_sub(1);
    let share_bp = steps.get(index).map_or(agent.canary_bp, |step| step.share_bp);
    let mut candidate = bundle::load(txn, agent.number, &release.bundle_id)?;
    memory::candidate(txn, agent, &mut candidate);
    if txn.cluster.feature_level >= level::CANARIES_END_DRAINS && candidate.drain_deadline_ms != 0 {
        // It was released before, and has traffic again.
        route::forget_drain(txn, agent, &mut candidate);
        candidate.revision = txn.revision;
        bundle::save(txn, agent.number, &candidate);
    }
    agent.canary_bp = share_bp;
    route::moved(txn, agent);
    txn.event(
        event::of_bundle("route.canary", agent, &release.bundle_id)
            .with("release", id(release.number))
            .with("share_bp", share_bp)
            .with("epoch", agent.epoch),
    );
    Ok(())
}

/// The steps of the canary as the policy had them when the release began.
pub(super) fn canary_steps(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<Vec<v1::CanaryStep>, Stop> {
    let policy = policy(txn.read(), agent.number, release.number)?;
    Ok(policy.gates.and_then(|gates| gates.canary).unwrap_or_default().steps)
}

/// Waits for a person: the stage's time stands still.
pub(super) fn hold(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &mut ReleaseRecord,
    cause: HoldCause,
    why: &str,
) {
    let from = release.state();
    release.set_hold(cause);
    release.held_ms = txn.now;
    why.clone_into(&mut release.hold_reason);
    release.left_ms = release.deadline_ms.saturating_sub(txn.now);
    release.deadline_ms = 0;
    if release.stage() == Stage::Canary && release.canary_step != 0 {
        release.canary_held_ms = txn.now.saturating_sub(release.canary_step_ms);
    }
    note(txn, agent, release, "release.held", from, why);
}

pub(super) fn clear_hold(release: &mut ReleaseRecord) {
    release.set_hold(HoldCause::Unspecified);
    release.held_ms = 0;
    release.hold_reason.clear();
    release.left_ms = 0;
}

pub(super) fn is_held(release: &ReleaseRecord) -> bool {
    release.hold() != HoldCause::Unspecified
}

/// The switch: every gate is behind. The pair goes into quarantine, and an older quarantine is over.
pub(crate) fn switch(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<Option<v1::Drain>, Stop> {
    let from = release.state();
    if decided(txn, agent, release)?.verdict() == Verdict::Unspecified {
        let passed = GateRecord {
            verdict: Verdict::Pass.into(),
            started_ms: release.stage_ms,
            decided_ms: txn.now,
            ..GateRecord::default()
        };
        save_gate(txn, agent.number, release, (Stage::Switch, release.attempt), passed);
    }
    end::close_quarantine(txn, agent, release.number)?;
    agent.active_release = 0;
    agent.candidate_bundle_id.clear();
    agent.canary_bp = 0;
    let to = bundle::load(txn, agent.number, &release.bundle_id)?;
    signal::end_phase(txn, agent, release)?;
    signal::freeze(txn, agent, release.number)?;
    let drain = route::make_live(txn, agent, to)?;
    release.switched_ms = txn.now;
    release.deadline_ms = 0;
    release.set_state(ReleaseState::Switched);
    note(txn, agent, release, "release.switched", from, "");
    if agent.standby_bundle_id.is_empty() {
        end::finish(txn, agent, release, ReleaseState::Recycled, "no bundle was live before")?;
    } else {
        quarantine::begin(txn, agent, release)?;
    }
    Ok(drain)
}

/// The newest attempt at a stage that has a record.
pub(super) fn decided(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
) -> Result<GateRecord, Stop> {
    let record = gate(txn.read(), agent.number, release.number, release.stage(), release.attempt)?;
    Ok(record.unwrap_or_default())
}
