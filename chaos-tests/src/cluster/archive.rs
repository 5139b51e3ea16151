//! What the members of a cluster applied, read from their files once they are stopped.

use std::path::Path;

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::{Cluster, Member};
use crate::history::{Logged, MemberLog};

impl Cluster {
    /// Kills all members and reads their archives, and their logs up to an entry that all of them have applied. Nothing, when
    /// they keep none.
    ///
    /// # Errors
    /// When one cannot be killed, or its files cannot be read.
    pub async fn logs(&mut self, applied: u64) -> Result<Vec<MemberLog>> {
        self.kill_all().await?;
        let mut logs = Vec::new();
        for (node, member) in self.members.iter().enumerate() {
            let Some(archive) = &member.archive else { continue };
            let archive = dump(member, "--archive", archive, u64::MAX).await?;
            let log = dump(member, "--data", &member.data, applied).await?;
            logs.push(MemberLog { node, archive, log });
        }
        Ok(logs)
    }
}

async fn dump(member: &Member, flag: &str, path: &Path, last: u64) -> Result<Vec<Logged>> {
    let output = Command::new(&member.launch.program)
        .args(["debug", "dump-log", "--to", &last.to_string(), flag])
        .arg(path)
        .kill_on_drop(true)
        .output()
        .await?;
    let (name, said) = (&member.name, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the log of {name} is not shown: {}", said.trim());
    MemberLog::parse(&String::from_utf8_lossy(&output.stdout))
}
