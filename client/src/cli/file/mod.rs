//! The files that users write: bundle.toml and agent.toml, read into the messages of the API.
//!
//! `tree` knows TOML and lines, `reader` keys and ranges, `value` durations, sizes and decimals. This folder knows no
//! server: what a file says is complete before anything is sent. Every error names file, line and key.

use std::path::Path;

use pinrail_proto::reason::{self, Reason};

pub mod agent;
pub mod bundle;
mod files;
pub(crate) mod profile;
mod reader;
mod steps;
mod tree;
pub(crate) mod value;

/// Largest file that is read: a manifest's limit, and prompts beside it.
const FILE_BYTES: u64 = 4 << 20;

/// Why a file is not usable. Its message begins with `file:line:`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct FileError {
    /// `INVALID_MANIFEST`, `INVALID_POLICY`, `MODEL_NOT_PINNED` or `LIMIT_EXCEEDED`.
    pub reason: &'static str,
    /// `file:line`, or only the file, or `--set`.
    pub place: String,
    /// The key and the rule.
    pub message: String,
}

/// Reads a file of text, at most 4 MiB.
fn read(path: &Path, why: &'static Reason) -> Result<String, FileError> {
    let error = |reason: &'static Reason, message: String| FileError {
        reason: reason.name,
        place: path.display().to_string(),
        message,
    };
    let size = std::fs::metadata(path).map_err(|cause| error(why, cause.to_string()))?.len();
    if size > FILE_BYTES {
        let message = format!("has {size} bytes; at most {FILE_BYTES} are read");
        return Err(error(&reason::LIMIT_EXCEEDED, message));
    }
    std::fs::read_to_string(path).map_err(|cause| error(why, cause.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../../docs/FILES.md");

    /// Blocks of TOML below a heading of docs/FILES.md.
    fn blocks(heading: &str) -> Vec<&'static str> {
        let section = PAGE.split(heading).nth(1).expect("the heading is there");
        let section = section.split("\n## ").next().expect("its text");
        let block = |start: &'static str| start.split("```").next();
        section.split("```toml\n").skip(1).filter_map(block).collect()
    }

    fn block(heading: &str) -> &'static str {
        blocks(heading).first().expect("a block")
    }

    #[test]
    fn the_documented_policy_is_the_default_policy() {
        let policy = agent::parse("FILES.md", block("## agent.toml"), Path::new(""));
        assert_eq!(policy.expect("it is valid"), agent::default_policy());
    }

    /// Dotted keys of all that is not a table.
    fn keys(path: &str, json: &serde_json::Value, into: &mut BTreeSet<String>) {
        match json.as_object() {
            Some(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    keys(&path, value, into);
                }
            }
            _ => drop(into.insert(path.to_owned())),
        }
    }

    #[test]
    fn the_page_holds_every_key_of_a_policy() {
        let (mut documented, mut known) = (BTreeSet::new(), BTreeSet::new());
        let table = tree::parse(block("## agent.toml")).expect("it is valid");
        keys("", &tree::Value::Table(table).json().expect("JSON"), &mut documented);
        keys("", &pinrail_proto::json::of(&agent::default_policy()), &mut known);
        // The API's names carry their units, and its signals have modes that nobody set.
        let units = ["_permille", "_bytes", "_bp", "_micros"];
        let known: BTreeSet<_> = known
            .iter()
            .filter(|key| !key.ends_with(".modes"))
            .map(|key| units.iter().find_map(|unit| key.strip_suffix(unit)).unwrap_or(key))
            .map(|key| key.replace(".modes.", "."))
            .collect();
        let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
            one.difference(other).cloned().collect()
        };
        assert_eq!(only(&documented, &known), ["rollback.sessions"]);
        assert_eq!(only(&known, &documented), ["hooks"]);
    }

    #[test]
    fn the_documented_cases_and_hooks_are_valid() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("smoke")).expect("a folder");
        std::fs::write(folder.path().join("smoke/answer.schema.json"), "{}").expect("a file");
        let text = blocks("## agent.toml")[1];
        let policy = agent::parse("FILES.md", text, folder.path()).expect("it is valid");
        let smoke = policy.gates.and_then(|gates| gates.smoke).expect("given");
        assert_eq!((smoke.cases.len(), policy.hooks.len()), (1, 1));
    }

    #[test]
    fn the_documented_bundle_is_valid() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("prompts/system.md", "Be brief."),
            ("tools/search.input.json", "{}"),
            ("tools/search.output.json", "{}"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let around = bundle::Surroundings { variable: &|_| Some("0123abc".to_owned()), set: &[] };
        let manifest = bundle::parse("FILES.md", block("## bundle.toml"), folder.path(), &around);
        assert_eq!(manifest.expect("it is valid").models.len(), 2);
    }
}
