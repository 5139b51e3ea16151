//! `[release]`, `[quarantine]`, `[environment]`.

use pinrail_proto::policy::range::{DAY, MIN_SLOTS, QUARANTINE};
use pinrail_proto::policy::stage;
use pinrail_proto::time::millis;
use pinrail_proto::v1;

use super::super::reader::Reader;
use super::super::{FileError, value};

pub(super) fn release(table: &mut Reader<'_>) -> Result<v1::ReleasePolicy, FileError> {
    let on_failure = [("fail", v1::OnGateFailure::Fail), ("hold", v1::OnGateFailure::Hold)];
    Ok(v1::ReleasePolicy {
        hold_before: table.some_of("hold_before", &stage::HELD)?.unwrap_or_default(),
        on_gate_failure: table.word("on_gate_failure", &on_failure)?.map_or(0, Into::into),
    })
}

pub(super) fn quarantine(table: &mut Reader<'_>) -> Result<v1::QuarantinePolicy, FileError> {
    let line = if table.has("max") { table.line_of("max") } else { table.line_of("min") };
    let min = table.duration("min", QUARANTINE)?;
    let max = table.duration("max", QUARANTINE)?;
    let ms = |it: &Option<prost_types::Duration>, default| {
        it.as_ref().and_then(millis).unwrap_or(default)
    };
    let (least, most) = (ms(&min, DAY), ms(&max, 3 * DAY));
    if most < least {
        let show = |ms| value::show_duration(std::time::Duration::from_millis(ms));
        let (least, most) = (show(least), show(most));
        let rule = format!("quarantine.max: {most} is less than quarantine.min: {least}");
        return Err(table.error(line, rule));
    }
    Ok(v1::QuarantinePolicy { min, max })
}

pub(super) fn environment(table: &mut Reader<'_>) -> Result<v1::EnvironmentPolicy, FileError> {
    Ok(v1::EnvironmentPolicy { min_slots: table.small("min_slots", MIN_SLOTS)? })
}
