//! The policy of an agent (`docs/FILES.md`). What is stored is complete and in range: one file a section checks it,
//! its defaults and ranges are `pinrail_proto::policy`. Regular expressions, schemas and time zones are only bounded here;
//! the service compiles them before anything is proposed.

mod drift;
mod drill;
mod evals;
mod gates;
mod hooks;
mod range;
mod release;
mod runs;
mod shadow;
mod signals;
mod smoke;
mod steps;
mod switch;

use std::collections::BTreeMap;

use pinrail_proto::{limits, policy, reason, v1};
use prost::Message as _;

use crate::outcome::{Stop, reject};

pub(crate) use steps::check_steps;

/// Fills in the defaults of what is unset and checks every range.
///
/// # Errors
/// `INVALID_POLICY` names the key, the value and the range; `LIMIT_EXCEEDED` the size of the whole.
pub(crate) fn complete(mut policy: v1::Policy) -> Result<v1::Policy, Stop> {
    policy::fill(&mut policy);
    let size = policy.encoded_len();
    if size > limits::POLICY_BYTES {
        return Err(too_large("policy bytes", size, limits::POLICY_BYTES));
    }
    range::text("description", &policy.description, limits::TEXT_BYTES)?;
    check_labels(&policy.labels)?;
    each(policy.runs.as_ref(), runs::check_runs)?;
    each(policy.sessions.as_ref(), runs::check_sessions)?;
    each(policy.steps.as_ref(), |steps| check_steps("steps", steps))?;
    each(policy.switch.as_ref(), switch::check_switch)?;
    each(policy.rollback.as_ref(), switch::check_rollback)?;
    each(policy.memory.as_ref(), runs::check_memory)?;
    each(policy.gates.as_ref(), gates::check)?;
    each(policy.quarantine.as_ref(), release::check_quarantine)?;
    each(policy.release.as_ref(), release::check_release)?;
    each(policy.environment.as_ref(), release::check_environment)?;
    each(policy.signals.as_ref(), signals::check)?;
    each(policy.drill.as_ref(), drill::check)?;
    each(policy.drift.as_ref(), drift::check)?;
    hooks::check(&policy.hooks)?;
    Ok(policy)
}

/// A section that is there; none is left out once the defaults are filled in.
fn each<T>(section: Option<&T>, check: impl FnOnce(&T) -> Result<(), Stop>) -> Result<(), Stop> {
    section.map_or(Ok(()), check)
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Stop> {
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

#[cfg(test)]
mod tests;
