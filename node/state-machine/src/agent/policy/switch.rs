//! `[switch]` and `[rollback]`.

use pinrail_proto::policy::range::HOUR;
use pinrail_proto::{limits, v1};

use super::range::{span, word};
use crate::outcome::Stop;

pub(super) fn check_switch(switch: &v1::SwitchPolicy) -> Result<(), Stop> {
    word::<v1::Strategy>("switch.strategy", switch.strategy, "pin, drain")?;
    span("switch.drain_cap", switch.drain_cap.as_ref(), 0..=limits::MAX_AGE_MS)?;
    word::<v1::OnDrain>("switch.on_drain", switch.on_drain, "cancel, repin")?;
    span("switch.grace", switch.grace.as_ref(), 0..=HOUR)
}

pub(super) fn check_rollback(rollback: &v1::RollbackPolicy) -> Result<(), Stop> {
    word::<v1::InFlight>("rollback.in_flight", rollback.in_flight, "keep, cancel, restart")
}
