//! Logs of Inspect AI: `.json` (version 2) and the zipped `.eval`.
//!
//! A sample's id is its example's; its epochs are tries. A sample passed when the scorer that decides says `C`, true, or
//! at least 0.5 (another value with `--pass SCORER>=VALUE`): the log's headline scorer, else its first. `category` or
//! `task_kind` in the sample's metadata names its category.

use std::collections::BTreeMap;

use pinrail_proto::v1;
use serde::Deserialize;
use serde_json::Value as Json;
use v1::EvalOutcome as Outcome;

use super::archive::Archive;
use super::trial::{Score, Trial, content, contents, results};
use super::{Choice, Format, ImportError, Imported, add_up, parse};

/// The version of logs that is read.
const VERSION: u64 = 2;
/// A value from which on a sample passed.
const PASS_AT: f64 = 0.5;
/// What a mean may be off by for the order in which it was summed up.
const ROUNDING: f64 = 1e-6;

/// A log, or an archive's header, which lacks the samples.
#[derive(Debug, Deserialize)]
struct Log {
    version: u64,
    status: String,
    #[serde(default)]
    invalidated: bool,
    eval: Spec,
    #[serde(default)]
    results: Option<Results>,
    #[serde(default)]
    error: Option<Json>,
    #[serde(default)]
    samples: Option<Vec<Sample>>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    task: String,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    packages: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    epochs_reducer: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Results {
    #[serde(default)]
    total_samples: Option<u64>,
    #[serde(default)]
    completed_samples: Option<u64>,
    #[serde(default)]
    scores: Vec<Summary>,
    #[serde(default)]
    headline: Option<Headline>,
}

#[derive(Debug, Deserialize)]
struct Headline {
    scorer: String,
}

#[derive(Debug, Deserialize)]
struct Summary {
    scorer: String,
    #[serde(default)]
    metrics: BTreeMap<String, Metric>,
}

#[derive(Debug, Deserialize)]
struct Metric {
    #[serde(default)]
    value: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    id: Json,
    #[serde(default)]
    scores: Option<BTreeMap<String, Scored>>,
    #[serde(default)]
    metadata: Json,
    #[serde(default)]
    input: Json,
    #[serde(default)]
    target: Json,
    #[serde(default)]
    choices: Json,
    #[serde(default)]
    error: Option<SampleError>,
    #[serde(default)]
    invalidation: Option<Json>,
    #[serde(default)]
    model_usage: BTreeMap<String, Usage>,
    #[serde(default)]
    total_time: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct SampleError {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Scored {
    value: Json,
    #[serde(default)]
    explanation: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    total_cost: Option<f64>,
}

pub(super) fn json(file: Json, choice: &Choice) -> Result<Imported, ImportError> {
    let error = |error| ImportError::Json { what: "the log of Inspect AI".to_owned(), error };
    let mut log: Log = serde_json::from_value(file).map_err(error)?;
    let samples = log.samples.take().unwrap_or_default();
    imported(&log, &samples, choice)
}

pub(super) fn archive(data: &[u8], choice: &Choice) -> Result<Imported, ImportError> {
    let mut archive = Archive::open(data)?;
    let names = archive.names()?;
    if !names.iter().any(|name| name == "header.json") {
        let why = if names.iter().any(|name| name.starts_with("_journal/")) {
            "the log has no header: the evaluation was not finished"
        } else {
            "it is a zip archive, and none of Inspect AI"
        };
        return Err(ImportError::Unfinished(why.to_owned()));
    }
    let log: Log = parse("header.json", &archive.read("header.json")?)?;
    let mut samples = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("samples/") && name.ends_with(".json"))
    {
        samples.push(parse::<Sample>(name, &archive.read(name)?)?);
    }
    imported(&log, &samples, choice)
}

fn imported(log: &Log, samples: &[Sample], choice: &Choice) -> Result<Imported, ImportError> {
    check(log, samples)?;
    let scorer = decider(log, samples, choice)?;
    check_means(log, samples)?;
    let pass_at = choice.pass.as_ref().map_or(PASS_AT, |(_, value)| *value);
    let trials: Vec<Trial> = samples.iter().map(|sample| trial(sample, &scorer, pass_at)).collect();
    let names: std::collections::BTreeSet<String> = samples
        .iter()
        .flat_map(|it| it.scores.iter().flatten())
        .map(|(name, _)| name.clone())
        .collect();
    let metric = |name: String| Some(v1::EvalMetric { kind: kind(&name)?.into(), name });
    let version = log.eval.packages.get("inspect_ai").map_or("", String::as_str);
    Ok(Imported {
        format: Format::Inspect,
        tool: format!("inspect_ai {version}, task {}", log.eval.task),
        metrics: names.into_iter().filter_map(metric).collect(),
        contents: contents(&trials),
        results: results(trials),
        notes: vec![format!("a sample passed when scorer {scorer:?} gave at least {pass_at}")],
    })
}

/// A log counts when its evaluation came to its end and holds what it says that it holds.
fn check(log: &Log, samples: &[Sample]) -> Result<(), ImportError> {
    if log.version != VERSION {
        let message =
            format!("a log of Inspect AI in version {}; version {VERSION} is read", log.version);
        return Err(ImportError::Unknown(message));
    }
    if log.status != "success" {
        let why = log.error.as_ref().and_then(|it| it.get("message")).and_then(Json::as_str);
        let message = format!(
            "the evaluation was not finished: its status is {:?}{}",
            log.status,
            why.map_or_else(String::new, |why| format!(" ({why})"))
        );
        return Err(ImportError::Unfinished(message));
    }
    if log.invalidated {
        return Err(ImportError::Unfinished("somebody declared the log invalid".to_owned()));
    }
    let results = log.results.as_ref().ok_or_else(|| {
        ImportError::Broken("a log with the status \"success\" has no results".to_owned())
    })?;
    add_up("samples", results.total_samples, samples.len())?;
    let completed = samples.iter().filter(|sample| sample.error.is_none()).count();
    add_up("completed samples", results.completed_samples, completed)
}

/// The scorer that says whether a sample passed.
fn decider(log: &Log, samples: &[Sample], choice: &Choice) -> Result<String, ImportError> {
    let summaries = log.results.iter().flat_map(|results| &results.scores);
    let known: Vec<&str> = summaries.map(|it| it.scorer.as_str()).collect();
    if let Some((wanted, _)) = &choice.pass {
        let in_samples =
            |sample: &Sample| sample.scores.iter().flatten().any(|(name, _)| name == wanted);
        if known.contains(&wanted.as_str()) || samples.iter().any(in_samples) {
            return Ok(wanted.clone());
        }
        let message = format!("the log has no scorer {wanted:?}; it has {}", known.join(", "));
        return Err(ImportError::Choose(message));
    }
    let headline = log.results.as_ref().and_then(|results| results.headline.as_ref());
    let first = headline.map(|it| it.scorer.as_str()).or_else(|| known.first().copied());
    first.map(str::to_owned).ok_or_else(|| {
        ImportError::Unfinished("the log has no scores: nothing says what passed".to_owned())
    })
}

/// The means of the summary, where they are plain means over epochs and samples, must be those of the samples.
fn check_means(log: &Log, samples: &[Sample]) -> Result<(), ImportError> {
    let reducers = log.eval.config.epochs_reducer.as_deref().unwrap_or_default();
    if !reducers.is_empty() && reducers != ["mean"] {
        return Ok(());
    }
    for summary in log.results.iter().flat_map(|results| &results.scores) {
        let says = ["accuracy", "mean"].iter().find_map(|name| summary.metrics.get(*name)?.value);
        let (Some(says), Some(is)) = (says, mean(&summary.scorer, samples)) else { continue };
        if (says - is).abs() > ROUNDING {
            return Err(ImportError::Count {
                what: format!("as the mean of scorer {:?}", summary.scorer),
                says: says.to_string(),
                is: is.to_string(),
            });
        }
    }
    Ok(())
}

/// The mean over samples of the means over their epochs; `None` where a sample has no plain value.
fn mean(scorer: &str, samples: &[Sample]) -> Option<f64> {
    let mut examples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.error.is_none()) {
        let value = plain(&sample.scores.as_ref()?.get(scorer)?.value)?;
        examples.entry(id(sample)).or_default().push(value);
    }
    let of = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let means: Vec<f64> = examples.values().map(|values| of(values)).collect();
    (!means.is_empty()).then(|| of(&means))
}

fn trial(sample: &Sample, scorer: &str, pass_at: f64) -> Trial {
    let decided = sample.scores.as_ref().and_then(|scores| scores.get(scorer));
    let value = decided.and_then(|it| plain(&it.value));
    let (outcome, message) = match (&sample.error, &sample.invalidation, value) {
        (Some(error), _, _) => (Outcome::Error, error.message.clone()),
        (None, Some(_), _) => (Outcome::Error, "the sample was declared invalid".to_owned()),
        (None, None, None) => (Outcome::Error, format!("scorer {scorer} gave no value")),
        (None, None, Some(value)) if value >= pass_at => (Outcome::Passed, String::new()),
        (None, None, Some(_)) => {
            let said = decided.and_then(|it| it.explanation.clone());
            (Outcome::Failed, said.unwrap_or_default())
        }
    };
    let score = |(metric, scored): (&String, &Scored)| {
        let score = plain(&scored.value);
        let passed = score.map(|value| value >= if metric == scorer { pass_at } else { PASS_AT });
        Score { metric: metric.clone(), passed, score }
    };
    let places = ["category", "task_kind"].map(|key| sample.metadata.get(key));
    let category = places.into_iter().flatten().find_map(Json::as_str);
    Trial {
        category: category.unwrap_or_default().to_owned(),
        scores: sample.scores.iter().flatten().map(score).filter(|it| it.score.is_some()).collect(),
        message,
        input_tokens: sample.model_usage.values().map(|it| it.input_tokens).sum(),
        output_tokens: sample.model_usage.values().map(|it| it.output_tokens).sum(),
        cost: sample.model_usage.values().filter_map(|it| it.total_cost).sum(),
        latency_ms: sample.total_time.unwrap_or(0.0) * 1_000.0,
        content: content(&[&sample.input, &sample.target, &sample.choices]),
        ..Trial::new(id(sample), outcome)
    }
}

fn id(sample: &Sample) -> String {
    match &sample.id {
        Json::String(id) => id.clone(),
        other => other.to_string(),
    }
}

/// A score as a number: `C`orrect, `P`artial, `I`ncorrect and `N`o answer as Inspect AI counts them. Others are none.
fn plain(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::Bool(is) => Some(f64::from(u8::from(*is))),
        Json::String(text) => match text.as_str() {
            "C" => Some(1.0),
            "P" => Some(0.5),
            "I" | "N" => Some(0.0),
            other => other.parse().ok(),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Of the scorers that come with Inspect AI; of others the set says it.
fn kind(scorer: &str) -> Option<v1::MetricKind> {
    match scorer {
        "includes" | "match" | "pattern" | "exact" | "f1" | "answer" | "choice" | "math" => {
            Some(v1::MetricKind::Structured)
        }
        "model_graded_qa" | "model_graded_fact" => Some(v1::MetricKind::Judge),
        _ => None,
    }
}
