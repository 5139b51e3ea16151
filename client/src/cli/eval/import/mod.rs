//! Result files of evaluation tools, as those tools write them, brought to one form. What a file is follows from its
//! shape, never from its name.
//!
//! A file is taken whole or not at all: what does not parse, does not add up with the file's own summary, or was not
//! finished by its tool is refused. An error of a grader or of what it stands on is an error and never a failure.
//! Nothing here talks to a cluster.

mod archive;
mod deepeval;
mod inspect;
mod junit;
mod plain;
mod promptfoo;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;

use pinrail_proto::v1;
use serde_json::Value as Json;

pub(super) use plain::MetricKind;

/// A result file in one form.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Imported {
    /// The word of `--format`.
    pub(super) format: Format,
    /// The tool and its version, as far as the file says so.
    pub(super) tool: String,
    pub(super) metrics: Vec<v1::EvalMetric>,
    pub(super) results: Vec<v1::EvalResult>,
    /// SHA-256 of what the file holds of the examples themselves, by their ids.
    pub(super) contents: BTreeMap<String, String>,
    /// What a person should know of how the file was read.
    pub(super) notes: Vec<String>,
}

/// The shapes that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// By the shape of the file
    Auto,
    /// `promptfoo eval -o results.json` or `.jsonl`
    Promptfoo,
    /// A log of Inspect AI: `.eval` or `.json`
    Inspect,
    /// A test run of DeepEval
    Deepeval,
    /// JUnit XML, as pytest and others write it
    Junit,
    /// JSON of our own, see docs/EVALS.md
    Pinrail,
}

impl Format {
    pub(super) fn word(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Promptfoo => "promptfoo",
            Format::Inspect => "inspect",
            Format::Deepeval => "deepeval",
            Format::Junit => "junit",
            Format::Pinrail => "pinrail",
        }
    }
}

/// What the caller says of a file that holds more than one thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// Of a file with several providers.
    pub(super) provider: Option<String>,
    /// The scorer that decides whether a sample passed, and from which value on.
    pub(super) pass: Option<(String, f64)>,
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error("the file is of no known shape: {0}")]
    Unknown(String),
    #[error("the file is truncated or altered: {what}: {error}")]
    Json { what: String, error: serde_json::Error },
    #[error("the file is truncated or altered: {0}")]
    Broken(String),
    #[error("the file does not add up: it says {says} {what}, and holds {is}")]
    Count { what: String, says: String, is: String },
    #[error("{0}")]
    Unfinished(String),
    #[error("{0}")]
    Choose(String),
}

/// Reads a file of any known shape.
///
/// # Errors
/// See [`ImportError`]; nothing of the file is used then.
pub(super) fn import(
    data: &[u8],
    format: Format,
    choice: &Choice,
) -> Result<Imported, ImportError> {
    let text = data.trim_ascii_start();
    let is = match format {
        Format::Auto => detect(text)?,
        asked => asked,
    };
    match is {
        Format::Inspect if text.starts_with(archive::MAGIC) => inspect::archive(text, choice),
        Format::Inspect => inspect::json(parse("the log", text)?, choice),
        Format::Promptfoo if is_lines(text) => promptfoo::lines(text, choice),
        Format::Promptfoo => promptfoo::json(parse("the results", text)?, choice),
        Format::Deepeval => deepeval::json(parse("the test run", text)?),
        Format::Junit => junit::xml(text),
        Format::Pinrail | Format::Auto => plain::json(parse("the report", text)?),
    }
}

/// What a file is, by its first bytes and, for JSON, by its keys.
fn detect(text: &[u8]) -> Result<Format, ImportError> {
    if text.starts_with(archive::MAGIC) {
        return Ok(Format::Inspect);
    }
    let first = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match first.first() {
        Some(b'<') => return Ok(Format::Junit),
        Some(b'{') => {}
        Some(_) => {
            let message = "it is no JSON object, no XML and no zip archive";
            return Err(ImportError::Unknown(message.to_owned()));
        }
        None => return Err(ImportError::Unknown("it is empty".to_owned())),
    }
    if is_lines(text) {
        return Ok(Format::Promptfoo);
    }
    let json: Json = parse("JSON", text)?;
    let has = |key: &str| json.get(key).is_some();
    if json.pointer("/results/version").is_some() && json.pointer("/results/stats").is_some() {
        return Ok(Format::Promptfoo);
    }
    if has("eval") && has("status") && has("version") {
        return Ok(Format::Inspect);
    }
    if (has("testCases") && has("metricsScores")) || has("testRunData") || has("test_results") {
        return Ok(Format::Deepeval);
    }
    if json.get("results").is_some_and(Json::is_array) {
        return Ok(Format::Pinrail);
    }
    let keys: Vec<&str> =
        json.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).take(8).collect();
    let message = format!(
        "its keys are {}; known are the files of promptfoo, Inspect AI, DeepEval, JUnit and our own JSON",
        keys.join(", ")
    );
    Err(ImportError::Unknown(message))
}

/// Whether it is one JSON object a line, as `promptfoo -o results.jsonl` writes it.
fn is_lines(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first: Option<Json> = serde_json::from_slice(line).ok();
    first.is_some_and(|line| line.get("testIdx").is_some() && line.get("promptIdx").is_some())
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, ImportError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    serde_json::from_slice(text).map_err(|error| ImportError::Json { what: what.to_owned(), error })
}

/// Holds a count of the file's own summary against what it holds.
fn add_up(what: &str, says: Option<u64>, is: usize) -> Result<(), ImportError> {
    match says {
        Some(says) if says != is as u64 => Err(ImportError::Count {
            what: what.to_owned(),
            says: says.to_string(),
            is: is.to_string(),
        }),
        Some(_) | None => Ok(()),
    }
}
