//! Evals: versioned sets of examples that never change, reports of how bundles did on them, and what production does,
//! counted by a label.
//!
//! A set is judged by nobody here: verdicts are the leader's, computed from what is stored and recorded with their
//! numbers. So nothing in this folder knows of thresholds or statistics.

mod digest;
mod mix;
mod report;
mod set;

use pinrail_proto::{id, limits, reason, v1};

use crate::outcome::{Stop, reject};

pub(crate) use mix::{count as count_label, counts as label_counts};
pub(crate) use report::{newest, reports_of, results, submit as submit_report};
pub(crate) use set::{create as create_set, examples, existing as existing_set, sets_of};

/// The label of live runs whose values are counted; empty: none is.
pub(crate) fn coverage_label(policy: &v1::Policy) -> String {
    let evals = policy.gates.as_ref().and_then(|gates| gates.evals.as_ref());
    let coverage = evals.and_then(|evals| evals.coverage.as_ref());
    coverage.map_or_else(String::new, |coverage| coverage.label().to_owned())
}

/// Takes `name@version` apart.
pub(crate) fn parse(set: &str) -> Result<(&str, &str), Stop> {
    let (name, version) = set.split_once('@').ok_or_else(|| {
        reject(reason::INVALID_ID, format!("eval set {set:?} is not written as name@version"))
    })?;
    for (what, text) in [("eval set", name), ("version of the eval set", version)] {
        id::check_name(what, text)
            .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    }
    Ok((name, version))
}

/// Metrics of a set or a report: named, of a kind, each once. Sorts them by their names.
fn check_metrics(metrics: &mut [v1::EvalMetric], invalid: Invalid) -> Result<(), Stop> {
    if metrics.len() > limits::EVAL_METRICS {
        return Err(too_many("metrics", metrics.len(), limits::EVAL_METRICS));
    }
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    for metric in metrics.iter() {
        check_metric(&metric.name, invalid)?;
        if metric.kind() == v1::MetricKind::Unspecified {
            let message =
                format!("metric {:?} has no kind; allowed: structured, judge, human", metric.name);
            return Err(invalid(message));
        }
    }
    match metrics.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(invalid(format!("metric {:?} is there twice", pair[0].name))),
        None => Ok(()),
    }
}

/// How a rule that was broken is said.
type Invalid = fn(String) -> Stop;

fn check_metric(name: &str, invalid: Invalid) -> Result<(), Stop> {
    let fits = (1..=limits::EVAL_METRIC_BYTES).contains(&name.len());
    if !fits || name.chars().any(char::is_control) {
        let message = format!(
            "a metric is named {name:?}; allowed: 1 to {} bytes without control characters",
            limits::EVAL_METRIC_BYTES
        );
        return Err(invalid(message));
    }
    Ok(())
}

fn too_many(what: &str, size: usize, limit: usize) -> Stop {
    crate::agent::policy::too_large(what, size, limit)
}
