//! The API's view of a release.

use pinrail_proto::log::{AgentRecord, GateRecord, MoveRecord, ReleaseRecord, StagePlan};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, HoldCause, Stage, StageMode, Verdict};

use crate::key::{Key, Kind};
use crate::store::{Fault, Order, Read};
use crate::txn::decode;

use super::{attempt_id, id, is_over, last_gates, policy, word};

/// A release; with its policy and its whole history when `whole`.
pub(crate) fn message(
    read: &dyn Read,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    whole: bool,
) -> Result<v1::Release, Fault> {
    let frozen = policy(read, agent.number, release.number)?;
    let steps = frozen.gates.as_ref().and_then(|gates| gates.canary.as_ref());
    let canary = steps.map(|canary| progress(agent, release, &canary.steps));
    Ok(v1::Release {
        agent_id: agent.agent_id.clone(),
        release_id: id(release.number),
        bundle_id: release.bundle_id.clone(),
        baseline_bundle_id: release.baseline_bundle_id.clone(),
        state: release.state,
        stage: release.stage,
        hold: (release.hold() != HoldCause::Unspecified).then(|| v1::Hold {
            cause: release.hold,
            since: timestamp(release.held_ms),
            reason: release.hold_reason.clone(),
        }),
        gates: gates(read, agent.number, release)?,
        transitions: if whole { transitions(read, agent.number, release)? } else { Vec::new() },
        canary: canary.filter(|_| release.canary_step != 0),
        started_at: timestamp(release.started_ms),
        switched_at: timestamp(release.switched_ms),
        quarantine_until: timestamp(release.quarantine_until_ms),
        quarantine_at_latest: timestamp(release.quarantine_latest_ms),
        ended_at: timestamp(release.ended_ms),
        end_reason: release.end_reason.clone(),
        policy_revision: release.policy_revision,
        by_hand: release.by_hand,
        policy: whole.then_some(frozen),
        revision: release.revision,
        actor: release.actor.clone(),
        reason: release.reason.clone(),
        next: next(agent, release),
    })
}

fn progress(
    agent: &AgentRecord,
    release: &ReleaseRecord,
    steps: &[v1::CanaryStep],
) -> v1::CanaryProgress {
    let index = usize::try_from(release.canary_step).unwrap_or(usize::MAX).saturating_sub(1);
    let hold = steps.get(index).and_then(|step| step.hold.as_ref());
    let hold_ms = hold.and_then(pinrail_proto::time::millis).unwrap_or(0);
    let is_out = agent.active_release == release.number;
    v1::CanaryProgress {
        step: release.canary_step,
        steps: u32::try_from(steps.len()).unwrap_or(u32::MAX),
        share_bp: if is_out { agent.canary_bp } else { 0 },
        step_began_at: timestamp(release.canary_step_ms),
        step_ends_at: timestamp(release.canary_step_ms + hold_ms),
    }
}

/// The last attempt at every stage, those to come included.
fn gates(read: &dyn Read, agent: u32, release: &ReleaseRecord) -> Result<Vec<v1::Gate>, Fault> {
    let last = last_gates(read, agent, release.number)?;
    let behind = [Stage::Quarantine, Stage::Recycle].map(|stage| StagePlan {
        stage: stage.into(),
        mode: StageMode::Required.into(),
        ..StagePlan::default()
    });
    let all = release.plan.iter().chain(&behind);
    Ok(all.map(|plan| gate(release.number, plan, last.get(&plan.stage))).collect())
}

fn gate(release: u32, plan: &StagePlan, last: Option<&(u32, GateRecord)>) -> v1::Gate {
    let (attempt, record) = last.cloned().unwrap_or_default();
    let verdict = match last {
        Some(_) => record.verdict(),
        None if !plan.skipped.is_empty() => Verdict::Skipped,
        None => Verdict::Pending,
    };
    v1::Gate {
        stage: plan.stage,
        attempt,
        attempt_id: if attempt == 0 {
            String::new()
        } else {
            attempt_id(release, plan.stage(), attempt)
        },
        mode: plan.mode,
        verdict: verdict.into(),
        reason: if last.is_some() { record.reason } else { plan.skipped.clone() },
        evidence: record.evidence,
        started_at: timestamp(record.started_ms),
        deadline: timestamp(record.deadline_ms),
        decided_at: timestamp(record.decided_ms),
        overridden_by: record.overridden_by,
        revision: record.revision,
    }
}

fn transitions(
    read: &dyn Read,
    agent: u32,
    release: &ReleaseRecord,
) -> Result<Vec<v1::Transition>, Fault> {
    let rows = Key::of(Kind::ReleaseMove, agent).u32(release.number).range();
    let transition = |(key, value): &crate::store::Row| {
        let it: MoveRecord = decode(key, value)?;
        Ok(v1::Transition {
            at: timestamp(it.at_ms),
            from: it.from,
            to: it.to,
            actor: it.actor,
            reason: it.reason,
            seen_revision: it.seen_revision,
            revision: it.revision,
            what: it.what,
        })
    };
    read.scan(&rows, Order::Ascending, usize::MAX)?.iter().map(transition).collect()
}

/// The commands that go on from here, the usual one first.
fn next(agent: &AgentRecord, release: &ReleaseRecord) -> Vec<String> {
    let name = &agent.agent_id;
    let bundle = &release.bundle_id;
    let say = |verb: &str| format!("pinrail {verb}");
    if is_over(release.state()) {
        return Vec::new();
    }
    if agent.quarantine_release == release.number {
        return vec![
            say(&format!("rollback {name} --from {bundle}")),
            say(&format!("quarantine show {name}")),
        ];
    }
    let abort = say(&format!("release abort {name}"));
    match release.hold() {
        HoldCause::Unspecified => {
            vec![say(&format!("release watch {name}")), say(&format!("release hold {name}")), abort]
        }
        HoldCause::Operator => vec![say(&format!("release resume {name}")), abort],
        HoldCause::HoldBefore => vec![say(&format!("release promote {name}")), abort],
        HoldCause::InsufficientData | HoldCause::GateFailed => {
            let plan = release.plan.iter().find(|plan| plan.stage == release.stage);
            let is_required = plan.is_some_and(|plan| plan.mode() == StageMode::Required);
            let force = if is_required { " --force --reason \"…\"" } else { "" };
            vec![
                say(&format!("release promote {name}{force}")),
                format!(
                    "pinrail release resume {name}      # tries {} again",
                    word(release.stage())
                ),
                abort,
            ]
        }
    }
}
