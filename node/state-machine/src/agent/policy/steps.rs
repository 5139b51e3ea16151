//! `[steps]` of an agent, and what a bundle says of one of its steps.

use pinrail_proto::policy::range::{DAY, HOUR, SECOND};
use pinrail_proto::v1;

use super::range::{number, permille, span, word};
use crate::outcome::Stop;

/// Checks the step policy of an agent or of one step of a bundle; `key` names it in messages.
pub(crate) fn check_steps(key: &str, steps: &v1::StepPolicy) -> Result<(), Stop> {
    let name = |field: &str| format!("{key}.{field}");
    span(&name("start_to_close"), steps.start_to_close.as_ref(), SECOND..=30 * DAY)?;
    span(&name("schedule_to_start"), steps.schedule_to_start.as_ref(), 0..=30 * DAY)?;
    span(&name("schedule_to_close"), steps.schedule_to_close.as_ref(), 0..=30 * DAY)?;
    span(&name("lease"), steps.lease.as_ref(), SECOND..=HOUR)?;
    number(&name("max_attempts"), steps.max_attempts, 1..=1_000)?;
    number(&name("max_running"), steps.max_running, 1..=1_000_000)?;
    number(&name("max_running_per_key"), steps.max_running_per_key, 0..=1_000_000)?;
    number(&name("max_per_second"), steps.max_per_second, 0..=1_000_000)?;
    word::<v1::OnExhausted>(&name("on_exhausted"), steps.on_exhausted, "fail, pause")?;
    if let Some(backoff) = &steps.backoff {
        span(&name("backoff.initial"), backoff.initial.as_ref(), 0..=HOUR)?;
        span(&name("backoff.max"), backoff.max.as_ref(), 0..=DAY)?;
        permille(&name("backoff.factor"), backoff.factor_permille, 1_000..=100_000)?;
        permille(&name("backoff.jitter"), backoff.jitter_permille, 0..=1_000)?;
    }
    Ok(())
}
