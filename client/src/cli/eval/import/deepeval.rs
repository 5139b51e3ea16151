//! Test runs of DeepEval: what `DEEPEVAL_RESULTS_FOLDER` gets, `.deepeval/.latest_test_run.json`, and the JSON of what
//! `evaluate()` gives.
//!
//! A case's name is its example's id, its first tag its category. DeepEval counts a metric that raised an error as a
//! failure of the case; here it is an error, unless another metric of the case really failed.

use std::collections::BTreeMap;

use pinrail_proto::v1;
use serde::Deserialize;
use serde_json::Value as Json;
use v1::EvalOutcome as Outcome;

use super::trial::{Score, Trial, content, contents, outcome, results};
use super::{Format, ImportError, Imported, add_up};

#[derive(Debug, Deserialize)]
struct Run {
    #[serde(rename = "testCases", alias = "test_results", default)]
    cases: Vec<Case>,
    #[serde(rename = "conversationalTestCases", default)]
    conversations: Vec<Case>,
    #[serde(rename = "metricsScores", default)]
    metrics: Vec<MetricSums>,
    #[serde(rename = "testPassed", default)]
    passed: Option<u64>,
    #[serde(rename = "testFailed", default)]
    failed: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct MetricSums {
    metric: String,
    #[serde(default)]
    passes: Option<u64>,
    #[serde(default)]
    errors: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    success: Option<bool>,
    #[serde(rename = "metricsData", alias = "metrics_data", default)]
    metrics: Option<Vec<Metric>>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "tokenCost", default)]
    cost: Option<f64>,
    #[serde(rename = "completionTime", default)]
    seconds: Option<f64>,
    #[serde(default)]
    input: Json,
    #[serde(rename = "expectedOutput", alias = "expected_output", default)]
    expected: Json,
    #[serde(default)]
    context: Json,
    #[serde(default)]
    scenario: Json,
}

#[derive(Debug, Deserialize)]
struct Metric {
    name: String,
    success: bool,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(rename = "evaluationModel", alias = "evaluation_model", default)]
    model: Option<String>,
}

pub(super) fn json(file: Json) -> Result<Imported, ImportError> {
    let run = match file.get("testRunData") {
        Some(inner) => inner.clone(),
        None => file,
    };
    let error = |error| ImportError::Json { what: "the test run of DeepEval".to_owned(), error };
    let run: Run = serde_json::from_value(run).map_err(error)?;
    let cases: Vec<&Case> = run.cases.iter().chain(&run.conversations).collect();
    let passed = cases.iter().filter(|case| case.success == Some(true)).count();
    add_up("passed tests", run.passed, passed)?;
    add_up("failed tests", run.failed, cases.len() - passed)?;
    for sums in &run.metrics {
        let data = cases.iter().flat_map(|case| case.metrics.iter().flatten());
        let of: Vec<&Metric> = data.filter(|metric| metric.name == sums.metric).collect();
        let errors = of.iter().filter(|metric| metric.error.is_some()).count();
        let passes = of.iter().filter(|it| it.error.is_none() && it.success).count();
        add_up(&format!("passes of {:?}", sums.metric), sums.passes, passes)?;
        add_up(&format!("errors of {:?}", sums.metric), sums.errors, errors)?;
    }
    let broke = cases.iter().filter(|case| judged(case) == Outcome::Error).count();
    let note =
        format!("{broke} that DeepEval counts as failures are errors: a metric of them broke");
    let trials: Vec<Trial> = cases.iter().map(|case| trial(case)).collect();
    Ok(Imported {
        format: Format::Deepeval,
        tool: "deepeval".to_owned(),
        metrics: metrics(&cases),
        notes: if broke > 0 { vec![note] } else { Vec::new() },
        contents: contents(&trials),
        results: results(trials),
    })
}

/// A metric that names a model is judged by it.
fn metrics(cases: &[&Case]) -> Vec<v1::EvalMetric> {
    let mut kinds: BTreeMap<&str, v1::MetricKind> = BTreeMap::new();
    for metric in cases.iter().flat_map(|case| case.metrics.iter().flatten()) {
        let kind = match &metric.model {
            Some(_) => v1::MetricKind::Judge,
            None => v1::MetricKind::Structured,
        };
        kinds.insert(&metric.name, kind);
    }
    let metric = |(name, kind): (&str, v1::MetricKind)| v1::EvalMetric {
        name: name.to_owned(),
        kind: kind.into(),
    };
    kinds.into_iter().map(metric).collect()
}

fn judged(case: &Case) -> Outcome {
    if case.success == Some(true) {
        return Outcome::Passed;
    }
    let of = |metric: &Metric| match (&metric.error, metric.success) {
        (Some(_), _) => Outcome::Error,
        (None, true) => Outcome::Passed,
        (None, false) => Outcome::Failed,
    };
    match outcome(case.metrics.iter().flatten().map(of)) {
        Some(Outcome::Error) | None => Outcome::Error,
        Some(_) => Outcome::Failed,
    }
}

fn trial(case: &Case) -> Trial {
    let metrics = || case.metrics.iter().flatten();
    let score = |metric: &Metric| Score {
        metric: metric.name.clone(),
        passed: Some(metric.success),
        score: metric.score,
    };
    let said = metrics().find(|metric| metric.error.is_some());
    let said = said.or_else(|| metrics().find(|metric| !metric.success));
    let message = said.and_then(|it| it.error.clone().or_else(|| it.reason.clone()));
    Trial {
        category: case.tags.iter().flatten().next().cloned().unwrap_or_default(),
        scores: metrics().filter(|metric| metric.error.is_none()).map(score).collect(),
        message: message.unwrap_or_default(),
        cost: case.cost.unwrap_or(0.0),
        latency_ms: case.seconds.unwrap_or(0.0) * 1_000.0,
        content: content(&[&case.input, &case.expected, &case.context, &case.scenario]),
        ..Trial::new(case.name.clone(), judged(case))
    }
}
