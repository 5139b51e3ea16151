//! One member: its addresses, its files, its process.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::disk::Disk;
use super::process::{Launch, Process};
use super::{Options, Timings};

/// A server process and what it was started with.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub grpc: String,
    pub http: String,
    pub peer: String,
    pub data: PathBuf,
    /// Where it keeps every entry that it applies; none: nowhere.
    pub(super) archive: Option<PathBuf>,
    pub(super) launch: Launch,
    process: Option<Process>,
    frozen: bool,
    /// The file system that its data is on; none: the harness's. Dropped after the process.
    disk: Option<Disk>,
}

/// Where a member is.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) grpc: String,
    pub(super) http: String,
    pub(super) peer: String,
    /// Its network namespace; none: it listens on loopback.
    pub(super) namespace: Option<String>,
    /// Its file system; none: it uses the harness's.
    pub(super) disk: Option<Disk>,
}

/// What members know of each other.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) address: String,
}

impl Member {
    /// Writes its server.toml; nothing is started.
    pub(super) fn prepare(
        folder: &Path,
        place: Place,
        all: &[Peer],
        options: &Options,
    ) -> Result<Self> {
        let data = place.disk.as_ref().map_or_else(|| folder.join(&place.name), Disk::data);
        let file = folder.join(format!("{}.toml", place.name));
        fs::write(&file, server_toml(&place, &data, all, options))
            .with_context(|| format!("write {}", file.display()))?;
        let log = folder.join(format!("{}.log", place.name));
        let mut args = vec!["server".into(), "-f".into(), file.into()];
        if place.namespace.is_some() {
            // Its address is not loopback, and nobody but this machine reaches it.
            args.push("--insecure".into());
        }
        let archive = options.log_archive.then(|| folder.join(format!("{}.archive", place.name)));
        if let Some(archive) = &archive {
            args.extend(["--log-archive".into(), archive.into()]);
        }
        let launch = Launch {
            what: place.name.clone(),
            program: options.binary.clone(),
            args,
            env: Vec::new(),
            log,
            namespace: place.namespace,
            apart: options.apart,
        };
        Ok(Self {
            name: place.name,
            grpc: place.grpc,
            http: place.http,
            peer: place.peer,
            data,
            archive,
            launch,
            process: None,
            frozen: false,
            disk: place.disk,
        })
    }

    /// # Errors
    /// When the program cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.process = Some(Process::start(&self.launch)?);
        self.frozen = false;
        Ok(())
    }

    /// Its process id; none when it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether it was started, not killed, and is not frozen.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.process.is_some() && !self.frozen
    }

    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Sends SIGKILL and does not wait: several members can be hit at the same moment.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn send_kill(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::send_kill)
    }

    /// # Errors
    /// When it cannot be stopped.
    pub async fn freeze(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.freeze().await?;
            self.frozen = true;
        }
        Ok(())
    }

    /// # Errors
    /// When the process is gone.
    pub fn thaw(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.thaw()?;
            self.frozen = false;
        }
        Ok(())
    }

    /// Its file system, when it has one of its own.
    pub(super) fn disk_mut(&mut self) -> Option<&mut Disk> {
        self.disk.as_mut()
    }

    /// # Errors
    /// When it ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::must_run)
    }

    /// # Errors
    /// When it does not end on SIGTERM, or not in order.
    pub async fn terminate(&mut self, within: std::time::Duration) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.terminate(within).await?;
            anyhow::ensure!(status.success(), "{} did not end in order: {status}", self.name);
        }
        Ok(())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.tail(lines))
    }
}

fn server_toml(place: &Place, data: &Path, all: &[Peer], options: &Options) -> String {
    let mut text = format!(
        "cluster = \"chaos\"\nnode = \"{}\"\ndata = \"{}\"\nlisten = {{ grpc = \"{}\", http = \"{}\", peer = \"{}\" }}\n\n",
        place.name,
        data.display(),
        place.grpc,
        place.http,
        place.peer
    );
    for Peer { name, address } in all {
        let _ = write!(text, "[[members]]\nname = \"{name}\"\npeer = \"{address}\"\n\n");
    }
    let profile = match options.timings {
        Timings::Shared => "shared",
        Timings::Production => "dedicated",
    };
    let _ = writeln!(text, "[raft]\nprofile = \"{profile}\"");
    if let Some(bytes) = &options.snapshot_log {
        let _ = writeln!(text, "snapshot_log = \"{bytes}\"");
    }
    if let Some(entries) = options.keep_entries {
        let _ = writeln!(text, "keep_entries = {entries}");
    }
    let _ = write!(text, "\n[log]\nformat = \"text\"\nlevel = \"{}\"\n", options.log_level);
    text
}
