//! `[steps]`: how steps are executed. agent.toml gives the defaults of an agent, bundle.toml overrides them per step.

use std::time::Duration;

use pinrail_proto::{limits, v1};

use super::FileError;
use super::reader::Reader;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// Longest life of a pin, and so of anything within it.
pub(super) const MONTH: Duration = Duration::from_millis(limits::MAX_AGE_MS);

/// Whose steps are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// All steps of an agent: the limits of how many go out are there too.
    Agent,
    /// One step of a bundle.
    Bundle,
}

/// Reads what the table says; what it does not say stays unset.
pub(super) fn read(mut table: Reader<'_>, whose: Whose) -> Result<v1::StepPolicy, FileError> {
    let on_exhausted = [("fail", v1::OnExhausted::Fail), ("pause", v1::OnExhausted::Pause)];
    let mut steps = v1::StepPolicy {
        start_to_close: table.duration("start_to_close", SECOND..=MONTH)?,
        schedule_to_start: table.duration("schedule_to_start", Duration::ZERO..=MONTH)?,
        schedule_to_close: table.duration("schedule_to_close", Duration::ZERO..=MONTH)?,
        lease: table.duration("lease", SECOND..=HOUR)?,
        max_attempts: small(table.number("max_attempts", 1..=1_000)?),
        backoff: table.table("backoff")?.map(backoff).transpose()?,
        max_running: None,
        max_running_per_key: None,
        max_per_second: None,
        on_exhausted: table.word("on_exhausted", &on_exhausted)?.map_or(0, Into::into),
    };
    if whose == Whose::Agent {
        steps.max_running = table.number("max_running", 1..=1_000_000)?;
        steps.max_running_per_key = table.number("max_running_per_key", 0..=1_000_000)?;
        steps.max_per_second = table.number("max_per_second", 0..=1_000_000)?;
    }
    table.finish()?;
    Ok(steps)
}

fn backoff(mut table: Reader<'_>) -> Result<v1::Backoff, FileError> {
    let backoff = v1::Backoff {
        initial: table.duration("initial", Duration::ZERO..=HOUR)?,
        factor_permille: table.permille("factor", 1_000..=100_000)?,
        max: table.duration("max", Duration::ZERO..=DAY)?,
        jitter_permille: table.permille("jitter", 0..=1_000)?,
    };
    table.finish()?;
    Ok(backoff)
}

fn small(number: Option<u64>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}
