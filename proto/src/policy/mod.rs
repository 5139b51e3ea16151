//! What an agent's policy says where nobody said anything, and within which ranges ([`range`]): shared by the command
//! line, which shows a complete policy before it is sent, and the state machine, which stores complete ones.
//!
//! A changed default changes what a replayed command stores: it needs a feature level (docs/COMPATIBILITY.md).

mod gates;
pub mod grammar;
pub mod range;
mod signals;
pub mod stage;
pub mod window;

use crate::time::{duration, millis};
use crate::v1;
use range::{DAY, HOUR, MINUTE, SECOND};

/// Fills in every default. What is set stays as it is, in range or not.
pub fn fill(policy: &mut v1::Policy) {
    let max_age = runs(policy.runs.get_or_insert_default());
    steps(policy.steps.get_or_insert_default());
    switch(policy.switch.get_or_insert_default(), max_age);
    word(&mut policy.rollback.get_or_insert_default().in_flight, v1::InFlight::Keep);
    memory(policy.memory.get_or_insert_default());
    sessions(policy.sessions.get_or_insert_default());
    gates::fill(policy.gates.get_or_insert_default());
    let quarantine = policy.quarantine.get_or_insert_default();
    quarantine.min.get_or_insert(duration(DAY));
    quarantine.max.get_or_insert(duration(3 * DAY));
    word(&mut policy.release.get_or_insert_default().on_gate_failure, v1::OnGateFailure::Fail);
    policy.environment.get_or_insert_default().min_slots.get_or_insert(1);
    signals::fill(policy.signals.get_or_insert_default());
    drill(policy.drill.get_or_insert_default());
    drift(policy.drift.get_or_insert_default());
}

/// The policy of which nobody said anything.
#[must_use]
pub fn default() -> v1::Policy {
    let mut policy = v1::Policy::default();
    fill(&mut policy);
    policy
}

/// An enumeration that is not set.
fn word(value: &mut i32, default: impl Into<i32>) {
    if *value == 0 {
        *value = default.into();
    }
}

/// Returns the longest life of a pin in milliseconds.
fn runs(runs: &mut v1::RunPolicy) -> u64 {
    word(&mut runs.execution, v1::Execution::Workers);
    runs.retention.get_or_insert(duration(7 * DAY));
    runs.max_open.get_or_insert(100_000);
    runs.keep_alive.get_or_insert(duration(0));
    runs.repinnable.get_or_insert(false);
    runs.restart_step.get_or_insert(false);
    millis(runs.max_age.get_or_insert(duration(6 * HOUR))).unwrap_or(6 * HOUR)
}

fn steps(steps: &mut v1::StepPolicy) {
    steps.start_to_close.get_or_insert(duration(15 * MINUTE));
    steps.schedule_to_start.get_or_insert(duration(0));
    steps.schedule_to_close.get_or_insert(duration(0));
    steps.lease.get_or_insert(duration(30 * SECOND));
    steps.max_attempts.get_or_insert(4);
    steps.max_running.get_or_insert(10_000);
    steps.max_running_per_key.get_or_insert(0);
    steps.max_per_second.get_or_insert(0);
    word(&mut steps.on_exhausted, v1::OnExhausted::Fail);
    let backoff = steps.backoff.get_or_insert_default();
    backoff.initial.get_or_insert(duration(SECOND));
    backoff.factor_permille.get_or_insert(2_000);
    backoff.max.get_or_insert(duration(MINUTE));
    backoff.jitter_permille.get_or_insert(200);
}

fn switch(switch: &mut v1::SwitchPolicy, max_age: u64) {
    switch.drain_cap.get_or_insert(duration(max_age));
    word(&mut switch.on_drain, v1::OnDrain::Cancel);
    switch.grace.get_or_insert(duration(30 * SECOND));
    word(&mut switch.strategy, v1::Strategy::Pin);
}

fn memory(memory: &mut v1::MemoryPolicy) {
    memory.quota_bytes.get_or_insert(10 << 30);
    memory.versions.get_or_insert(duration(DAY));
    word(&mut memory.late_writes, v1::LateWrites::Drop);
}

fn sessions(sessions: &mut v1::SessionPolicy) {
    sessions.max_age.get_or_insert(duration(DAY));
    sessions.cutoff.get_or_insert(duration(30 * MINUTE));
    word(&mut sessions.overlap, v1::Overlap::Queue);
}

fn drill(drill: &mut v1::DrillPolicy) {
    drill.every.get_or_insert(duration(0));
    word(&mut drill.mode, v1::DrillMode::Route);
    drill.limit.get_or_insert(duration(5 * MINUTE));
}

fn drift(drift: &mut v1::DriftPolicy) {
    word(&mut drift.breaking, v1::DriftAction::Alert);
    word(&mut drift.compatible, v1::DriftAction::Accept);
    drift.sample_permille.get_or_insert(1_000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_policy_stays_as_it_is() {
        let policy = default();
        let mut again = policy.clone();
        fill(&mut again);
        assert_eq!(again, policy);
    }

    #[test]
    fn drain_cap_follows_max_age_unless_it_is_set() {
        let runs = v1::RunPolicy { max_age: Some(duration(HOUR)), ..v1::RunPolicy::default() };
        let mut policy = v1::Policy { runs: Some(runs), ..v1::Policy::default() };
        fill(&mut policy);
        let cap = policy.switch.and_then(|switch| switch.drain_cap);
        assert_eq!(cap.as_ref().and_then(millis), Some(HOUR));
    }

    #[test]
    fn what_was_said_is_kept_even_where_it_is_zero() {
        let environment = v1::EnvironmentPolicy { min_slots: Some(0) };
        let mut policy = v1::Policy { environment: Some(environment), ..v1::Policy::default() };
        fill(&mut policy);
        assert_eq!(policy.environment.and_then(|it| it.min_slots), Some(0));
    }
}
