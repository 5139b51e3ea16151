//! `[drill]`.

use pinrail_proto::policy::range::{DRILL_EVERY, DRILL_LIMIT};
use pinrail_proto::policy::window::Window;
use pinrail_proto::v1;

use super::super::FileError;
use super::super::reader::Reader;

pub(super) fn read(table: &mut Reader<'_>) -> Result<v1::DrillPolicy, FileError> {
    let modes = [("drill_route", v1::DrillMode::Route), ("live", v1::DrillMode::Live)];
    Ok(v1::DrillPolicy {
        every: every(table)?,
        window: window(table)?,
        mode: table.word("mode", &modes)?.map_or(0, Into::into),
        limit: table.duration("limit", DRILL_LIMIT)?,
    })
}

/// Empty or `0s`: by hand.
fn every(table: &mut Reader<'_>) -> Result<Option<prost_types::Duration>, FileError> {
    match table.text("every")? {
        None => Ok(None),
        Some((text, _)) if text.is_empty() || text == "0s" => Ok(None),
        Some((text, line)) => table.duration_of("every", &text, line, DRILL_EVERY).map(Some),
    }
}

fn window(table: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((text, line)) = table.text("window")? else { return Ok(String::new()) };
    if !text.is_empty() {
        Window::parse(&text).map_err(|error| {
            table.error(line, format!("{}: {text:?}; expected {error}", table.key("window")))
        })?;
    }
    Ok(text)
}
