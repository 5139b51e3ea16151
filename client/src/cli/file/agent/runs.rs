//! `[runs]`, `[sessions]`, `[memory]`.

use pinrail_proto::policy::range::{DAY, SECOND};
use pinrail_proto::{limits, v1};

use super::super::FileError;
use super::super::reader::Reader;

pub(super) fn runs(table: &mut Reader<'_>) -> Result<v1::RunPolicy, FileError> {
    let execution = [("workers", v1::Execution::Workers), ("external", v1::Execution::External)];
    Ok(v1::RunPolicy {
        execution: table.word("execution", &execution)?.map_or(0, Into::into),
        max_age: table.duration("max_age", SECOND..=limits::MAX_AGE_MS)?,
        retention: table.duration("retention", 0..=365 * DAY)?,
        max_open: table.number("max_open", 1..=limits::OPEN_RUNS)?,
        keep_alive: table.duration("keep_alive", 0..=30 * DAY)?,
        repinnable: table.bool("repinnable")?,
        restart_step: table.bool("restart_step")?,
    })
}

pub(super) fn sessions(table: &mut Reader<'_>) -> Result<v1::SessionPolicy, FileError> {
    let overlap = [
        ("queue", v1::Overlap::Queue),
        ("parallel", v1::Overlap::Parallel),
        ("reject", v1::Overlap::Reject),
    ];
    Ok(v1::SessionPolicy {
        max_age: table.duration("max_age", SECOND..=limits::MAX_AGE_MS)?,
        cutoff: table.duration("cutoff", 0..=limits::MAX_AGE_MS)?,
        overlap: table.word("overlap", &overlap)?.map_or(0, Into::into),
    })
}

pub(super) fn memory(table: &mut Reader<'_>) -> Result<v1::MemoryPolicy, FileError> {
    let late_writes =
        [("drop", v1::LateWrites::Drop), ("block_recycle", v1::LateWrites::BlockRecycle)];
    Ok(v1::MemoryPolicy {
        quota_bytes: table.size("quota", 0..=1 << 50)?,
        versions: table.duration("versions", 0..=365 * DAY)?,
        late_writes: table.word("late_writes", &late_writes)?.map_or(0, Into::into),
    })
}
