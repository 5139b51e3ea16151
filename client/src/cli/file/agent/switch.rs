//! `[switch]` and `[rollback]`.

use pinrail_proto::policy::range::HOUR;
use pinrail_proto::{limits, v1};

use super::super::FileError;
use super::super::reader::Reader;

pub(super) fn switch(table: &mut Reader<'_>) -> Result<v1::SwitchPolicy, FileError> {
    let strategy = [("pin", v1::Strategy::Pin), ("drain", v1::Strategy::Drain)];
    let on_drain = [("cancel", v1::OnDrain::Cancel), ("repin", v1::OnDrain::Repin)];
    Ok(v1::SwitchPolicy {
        strategy: table.word("strategy", &strategy)?.map_or(0, Into::into),
        drain_cap: table.duration("drain_cap", 0..=limits::MAX_AGE_MS)?,
        on_drain: table.word("on_drain", &on_drain)?.map_or(0, Into::into),
        grace: table.duration("grace", 0..=HOUR)?,
    })
}

pub(super) fn rollback(table: &mut Reader<'_>) -> Result<v1::RollbackPolicy, FileError> {
    let in_flight = [
        ("keep", v1::InFlight::Keep),
        ("cancel", v1::InFlight::Cancel),
        ("restart", v1::InFlight::Restart),
    ];
    // Its other word belongs to a later version: it is refused, never silently ignored.
    if let Some((word, line)) = table.text("sessions")?
        && word != "end"
    {
        let rule = "rollback.sessions: not supported yet; only the default \"end\" is accepted";
        return Err(table.error(line, rule));
    }
    Ok(v1::RollbackPolicy { in_flight: table.word("in_flight", &in_flight)?.map_or(0, Into::into) })
}
