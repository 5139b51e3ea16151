//! The worker's own account, one JSON object a line, in the kernel's hands before the next thing happens: a SIGKILL
//! loses nothing of it.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use pinrail_proto::v1;

use super::Config;
use crate::clock;
use crate::history::{WorkerEvent, WorkerLine};

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    worker_id: String,
    code: String,
    agent: String,
    file: Mutex<File>,
}

impl Journal {
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(config: &Config) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&config.journal)
            .with_context(|| format!("open {}", config.journal.display()))?;
        Ok(Self {
            worker_id: config.worker_id.clone(),
            code: config.code.clone(),
            agent: config.agent.clone(),
            file: Mutex::new(file),
        })
    }

    /// Writes a line about an assignment.
    ///
    /// # Errors
    /// When it cannot be written: the step must not be executed then.
    pub fn note(&self, of: &v1::Assignment, event: WorkerEvent) -> Result<()> {
        let line = WorkerLine {
            at_us: clock::now_us(),
            worker_id: self.worker_id.clone(),
            code: self.code.clone(),
            agent: self.agent.clone(),
            run_id: of.run_id.clone(),
            step: of.step,
            attempt: of.attempt,
            token: of.token.map_or(0, |token| token.revision),
            event,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).context("write the worker's journal")
    }
}

/// All lines of all journals in a folder. A last line that was cut by a SIGKILL is left out.
///
/// # Errors
/// When a file cannot be read, or a line that is not the last one is no line of ours.
pub fn read_journals(folder: &Path) -> Result<Vec<WorkerLine>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let mut rest = text.as_str();
        while let Some((line, after)) = rest.split_once('\n') {
            let line = serde_json::from_str(line)
                .with_context(|| format!("{}: {line}", path.display()))?;
            lines.push(line);
            rest = after;
        }
    }
    lines.sort_by_key(|line: &WorkerLine| line.at_us);
    Ok(lines)
}
