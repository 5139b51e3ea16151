//! JSON of our own (`docs/EVALS.md`): for tools that write nothing else that is known.

use std::collections::BTreeMap;

use pinrail_proto::v1;
use serde::Deserialize;
use serde_json::Value as Json;
use v1::EvalOutcome as Outcome;

use super::trial::{Score, Trial, contents, results};
use super::{Format, ImportError, Imported, add_up};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tool: String,
    #[serde(default)]
    metrics: BTreeMap<String, MetricKind>,
    results: Vec<Case>,
    #[serde(default)]
    summary: Summary,
}

/// Optional; what is there must be true.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summary {
    passed: Option<u64>,
    failed: Option<u64>,
    errors: Option<u64>,
}

/// The words of set files, too.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli::eval) enum MetricKind {
    Structured,
    Judge,
    Human,
}

impl MetricKind {
    pub(in crate::cli::eval) fn api(self) -> v1::MetricKind {
        match self {
            MetricKind::Structured => v1::MetricKind::Structured,
            MetricKind::Judge => v1::MetricKind::Judge,
            MetricKind::Human => v1::MetricKind::Human,
        }
    }
}

/// Exactly one of `passed` and `error`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    #[serde(default)]
    category: String,
    passed: Option<bool>,
    error: Option<String>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    scores: BTreeMap<String, Value>,
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    cost: f64,
    #[serde(default)]
    latency_ms: f64,
}

/// A score, or whether it passed.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Value {
    Passed(bool),
    Score(f64),
}

pub(super) fn json(file: Json) -> Result<Imported, ImportError> {
    let error = |error| ImportError::Json { what: "the report".to_owned(), error };
    let file: File = serde_json::from_value(file).map_err(error)?;
    let trials = file.results.iter().map(trial).collect::<Result<Vec<_>, _>>()?;
    let count = |outcome| trials.iter().filter(|trial| trial.outcome == outcome).count();
    add_up("passed", file.summary.passed, count(Outcome::Passed))?;
    add_up("failed", file.summary.failed, count(Outcome::Failed))?;
    add_up("errors", file.summary.errors, count(Outcome::Error))?;
    let metric =
        |(name, kind): (String, MetricKind)| v1::EvalMetric { name, kind: kind.api().into() };
    Ok(Imported {
        format: Format::Pinrail,
        tool: file.tool,
        metrics: file.metrics.into_iter().map(metric).collect(),
        contents: contents(&trials),
        results: results(trials),
        notes: Vec::new(),
    })
}

fn trial(case: &Case) -> Result<Trial, ImportError> {
    let (outcome, message) = match (case.passed, &case.error) {
        (Some(true), None) => (Outcome::Passed, &case.message),
        (Some(false), None) => (Outcome::Failed, &case.message),
        (None, Some(error)) => (Outcome::Error, error),
        (Some(_), Some(_)) | (None, None) => {
            let message = format!("result {:?} must have either `passed` or `error`", case.id);
            return Err(ImportError::Unknown(message));
        }
    };
    let score = |(metric, value): (&String, &Value)| match value {
        Value::Passed(passed) => {
            Score { metric: metric.clone(), passed: Some(*passed), score: None }
        }
        Value::Score(score) => Score { metric: metric.clone(), passed: None, score: Some(*score) },
    };
    Ok(Trial {
        category: case.category.clone(),
        scores: case.scores.iter().map(score).collect(),
        message: message.clone(),
        input_tokens: case.input_tokens,
        output_tokens: case.output_tokens,
        cost: case.cost,
        latency_ms: case.latency_ms,
        ..Trial::new(case.id.clone(), outcome)
    })
}
