//! The files that a team would keep: policy, bundles, an eval set, and what a grader found.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::chapter::{Chapter, EXAMPLES};
use super::worker::{TOOL, arguments};

/// Writes agent.toml.
pub(super) fn agent(folder: &Path, chapter: &Chapter) -> Result<PathBuf> {
    let path = folder.join("agent.toml");
    fs::write(&path, chapter.policy.concat())?;
    Ok(path)
}

/// Writes the file of a bundle.
pub(super) fn bundle(folder: &Path, bundle_id: &str) -> Result<PathBuf> {
    let path = folder.join(format!("bundle-{bundle_id}.toml"));
    let schema = folder.join("search.input.json");
    fs::write(&schema, arguments(false).to_string())?;
    let text = format!(
        "message = \"{bundle_id}\"\n\n[code]\ngit_commit = \"{bundle_id}\"\n\n[model]\nprovider = \"demo\"\n\
         name = \"sleeper\"\nsnapshot = \"{bundle_id}\"\n\n[[tools]]\nname = \"{TOOL}\"\nversion = \"1\"\n\
         input_schema = \"search.input.json\"\nside_effects = \"read_only\"\n"
    );
    fs::write(&path, text)?;
    Ok(path)
}

/// Writes the eval set.
pub(super) fn eval_set(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("core.json");
    let examples = (0..EXAMPLES).map(|number| {
        json!({
            "id": format!("example-{number}"),
            "category": "refund",
            "input": { "question": format!("question {number}") },
        })
    });
    let set = json!({
        "description": "what customers ask",
        "metrics": { "exact": "structured", "tone": "judge" },
        "examples": examples.collect::<Vec<_>>(),
    });
    fs::write(&path, serde_json::to_vec(&set)?)?;
    Ok(path)
}

/// Writes a result file in which so many of the examples passed.
pub(super) fn results(folder: &Path, bundle_id: &str, passed: usize) -> Result<PathBuf> {
    let path = folder.join(format!("results-{bundle_id}.json"));
    let results = (0..EXAMPLES).map(|number| {
        let right = number < passed;
        json!({
            "id": format!("example-{number}"),
            "passed": right,
            "scores": { "exact": right, "tone": 0.8 },
        })
    });
    let file = json!({
        "tool": "demo",
        "metrics": { "exact": "structured", "tone": "judge" },
        "results": results.collect::<Vec<_>>(),
        "summary": { "passed": passed, "failed": EXAMPLES - passed, "errors": 0 },
    });
    fs::write(&path, serde_json::to_vec(&file)?)?;
    Ok(path)
}
