//! The start of a release, and of the short one that a switch by hand is.

use std::collections::BTreeSet;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, BundleRecord, Capacity, GateRecord, PolicyRecord, ReleaseRecord, ReleaseResult,
    StagePlan, StartRelease, Switch,
};
use pinrail_proto::v1::{self, ReleaseState, Stage, StageMode, Strategy, Verdict};
use pinrail_proto::{limits, reason};

use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::{KeyRange, Read};
use crate::txn::Txn;
use crate::{agent, bundle, drill, level, route};

use super::{Planned, gate_hooks, message, note, plan, row, save, save_gate, stage, word};

pub(crate) fn start(txn: &mut Txn<'_>, it: &StartRelease) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    agent::expect_revision(txn, agent.revision)?;
    drill::give_up(txn, &mut agent, "a release took its place")?;
    let mut candidate = bundle::load(txn, agent.number, &it.bundle_id)?;
    let policy = agent::policy(txn.read(), agent.number)?;
    let Planned { stages, blocker } = plan(txn.read(), &agent, &candidate, &policy, it.fast)?;
    let forced = it.force && !txn.header.reason.is_empty();
    candidate.rejected &= !forced;
    admit(txn.read(), &agent, &candidate, &policy)?;
    if let Some(blocker) = blocker {
        return Err(blocker);
    }
    // Every release of a bundle writes to a layer of its own; it is opened by whoever writes first.
    candidate.layer = 0;
    bundle::revive(txn, &mut agent, &mut candidate)?;
    let is_drained = candidate.drain_deadline_ms != 0 && bundle::open_pins(&candidate) == 0;
    if is_drained && txn.cluster.feature_level >= level::NEW_RELEASES_BEGIN_ANEW {
        // Behind its deadline the runs that try it could not begin.
        route::forget_drain(txn, &agent, &mut candidate);
    }
    candidate.revision = txn.revision;
    bundle::save(txn, agent.number, &candidate);
    let mut release = open(txn, &mut agent, &candidate, policy, stages)?;
    agent.active_release = release.number;
    agent.candidate_bundle_id.clone_from(&candidate.bundle_id);
    note(txn, &agent, &mut release, "release.started", ReleaseState::Unspecified, "");
    stage::go_on(txn, &mut agent, &mut release)?;
    save(txn, agent.number, &mut release);
    agent.revision = txn.revision;
    agent::save(txn, &agent);
    let release = message(txn.read(), &agent, &release, true)?;
    Ok(Answer::Release(Box::new(ReleaseResult { release: Some(release), already: false })))
}

/// Why a release of the bundle cannot begin now.
pub(crate) fn admit(
    read: &dyn Read,
    agent: &AgentRecord,
    candidate: &BundleRecord,
    policy: &v1::Policy,
) -> Result<(), Stop> {
    let id = &candidate.bundle_id;
    if agent.active_release != 0 {
        return Err(is_active(agent));
    }
    if *id == agent.live_bundle_id {
        return Err(reject(reason::BUNDLE_HAS_TRAFFIC, format!("bundle {id} is live already")));
    }
    if *id == agent.standby_bundle_id {
        let message = format!("bundle {id} is the standby: it is returned to, not released");
        return Err(reject(reason::BUNDLE_IS_STANDBY, message)
            .with("next_1", format!("pinrail rollback {}", agent.agent_id))
            .with("next_2", format!("pinrail switch {} {id}", agent.agent_id)));
    }
    if candidate.rejected {
        let message = format!("bundle {id} was rolled back");
        return Err(
            reject(reason::BUNDLE_REJECTED, message).with("override", "--force with --reason")
        );
    }
    drained(read, agent, policy)
}

pub(super) fn is_active(agent: &AgentRecord) -> Stop {
    let message = format!("a release of {} is active", agent.candidate_bundle_id);
    reject(reason::RELEASE_ACTIVE, message)
        .with("release", super::id(agent.active_release))
        .with("bundle_id", &agent.candidate_bundle_id)
        .with("next_1", format!("pinrail release status {}", agent.agent_id))
        .with("next_2", format!("pinrail release abort {}", agent.agent_id))
}

/// Strategy `drain`: no next release before the bundle of the last switch is drained.
fn drained(read: &dyn Read, agent: &AgentRecord, policy: &v1::Policy) -> Result<(), Stop> {
    let strategy = policy.switch.as_ref().map_or(Strategy::Unspecified, v1::SwitchPolicy::strategy);
    if strategy != Strategy::Drain || agent.standby_bundle_id.is_empty() {
        return Ok(());
    }
    let before = bundle::existing(read, agent.number, &agent.standby_bundle_id)?;
    let pins = bundle::open_pins(&before);
    if pins == 0 {
        return Ok(());
    }
    let message = format!("bundle {} still has {pins} open pins", before.bundle_id);
    Err(reject(reason::DRAIN_NOT_OVER, message)
        .with("bundle_id", &before.bundle_id)
        .with("open_pins", pins)
        .with("drained_by_ms", before.drain_deadline_ms + before.drain_grace_ms))
}

/// The record of a new release, with its frozen policy. The oldest one makes room.
fn open(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    candidate: &BundleRecord,
    policy: v1::Policy,
    plan: Vec<StagePlan>,
) -> Result<ReleaseRecord, Stop> {
    agent.next_release += 1;
    let number = agent.next_release;
    make_room(txn, agent)?;
    let row_of_policy = PolicyRecord { policy: Some(policy), revision: agent.policy_revision };
    txn.put(row(Kind::ReleasePolicy, agent.number, number), &row_of_policy);
    Ok(ReleaseRecord {
        number,
        bundle_id: candidate.bundle_id.clone(),
        baseline_bundle_id: agent.live_bundle_id.clone(),
        state: ReleaseState::Preparing.into(),
        started_ms: txn.now,
        policy_revision: agent.policy_revision,
        actor: txn.header.actor.clone(),
        reason: txn.header.reason.clone(),
        plan,
        ..ReleaseRecord::default()
    })
}

/// Forgets the release that is [`limits::RELEASES_KEPT`] before the newest: only ended ones are that old, for at most
/// two have not ended.
fn make_room(txn: &mut Txn<'_>, agent: &AgentRecord) -> Result<(), Stop> {
    let Some(oldest) = agent.next_release.checked_sub(limits::RELEASES_KEPT) else {
        return Ok(());
    };
    if oldest == agent.quarantine_release {
        return Ok(());
    }
    txn.delete(row(Kind::Release, agent.number, oldest));
    txn.delete(row(Kind::ReleasePolicy, agent.number, oldest));
    txn.delete(row(Kind::SignalBaseline, agent.number, oldest));
    txn.delete(row(Kind::ReleaseSum, agent.number, oldest));
    for kind in [Kind::ReleaseGate, Kind::ReleaseMove, Kind::SignalFiring] {
        let range: KeyRange = Key::of(kind, agent.number).u32(oldest).range();
        for (key, _) in txn.scan(&range, usize::MAX)? {
            txn.delete(RowKey::from_slice(&key));
        }
    }
    Ok(())
}

/// The release that a switch by hand is: judged at once by what the caller's node knew of the workers, it stands at the
/// stage switch. Answers the optional stages that it passes over too.
pub(crate) fn by_hand(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    to: &mut BundleRecord,
    it: &Switch,
) -> Result<(ReleaseRecord, Vec<Stage>), Stop> {
    let forced = it.force && !txn.header.reason.is_empty();
    if agent.active_release != 0 && !forced {
        return Err(is_active(agent).with("override", "--force with --reason"));
    }
    let policy = agent::policy(txn.read(), agent.number)?;
    let Planned { stages, .. } = plan(txn.read(), agent, to, &policy, false)?;
    let min_slots = policy.environment.as_ref().map_or(1, |it| it.min_slots());
    let skipped = unpassed(&policy, &stages, to, forced)?;
    let steps = bundle::declared_steps(txn.read(), agent.number, &to.bundle_id)?;
    let prepare = stages.into_iter().filter(|plan| plan.stage() == Stage::Prepare);
    let prepare = prepare.map(|plan| StagePlan { hold_before: false, ..plan });
    let switch = StagePlan {
        stage: Stage::Switch.into(),
        mode: StageMode::Required.into(),
        ..StagePlan::default()
    };
    let plan: Vec<StagePlan> = prepare.chain([switch]).collect();
    let verdict = prepared(&plan[0], to, steps, it.capacity.as_ref(), u64::from(min_slots));
    let gate = match verdict {
        Ok(gate) => gate,
        Err(Stop::Rejected(refused)) if forced => GateRecord {
            verdict: Verdict::Fail.into(),
            reason: refused.message,
            overridden_by: txn.header.actor.clone(),
            ..GateRecord::default()
        },
        Err(stop) => return Err(stop),
    };
    super::abort_active(txn, agent, "a switch by hand took its place")?;
    if !forced && to.bundle_id != agent.standby_bundle_id {
        drained(txn.read(), agent, &policy)?;
    }
    bundle::revive(txn, agent, to)?;
    let mut release = open(txn, agent, to, policy, plan)?;
    release.by_hand = true;
    note(txn, agent, &mut release, "release.started", ReleaseState::Unspecified, "");
    let gate = GateRecord { started_ms: txn.now, decided_ms: txn.now, ..gate };
    save_gate(txn, agent.number, &release, (Stage::Prepare, 1), gate);
    release.set_stage(Stage::Switch);
    release.set_state(ReleaseState::Switching);
    release.stage_ms = txn.now;
    release.attempt = 1;
    Ok((release, skipped))
}

/// The optional stages that the policy has on and the bundle has not passed.
///
/// # Errors
/// `GATE_NOT_PASSED` for a stage that the policy requires. A canary that is required only because of what changed counts
/// as optional: whoever switches by hand has decided against it.
fn unpassed(
    policy: &v1::Policy,
    stages: &[StagePlan],
    to: &BundleRecord,
    forced: bool,
) -> Result<Vec<Stage>, Stop> {
    let canary = policy.gates.as_ref().and_then(|gates| gates.canary.as_ref());
    let is_auto = canary.is_some_and(|canary| canary.mode() == StageMode::Auto);
    let mut skipped = Vec::new();
    for plan in stages {
        let stage = plan.stage();
        let judged_elsewhere = stage == Stage::Prepare
            || (stage == Stage::Switch && gate_hooks(policy, stage).next().is_none());
        if judged_elsewhere || plan.mode() == StageMode::Off || to.passed().any(|p| p == stage) {
            continue;
        }
        let required = plan.mode() == StageMode::Required && !(stage == Stage::Canary && is_auto);
        if required && !forced {
            let message =
                format!("{} did not pass {}, which is required", to.bundle_id, word(stage));
            return Err(reject(reason::GATE_NOT_PASSED, message)
                .with("stage", word(stage))
                .with("override", "--force with --reason"));
        }
        if stage == Stage::Switch {
            continue;
        }
        if required || plan.skipped.is_empty() {
            skipped.push(stage);
        }
    }
    Ok(skipped)
}

/// Judges the workers of a bundle. Busy slots count as well: they are no reason to refuse an operator.
fn prepared(
    plan: &StagePlan,
    to: &BundleRecord,
    steps: BTreeSet<String>,
    capacity: Option<&Capacity>,
    min_slots: u64,
) -> Result<GateRecord, Stop> {
    let skipped = |why: &str| GateRecord {
        verdict: Verdict::Skipped.into(),
        reason: why.to_owned(),
        ..GateRecord::default()
    };
    if !plan.skipped.is_empty() {
        return Ok(skipped(&plan.skipped));
    }
    let Some(capacity) = capacity else { return Ok(skipped("nobody knew the workers")) };
    if capacity.workers == 0 && min_slots > 0 {
        let message = format!("bundle {} has no live worker", to.bundle_id);
        return Err(no_workers(reason::NO_WORKERS, message));
    }
    let mut missing = steps;
    missing.insert(to.entry.clone());
    missing.retain(|step| !step.is_empty() && !capacity.any && !capacity.steps.contains(step));
    if !missing.is_empty() && min_slots > 0 {
        let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("no live worker of {} serves {missing}", to.bundle_id);
        return Err(no_workers(reason::STEPS_MISSING, message).with("steps", missing));
    }
    Ok(GateRecord {
        verdict: Verdict::Pass.into(),
        reason: format!("{} workers, {} free slots", capacity.workers, capacity.free_slots),
        ..GateRecord::default()
    })
}

fn no_workers(why: reason::Reason, message: String) -> Stop {
    reject(why, message).with("override", "--force with --reason")
}
