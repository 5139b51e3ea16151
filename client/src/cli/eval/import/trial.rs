//! One try at one example, and how the tries of an example become its result.

use std::collections::BTreeMap;

use pinrail_proto::{limits, v1};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use v1::EvalOutcome as Outcome;

/// How one try went, as a file says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trial {
    pub(super) example_id: String,
    pub(super) category: String,
    pub(super) outcome: Outcome,
    pub(super) scores: Vec<Score>,
    pub(super) message: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// In whole units of the currency.
    pub(super) cost: f64,
    pub(super) latency_ms: f64,
    /// SHA-256 of what the file holds of the example itself; empty: it holds nothing of it.
    pub(super) content: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Score {
    pub(super) metric: String,
    pub(super) passed: Option<bool>,
    pub(super) score: Option<f64>,
}

impl Trial {
    pub(super) fn new(example_id: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            example_id: example_id.into(),
            category: String::new(),
            outcome,
            scores: Vec::new(),
            message: String::new(),
            input_tokens: 0,
            output_tokens: 0,
            cost: 0.0,
            latency_ms: 0.0,
            content: String::new(),
        }
    }
}

/// A digest of what a file holds of an example itself, the same in whatever order its keys come.
pub(super) fn content(parts: &[&Json]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let mut text = String::new();
        write(part, &mut text);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}

/// JSON with sorted keys and without blanks.
fn write(json: &Json, out: &mut String) {
    match json {
        Json::Object(map) => {
            let sorted: BTreeMap<&String, &Json> = map.iter().collect();
            for (key, value) in sorted {
                out.push_str(&format!("{key:?}:"));
                write(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Json::Array(items) => {
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            out.push_str(&json.to_string());
        }
    }
}

/// What parts of a judgement come to: one that really failed decides, else one that broke.
pub(super) fn outcome(parts: impl Iterator<Item = Outcome>) -> Option<Outcome> {
    parts.fold(None, |all, part| match (all, part) {
        (Some(Outcome::Failed), _) | (_, Outcome::Failed) => Some(Outcome::Failed),
        (Some(Outcome::Error), _) | (_, Outcome::Error) => Some(Outcome::Error),
        _ => Some(part),
    })
}

/// The content of each example, where the file holds something of it.
pub(super) fn contents(trials: &[Trial]) -> BTreeMap<String, String> {
    let known = trials.iter().filter(|trial| !trial.content.is_empty());
    known.map(|trial| (trial.example_id.clone(), trial.content.clone())).collect()
}

/// One result for each example, in the order of their ids: it passed when more than half of the tries did that were
/// judged at all.
pub(super) fn results(trials: Vec<Trial>) -> Vec<v1::EvalResult> {
    let mut examples: BTreeMap<String, Vec<Trial>> = BTreeMap::new();
    for trial in trials {
        examples.entry(trial.example_id.clone()).or_default().push(trial);
    }
    examples.into_iter().map(|(id, trials)| result(id, &trials)).collect()
}

fn result(example_id: String, trials: &[Trial]) -> v1::EvalResult {
    let count = |outcome| trials.iter().filter(|trial| trial.outcome == outcome).count();
    let (passed, failed) = (count(Outcome::Passed), count(Outcome::Failed));
    let outcome = match (passed + failed, passed) {
        (0, _) => Outcome::Error,
        (judged, passed) if passed * 2 > judged => Outcome::Passed,
        _ => Outcome::Failed,
    };
    let said = trials.iter().find(|it| it.outcome != Outcome::Passed && !it.message.is_empty());
    let category = trials.iter().map(|it| &it.category).find(|it| !it.is_empty());
    v1::EvalResult {
        example_id,
        category: category.cloned().unwrap_or_default(),
        outcome: outcome.into(),
        scores: scores(trials),
        message: said.map_or_else(String::new, |it| cut(&it.message)),
        input_tokens: trials.iter().map(|it| it.input_tokens).sum(),
        output_tokens: trials.iter().map(|it| it.output_tokens).sum(),
        cost_micros: whole(trials.iter().map(|it| it.cost).sum::<f64>() * 1e6),
        latency_ms: whole(trials.iter().map(|it| it.latency_ms).fold(0.0, f64::max)),
        trials: u32::try_from(passed + failed).unwrap_or(u32::MAX),
        trials_passed: u32::try_from(passed).unwrap_or(u32::MAX),
    }
}

/// Each metric once: passed when more than half did, the score their mean.
fn scores(trials: &[Trial]) -> Vec<v1::EvalScore> {
    let mut metrics: BTreeMap<&str, Vec<&Score>> = BTreeMap::new();
    for score in trials.iter().flat_map(|trial| &trial.scores) {
        metrics.entry(&score.metric).or_default().push(score);
    }
    let score = |(metric, scores): (&str, Vec<&Score>)| {
        let judged: Vec<bool> = scores.iter().filter_map(|it| it.passed).collect();
        let values: Vec<f64> = scores.iter().filter_map(|it| it.score).collect();
        let passed = judged.iter().filter(|passed| **passed).count();
        v1::EvalScore {
            metric: metric.to_owned(),
            passed: (!judged.is_empty()).then_some(passed * 2 > judged.len()),
            score_permille: (!values.is_empty())
                .then(|| permille(values.iter().sum::<f64>() / values.len() as f64)),
        }
    };
    metrics.into_iter().map(score).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range before")]
fn permille(score: f64) -> i32 {
    (score * 1_000.0).round().clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a negative number becomes 0, one that is too large the largest"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

fn cut(message: &str) -> String {
    let mut end = message.len().min(limits::EVAL_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}
