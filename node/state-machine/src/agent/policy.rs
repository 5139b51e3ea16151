//! The policy of an agent: its defaults and ranges (`docs/FILES.md`). What is stored is complete and in range.

use pinrail_proto::limits;
use pinrail_proto::reason;
use pinrail_proto::time::{duration, millis};
use pinrail_proto::v1;
use prost_types::Duration;

use crate::outcome::{Stop, reject};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Fills in the defaults of what is unset and checks every range.
///
/// # Errors
/// `INVALID_POLICY` names the key, the value and the range.
pub(crate) fn complete(mut policy: v1::Policy) -> Result<v1::Policy, Stop> {
    if policy.description.len() > limits::TEXT_BYTES {
        return Err(invalid("description", policy.description.len(), "at most 4096 bytes"));
    }
    check_labels(&policy.labels)?;
    let runs = complete_runs(policy.runs.take().unwrap_or_default())?;
    let max_age = runs.max_age.as_ref().and_then(millis).unwrap_or(6 * HOUR);
    policy.switch = Some(complete_switch(policy.switch.take().unwrap_or_default(), max_age)?);
    policy.runs = Some(runs);
    let mut steps = policy.steps.take().unwrap_or_default();
    check_steps("steps", &steps)?;
    fill_steps(&mut steps);
    policy.steps = Some(steps);
    let mut rollback = policy.rollback.take().unwrap_or_default();
    if rollback.in_flight() == v1::InFlight::Unspecified {
        rollback.set_in_flight(v1::InFlight::Keep);
    }
    policy.rollback = Some(rollback);
    policy.sessions = Some(complete_sessions(policy.sessions.take().unwrap_or_default())?);
    let mut memory = policy.memory.take().unwrap_or_default();
    memory.quota_bytes = Some(ranged("memory.quota", memory.quota_bytes, 10 << 30, 0, 1 << 50)?);
    memory.versions = Some(filled("memory.versions", memory.versions.take(), DAY, 0, 365 * DAY)?);
    policy.memory = Some(memory);
    Ok(policy)
}

/// Checks the step policy of an agent or of one step of a bundle; `key` names it in messages.
pub(crate) fn check_steps(key: &str, steps: &v1::StepPolicy) -> Result<(), Stop> {
    let name = |field: &str| format!("{key}.{field}");
    span(&name("start_to_close"), steps.start_to_close.as_ref(), SECOND, 30 * DAY)?;
    span(&name("schedule_to_start"), steps.schedule_to_start.as_ref(), 0, 30 * DAY)?;
    span(&name("schedule_to_close"), steps.schedule_to_close.as_ref(), 0, 30 * DAY)?;
    span(&name("lease"), steps.lease.as_ref(), SECOND, HOUR)?;
    ranged(&name("max_attempts"), steps.max_attempts.map(u64::from), 4, 1, 1_000)?;
    ranged(&name("max_running"), steps.max_running, 10_000, 1, 1_000_000)?;
    ranged(&name("max_running_per_key"), steps.max_running_per_key, 0, 0, 1_000_000)?;
    ranged(&name("max_per_second"), steps.max_per_second, 0, 0, 1_000_000)?;
    if let Some(backoff) = &steps.backoff {
        span(&name("backoff.initial"), backoff.initial.as_ref(), 0, HOUR)?;
        span(&name("backoff.max"), backoff.max.as_ref(), 0, DAY)?;
        let factor = backoff.factor_permille.map(u64::from);
        ranged(&name("backoff.factor (thousandths)"), factor, 2_000, 1_000, 100_000)?;
        let jitter = backoff.jitter_permille.map(u64::from);
        ranged(&name("backoff.jitter (thousandths)"), jitter, 200, 0, 1_000)?;
    }
    Ok(())
}

fn fill_steps(steps: &mut v1::StepPolicy) {
    steps.start_to_close.get_or_insert(duration(15 * MINUTE));
    steps.schedule_to_start.get_or_insert(duration(0));
    steps.schedule_to_close.get_or_insert(duration(0));
    steps.lease.get_or_insert(duration(30 * SECOND));
    steps.max_attempts.get_or_insert(4);
    steps.max_running.get_or_insert(10_000);
    steps.max_running_per_key.get_or_insert(0);
    steps.max_per_second.get_or_insert(0);
    let backoff = steps.backoff.get_or_insert_default();
    backoff.initial.get_or_insert(duration(SECOND));
    backoff.factor_permille.get_or_insert(2_000);
    backoff.max.get_or_insert(duration(MINUTE));
    backoff.jitter_permille.get_or_insert(200);
    if steps.on_exhausted() == v1::OnExhausted::Unspecified {
        steps.set_on_exhausted(v1::OnExhausted::Fail);
    }
}

fn complete_runs(mut runs: v1::RunPolicy) -> Result<v1::RunPolicy, Stop> {
    if runs.execution() == v1::Execution::Unspecified {
        runs.set_execution(v1::Execution::Workers);
    }
    runs.max_age =
        Some(filled("runs.max_age", runs.max_age.take(), 6 * HOUR, SECOND, limits::MAX_AGE_MS)?);
    runs.retention = Some(filled("runs.retention", runs.retention.take(), 7 * DAY, 0, 365 * DAY)?);
    runs.keep_alive = Some(filled("runs.keep_alive", runs.keep_alive.take(), 0, 0, 30 * DAY)?);
    runs.repinnable.get_or_insert(false);
    runs.restart_step.get_or_insert(false);
    runs.max_open = Some(ranged("runs.max_open", runs.max_open, 100_000, 1, limits::OPEN_RUNS)?);
    Ok(runs)
}

fn complete_switch(mut switch: v1::SwitchPolicy, max_age: u64) -> Result<v1::SwitchPolicy, Stop> {
    if switch.on_drain() == v1::OnDrain::Unspecified {
        switch.set_on_drain(v1::OnDrain::Cancel);
    }
    let cap = switch.drain_cap.take();
    switch.drain_cap = Some(filled("switch.drain_cap", cap, max_age, 0, limits::MAX_AGE_MS)?);
    switch.grace = Some(filled("switch.grace", switch.grace.take(), 30 * SECOND, 0, HOUR)?);
    Ok(switch)
}

fn complete_sessions(mut sessions: v1::SessionPolicy) -> Result<v1::SessionPolicy, Stop> {
    let max_age = sessions.max_age.take();
    sessions.max_age = Some(filled("sessions.max_age", max_age, DAY, SECOND, limits::MAX_AGE_MS)?);
    let cutoff = sessions.cutoff.take();
    sessions.cutoff = Some(filled("sessions.cutoff", cutoff, 30 * MINUTE, 0, limits::MAX_AGE_MS)?);
    if sessions.overlap() == v1::Overlap::Unspecified {
        sessions.set_overlap(v1::Overlap::Queue);
    }
    Ok(sessions)
}

pub(crate) fn check_labels(
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<(), Stop> {
    if labels.len() > limits::LABELS {
        return Err(too_large("labels", labels.len(), limits::LABELS));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > limits::LABEL_KEY_BYTES {
            return Err(too_large("label key bytes", key.len(), limits::LABEL_KEY_BYTES));
        }
        if value.len() > limits::LABEL_VALUE_BYTES {
            return Err(too_large("label value bytes", value.len(), limits::LABEL_VALUE_BYTES));
        }
    }
    Ok(())
}

/// `LIMIT_EXCEEDED` with both numbers.
pub(crate) fn too_large(what: &str, size: usize, limit: usize) -> Stop {
    reject(reason::LIMIT_EXCEEDED, format!("{what}: {size}, at most {limit} are allowed"))
        .with("limit", limit)
        .with("size", size)
}

fn filled(
    key: &str,
    value: Option<Duration>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<Duration, Stop> {
    span(key, value.as_ref(), least, most)?;
    Ok(value.unwrap_or_else(|| duration(default)))
}

fn span(key: &str, value: Option<&Duration>, least: u64, most: u64) -> Result<(), Stop> {
    let Some(value) = value else { return Ok(()) };
    let range = format!("{} to {} ms", least, most);
    match millis(value) {
        Some(ms) if (least..=most).contains(&ms) => Ok(()),
        Some(ms) => Err(invalid(key, format!("{ms} ms"), &range)),
        None => Err(invalid(key, format!("{} s", value.seconds), &range)),
    }
}

fn ranged(key: &str, value: Option<u64>, default: u64, least: u64, most: u64) -> Result<u64, Stop> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(invalid(key, value, &format!("{least} to {most}")))
}

fn invalid(key: &str, value: impl std::fmt::Display, range: &str) -> Stop {
    reject(reason::INVALID_POLICY, format!("{key} is {value}; allowed: {range}"))
        .with("key", key)
        .with("range", range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_policy_gets_every_default() {
        let policy = complete(v1::Policy::default()).unwrap();
        let runs = policy.runs.unwrap();
        assert_eq!(runs.max_age.as_ref().and_then(millis), Some(6 * HOUR));
        assert_eq!(runs.max_open, Some(100_000));
        assert_eq!(policy.switch.unwrap().drain_cap.as_ref().and_then(millis), Some(6 * HOUR));
        assert_eq!(policy.steps.unwrap().max_attempts, Some(4));
    }

    #[test]
    fn drain_cap_follows_max_age_unless_it_is_set() {
        let runs = v1::RunPolicy { max_age: Some(duration(HOUR)), ..v1::RunPolicy::default() };
        let policy = complete(v1::Policy { runs: Some(runs), ..v1::Policy::default() }).unwrap();
        assert_eq!(policy.switch.unwrap().drain_cap.as_ref().and_then(millis), Some(HOUR));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for max_age in [Duration { seconds: -1, nanos: 0 }, duration(0), duration(31 * DAY)] {
            let runs = v1::RunPolicy { max_age: Some(max_age), ..v1::RunPolicy::default() };
            let stop = complete(v1::Policy { runs: Some(runs), ..v1::Policy::default() });
            let Err(Stop::Rejected(rejection)) = stop else { panic!("accepted") };
            assert_eq!(rejection.reason, "INVALID_POLICY");
            assert!(rejection.message.contains("runs.max_age"), "{}", rejection.message);
        }
    }
}
