//! What a policy says of signals, with the defaults of `docs/FILES.md` for what it leaves open.

use pinrail_proto::log::AgentRecord;
use pinrail_proto::time::millis;
use pinrail_proto::v1::{
    self, DriftAction, DriftClass, DriftOn, DriftSource, SignalKind, SignalMode, Stage,
};

use crate::drift;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How far back signals look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) window_ms: u64,
    /// For scores, of which there are fewer.
    pub(crate) scores_ms: u64,
    /// Of the previous bundle, before the switch.
    pub(crate) baseline_ms: u64,
}

impl Windows {
    pub(crate) fn of_policy(policy: &v1::Policy) -> Self {
        let signals = policy.signals.unwrap_or_default();
        let scores = signals.eval_pass_rate.unwrap_or_default();
        let ms = |it: Option<&prost_types::Duration>| it.and_then(millis).unwrap_or(0);
        Self {
            window_ms: ms(signals.window.as_ref()),
            scores_ms: ms(scores.window.as_ref()),
            baseline_ms: ms(signals.baseline_window.as_ref()),
        }
        .complete()
    }

    /// From the values that an agent keeps at hand.
    pub(crate) fn of_agent(agent: &AgentRecord) -> Self {
        Self {
            window_ms: agent.signal_window_ms,
            scores_ms: agent.score_window_ms,
            baseline_ms: agent.baseline_window_ms,
        }
        .complete()
    }

    fn complete(self) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            window_ms: or(self.window_ms, 10 * MINUTE_MS),
            scores_ms: or(self.scores_ms, HOUR_MS),
            baseline_ms: or(self.baseline_ms, 24 * HOUR_MS),
        }
    }

    /// Keeps the values at hand.
    pub(crate) fn keep(self, agent: &mut AgentRecord) {
        agent.signal_window_ms = self.window_ms;
        agent.score_window_ms = self.scores_ms;
        agent.baseline_window_ms = self.baseline_ms;
    }
}

/// The signals that are watched, in the order in which they are shown.
pub(crate) const WATCHED: [SignalKind; 5] = [
    SignalKind::P95Latency,
    SignalKind::FailureRate,
    SignalKind::CostPerCompletedRun,
    SignalKind::EvalPassRate,
    SignalKind::Drift,
];

/// The limits of the signals. Shares and ratios in thousandths.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) windows: Windows,
    /// On either side.
    pub(crate) min_samples: u64,
    pub(crate) min_score: u64,
    pub(crate) max_latency_ratio: u64,
    pub(crate) max_slow_share: u64,
    pub(crate) max_cost_ratio: u64,
    pub(crate) max_failure_increase: u64,
    /// Whether breaking drift, and whether any, is minded.
    minds_breaking: bool,
    minds_any: bool,
    policy: v1::SignalsPolicy,
}

impl Rules {
    pub(crate) fn of(policy: &v1::Policy) -> Self {
        let signals = policy.signals.unwrap_or_default();
        let number = |it: Option<u32>, default| it.map_or(default, u64::from);
        let latency = signals.p95_latency.unwrap_or_default();
        Self {
            windows: Windows::of_policy(policy),
            min_samples: number(signals.min_samples, 50).max(1),
            min_score: number(signals.eval_pass_rate.and_then(|it| it.min_permille), 900),
            max_latency_ratio: number(latency.max_ratio_permille, 1_250),
            max_slow_share: number(latency.max_slow_share_permille, 50),
            max_cost_ratio: number(
                signals.cost_per_completed_run.and_then(|it| it.max_ratio_permille),
                1_500,
            ),
            max_failure_increase: number(
                signals.failure_rate.and_then(|it| it.max_increase_permille),
                20,
            ),
            minds_breaking: drift::action(policy, DriftSource::Unspecified, DriftClass::Breaking)
                != DriftAction::Accept,
            minds_any: signals.drift.is_some_and(|it| it.on() == DriftOn::Any),
            policy: signals,
        }
    }

    /// Whether open drift of this class fires.
    pub(crate) fn minds(&self, class: DriftClass) -> bool {
        match class {
            DriftClass::Compatible => self.minds_any,
            DriftClass::Breaking | DriftClass::Unspecified => self.minds_breaking,
        }
    }

    /// What a signal does when it fires in this phase: as it says itself, else as the phase says.
    pub(crate) fn mode(&self, signal: SignalKind, phase: Stage) -> SignalMode {
        let policy = &self.policy;
        let own = match signal {
            SignalKind::Unspecified => None,
            SignalKind::EvalPassRate => policy.eval_pass_rate.and_then(|it| it.modes),
            SignalKind::P95Latency => policy.p95_latency.and_then(|it| it.modes),
            SignalKind::CostPerCompletedRun => {
                policy.cost_per_completed_run.and_then(|it| it.modes)
            }
            SignalKind::FailureRate => policy.failure_rate.and_then(|it| it.modes),
            SignalKind::Drift => policy.drift.and_then(|it| it.modes),
        }
        .unwrap_or_default();
        let is_canary = phase == Stage::Canary;
        let (own, of_phase, default) = if is_canary {
            (own.canary(), policy.canary(), SignalMode::Rollback)
        } else {
            (own.quarantine(), policy.quarantine(), SignalMode::Notify)
        };
        let said = |mode: SignalMode| (mode != SignalMode::Unspecified).then_some(mode);
        // What drifted is a tool or a provider, not only the candidate.
        let drifts = signal == SignalKind::Drift && is_canary;
        let or = if drifts { Some(SignalMode::Notify) } else { said(of_phase) };
        said(own).or(or).unwrap_or(default)
    }
}
