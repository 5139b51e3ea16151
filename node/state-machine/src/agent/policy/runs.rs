//! `[runs]`, `[sessions]`, `[memory]`.

use pinrail_proto::policy::range::{DAY, SECOND};
use pinrail_proto::{limits, v1};

use super::range::{number, span, word};
use crate::outcome::Stop;

pub(super) fn check_runs(runs: &v1::RunPolicy) -> Result<(), Stop> {
    word::<v1::Execution>("runs.execution", runs.execution, "workers, external")?;
    span("runs.max_age", runs.max_age.as_ref(), SECOND..=limits::MAX_AGE_MS)?;
    span("runs.retention", runs.retention.as_ref(), 0..=365 * DAY)?;
    span("runs.keep_alive", runs.keep_alive.as_ref(), 0..=30 * DAY)?;
    number("runs.max_open", runs.max_open, 1..=limits::OPEN_RUNS)
}

pub(super) fn check_sessions(sessions: &v1::SessionPolicy) -> Result<(), Stop> {
    span("sessions.max_age", sessions.max_age.as_ref(), SECOND..=limits::MAX_AGE_MS)?;
    span("sessions.cutoff", sessions.cutoff.as_ref(), 0..=limits::MAX_AGE_MS)?;
    word::<v1::Overlap>("sessions.overlap", sessions.overlap, "queue, parallel, reject")
}

pub(super) fn check_memory(memory: &v1::MemoryPolicy) -> Result<(), Stop> {
    number("memory.quota", memory.quota_bytes, 0..=1 << 50)?;
    span("memory.versions", memory.versions.as_ref(), 0..=365 * DAY)?;
    let late = memory.late_writes;
    word::<v1::LateWrites>("memory.late_writes", late, "drop, block_recycle")
}
