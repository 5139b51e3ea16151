//! What people do with an active release: hold, resume, promote, abort.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AbortRelease, AgentRecord, GateRecord, HoldRelease, PromoteRelease, ReleaseRecord,
    ResumeRelease,
};
use pinrail_proto::reason;
use pinrail_proto::v1::{HoldCause, ReleaseState, Stage, Verdict};

use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, drill};

use super::stage::{
    begin, canary_steps, clear_hold, decided, go_on, hold as hold_at, is_held, is_required, raise,
    switch,
};
use super::verdict::answer;
use super::{active, end, existing, note, quarantine, save, save_gate, word};

pub(crate) fn hold(txn: &mut Txn<'_>, it: &HoldRelease) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut release = active(txn, &agent)?;
    agent::expect_revision(txn, release.revision)?;
    if is_held(&release) {
        return answer(txn, &agent, &release, true);
    }
    let why = match txn.header.reason.as_str() {
        "" => "somebody holds it".to_owned(),
        said => said.to_owned(),
    };
    hold_at(txn, &agent, &mut release, HoldCause::Operator, &why);
    finish(txn, agent, release)
}

pub(crate) fn resume(txn: &mut Txn<'_>, it: &ResumeRelease) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut release = active(txn, &agent)?;
    agent::expect_revision(txn, release.revision)?;
    let state = release.state();
    match release.hold() {
        HoldCause::Unspecified => return answer(txn, &agent, &release, true),
        HoldCause::Operator => {
            let left_ms = release.left_ms;
            clear_hold(&mut release);
            release.deadline_ms = if left_ms == 0 { 0 } else { txn.now + left_ms };
            if release.canary_step != 0 {
                release.canary_step_ms = txn.now.saturating_sub(release.canary_held_ms);
            }
            note(txn, &agent, &mut release, "release.resumed", state, "");
        }
        HoldCause::HoldBefore | HoldCause::InsufficientData | HoldCause::GateFailed => {
            note(txn, &agent, &mut release, "release.resumed", state, "");
            begin(txn, &mut agent, &mut release)?;
        }
    }
    finish(txn, agent, release)
}

pub(crate) fn promote(txn: &mut Txn<'_>, it: &PromoteRelease) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    if agent.active_release == 0 && it.to() == Stage::Recycle {
        drill::give_up(txn, &mut agent, "the quarantine was ended")?;
        return end_quarantine(txn, agent, it.force);
    }
    let mut release = active(txn, &agent)?;
    agent::expect_revision(txn, release.revision)?;
    let state = release.state();
    let forced = it.force && !txn.header.reason.is_empty();
    if it.to() == Stage::Unspecified && release.hold() == HoldCause::HoldBefore {
        note(txn, &agent, &mut release, "release.promoted", state, "");
        begin(txn, &mut agent, &mut release)?;
        return finish(txn, agent, release);
    }
    if it.to() == Stage::Unspecified && next_share(txn, &mut agent, &mut release)? {
        return finish(txn, agent, release);
    }
    if is_at_gated_switch(&release) && it.to() != Stage::Recycle {
        pass_over(txn, &agent, &release, forced, Stage::Quarantine)?;
        note(txn, &agent, &mut release, "release.promoted", state, "");
        clear_hold(&mut release);
        switch(txn, &mut agent, &mut release)?;
        return finish(txn, agent, release);
    }
    let to = aim(&release, it.to())?;
    pass_over(txn, &agent, &release, forced, to)?;
    note(txn, &agent, &mut release, "release.promoted", state, "");
    release.set_stage(before(to));
    clear_hold(&mut release);
    go_on(txn, &mut agent, &mut release)?;
    // Whoever names a stage has decided: it does not wait for a person once more.
    if it.to() != Stage::Unspecified && release.hold() == HoldCause::HoldBefore {
        begin(txn, &mut agent, &mut release)?;
    }
    finish(txn, agent, release)
}

pub(crate) fn abort(txn: &mut Txn<'_>, it: &AbortRelease) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut release = active(txn, &agent)?;
    agent::expect_revision(txn, release.revision)?;
    let why = match txn.header.reason.as_str() {
        "" => "somebody aborted it".to_owned(),
        said => said.to_owned(),
    };
    end::end_active(txn, &mut agent, &mut release, ReleaseState::Aborted, &why)?;
    end::note_abort(txn, &mut agent);
    finish(txn, agent, release)
}

/// In a canary that is not over, promoting means the next share at once. False: there is none.
fn next_share(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<bool, Stop> {
    let steps = canary_steps(txn, agent, release)?.len();
    let at = usize::try_from(release.canary_step).unwrap_or(usize::MAX);
    let is_running = release.stage() == Stage::Canary
        && matches!(release.hold(), HoldCause::Unspecified | HoldCause::Operator);
    if !is_running || at >= steps {
        return Ok(false);
    }
    let state = release.state();
    let left_ms = release.left_ms;
    if is_held(release) {
        clear_hold(release);
        release.deadline_ms = if left_ms == 0 { 0 } else { txn.now + left_ms };
    }
    raise(txn, agent, release)?;
    note(txn, agent, release, "release.promoted", state, "");
    Ok(true)
}

/// Hooks are asked before the switch, or were: nothing but the switch is behind.
fn is_at_gated_switch(release: &ReleaseRecord) -> bool {
    release.stage() == Stage::Switch && release.hold() != HoldCause::HoldBefore
}

/// The stage that is meant: it comes behind the present one, or is the one that is waited before.
fn aim(release: &ReleaseRecord, to: Stage) -> Result<Stage, Stop> {
    let waits_before = release.hold() == HoldCause::HoldBefore;
    let at = i32::from(release.stage());
    let meant = match to {
        Stage::Unspecified => {
            let next = release.plan.iter().find(|plan| plan.stage > at);
            next.map_or(Stage::Switch, pinrail_proto::log::StagePlan::stage)
        }
        named => named,
    };
    let number = i32::from(meant);
    if meant == Stage::Recycle || number < at || (number == at && !waits_before) {
        let message = format!("the release is at {}", word(release.stage()));
        return Err(reject(reason::INVALID_REQUEST, message).with("stage", word(release.stage())));
    }
    if meant == Stage::Quarantine {
        return Ok(Stage::Switch);
    }
    Ok(meant)
}

/// The stage number before one: `go_on` goes to the next that is planned.
fn before(stage: Stage) -> Stage {
    Stage::try_from(i32::from(stage) - 1).unwrap_or(Stage::Unspecified)
}

/// Writes down that the present stage and those before `to` were passed over, and by whom.
fn pass_over(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    forced: bool,
    to: Stage,
) -> Result<(), Stop> {
    let waits_before = release.hold() == HoldCause::HoldBefore;
    let passed_over: Vec<_> = release
        .plan
        .iter()
        .filter(|plan| plan.skipped.is_empty())
        .filter(|plan| plan.stage >= release.stage && plan.stage < i32::from(to))
        .map(pinrail_proto::log::StagePlan::stage)
        .collect();
    for stage in passed_over {
        if is_required(release, stage) && !forced {
            let message =
                format!("{} did not pass {}, which is required", release.bundle_id, word(stage));
            return Err(reject(reason::GATE_NOT_PASSED, message)
                .with("stage", word(stage))
                .with("override", "--force with --reason"));
        }
        let is_present = stage == release.stage() && !waits_before;
        let (attempt, gate) = if is_present {
            (release.attempt, decided(txn, agent, release)?)
        } else {
            (1, GateRecord { started_ms: txn.now, ..GateRecord::default() })
        };
        let gate = GateRecord {
            verdict: match gate.verdict() {
                judged @ (Verdict::Pass
                | Verdict::Fail
                | Verdict::InsufficientData
                | Verdict::Error) => judged.into(),
                Verdict::Unspecified | Verdict::Pending | Verdict::Running | Verdict::Skipped => {
                    Verdict::Skipped.into()
                }
            },
            decided_ms: txn.now,
            overridden_by: match txn.header.actor.as_str() {
                "" => "unknown".to_owned(),
                actor => actor.to_owned(),
            },
            ..gate
        };
        save_gate(txn, agent.number, release, (stage, attempt), gate);
    }
    Ok(())
}

/// `promote --to recycle` behind the switch: somebody ends the quarantine early.
fn end_quarantine(txn: &mut Txn<'_>, mut agent: AgentRecord, force: bool) -> Result<Answer, Stop> {
    if agent.quarantine_release == 0 {
        let message = format!("agent {} has nothing in quarantine", agent.agent_id);
        return Err(reject(reason::RELEASE_NOT_ACTIVE, message));
    }
    let mut release = existing(txn.read(), agent.number, agent.quarantine_release)?;
    agent::expect_revision(txn, release.revision)?;
    if release.stage() == Stage::Quarantine {
        if !force || txn.header.reason.is_empty() {
            let message = "the quarantine is not over".to_owned();
            return Err(reject(reason::GATE_NOT_PASSED, message)
                .with("stage", "quarantine")
                .with("override", "--force with --reason"));
        }
        let gate = GateRecord {
            verdict: Verdict::Skipped.into(),
            decided_ms: txn.now,
            overridden_by: txn.header.actor.clone(),
            ..decided(txn, &agent, &release)?
        };
        save_gate(txn, agent.number, &release, (Stage::Quarantine, release.attempt), gate);
        quarantine::over(txn, &mut agent, &mut release, true)?;
    }
    finish(txn, agent, release)
}

fn finish(
    txn: &mut Txn<'_>,
    mut agent: AgentRecord,
    mut release: ReleaseRecord,
) -> Result<Answer, Stop> {
    save(txn, agent.number, &mut release);
    agent.revision = txn.revision;
    agent::save(txn, &agent);
    answer(txn, &agent, &release, false)
}
