//! `[drift]`: tools and models that are not what the bundle says.

use pinrail_proto::policy::range::PERMILLE;
use pinrail_proto::v1;

use super::super::FileError;
use super::super::reader::Reader;

pub(super) fn read(table: &mut Reader<'_>) -> Result<v1::DriftPolicy, FileError> {
    Ok(v1::DriftPolicy {
        breaking: action(table, "breaking")?,
        compatible: action(table, "compatible")?,
        sample_permille: table.permille("sample", PERMILLE)?,
    })
}

fn action(table: &mut Reader<'_>, class: &'static str) -> Result<i32, FileError> {
    let words = [
        ("alert", v1::DriftAction::Alert),
        ("block", v1::DriftAction::Block),
        ("accept", v1::DriftAction::Accept),
    ];
    Ok(table.word(class, &words)?.map_or(0, Into::into))
}
