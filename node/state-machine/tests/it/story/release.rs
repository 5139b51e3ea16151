//! Releases in stories: the commands of the procedure, its policy, and how a release is shown.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{self};
use pinrail_proto::time::duration;
use pinrail_proto::v1::{self, Stage, StageMode, Verdict};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use super::command::{agent, agent_ref};
use super::line::{Line, span};
use super::show;
use super::world::World;

/// A command of the procedure; `None` when the line is none.
pub(super) fn command(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "start-release" => Kind::StartRelease(log::StartRelease {
            force: line.flag("force"),
            fast: line.flag("fast"),
            agent: agent(line),
            bundle_id: line.word(),
        }),
        "verdict" => verdict(world, line),
        "advance" => {
            let (number, release) = present(world, line);
            let canary = release.canary.unwrap_or_default();
            Kind::AdvanceCanary(log::AdvanceCanary {
                agent: number,
                release: id(&release.release_id),
                attempt: gate(&release, Stage::Canary).attempt,
                step: canary.step,
                evidence: line.text("evidence"),
            })
        }
        "promote-release" => Kind::PromoteRelease(log::PromoteRelease {
            force: line.flag("force"),
            to: stage(&line.text("to")).into(),
            agent: agent(line),
        }),
        "hold" => Kind::HoldRelease(log::HoldRelease { agent: agent(line) }),
        "resume-release" => Kind::ResumeRelease(log::ResumeRelease { agent: agent(line) }),
        "abort" => Kind::AbortRelease(log::AbortRelease { agent: agent(line) }),
        "extend-quarantine" => {
            let agent = agent(line);
            Kind::ExtendQuarantine(log::ExtendQuarantine { agent, by_ms: span(&line.word()) })
        }
        "recycle" => {
            let agent = agent(line);
            Kind::RecycleBundle(log::RecycleBundle { agent, bundle_id: line.word() })
        }
        _ => return None,
    })
}

/// `verdict support evals pass "reason=…"`: of the present attempt, unless `attempt=` says otherwise.
fn verdict(world: &World, line: &mut Line) -> Kind {
    let (number, release) = present(world, line);
    let stage = stage(&line.word());
    let verdict = match line.word().as_str() {
        "pass" => Verdict::Pass,
        "fail" => Verdict::Fail,
        "insufficient" => Verdict::InsufficientData,
        "error" => Verdict::Error,
        other => panic!("verdict {other}"),
    };
    let attempt = line.number("attempt").map(|n| u32::try_from(n).unwrap());
    Kind::RecordVerdict(log::RecordVerdict {
        agent: number,
        release: id(&release.release_id),
        stage: stage.into(),
        attempt: attempt.unwrap_or_else(|| gate(&release, stage).attempt),
        verdict: verdict.into(),
        reason: line.text("because"),
        evidence: line.text("evidence"),
    })
}

/// The agent's number and its release, as of now; `of=r1` names another.
fn present(world: &World, line: &mut Line) -> (u32, v1::Release) {
    let agent = agent_ref(&line.word());
    let of = line.text("of");
    let number = query::agent_number(world.read(), &agent.namespace, &agent.agent_id).unwrap();
    let release =
        query::release(world.read(), &agent.namespace, &agent.agent_id, &of).unwrap_or_default();
    (number, release)
}

fn gate(release: &v1::Release, stage: Stage) -> v1::Gate {
    let of_stage = |gate: &&v1::Gate| gate.stage() == stage;
    release.gates.iter().find(of_stage).cloned().unwrap_or_default()
}

fn id(release_id: &str) -> u32 {
    release_id.trim_start_matches('r').parse().unwrap_or(0)
}

fn stage(word: &str) -> Stage {
    match word {
        "" => Stage::Unspecified,
        word => Stage::from_str_name(&format!("STAGE_{}", word.to_uppercase())).unwrap(),
    }
}

/// `prepare=off smoke=required cases=1 evals=optional set=core@1 shadow=off canary=auto steps=5%:1h,25%:1h
/// hold-before=switch on-failure=hold quarantine=24h strategy=drain min-slots=1 late-writes=block`: stages that a story
/// does not name are off, so that it tells of few things at a time.
pub(super) fn policy(line: &mut Line, policy: v1::Policy) -> v1::Policy {
    let mode = |line: &mut Line, key: &str| match line.text(key).as_str() {
        "" | "off" => StageMode::Off.into(),
        "required" => StageMode::Required.into(),
        "optional" => StageMode::Optional.into(),
        "auto" => StageMode::Auto.into(),
        other => panic!("{key}={other}"),
    };
    let case = |n| v1::SmokeCase { name: format!("case-{n}"), ..v1::SmokeCase::default() };
    let cases = line.number("cases").unwrap_or(0);
    let step = |text: &str| {
        let (share, hold) = text.split_once(':').unwrap();
        v1::CanaryStep {
            share_bp: share.trim_end_matches('%').parse::<u32>().unwrap() * 100,
            hold: Some(duration(span(hold))),
        }
    };
    let steps = line.option("steps").map_or_else(Vec::new, |s| s.split(',').map(step).collect());
    let include = line
        .all("include:")
        .into_iter()
        .map(|(label, value)| (label, v1::LabelValues { values: vec![value] }));
    let gates = v1::GatesPolicy {
        prepare: Some(v1::PrepareGate { mode: mode(line, "prepare"), timeout: None }),
        smoke: Some(v1::SmokeGate {
            mode: mode(line, "smoke"),
            cases: (0..cases).map(case).collect(),
            ..v1::SmokeGate::default()
        }),
        evals: Some(v1::EvalsGate {
            mode: mode(line, "evals"),
            set: line.text("set"),
            coverage: super::evals::coverage_policy(line),
            ..v1::EvalsGate::default()
        }),
        shadow: Some(v1::ShadowGate { mode: mode(line, "shadow"), ..v1::ShadowGate::default() }),
        canary: Some(v1::CanaryGate {
            mode: mode(line, "canary"),
            steps,
            include: include.collect(),
            ..v1::CanaryGate::default()
        }),
    };
    let hold_before = line.option("hold-before").map(|stage| vec![stage]).unwrap_or_default();
    let on_gate_failure = match line.text("on-failure").as_str() {
        "hold" => v1::OnGateFailure::Hold,
        _ => v1::OnGateFailure::Unspecified,
    };
    let quarantine = line
        .span("quarantine")
        .map(|ms| v1::QuarantinePolicy { min: Some(duration(ms)), max: Some(duration(3 * ms)) });
    let strategy = match line.text("strategy").as_str() {
        "drain" => v1::Strategy::Drain,
        _ => v1::Strategy::Unspecified,
    };
    let late_writes = match line.text("late-writes").as_str() {
        "block" => v1::LateWrites::BlockRecycle,
        _ => v1::LateWrites::Unspecified,
    };
    v1::Policy {
        gates: Some(gates),
        release: Some(v1::ReleasePolicy { hold_before, on_gate_failure: on_gate_failure.into() }),
        quarantine,
        switch: policy.switch.map(|it| v1::SwitchPolicy { strategy: strategy.into(), ..it }),
        memory: policy.memory.map(|it| v1::MemoryPolicy { late_writes: late_writes.into(), ..it }),
        ..policy
    }
}

/// `release support [r1]`: where it stands, stage by stage.
pub(super) fn release(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let of = line.word_or_none();
    let release = query::release(world.read(), &agent.namespace, &agent.agent_id, &of)?;
    let mut told = vec![shown(&release)];
    for gate in &release.gates {
        if gate.verdict() == Verdict::Pending {
            continue;
        }
        let verdict = show::word(gate.verdict().as_str_name(), "VERDICT_");
        let mut text = format!("{}: {verdict}", show::word(gate.stage().as_str_name(), "STAGE_"));
        if gate.attempt > 1 {
            text.push_str(&format!(", attempt {}", gate.attempt));
        }
        if !gate.reason.is_empty() {
            text.push_str(&format!(" ({})", gate.reason));
        }
        if !gate.overridden_by.is_empty() {
            text.push_str(&format!(", passed over by {}", gate.overridden_by));
        }
        if gate.verdict() == Verdict::Running && gate.deadline.is_some() {
            text.push_str(&format!(", until {}", show::at(gate.deadline.as_ref())));
        }
        told.push(text);
    }
    let moves: Vec<String> = release
        .transitions
        .iter()
        .map(|it| format!("{} {}", show::at(Some(&it.at.unwrap_or_default())), it.what))
        .collect();
    told.push(moves.join(", "));
    Ok(told)
}

/// `releases support`: newest first.
pub(super) fn releases(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let (all, _) = query::releases(world.read(), &agent.namespace, &agent.agent_id, 0, "")?;
    Ok(all.iter().map(shown).collect())
}

/// `plan support v2`.
pub(super) fn plan(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let (bundle, fast) = (line.word(), line.flag("fast"));
    let plan = query::plan_release(world.read(), &agent.namespace, &agent.agent_id, &bundle, fast)?;
    let mut told = Vec::new();
    for stage in &plan.stages {
        let mode = show::word(stage.mode().as_str_name(), "STAGE_MODE_");
        let mut text = format!("{}: {mode}", show::word(stage.stage().as_str_name(), "STAGE_"));
        if !stage.skipped.is_empty() {
            text.push_str(&format!(", skipped: it {}", stage.skipped));
        }
        if stage.hold_before {
            text.push_str(", waits for a person");
        }
        if !stage.hooks.is_empty() {
            text.push_str(&format!(", gated by {}", stage.hooks.join(" ")));
        }
        told.push(text);
    }
    told.extend(plan.blockers.iter().map(|blocker| format!("blocked by {blocker}")));
    Ok(told)
}

/// One line about a release.
pub(super) fn shown(it: &v1::Release) -> String {
    let state = show::word(it.state().as_str_name(), "RELEASE_STATE_");
    let mut text = format!("{} of {}: {state}", it.release_id, it.bundle_id);
    if it.by_hand {
        text.push_str(", by hand");
    }
    if let Some(canary) = it.canary.as_ref().filter(|canary| canary.share_bp != 0) {
        let percent = canary.share_bp / 100;
        text.push_str(&format!(", step {}/{} at {percent} %", canary.step, canary.steps));
    }
    if let Some(hold) = &it.hold {
        let cause = show::word(hold.cause().as_str_name(), "HOLD_CAUSE_");
        text.push_str(&format!(", held ({cause}): {}", hold.reason));
    }
    if it.quarantine_until.is_some() && it.ended_at.is_none() {
        text.push_str(&format!(", quarantine until {}", show::at(it.quarantine_until.as_ref())));
    }
    if !it.end_reason.is_empty() {
        text.push_str(&format!(" ({})", it.end_reason));
    }
    text
}
