//! The command line, used as a person would.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(15);

/// A terminal where `pinrail` is installed and knows the cluster.
#[derive(Debug, Clone)]
pub struct Console {
    pub pinrail: PathBuf,
    /// Comma-separated.
    pub endpoints: String,
}

impl Console {
    /// Runs one command, and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said, or hangs.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        let child = Command::new(&self.pinrail)
            .args(args)
            .args(["--endpoint", &self.endpoints])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = timeout(COMMAND, child.wait_with_output())
            .await
            .with_context(|| format!("pinrail {} hangs", args.join(" ")))??;
        if !output.status.success() {
            bail!(
                "pinrail {} failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
