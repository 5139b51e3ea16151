//! `[gates.evals]`.

use pinrail_proto::policy::grammar::is_eval_set;
use pinrail_proto::policy::range::{
    CONFIDENCE_PERMILLE, COVERAGE_CASES, COVERAGE_WINDOW, PERMILLE,
};
use pinrail_proto::{limits, v1};

use super::super::FileError;
use super::super::reader::Reader;
use super::gates;

pub(super) fn read(table: &mut Reader<'_>) -> Result<v1::EvalsGate, FileError> {
    Ok(v1::EvalsGate {
        mode: gates::mode(table)?,
        timeout: gates::timeout(table)?,
        set: set(table)?,
        start_runs: table.bool("start_runs")?.unwrap_or(false),
        min_pass_rate_permille: table.permille("min_pass_rate", PERMILLE)?,
        max_loss_permille: table.permille("max_loss", PERMILLE)?,
        confidence_permille: table.permille("confidence", CONFIDENCE_PERMILLE)?,
        max_errors_permille: table.permille("max_errors", PERMILLE)?,
        coverage: Some(table.section("coverage", coverage)?),
        sensitivity: table.bool("sensitivity")?,
    })
}

fn set(table: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((set, line)) = table.text("set")? else { return Ok(String::new()) };
    if !set.is_empty() && !is_eval_set(&set) {
        let rule = format!("{}: {set:?} is no name@version, e.g. core@14", table.key("set"));
        return Err(table.error(line, rule));
    }
    Ok(set)
}

fn coverage(table: &mut Reader<'_>) -> Result<v1::CoveragePolicy, FileError> {
    let label = table.text("label")?;
    if let Some((text, line)) = &label
        && text.len() > limits::LABEL_KEY_BYTES
    {
        let rule = format!("{}: at most {} bytes", table.key("label"), limits::LABEL_KEY_BYTES);
        return Err(table.error(*line, rule));
    }
    Ok(v1::CoveragePolicy {
        label: label.map(|(text, _)| text),
        window: table.duration("window", COVERAGE_WINDOW)?,
        max_gap_permille: table.permille("max_gap", PERMILLE)?,
        floor_permille: table.permille("floor", PERMILLE)?,
        min_cases: table.small("min_cases", COVERAGE_CASES)?,
    })
}
