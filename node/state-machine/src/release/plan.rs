//! What the stages of a release mean before it begins: which of them count, which have nothing to judge by, and how long
//! each may take.

use pinrail_proto::log::{AgentRecord, BundleRecord, StagePlan};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{self, OnInsufficient, Stage, StageMode};
use pinrail_proto::{limits, reason};

use crate::bundle;
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Read};

use super::word;

/// The stages in their order, and why the release cannot begin, if it cannot.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) stages: Vec<StagePlan>,
    pub(crate) blocker: Option<Stop>,
}

/// Decides what each stage means for a candidate beside the live bundle.
pub(crate) fn plan(
    read: &dyn Read,
    agent: &AgentRecord,
    candidate: &BundleRecord,
    policy: &v1::Policy,
    fast: bool,
) -> Result<Planned, Fault> {
    let live = match agent.live_bundle_id.as_str() {
        "" => None,
        live => bundle::find(read, agent.number, live)?,
    };
    let gates = policy.gates.clone().unwrap_or_default();
    let changed = match &live {
        Some(live) => changed_parts(read, agent.number, &live.bundle_id, &candidate.bundle_id)?,
        None => Vec::new(),
    };
    let mut stages = vec![
        prepare(&gates, live.as_ref(), candidate),
        smoke(&gates),
        evals(&gates),
        shadow(&gates, live.as_ref()),
        canary(&gates, live.as_ref(), &changed),
        stage(Stage::Switch, StageMode::Required, None),
    ];
    let hold_before = policy.release.as_ref().map(|r| r.hold_before.as_slice()).unwrap_or_default();
    let mut blocker = None;
    for stage in &mut stages {
        leave_to_hooks(policy, stage);
        stage.hold_before = hold_before.contains(&word(stage.stage()));
        if fast && stage.mode() == StageMode::Optional {
            stage.timeout_ms = stage.timeout_ms.min(limits::FAST_STAGE_MS);
            stage.lenient = true;
        }
        let judged_by_nothing = !stage.skipped.is_empty() && stage.mode() == StageMode::Required;
        if judged_by_nothing && stage.stage() != Stage::Prepare && blocker.is_none() {
            blocker = Some(nothing_to_judge_by(stage));
        }
    }
    Ok(Planned { stages, blocker })
}

/// The names of the hooks that gate a stage.
pub(crate) fn gate_hooks(policy: &v1::Policy, stage: Stage) -> impl Iterator<Item = &str> {
    let gate = word(stage);
    policy.hooks.iter().filter(move |hook| hook.gate == gate).map(|hook| hook.name.as_str())
}

/// A stage that has nothing of its own to judge by is not skipped when a hook gates it: the hook judges it. A canary has
/// no traffic to share then, so it is.
fn leave_to_hooks(policy: &v1::Policy, stage: &mut StagePlan) {
    if gate_hooks(policy, stage.stage()).next().is_none() {
        return;
    }
    if stage.stage() == Stage::Switch {
        stage.timeout_ms = limits::SWITCH_GATE_MS;
    }
    if stage.mode() != StageMode::Off && stage.stage() != Stage::Canary {
        stage.only_hooks = std::mem::take(&mut stage.skipped);
    }
}

fn nothing_to_judge_by(stage: &StagePlan) -> Stop {
    let message = format!("the stage {} is required and {}", word(stage.stage()), stage.skipped);
    let why = match stage.stage() {
        Stage::Shadow | Stage::Canary => reason::NO_LIVE_BUNDLE,
        Stage::Unspecified
        | Stage::Prepare
        | Stage::Smoke
        | Stage::Evals
        | Stage::Switch
        | Stage::Quarantine
        | Stage::Recycle => reason::INVALID_POLICY,
    };
    reject(why, message).with("stage", word(stage.stage()))
}

fn stage(stage: Stage, mode: StageMode, timeout: Option<&prost_types::Duration>) -> StagePlan {
    let skipped = if mode == StageMode::Off { "is off".to_owned() } else { String::new() };
    StagePlan {
        stage: stage.into(),
        mode: mode.into(),
        skipped,
        timeout_ms: timeout.and_then(millis).unwrap_or(0),
        hold_before: false,
        lenient: false,
        only_hooks: String::new(),
    }
}

/// Skipped for the first live bundle, and where neither bundle ever had a worker.
fn prepare(
    gates: &v1::GatesPolicy,
    live: Option<&BundleRecord>,
    candidate: &BundleRecord,
) -> StagePlan {
    let gate = gates.prepare.unwrap_or_default();
    let mut planned = stage(Stage::Prepare, gate.mode(), gate.timeout.as_ref());
    if planned.skipped.is_empty() {
        match live {
            None => planned.skipped = "no bundle is live".to_owned(),
            Some(live) if !live.had_worker && !candidate.had_worker => {
                planned.skipped = "neither bundle ever had a worker".to_owned();
            }
            Some(_) => {}
        }
    }
    planned
}

fn smoke(gates: &v1::GatesPolicy) -> StagePlan {
    let gate = gates.smoke.clone().unwrap_or_default();
    let mut planned = stage(Stage::Smoke, gate.mode(), gate.timeout.as_ref());
    if planned.skipped.is_empty() && gate.cases.is_empty() {
        planned.skipped = "has no cases".to_owned();
    }
    planned
}

fn evals(gates: &v1::GatesPolicy) -> StagePlan {
    let gate = gates.evals.clone().unwrap_or_default();
    let mut planned = stage(Stage::Evals, gate.mode(), gate.timeout.as_ref());
    if planned.skipped.is_empty() && gate.set.is_empty() {
        planned.skipped = "names no eval set".to_owned();
    }
    planned
}

fn shadow(gates: &v1::GatesPolicy, live: Option<&BundleRecord>) -> StagePlan {
    let gate = gates.shadow.clone().unwrap_or_default();
    let mut planned = stage(Stage::Shadow, gate.mode(), gate.timeout.as_ref());
    planned.lenient = gate.on_insufficient() == OnInsufficient::Pass;
    if planned.skipped.is_empty() && live.is_none() {
        planned.skipped = "no bundle is live".to_owned();
    }
    planned
}

fn canary(
    gates: &v1::GatesPolicy,
    live: Option<&BundleRecord>,
    changed: &[&'static str],
) -> StagePlan {
    let gate = gates.canary.clone().unwrap_or_default();
    let mut mode = gate.mode();
    let mut why = String::new();
    if mode == StageMode::Auto {
        let counts = |part: &&&str| gate.auto_parts.iter().any(|auto| auto == **part);
        let counting: Vec<&str> = changed.iter().filter(counts).copied().collect();
        if live.is_some() && counting.is_empty() {
            mode = StageMode::Off;
            why = format!("none of {} changed", gate.auto_parts.join(", "));
        } else if live.is_some() {
            mode = StageMode::Required;
        } else {
            mode = StageMode::Optional;
        }
    }
    let mut planned = stage(Stage::Canary, mode, gate.timeout.as_ref());
    if !why.is_empty() {
        planned.skipped = why;
    } else if planned.skipped.is_empty() && live.is_none() {
        planned.skipped = "no bundle is live".to_owned();
    } else if planned.skipped.is_empty() && gate.steps.is_empty() {
        planned.skipped = "has no steps".to_owned();
    }
    planned
}

/// The parts in which two bundles differ, in the words of `auto_parts`.
fn changed_parts(
    read: &dyn Read,
    agent: u32,
    before: &str,
    after: &str,
) -> Result<Vec<&'static str>, Fault> {
    let before = bundle::manifest(read, agent, before)?.digests.unwrap_or_default();
    let after = bundle::manifest(read, agent, after)?.digests.unwrap_or_default();
    let parts = [
        ("code", before.code != after.code),
        ("prompts", before.prompts != after.prompts),
        ("model", before.models != after.models),
        ("index", before.indexes != after.indexes),
        ("tools", before.tools != after.tools),
    ];
    Ok(parts.into_iter().filter(|(_, differ)| *differ).map(|(part, _)| part).collect())
}
