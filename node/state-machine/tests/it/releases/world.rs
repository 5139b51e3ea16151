//! An agent with a live bundle `v1`, a candidate `v2` and a third bundle, and the commands of the procedure.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::{self};
use pinrail_proto::time::duration;
use pinrail_proto::v1::{self, Stage, StageMode, Verdict};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::query;

use crate::replica::{Replica, agent, create_bundle, policy, reason, switch};

pub(super) const AGENT: &str = "support";
/// How long each stage, each share and the quarantine last.
pub(super) const SPAN_MS: u64 = 10_000;

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) replica: Replica,
}

impl World {
    /// `change` is made to a policy whose stages are all on.
    pub(super) fn new(change: impl FnOnce(&mut v1::Policy)) -> Self {
        let mut replica = Replica::formed();
        let mut policy = release_policy();
        change(&mut policy);
        replica.must(Command::CreateAgent(Box::new(log::CreateAgent {
            agent: agent(AGENT),
            policy: Some(policy),
        })));
        for bundle_id in ["v1", "v2", "v3"] {
            replica.must(create_bundle(AGENT, bundle_id));
        }
        replica.must(switch(AGENT, "v1"));
        Self { replica }
    }

    pub(super) fn with(mut self, command: Command) -> Self {
        self.replica.must(command);
        self
    }

    /// The verdict of the present stage.
    pub(super) fn passed(self) -> Self {
        let command = self.verdict(Verdict::Pass);
        self.with(command)
    }

    pub(super) fn wait(mut self, ms: u64) -> Self {
        self.replica.now_ms += ms;
        self
    }

    /// The active release, else the newest.
    pub(super) fn release(&self) -> v1::Release {
        query::release(self.replica.read(), "", AGENT, "").unwrap_or_default()
    }

    pub(super) fn verdict(&self, verdict: Verdict) -> Command {
        let release = self.release();
        let present = release.gates.iter().find(|gate| gate.stage() == release.stage());
        Command::RecordVerdict(log::RecordVerdict {
            agent: 1,
            release: number(&release),
            stage: release.stage,
            attempt: present.map_or(1, |gate| gate.attempt),
            verdict: verdict.into(),
            reason: "as it was found".to_owned(),
            evidence: String::new(),
        })
    }

    pub(super) fn advance(&self) -> Command {
        let release = self.release();
        let canary = release.gates.iter().find(|gate| gate.stage() == Stage::Canary);
        Command::AdvanceCanary(log::AdvanceCanary {
            agent: 1,
            release: number(&release),
            attempt: canary.map_or(1, |gate| gate.attempt),
            step: release.canary.map_or(1, |canary| canary.step),
            evidence: String::new(),
        })
    }

    /// What came of a command, and where that left the release and the route.
    pub(super) fn told(&self, applied: &Applied) -> String {
        match reason(applied) {
            Some(reason) => reason.to_owned(),
            None => format!("ok: {}", self.describe()),
        }
    }

    pub(super) fn describe(&self) -> String {
        let route = query::agent(self.replica.read(), "", AGENT).unwrap().route.unwrap();
        let standby = match route.standby_bundle_id.as_str() {
            "" => String::new(),
            standby => format!(" (standby {standby})"),
        };
        let live = format!("live {}{standby}", route.live_bundle_id);
        let release = self.release();
        if release.release_id.is_empty() {
            return format!("no release, {live}");
        }
        let word = |name: &str, prefix: &str| name.replace(prefix, "").to_lowercase();
        let mut text = format!(
            "{} of {} {}",
            release.release_id,
            release.bundle_id,
            word(release.state().as_str_name(), "RELEASE_STATE_")
        );
        if release.state() == v1::ReleaseState::Switched {
            text.push_str(&format!(" in {}", word(release.stage().as_str_name(), "STAGE_")));
        }
        if let Some(canary) = release.canary.filter(|canary| canary.share_bp != 0) {
            text.push_str(&format!(" at {} bp", canary.share_bp));
        }
        if let Some(hold) = &release.hold {
            text.push_str(&format!(", held: {}", word(hold.cause().as_str_name(), "HOLD_CAUSE_")));
        }
        format!("{text}, {live}")
    }
}

fn number(release: &v1::Release) -> u32 {
    release.release_id.trim_start_matches('r').parse().unwrap_or(0)
}

/// Every stage is on; prepare, evals and canary are required.
fn release_policy() -> v1::Policy {
    let timeout = Some(duration(SPAN_MS));
    let required = StageMode::Required.into();
    let optional = StageMode::Optional.into();
    let step = |share_bp| v1::CanaryStep { share_bp, hold: timeout };
    v1::Policy {
        gates: Some(v1::GatesPolicy {
            prepare: Some(v1::PrepareGate { mode: StageMode::Off.into(), timeout }),
            smoke: Some(v1::SmokeGate {
                mode: optional,
                timeout,
                cases: vec![v1::SmokeCase { name: "one".to_owned(), ..v1::SmokeCase::default() }],
            }),
            evals: Some(v1::EvalsGate {
                mode: required,
                timeout,
                set: "core@1".to_owned(),
                ..v1::EvalsGate::default()
            }),
            shadow: Some(v1::ShadowGate { mode: optional, timeout, ..v1::ShadowGate::default() }),
            canary: Some(v1::CanaryGate {
                mode: required,
                timeout: Some(duration(6 * SPAN_MS)),
                steps: vec![step(1_000), step(5_000)],
                ..v1::CanaryGate::default()
            }),
        }),
        quarantine: Some(v1::QuarantinePolicy { min: timeout, max: Some(duration(3 * SPAN_MS)) }),
        ..policy(false)
    }
}

pub(super) fn start(bundle_id: &str) -> Command {
    Command::StartRelease(log::StartRelease {
        agent: agent(AGENT),
        bundle_id: bundle_id.to_owned(),
        force: false,
        fast: false,
    })
}

pub(super) fn promote(to: Stage) -> Command {
    Command::PromoteRelease(log::PromoteRelease {
        agent: agent(AGENT),
        to: to.into(),
        force: false,
    })
}

pub(super) fn hold() -> Command {
    Command::HoldRelease(log::HoldRelease { agent: agent(AGENT) })
}

pub(super) fn resume() -> Command {
    Command::ResumeRelease(log::ResumeRelease { agent: agent(AGENT) })
}

pub(super) fn abort() -> Command {
    Command::AbortRelease(log::AbortRelease { agent: agent(AGENT) })
}

/// With workers of the standby.
pub(super) fn drill(mode: v1::DrillMode) -> Command {
    Command::StartDrill(log::StartDrill {
        agent: agent(AGENT),
        mode: mode.into(),
        scheduled: false,
        capacity: Some(log::Capacity { workers: 1, free_slots: 8, ..log::Capacity::default() }),
    })
}

/// The present part of the newest drill passes.
pub(super) fn drill_passes(part: v1::DrillPart) -> Command {
    Command::RecordDrill(log::RecordDrill {
        agent: 1,
        drill: 1,
        part: part.into(),
        verdict: Verdict::Pass.into(),
        ..log::RecordDrill::default()
    })
}

pub(super) fn turn(back: bool) -> Command {
    Command::TurnRoute(log::TurnRoute { agent: 1, drill: 1, back })
}

pub(super) fn abort_drill() -> Command {
    Command::AbortDrill(log::AbortDrill { agent: agent(AGENT) })
}

pub(super) fn rollback() -> Command {
    Command::Rollback(log::Rollback { agent: agent(AGENT), ..log::Rollback::default() })
}

pub(super) fn extend() -> Command {
    Command::ExtendQuarantine(log::ExtendQuarantine { agent: agent(AGENT), by_ms: SPAN_MS })
}

pub(super) fn recycle(bundle_id: &str) -> Command {
    Command::RecycleBundle(log::RecycleBundle {
        agent: agent(AGENT),
        bundle_id: bundle_id.to_owned(),
    })
}
