//! One member: its addresses, its files, its process.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::time::{Duration, Instant, sleep};

use super::disk::Disk;
use super::process::{Launch, Process};
use super::processor::Starved;
use super::syncs::{Sync, Tracer};
use super::{Options, Timings};

/// A process is what was to be started by then, and no more what starts it.
const STARTED: Duration = Duration::from_secs(5);

/// A server process and what it was started with.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub grpc: String,
    pub http: String,
    pub peer: String,
    pub data: PathBuf,
    /// Its server.toml.
    file: PathBuf,
    /// Where it keeps every entry that it applies; none: nowhere.
    pub(super) archive: Option<PathBuf>,
    pub(super) launch: Launch,
    process: Option<Process>,
    frozen: bool,
    /// The file system that its data is on; none: the harness's. Dropped after the process.
    disk: Option<Disk>,
    /// What stands between its process and the kernel.
    tracer: Option<Tracer>,
    starved: Option<Starved>,
    is_ahead: bool,
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
        let mut args = vec!["server".into(), "-f".into(), file.clone().into()];
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
            file,
            archive,
            launch,
            process: None,
            frozen: false,
            disk: place.disk,
            tracer: None,
            starved: None,
            is_ahead: false,
        })
    }

    /// # Errors
    /// When the program cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.process = Some(Process::start(&self.launch)?);
        self.frozen = false;
        Ok(())
    }

    /// Starts it as another build of the server, now and whenever it is started again.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_build(&mut self, program: &Path) -> Result<()> {
        self.launch.program = program.to_owned();
        self.start()
    }

    /// Takes its data away and starts it as an empty member that asks another one to be let in.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn begin_anew(&mut self, join: &str) -> Result<()> {
        fs::remove_dir_all(&self.data)
            .with_context(|| format!("remove {}", self.data.display()))?;
        let text = fs::read_to_string(&self.file)?;
        let kept = text.lines().filter(|line| !line.starts_with("join = "));
        let anew: String = kept.map(|line| format!("{line}\n")).collect();
        // Before any table.
        fs::write(&self.file, format!("join = [\"{join}\"]\n{anew}"))?;
        self.start()
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

    /// Its next sync fails, which it must not outlive.
    ///
    /// # Errors
    /// When that cannot be done, or it goes on.
    pub(super) async fn fail_sync(&mut self, folder: &Path, within: Duration) -> Result<()> {
        self.trace(Sync::Fails, folder).await?;
        self.end_by_itself(within).await
    }

    /// Its syncs take long from now on.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) async fn slow_syncs(&mut self, folder: &Path) -> Result<()> {
        self.trace(Sync::TakesLong, folder).await
    }

    async fn trace(&mut self, sync: Sync, folder: &Path) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} is down", self.name))?;
        self.tracer = Some(Tracer::attach(pid, sync, folder).await?);
        Ok(())
    }

    /// Leaves it a part of one processor.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) async fn starve(&mut self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} is down", self.name))?;
        self.starved = Some(Starved::make(pid).await?);
        Ok(())
    }

    /// Starts it anew with a boot clock that is so far ahead.
    ///
    /// # Errors
    /// When it cannot be started so.
    pub(super) async fn start_ahead(&mut self, ahead: Duration) -> Result<()> {
        self.kill().await?;
        let process = Process::start_ahead(&self.launch, ahead)?;
        let deadline = Instant::now() + STARTED;
        while process.boot_ahead().ok() != Some(ahead.as_secs()) {
            anyhow::ensure!(
                Instant::now() < deadline,
                "the boot clock of {} is not ahead",
                self.name
            );
            sleep(Duration::from_millis(5)).await;
        }
        self.process = Some(process);
        self.is_ahead = true;
        Ok(())
    }

    /// Waits until its process has ended because of what was done to it.
    ///
    /// # Errors
    /// When it goes on.
    pub(super) async fn end_by_itself(&mut self, within: Duration) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.end_by_itself(within).await?;
            self.process = None;
        }
        Ok(())
    }

    /// Takes away what stands between it and the kernel, and gives it the machine's clock and processors again.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) async fn release(&mut self) -> Result<()> {
        self.starved = None;
        self.untrace().await?;
        if std::mem::take(&mut self.is_ahead) {
            self.kill().await?;
        }
        Ok(())
    }

    /// Takes away what stands between it and the kernel.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) async fn untrace(&mut self) -> Result<()> {
        match self.tracer.take() {
            Some(tracer) => tracer.detach().await,
            None => Ok(()),
        }
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
    pub async fn terminate(&mut self, within: Duration) -> Result<()> {
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
