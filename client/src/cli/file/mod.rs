//! The files that users write: bundle.toml and agent.toml, read into the messages of the API.
//!
//! `tree` knows TOML and lines, `reader` keys and ranges, `value` durations, sizes and decimals. This folder knows no
//! server: what a file says is complete before anything is sent. Every error names file, line and key.

use std::path::Path;

use pinrail_proto::reason::{self, Reason};

pub mod agent;
pub mod bundle;
mod later;
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
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/FILES.md");

    /// The first block of TOML below a heading of docs/FILES.md.
    fn block(heading: &str) -> &'static str {
        let section = PAGE.split(heading).nth(1).expect("the heading is there");
        let start = section.find("```toml\n").expect("a block") + "```toml\n".len();
        let end = section[start..].find("```").expect("its end");
        &section[start..start + end]
    }

    #[test]
    fn the_documented_policy_is_the_default_policy() {
        let policy = agent::parse("FILES.md", block("## agent.toml")).expect("it is valid");
        assert_eq!(policy, agent::default_policy());
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
