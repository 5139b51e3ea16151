//! agent.toml: the policy of an agent, one file a section. An empty file is the default policy; what is read is complete.

use std::path::Path;

use pinrail_proto::{limits, policy, reason, v1};
use prost::Message as _;

use super::files::Files;
use super::reader::Reader;
use super::steps::{self, Whose};
use super::{FileError, tree};

mod canary;
mod drift;
mod drill;
mod evals;
mod gates;
mod hooks;
mod release;
mod runs;
mod shadow;
mod signals;
mod smoke;
mod switch;

/// Reads a policy from a file and the files beside it.
///
/// # Errors
/// See [`parse`]; and when a file cannot be read.
pub fn load(path: &Path) -> Result<v1::Policy, FileError> {
    let text = super::read(path, &reason::INVALID_POLICY)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&path.display().to_string(), &text, folder)
}

/// The policy that an empty file gives: every default of docs/FILES.md.
#[must_use]
pub fn default_policy() -> v1::Policy {
    policy::default()
}

/// Reads a policy from text; `file` names it in errors, paths in it are relative to `folder`.
///
/// # Errors
/// `INVALID_POLICY` with file, line and key for syntax errors, unknown keys, values out of their range, and values that
/// a later version will support; `LIMIT_EXCEEDED` for a policy or a file that is too large.
pub fn parse(file: &str, text: &str, folder: &Path) -> Result<v1::Policy, FileError> {
    let table = tree::parse(text).map_err(|error| FileError {
        reason: reason::INVALID_POLICY.name,
        place: format!("{file}:{}", error.line),
        message: error.message,
    })?;
    let mut top = Reader::new(file, &reason::INVALID_POLICY, table);
    let files = Files { folder, most: limits::POLICY_BYTES };
    let mut policy = v1::Policy {
        description: description(&mut top)?,
        labels: top.labels("labels")?,
        require_code: top.bool("require_code")?.unwrap_or(false),
        runs: Some(top.section("runs", runs::runs)?),
        steps: top.table("steps")?.map(|table| steps::read(table, Whose::Agent)).transpose()?,
        switch: Some(top.section("switch", switch::switch)?),
        rollback: Some(top.section("rollback", switch::rollback)?),
        memory: Some(top.section("memory", runs::memory)?),
        sessions: Some(top.section("sessions", runs::sessions)?),
        gates: Some(top.section("gates", |table| gates::read(table, &files))?),
        quarantine: Some(top.section("quarantine", release::quarantine)?),
        release: Some(top.section("release", release::release)?),
        environment: Some(top.section("environment", release::environment)?),
        signals: Some(top.section("signals", signals::read)?),
        drill: Some(top.section("drill", drill::read)?),
        drift: Some(top.section("drift", drift::read)?),
        hooks: hooks::read(&mut top)?,
    };
    top.finish()?;
    policy::fill(&mut policy);
    let size = policy.encoded_len();
    if size > limits::POLICY_BYTES {
        let message = format!("the policy has {size} bytes; at most {}", limits::POLICY_BYTES);
        return Err(FileError {
            reason: reason::LIMIT_EXCEEDED.name,
            place: file.to_owned(),
            message,
        });
    }
    Ok(policy)
}

fn description(top: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((text, line)) = top.text("description")? else { return Ok(String::new()) };
    if text.len() > limits::TEXT_BYTES {
        let rule = format!("description: {} bytes; at most {}", text.len(), limits::TEXT_BYTES);
        return Err(top.error(line, rule));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
