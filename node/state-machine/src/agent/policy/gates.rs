//! `[gates.*]`: what all stages share, prepare and canary; the others have files of their own.

use pinrail_proto::policy::{range, stage};
use pinrail_proto::time::millis;
use pinrail_proto::{limits, v1};
use prost_types::Duration;

use super::range::{count, invalid, number, quoted, some_of, span, text, word};
use super::{evals, shadow, smoke};
use crate::outcome::Stop;

pub(super) fn check(gates: &v1::GatesPolicy) -> Result<(), Stop> {
    if let Some(prepare) = &gates.prepare {
        stage("prepare", prepare.mode, prepare.timeout.as_ref())?;
    }
    if let Some(smoke) = &gates.smoke {
        stage("smoke", smoke.mode, smoke.timeout.as_ref())?;
        smoke::check(smoke)?;
    }
    if let Some(evals) = &gates.evals {
        stage("evals", evals.mode, evals.timeout.as_ref())?;
        evals::check(evals)?;
    }
    if let Some(shadow) = &gates.shadow {
        stage("shadow", shadow.mode, shadow.timeout.as_ref())?;
        shadow::check(shadow)?;
    }
    gates.canary.as_ref().map_or(Ok(()), canary)
}

fn stage(name: &str, mode: i32, timeout: Option<&Duration>) -> Result<(), Stop> {
    let (key, words) = (format!("gates.{name}.mode"), "required, optional, off");
    word::<v1::StageMode>(&key, mode, words)?;
    if mode == i32::from(v1::StageMode::Auto) {
        return Err(invalid(&key, "auto", words));
    }
    span(&format!("gates.{name}.timeout"), timeout, range::STAGE_TIMEOUT)
}

fn canary(canary: &v1::CanaryGate) -> Result<(), Stop> {
    word::<v1::StageMode>("gates.canary.mode", canary.mode, "required, optional, off, auto")?;
    some_of("gates.canary.auto_parts", &canary.auto_parts, &stage::PARTS)?;
    span("gates.canary.timeout", canary.timeout.as_ref(), range::CANARY_TIMEOUT)?;
    included(canary)?;
    steps(canary)
}

/// Shares grow, and the stage lasts as long as its holds.
fn steps(canary: &v1::CanaryGate) -> Result<(), Stop> {
    count("gates.canary.steps", canary.steps.len(), limits::CANARY_STEPS)?;
    let (mut before, mut holds) = (0, 0);
    for (at, step) in canary.steps.iter().enumerate() {
        let key = format!("gates.canary.steps[{at}]");
        let share = format!("{key}.share (basis points)");
        number(&share, Some(step.share_bp), range::SHARE_BP)?;
        if step.share_bp <= before {
            return Err(invalid(&share, step.share_bp, &format!("more than {before}: steps grow")));
        }
        before = step.share_bp;
        let hold = format!("{key}.hold");
        let Some(held) = &step.hold else {
            return Err(invalid(&hold, "missing", "1000 to 604800000 ms"));
        };
        span(&hold, Some(held), range::CANARY_HOLD)?;
        holds += millis(held).unwrap_or(0);
    }
    let timeout = canary.timeout.as_ref().and_then(millis).unwrap_or(0);
    if timeout < holds {
        let rule = format!("at least {holds} ms, which its steps hold together");
        return Err(invalid("gates.canary.timeout", format!("{timeout} ms"), &rule));
    }
    Ok(())
}

fn included(canary: &v1::CanaryGate) -> Result<(), Stop> {
    let key = "gates.canary.include";
    count(key, canary.include.len(), limits::LABELS)?;
    for (label, values) in &canary.include {
        if label.is_empty() || label.len() > limits::LABEL_KEY_BYTES {
            return Err(invalid(key, quoted(label), "labels of 1 to 63 bytes"));
        }
        let key = format!("{key}.{label}");
        count(&key, values.values.len(), limits::CANARY_INCLUDED)?;
        for value in &values.values {
            text(&key, value, limits::LABEL_VALUE_BYTES)?;
        }
    }
    Ok(())
}
