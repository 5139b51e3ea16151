//! What this process really executed, one JSON line a step, written by itself: whoever checks the cluster need not ask it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use pinrail_client::worker::{StepContext, StepError, StepResult};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Appends to one file; several processes may share it.
#[derive(Debug)]
pub(crate) struct StepLog {
    file: Option<Mutex<File>>,
    bundle: String,
    code: String,
}

#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    step: &'a str,
    number: u32,
    attempt: u32,
    /// The bundle that this process was started for.
    bundle: &'a str,
    /// What it was built from as it was told, or the digest of its own program file.
    code: &'a str,
    pid: u32,
    /// Milliseconds since 1970.
    at_ms: u64,
}

impl StepLog {
    pub(crate) fn open(
        path: Option<&Path>,
        bundle: &str,
        code: Option<&str>,
    ) -> anyhow::Result<StepLog> {
        let code = match code {
            Some(code) => code.to_owned(),
            None => own_digest()?,
        };
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("log {}", path.display()))
        };
        let file = path.map(open).transpose()?.map(Mutex::new);
        Ok(StepLog { file, bundle: bundle.to_owned(), code })
    }

    /// Says that a step begins here. In one write, so that lines of several processes do not mix.
    pub(crate) fn begins(&self, ctx: &StepContext) -> StepResult<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(&Line {
            run: ctx.run_id(),
            step: ctx.step_name(),
            number: ctx.step(),
            attempt: ctx.attempt(),
            bundle: &self.bundle,
            code: &self.code,
            pid: std::process::id(),
            at_ms: now_ms(),
        })?;
        line.push(b'\n');
        let mut file = file.lock().map_err(|_| StepError::retry("the log is broken"))?;
        file.write_all(&line)?;
        Ok(())
    }
}

fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a log line says when it was written")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn own_digest() -> anyhow::Result<String> {
    let program = std::env::current_exe().context("own program file")?;
    let mut file = File::open(program).context("own program file")?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).context("own program file")?;
    Ok(format!("sha256:{}", hex::encode(hash.finalize())))
}
