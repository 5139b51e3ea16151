//! The one clock of this crate: microseconds of the machine's monotonic clock, which all processes share, so that
//! what workers log can be joined with what clients saw.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_MONOTONIC`; within a simulation, of simulated time.
#[must_use]
pub fn now_us() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(elapsed) = turmoil::sim_elapsed() {
        return u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    }
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
}
