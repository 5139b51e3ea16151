//! `[release]`, `[quarantine]`, `[environment]`.

use pinrail_proto::policy::{range, stage};
use pinrail_proto::time::millis;
use pinrail_proto::v1;

use super::range::{invalid, number, some_of, span, word};
use crate::outcome::Stop;

pub(super) fn check_release(release: &v1::ReleasePolicy) -> Result<(), Stop> {
    some_of("release.hold_before", &release.hold_before, &stage::HELD)?;
    let on_failure = release.on_gate_failure;
    word::<v1::OnGateFailure>("release.on_gate_failure", on_failure, "fail, hold")
}

pub(super) fn check_quarantine(quarantine: &v1::QuarantinePolicy) -> Result<(), Stop> {
    span("quarantine.min", quarantine.min.as_ref(), range::QUARANTINE)?;
    span("quarantine.max", quarantine.max.as_ref(), range::QUARANTINE)?;
    let min = quarantine.min.as_ref().and_then(millis).unwrap_or(0);
    let max = quarantine.max.as_ref().and_then(millis).unwrap_or(0);
    if max < min {
        let rule = format!("at least quarantine.min: {min} ms");
        return Err(invalid("quarantine.max", format!("{max} ms"), &rule));
    }
    Ok(())
}

pub(super) fn check_environment(environment: &v1::EnvironmentPolicy) -> Result<(), Stop> {
    number("environment.min_slots", environment.min_slots, range::MIN_SLOTS)
}
