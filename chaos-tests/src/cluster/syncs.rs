//! Syncs of a member's files that fail or take long: strace stands between the process and the kernel.
//!
//! The process is slowed down a little by being traced at all; what is measured meanwhile is measured of that.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use super::tool::demand;

/// How long strace may take to take hold of a process, and to let go of it.
const HOLD: Duration = Duration::from_secs(5);
/// A member under load syncs many times in this time.
const MET: Duration = Duration::from_secs(5);

/// What becomes of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// The kernel says that it failed. What is on the disk is unknown then.
    Fails,
    /// It takes 200 ms.
    TakesLong,
}

impl Sync {
    fn injection(self) -> &'static str {
        match self {
            Self::Fails => "inject=fdatasync,fsync:error=EIO",
            Self::TakesLong => "inject=fdatasync,fsync:delay_enter=200ms",
        }
    }

    /// What strace writes beside a call that it has changed.
    fn mark(self) -> &'static str {
        match self {
            Self::Fails => "(INJECTED)",
            Self::TakesLong => "(DELAYED)",
        }
    }
}

/// Ends with its owner: the process goes on as if nothing had been.
#[derive(Debug)]
pub(super) struct Tracer {
    child: Child,
    log: PathBuf,
    sync: Sync,
}

impl Tracer {
    /// Takes hold of a process, and waits until a sync of it has come to what is wanted.
    ///
    /// # Errors
    /// When strace is not there or may not trace, or no sync was met.
    pub(super) async fn attach(pid: u32, sync: Sync, folder: &Path) -> Result<Self> {
        demand("a fault of a sync", &[("strace", "strace")])?;
        let log = folder.join(format!("strace-{pid}.log"));
        let child = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", sync.injection(), "-o"])
            .arg(&log)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start strace")?;
        let tracer = Self { child, log, sync };
        let deadline = Instant::now() + HOLD + MET;
        while !std::fs::read_to_string(&tracer.log).unwrap_or_default().contains(sync.mark()) {
            if Instant::now() > deadline {
                bail!("process {pid} was not seen to sync under strace");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(tracer)
    }

    /// Lets go of the process.
    ///
    /// # Errors
    /// When strace does not end.
    pub(super) async fn detach(mut self) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = id {
            // It may have ended with the process that it traced.
            let _ = kill_process(pid, Signal::INT);
        }
        tokio::time::timeout(HOLD, self.child.wait())
            .await
            .with_context(|| format!("strace ({:?}) does not end", self.sync))??;
        Ok(())
    }
}
