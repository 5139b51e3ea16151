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
