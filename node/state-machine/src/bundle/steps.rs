//! The policy of one step: what the bundle says, else what the agent says.

use pinrail_proto::log::BundleStepsRecord;
use pinrail_proto::time::millis;
use pinrail_proto::v1;

use crate::agent;
use crate::key::Kind;
use crate::store::{Fault, Read};
use crate::txn::{get, shared};

/// A step's policy, resolved. Milliseconds and thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepPolicy {
    pub(crate) start_to_close_ms: u64,
    /// 0: until the pin ends.
    pub(crate) schedule_to_start_ms: u64,
    /// 0: until the pin ends.
    pub(crate) schedule_to_close_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) max_attempts: u32,
    pub(crate) backoff_initial_ms: u64,
    pub(crate) backoff_factor_permille: u32,
    pub(crate) backoff_max_ms: u64,
    pub(crate) backoff_jitter_permille: u32,
    pub(crate) pause_when_exhausted: bool,
}

pub(crate) fn step_policy(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
    step: &str,
) -> Result<StepPolicy, Fault> {
    let declared =
        shared::<BundleStepsRecord>(read, &super::row(Kind::BundleSteps, agent, bundle_id))?;
    let own = declared.and_then(|row| row.steps.get(step).copied()).unwrap_or_default();
    let base = agent::of_policy(read, agent, |policy| policy.steps)?.unwrap_or_default();
    Ok(resolve(&own, &base))
}

/// Names of the steps that a bundle declares; none: it serves whatever its workers serve.
pub(crate) fn declared_steps(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<std::collections::BTreeSet<String>, Fault> {
    let declared: Option<BundleStepsRecord> =
        get(read, &super::row(Kind::BundleSteps, agent, bundle_id))?;
    Ok(declared.unwrap_or_default().steps.into_keys().collect())
}

fn resolve(own: &v1::StepPolicy, base: &v1::StepPolicy) -> StepPolicy {
    let ms = |own: Option<&prost_types::Duration>, base: Option<&prost_types::Duration>| {
        own.or(base).and_then(millis).unwrap_or(0)
    };
    let own_backoff = own.backoff.unwrap_or_default();
    let base_backoff = base.backoff.unwrap_or_default();
    let exhausted = if own.on_exhausted() == v1::OnExhausted::Unspecified {
        base.on_exhausted()
    } else {
        own.on_exhausted()
    };
    StepPolicy {
        start_to_close_ms: ms(own.start_to_close.as_ref(), base.start_to_close.as_ref()),
        schedule_to_start_ms: ms(own.schedule_to_start.as_ref(), base.schedule_to_start.as_ref()),
        schedule_to_close_ms: ms(own.schedule_to_close.as_ref(), base.schedule_to_close.as_ref()),
        lease_ms: ms(own.lease.as_ref(), base.lease.as_ref()),
        max_attempts: own.max_attempts.or(base.max_attempts).unwrap_or(1),
        backoff_initial_ms: ms(own_backoff.initial.as_ref(), base_backoff.initial.as_ref()),
        backoff_factor_permille: own_backoff
            .factor_permille
            .or(base_backoff.factor_permille)
            .unwrap_or(1_000),
        backoff_max_ms: ms(own_backoff.max.as_ref(), base_backoff.max.as_ref()),
        backoff_jitter_permille: own_backoff
            .jitter_permille
            .or(base_backoff.jitter_permille)
            .unwrap_or(0),
        pause_when_exhausted: exhausted == v1::OnExhausted::Pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinrail_proto::time::duration;

    #[test]
    fn a_bundle_overrides_value_by_value() {
        let base = v1::StepPolicy {
            start_to_close: Some(duration(9_000)),
            lease: Some(duration(3_000)),
            max_attempts: Some(4),
            backoff: Some(v1::Backoff {
                initial: Some(duration(1_000)),
                factor_permille: Some(2_000),
                ..v1::Backoff::default()
            }),
            on_exhausted: v1::OnExhausted::Pause.into(),
            ..v1::StepPolicy::default()
        };
        let own = v1::StepPolicy {
            max_attempts: Some(1),
            backoff: Some(v1::Backoff { initial: Some(duration(0)), ..v1::Backoff::default() }),
            ..v1::StepPolicy::default()
        };
        let policy = resolve(&own, &base);
        assert_eq!((policy.max_attempts, policy.start_to_close_ms), (1, 9_000));
        assert_eq!((policy.backoff_initial_ms, policy.backoff_factor_permille), (0, 2_000));
        assert!(policy.pause_when_exhausted);
        let fails = v1::StepPolicy { on_exhausted: v1::OnExhausted::Fail.into(), ..own };
        assert!(!resolve(&fails, &base).pause_when_exhausted);
    }
}
