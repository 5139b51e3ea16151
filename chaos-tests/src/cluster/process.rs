//! One child process: started with its output in a file, killed, frozen, thawed. It dies with its handle.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::network::enter;

/// How long a signal may take to have its effect.
const EFFECT: Duration = Duration::from_secs(5);

/// A running or ended child.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// For messages: `pinrail-0`.
    pub what: String,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(String, OsString)>,
    /// Output is appended here.
    pub log: PathBuf,
    /// The network namespace that it runs in; none: this process's own.
    pub namespace: Option<String>,
    /// Ctrl-C in the terminal does not reach it.
    pub apart: bool,
}

impl Launch {
    /// What is really started: entering namespaces ends in the program itself, with the same process id.
    fn command(&self, boot_ahead: Option<Duration>) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.push("nsenter".into());
            words.extend(enter(namespace).map(OsString::from));
        }
        if let Some(ahead) = boot_ahead {
            let ahead = ahead.as_secs().to_string();
            words.extend(["unshare", "--time", "--boottime", &ahead, "--"].map(OsString::from));
        }
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if self.apart {
            command.process_group(0);
        }
        command
    }
}

impl Process {
    /// # Errors
    /// When the program cannot be started.
    pub fn start(launch: &Launch) -> Result<Self> {
        Self::spawn(launch, None)
    }

    /// Its boot clock is so far ahead of the machine's.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_ahead(launch: &Launch, boot_ahead: Duration) -> Result<Self> {
        Self::spawn(launch, Some(boot_ahead))
    }

    fn spawn(launch: &Launch, boot_ahead: Option<Duration>) -> Result<Self> {
        let output = || OpenOptions::new().create(true).append(true).open(&launch.log);
        let child = launch
            .command(boot_ahead)
            .args(&launch.args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", launch.program.display()))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = id.ok_or_else(|| anyhow!("{} ended at once", launch.what))?;
        Ok(Self { what: launch.what.clone(), child, pid, log: launch.log.clone() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.start_kill().with_context(|| format!("kill {}", self.what))?;
        timeout(EFFECT, self.child.wait())
            .await
            .map_err(|_| anyhow!("{} outlived SIGKILL", self.what))??;
        Ok(())
    }

    /// Sends SIGKILL without waiting; [`Process::kill`] waits.
    ///
    /// # Errors
    /// When there is nothing to send it to.
    pub fn send_kill(&mut self) -> Result<()> {
        self.child.start_kill().with_context(|| format!("kill {}", self.what))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end within `within`.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        kill_process(self.pid, Signal::TERM).with_context(|| format!("stop {}", self.what))?;
        let status = timeout(within, self.child.wait())
            .await
            .map_err(|_| anyhow!("{} did not end within {within:?} of SIGTERM", self.what))??;
        Ok(status)
    }

    /// Waits for an end that nobody asked for.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn end_by_itself(&mut self, within: Duration) -> Result<()> {
        timeout(within, self.child.wait())
            .await
            .map_err(|_| anyhow!("{} did not end by itself within {within:?}", self.what))??;
        Ok(())
    }

    /// How far its boot clock is ahead of the machine's, in seconds.
    ///
    /// # Errors
    /// When the kernel does not say it.
    pub fn boot_ahead(&self) -> Result<u64> {
        let path = format!("/proc/{}/timens_offsets", self.pid());
        let offsets = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let boot = offsets.lines().find_map(|line| line.strip_prefix("boottime"));
        let seconds = boot.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        seconds.with_context(|| format!("{path} says {offsets}"))
    }

    /// SIGSTOP, and waits until the kernel shows the process as stopped.
    ///
    /// # Errors
    /// When it is not seen stopped.
    pub async fn freeze(&mut self) -> Result<()> {
        kill_process(self.pid, Signal::STOP).with_context(|| format!("freeze {}", self.what))?;
        let deadline = Instant::now() + EFFECT;
        // One that is traced stands still in a state of its own.
        while !matches!(self.kernel_state(), Some('T' | 't')) {
            if Instant::now() > deadline {
                bail!("{} was not stopped by SIGSTOP", self.what);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn thaw(&mut self) -> Result<()> {
        kill_process(self.pid, Signal::CONT).with_context(|| format!("thaw {}", self.what))
    }

    /// # Errors
    /// When the process ended by itself: nobody asked it to.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!(
                    "{} ended by itself ({status}); its last lines:\n{}",
                    self.what,
                    self.tail(12)
                )
            }
        }
    }

    /// The last lines of its output.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// The state letter of `/proc/PID/stat`.
    fn kernel_state(&self) -> Option<char> {
        let pid = self.pid.as_raw_nonzero();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(program: &str, args: &[&str], folder: &Path) -> Launch {
        Launch {
            what: program.to_owned(),
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: Vec::new(),
            log: folder.join("log"),
            namespace: None,
            apart: false,
        }
    }

    #[tokio::test]
    async fn frozen_process_is_seen_stopped_and_a_killed_one_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut process =
            Process::start(&launch("sleep", &["60"], folder.path())).expect("it starts");
        process.freeze().await.expect("it is seen stopped");
        assert_eq!(process.kernel_state(), Some('T'));
        process.thaw().expect("it goes on");
        process.must_run().expect("it still runs");
        process.kill().await.expect("it is gone");
        assert!(process.freeze().await.is_err(), "what is gone cannot be frozen");
    }

    #[tokio::test]
    async fn process_that_ends_by_itself_is_noticed_with_its_last_words() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let launch = launch("sh", &["-c", "echo broken; exit 3"], folder.path());
        let mut process = Process::start(&launch).expect("it starts");
        let deadline = Instant::now() + EFFECT;
        let error = loop {
            match process.must_run() {
                Err(error) => break error.to_string(),
                Ok(()) if Instant::now() > deadline => panic!("its end was not noticed"),
                Ok(()) => sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(error.contains("broken"), "{error}");
    }
}
