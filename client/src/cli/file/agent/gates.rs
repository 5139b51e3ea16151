//! `[gates.*]`: the stages of a release; what they share, and prepare.

use pinrail_proto::policy::range;
use pinrail_proto::v1;

use super::super::FileError;
use super::super::files::Files;
use super::super::reader::Reader;
use super::{canary, evals, shadow, smoke};

pub(super) fn read(
    table: &mut Reader<'_>,
    files: &Files<'_>,
) -> Result<v1::GatesPolicy, FileError> {
    Ok(v1::GatesPolicy {
        prepare: Some(table.section("prepare", prepare)?),
        smoke: Some(table.section("smoke", |table| smoke::read(table, files))?),
        evals: Some(table.section("evals", evals::read)?),
        shadow: Some(table.section("shadow", shadow::read)?),
        canary: Some(table.section("canary", canary::read)?),
    })
}

fn prepare(table: &mut Reader<'_>) -> Result<v1::PrepareGate, FileError> {
    Ok(v1::PrepareGate { mode: mode(table)?, timeout: timeout(table)? })
}

/// Mode of every stage but canary.
pub(super) fn mode(table: &mut Reader<'_>) -> Result<i32, FileError> {
    let words = [
        ("required", v1::StageMode::Required),
        ("optional", v1::StageMode::Optional),
        ("off", v1::StageMode::Off),
    ];
    Ok(table.word("mode", &words)?.map_or(0, Into::into))
}

/// Timeout of every stage but canary.
pub(super) fn timeout(table: &mut Reader<'_>) -> Result<Option<prost_types::Duration>, FileError> {
    table.duration("timeout", range::STAGE_TIMEOUT)
}
