//! `[steps]`: how steps are executed. agent.toml gives the defaults of an agent, bundle.toml overrides them per step.

use pinrail_proto::policy::range::{DAY, HOUR, SECOND};
use pinrail_proto::v1;

use super::FileError;
use super::reader::Reader;

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
        start_to_close: table.duration("start_to_close", SECOND..=30 * DAY)?,
        schedule_to_start: table.duration("schedule_to_start", 0..=30 * DAY)?,
        schedule_to_close: table.duration("schedule_to_close", 0..=30 * DAY)?,
        lease: table.duration("lease", SECOND..=HOUR)?,
        max_attempts: table.small("max_attempts", 1..=1_000)?,
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
        initial: table.duration("initial", 0..=HOUR)?,
        factor_permille: table.permille("factor", 1_000..=100_000)?,
        max: table.duration("max", 0..=DAY)?,
        jitter_permille: table.permille("jitter", 0..=1_000)?,
    };
    table.finish()?;
    Ok(backoff)
}
