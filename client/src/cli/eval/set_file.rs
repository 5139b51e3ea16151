//! The file of an eval set (`docs/EVALS.md`): TOML or JSON, or the examples of a result file.

use std::collections::BTreeMap;
use std::path::Path;

use pinrail_proto::{reason, v1};
use serde::Deserialize;
use serde_json::Value as Json;

use super::import::{Choice, Format, MetricKind, import};
use super::{read_file, refused};
use crate::cli::problem::{self, Problem};

/// What a file says of a set.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) description: String,
    pub(super) memory_revision: u64,
    pub(super) metrics: Vec<v1::EvalMetric>,
    pub(super) examples: Vec<v1::EvalExample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    description: String,
    #[serde(default)]
    memory_revision: u64,
    #[serde(default)]
    metrics: BTreeMap<String, MetricKind>,
    examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    id: String,
    #[serde(default)]
    category: String,
    input: Option<Json>,
    #[serde(default)]
    expect: Option<Expect>,
    #[serde(default)]
    content_digest: String,
    #[serde(default)]
    entry: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    exact: Option<Json>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    matches: String,
    /// A JSON Schema, or the path of one relative to the set's file.
    schema: Option<Json>,
}

/// Reads a set's file.
pub(super) fn load(path: &Path) -> Result<Content, Problem> {
    let data = read_file(path)?;
    let text = String::from_utf8(data).map_err(|error| invalid(path, &error.to_string()))?;
    let file: File = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| invalid(path, &error.to_string()))?
    } else {
        toml::from_str(&text).map_err(|error| invalid(path, &error.to_string()))?
    };
    let metric =
        |(name, kind): (String, MetricKind)| v1::EvalMetric { name, kind: kind.api().into() };
    let examples = file.examples.into_iter().map(|it| example(path, it));
    Ok(Content {
        description: file.description,
        memory_revision: file.memory_revision,
        metrics: file.metrics.into_iter().map(metric).collect(),
        examples: examples.collect::<Result<_, _>>()?,
    })
}

fn example(path: &Path, it: Example) -> Result<v1::EvalExample, Problem> {
    let expect = it.expect.map(|expect| expectation(path, &it.id, expect)).transpose()?;
    Ok(v1::EvalExample {
        id: it.id,
        category: it.category,
        input: it.input.as_ref().map(payload),
        expect,
        content_digest: it.content_digest,
        entry: it.entry,
        digest: String::new(),
    })
}

fn expectation(path: &Path, id: &str, it: Expect) -> Result<v1::EvalExpectation, Problem> {
    let schema = match it.schema {
        None => String::new(),
        Some(Json::String(file)) => {
            let beside = path.parent().unwrap_or(Path::new("")).join(&file);
            std::fs::read_to_string(&beside)
                .map_err(|error| invalid(path, &format!("schema of {id:?}, {file}: {error}")))?
        }
        Some(schema) => schema.to_string(),
    };
    Ok(v1::EvalExpectation {
        exact: it.exact.as_ref().map(payload),
        contains: it.contains,
        matches: it.matches,
        schema,
    })
}

fn payload(json: &Json) -> v1::Payload {
    let data = json.to_string().into_bytes().into();
    v1::Payload { content_type: "application/json".to_owned(), data }
}

/// The examples of a result file: their ids and categories, and digests of what the file holds of them. Their inputs
/// stay where the tool has them, so the cluster cannot start runs on them.
pub(super) fn from_results(path: &Path, choice: &Choice) -> Result<Content, Problem> {
    let data = read_file(path)?;
    let imported = import(&data, Format::Auto, choice).map_err(|error| refused(path, &error))?;
    let mut examples = Vec::with_capacity(imported.results.len());
    for result in imported.results {
        let content = imported.contents.get(&result.example_id).cloned();
        examples.push(v1::EvalExample {
            content_digest: content.ok_or_else(|| {
                let format = imported.format.word();
                invalid(path, &format!("files of {format} hold nothing of the examples themselves"))
            })?,
            id: result.example_id,
            category: result.category,
            ..v1::EvalExample::default()
        });
    }
    Ok(Content { metrics: imported.metrics, examples, ..Content::default() })
}

fn invalid(path: &Path, message: &str) -> Problem {
    let name = reason::INVALID_EVAL_SET.name;
    let message = format!("{}: {}", path.display(), message.trim_end());
    Problem::new(name, problem::exit_code(name), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Content, Problem> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("answer.json"), "{\"type\":\"object\"}").expect("a file");
        let path = folder.path().join("set");
        std::fs::write(&path, text).expect("a file");
        load(&path)
    }

    const PAGE: &str = include_str!("../../../../docs/EVALS.md");

    /// The first block of a language in docs/EVALS.md.
    fn block(language: &str) -> &'static str {
        let start = PAGE.find(&format!("```{language}\n")).expect("a block") + language.len() + 4;
        let end = PAGE[start..].find("```").expect("its end");
        &PAGE[start..start + end]
    }

    #[test]
    fn the_documented_set_is_read() {
        let content = load_text(block("toml")).expect("it is valid");
        assert_eq!(content.examples.len(), 3);
        assert_eq!(content.metrics.len(), 2);
        let first = &content.examples[0];
        assert_eq!((first.id.as_str(), first.category.as_str()), ("refund-1", "refund"));
        let expect = first.expect.clone().expect("it says what is expected");
        assert_eq!(expect.contains, ["refund"]);
        assert!(!expect.schema.is_empty() && !content.examples[2].content_digest.is_empty());
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let toml = "[metrics]\nexact = 'structured'\n[[examples]]\nid = 'a'\ninput = { q = 1 }\n";
        let json =
            r#"{"metrics": {"exact": "structured"}, "examples": [{"id": "a", "input": {"q": 1}}]}"#;
        assert_eq!(load_text(toml), load_text(json));
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_place() {
        for (text, says) in [
            ("[[examples]]\nid = 'a'\ninputs = 1\n", "inputs"),
            ("examples = 3", "examples"),
            ("{\"examples\": [", "EOF"),
            ("[metrics]\na = 'other'\n[[examples]]\nid='a'\n", "other"),
            (
                "[[examples]]\nid = 'a'\ninput = 1\nexpect = { schema = 'nowhere.json' }\n",
                "nowhere",
            ),
        ] {
            let problem = load_text(text).expect_err(text);
            assert_eq!(problem.reason, "INVALID_EVAL_SET");
            assert!(problem.message.contains(says), "{}", problem.message);
        }
    }
}
