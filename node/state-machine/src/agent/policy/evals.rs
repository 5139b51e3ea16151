//! `[gates.evals]`: the set that it names and its thresholds.

use pinrail_proto::policy::grammar;
use pinrail_proto::policy::range::{
    CONFIDENCE_PERMILLE, COVERAGE_CASES, COVERAGE_WINDOW, PERMILLE,
};
use pinrail_proto::{limits, v1};

use super::range::{invalid, number, permille, quoted, span, text};
use crate::outcome::Stop;

pub(super) fn check(evals: &v1::EvalsGate) -> Result<(), Stop> {
    if !evals.set.is_empty() && !grammar::is_eval_set(&evals.set) {
        return Err(invalid("gates.evals.set", quoted(&evals.set), "name@version, or empty"));
    }
    permille("gates.evals.min_pass_rate", evals.min_pass_rate_permille, PERMILLE)?;
    permille("gates.evals.max_loss", evals.max_loss_permille, PERMILLE)?;
    permille("gates.evals.confidence", evals.confidence_permille, CONFIDENCE_PERMILLE)?;
    permille("gates.evals.max_errors", evals.max_errors_permille, PERMILLE)?;
    evals.coverage.as_ref().map_or(Ok(()), coverage)
}

fn coverage(coverage: &v1::CoveragePolicy) -> Result<(), Stop> {
    let label = coverage.label.as_deref().unwrap_or_default();
    text("gates.evals.coverage.label", label, limits::LABEL_KEY_BYTES)?;
    span("gates.evals.coverage.window", coverage.window.as_ref(), COVERAGE_WINDOW)?;
    permille("gates.evals.coverage.max_gap", coverage.max_gap_permille, PERMILLE)?;
    permille("gates.evals.coverage.floor", coverage.floor_permille, PERMILLE)?;
    number("gates.evals.coverage.min_cases", coverage.min_cases, COVERAGE_CASES)
}
