//! Results of promptfoo: `-o results.json` (version 3 of its results) and `-o results.jsonl`.
//!
//! What names an example: `metadata.example_id` or `metadata.id` of the test, the variable `id`, its description, else
//! its index. What names its category: `category` or `task_kind` in the test's metadata or variables.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::v1;
use serde::Deserialize;
use serde_json::Value as Json;
use v1::EvalOutcome as Outcome;

use super::trial::{Score, Trial, content, contents, outcome, results};
use super::{Choice, Format, ImportError, Imported, add_up, parse};

/// The version of the results that is read.
const VERSION: u64 = 3;
/// `failureReason` of a result that could not be had.
const REASON_ERROR: u64 = 2;
/// Assertions that a model decides.
const JUDGES: [&str; 16] = [
    "agent-rubric",
    "answer-relevance",
    "classifier",
    "context-faithfulness",
    "context-recall",
    "context-relevance",
    "conversation-relevance",
    "factuality",
    "g-eval",
    "llm-rubric",
    "model-graded-closedqa",
    "model-graded-factuality",
    "moderation",
    "pi",
    "search-rubric",
    "select-best",
];

#[derive(Debug, Deserialize)]
struct File {
    results: Summary,
    #[serde(default)]
    metadata: Option<Json>,
}

#[derive(Debug, Deserialize)]
struct Summary {
    version: u64,
    results: Vec<Case>,
    stats: Stats,
}

#[derive(Debug, Deserialize)]
struct Stats {
    successes: u64,
    failures: u64,
    #[serde(default)]
    errors: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    success: bool,
    failure_reason: u64,
    test_idx: u64,
    #[serde(default)]
    prompt_idx: u64,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    cost: Option<f64>,
    #[serde(default)]
    latency_ms: Option<f64>,
    #[serde(default)]
    token_usage: Option<Tokens>,
    #[serde(default)]
    grading_result: Option<Grading>,
    #[serde(default)]
    provider: Option<Provider>,
    #[serde(default)]
    test_case: Json,
    #[serde(default)]
    vars: Json,
    #[serde(default)]
    metadata: Json,
}

#[derive(Debug, Deserialize)]
struct Provider {
    id: String,
    #[serde(default)]
    label: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt: u64,
    #[serde(default)]
    completion: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grading {
    #[serde(default)]
    component_results: Option<Vec<Component>>,
    #[serde(default)]
    metadata: Option<Json>,
}

#[derive(Debug, Deserialize)]
struct Component {
    pass: bool,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    assertion: Option<Assertion>,
    #[serde(default)]
    metadata: Option<Json>,
}

#[derive(Debug, Deserialize)]
struct Assertion {
    r#type: String,
    #[serde(default)]
    metric: Option<String>,
}

pub(super) fn json(file: Json, choice: &Choice) -> Result<Imported, ImportError> {
    let error = |error| ImportError::Json { what: "the results of promptfoo".to_owned(), error };
    let file: File = serde_json::from_value(file).map_err(error)?;
    if file.results.version != VERSION {
        let message = format!(
            "results of promptfoo in version {}; version {VERSION} is read",
            file.results.version
        );
        return Err(ImportError::Unknown(message));
    }
    let cases = &file.results.results;
    let stats = &file.results.stats;
    let errors = cases.iter().filter(|case| case.failure_reason == REASON_ERROR).count();
    let successes = cases.iter().filter(|case| case.success).count();
    add_up("successes", Some(stats.successes), successes)?;
    add_up("errors", Some(stats.errors), errors)?;
    add_up("failures", Some(stats.failures), cases.len().saturating_sub(successes + errors))?;
    let version = file.metadata.as_ref().and_then(|it| it.get("promptfooVersion"));
    let version = version.and_then(Json::as_str).unwrap_or_default();
    let tool = format!("promptfoo {version}").trim_end().to_owned();
    imported(file.results.results, tool, choice, Vec::new())
}

/// One case a line; nothing tells whether lines are missing.
pub(super) fn lines(text: &[u8], choice: &Choice) -> Result<Imported, ImportError> {
    let mut cases = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if !line.trim_ascii().is_empty() {
            cases.push(parse::<Case>(&format!("line {number}"), line)?);
        }
    }
    let note = "a file of lines has no summary: whether lines are missing cannot be told";
    imported(cases, "promptfoo".to_owned(), choice, vec![note.to_owned()])
}

fn imported(
    cases: Vec<Case>,
    tool: String,
    choice: &Choice,
    mut notes: Vec<String>,
) -> Result<Imported, ImportError> {
    let cases = chosen(cases, choice)?;
    let mut kinds: BTreeMap<String, v1::MetricKind> = BTreeMap::new();
    let ids = ids(&cases);
    let grader_errors = cases.iter().filter(|case| case.failure_reason != REASON_ERROR);
    let grader_errors = grader_errors.filter(|case| judged(case) == Outcome::Error).count();
    if grader_errors > 0 {
        notes.push(format!(
            "{grader_errors} that promptfoo counts as failures are errors: their grader broke"
        ));
    }
    let trials: Vec<Trial> =
        cases.iter().zip(ids).map(|(case, id)| trial(case, id, &mut kinds)).collect();
    let metric =
        |(name, kind): (String, v1::MetricKind)| v1::EvalMetric { name, kind: kind.into() };
    Ok(Imported {
        format: Format::Promptfoo,
        tool,
        metrics: kinds.into_iter().map(metric).collect(),
        contents: contents(&trials),
        results: results(trials),
        notes,
    })
}

/// The cases of one provider and one prompt: a report is about one bundle.
fn chosen(cases: Vec<Case>, choice: &Choice) -> Result<Vec<Case>, ImportError> {
    let cases: Vec<Case> = match &choice.provider {
        Some(wanted) => cases.into_iter().filter(|case| column(case) == *wanted).collect(),
        None => cases,
    };
    let columns: BTreeSet<String> = cases.iter().map(column).collect();
    let listed = || columns.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
    match columns.len() {
        0 => Err(ImportError::Choose("the file holds no result of that provider".to_owned())),
        1 => Ok(cases),
        _ => Err(ImportError::Choose(format!(
            "the file holds results of several providers or prompts: {}; choose one with --provider",
            listed()
        ))),
    }
}

/// The provider, and which prompt where it is not the first.
fn column(case: &Case) -> String {
    let provider = case.provider.as_ref();
    let label = provider.and_then(|it| it.label.as_deref()).filter(|label| !label.is_empty());
    let name = label.or_else(|| provider.map(|it| it.id.as_str())).unwrap_or("provider");
    if case.prompt_idx == 0 { name.to_owned() } else { format!("{name}#{}", case.prompt_idx) }
}

/// What names each case; repeats of one test have one name.
fn ids(cases: &[Case]) -> Vec<String> {
    let index = |case: &Case| format!("{}", case.test_idx);
    let named: Vec<String> =
        cases.iter().map(|case| name(case).unwrap_or_else(|| index(case))).collect();
    let mut tests: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (case, id) in cases.iter().zip(&named) {
        tests.entry(id).or_default().insert(case.test_idx);
    }
    let is_shared = |id: &str| tests.get(id).is_some_and(|tests| tests.len() > 1);
    let own = |(case, id): (&Case, &String)| {
        if is_shared(id) { format!("{id}#{}", index(case)) } else { id.clone() }
    };
    cases.iter().zip(&named).map(own).collect()
}

fn name(case: &Case) -> Option<String> {
    let places = [
        case.metadata.get("example_id"),
        case.metadata.get("id"),
        case.test_case.pointer("/metadata/example_id"),
        case.test_case.pointer("/metadata/id"),
        case.vars.get("example_id"),
        case.vars.get("id"),
        case.test_case.get("description"),
    ];
    places.into_iter().flatten().find_map(text)
}

fn category(case: &Case) -> String {
    let places = ["category", "task_kind"].into_iter().flat_map(|key| {
        let test = case.test_case.get("metadata").and_then(|it| it.get(key));
        [case.metadata.get(key), test, case.vars.get(key)]
    });
    places.flatten().find_map(text).unwrap_or_default()
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) if !text.is_empty() => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn trial(case: &Case, id: String, kinds: &mut BTreeMap<String, v1::MetricKind>) -> Trial {
    let tokens = case.token_usage.as_ref();
    let mut scores = Vec::new();
    for component in components(case) {
        let Some(assertion) = &component.assertion else { continue };
        let metric = assertion.metric.clone().unwrap_or_else(|| assertion.r#type.clone());
        kinds.entry(metric.clone()).or_insert_with(|| kind(&assertion.r#type));
        if !is_grader_error(component.metadata.as_ref()) {
            scores.push(Score { metric, passed: Some(component.pass), score: component.score });
        }
    }
    Trial {
        category: category(case),
        scores,
        message: case.error.clone().unwrap_or_default(),
        input_tokens: tokens.map_or(0, |it| it.prompt),
        output_tokens: tokens.map_or(0, |it| it.completion),
        cost: case.cost.unwrap_or(0.0),
        latency_ms: case.latency_ms.unwrap_or(0.0),
        content: content(&[&case.vars, case.test_case.get("assert").unwrap_or(&Json::Null)]),
        ..Trial::new(id, judged(case))
    }
}

fn components(case: &Case) -> impl Iterator<Item = &Component> {
    case.grading_result.iter().flat_map(|it| it.component_results.iter().flatten())
}

/// promptfoo counts a grader that broke as a failure; we do not.
fn judged(case: &Case) -> Outcome {
    if case.success {
        return Outcome::Passed;
    }
    if case.failure_reason == REASON_ERROR {
        return Outcome::Error;
    }
    let of = |component: &Component| match component.pass {
        true => Outcome::Passed,
        false if is_grader_error(component.metadata.as_ref()) => Outcome::Error,
        false => Outcome::Failed,
    };
    let whole = case.grading_result.as_ref().and_then(|it| it.metadata.as_ref());
    match outcome(components(case).map(of)) {
        Some(Outcome::Error) => Outcome::Error,
        _ if is_grader_error(whole) => Outcome::Error,
        // Also where every part passed: then it is the score as a whole that was too low.
        _ => Outcome::Failed,
    }
}

fn is_grader_error(metadata: Option<&Json>) -> bool {
    metadata.and_then(|it| it.get("graderError")).and_then(Json::as_bool).unwrap_or(false)
}

fn kind(assertion: &str) -> v1::MetricKind {
    let plain = assertion.strip_prefix("not-").unwrap_or(assertion);
    match plain {
        "human" => v1::MetricKind::Human,
        judge if JUDGES.contains(&judge) => v1::MetricKind::Judge,
        _ => v1::MetricKind::Structured,
    }
}
