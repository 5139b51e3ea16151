//! One process of the program with everything that it starts: its group, its logs, its end. Dropping it ends the whole
//! group: SIGTERM, and SIGKILL when that was not enough.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_proto::limits;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::peer::LINE;
use super::{Program, Served};

/// Between SIGTERM and SIGKILL.
pub(super) const TERM: Duration = Duration::from_secs(2);
/// What is kept of stderr for a failure's message, which says before it how the program ended.
const STDERR: usize = limits::TEXT_BYTES - 128;
/// How long the last words of a process may be on their way through a pipe that somebody else holds open too.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Between two looks whether a group is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Whose output it is, for the log.
pub(super) type Stamp = Arc<Mutex<String>>;

pub(super) struct Process {
    child: tokio::process::Child,
    group: Option<Pid>,
    stamp: Stamp,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    /// Ends with stderr.
    logged: JoinHandle<()>,
    ending: TaskTracker,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("pid", &self.child.id()).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts the program; its stdout is the caller's to read.
    pub(super) fn start(
        program: &Program,
        served: &Served,
        variables: &[(&str, String)],
        stdin: Stdio,
    ) -> io::Result<(Self, ChildStdout)> {
        let (name, arguments) =
            program.command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env("PINRAIL_AGENT", &served.agent)
            .env("PINRAIL_BUNDLE", &served.bundle)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C is for the host, which ends the children in order.
            .process_group(0);
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        let started = command.spawn();
        let mut child =
            started.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let stamp: Stamp = Arc::new(Mutex::new(format!("bundle={}", served.bundle)));
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other(format!("{name}: its output cannot be read")));
        };
        let ending = served.ending.clone();
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let logged = tokio::spawn(log(stderr, Arc::clone(&stamp), Some(Arc::clone(&kept))));
        Ok((Self { child, group, stamp, stderr: kept, logged, ending }, stdout))
    }

    /// Says whose output comes from here on.
    pub(super) fn stamp(&self, text: String) {
        *self.stamp.lock() = text;
        self.stderr.lock().clear();
    }

    pub(super) fn stamped(&self) -> Stamp {
        Arc::clone(&self.stamp)
    }

    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends what a process that is gone has left behind in its group.
    pub(super) fn sweep(&self) {
        signal(self.group, Signal::KILL);
    }

    /// Why it is gone, with the end of its stderr.
    pub(super) async fn obituary(&mut self) -> String {
        let status = match timeout(TERM, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its connection".to_owned(),
        };
        let _ = timeout(LAST_WORDS, &mut self.logged).await;
        let tail: Vec<u8> = self.stderr.lock().iter().copied().collect();
        let tail = String::from_utf8_lossy(&tail).trim().to_owned();
        let colon = if tail.is_empty() { "" } else { ": " };
        format!("the program ended ({status}){colon}{tail}")
    }

    /// Sees to it that it ends.
    pub(super) async fn end(mut self) {
        if timeout(TERM, self.child.wait()).await.is_err() {
            signal(self.group, Signal::TERM);
            let _ = timeout(TERM, self.child.wait()).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_alive() {
            return self.sweep();
        }
        signal(self.group, Signal::TERM);
        let group = self.group;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.ending.spawn_on(async move { bury(group).await }, &runtime);
        } else {
            signal(group, Signal::KILL);
        }
    }
}

/// Waits for the end of a group that was told to end, and sees to it.
async fn bury(group: Option<Pid>) {
    let Some(pid) = group else { return };
    let deadline = Instant::now() + TERM;
    while test_kill_process_group(pid).is_ok() {
        if Instant::now() >= deadline {
            return signal(group, Signal::KILL);
        }
        sleep(LOOK).await;
    }
}

/// To everything that the process started.
fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It may be gone already.
        let _ = kill_process_group(group, signal);
    }
}

/// Passes lines on to the host's own stderr, and keeps the end of them.
pub(super) async fn log(
    from: impl AsyncRead + Unpin,
    stamp: Stamp,
    keep: Option<Arc<Mutex<VecDeque<u8>>>>,
) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while read_line(&mut from, &mut line).await {
        if let Some(keep) = &keep {
            let mut keep = keep.lock();
            keep.extend(&line);
            let over = keep.len().saturating_sub(STDERR);
            keep.drain(..over);
        }
        say(&stamp, &line);
    }
}

/// As [`log`], but for the last line that is not blank, which it gives.
pub(super) async fn log_but_last(from: impl AsyncRead + Unpin, stamp: Stamp) -> Vec<u8> {
    let mut from = BufReader::new(from);
    let (mut line, mut last) = (Vec::new(), Vec::new());
    while read_line(&mut from, &mut line).await {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if !last.is_empty() {
            say(&stamp, &last);
        }
        std::mem::swap(&mut line, &mut last);
    }
    last
}

/// To the host's own stderr.
pub(super) fn say(stamp: &Stamp, line: &[u8]) {
    let stamp = stamp.lock().clone();
    eprintln!("{stamp} {}", String::from_utf8_lossy(line).trim_end());
}

/// The next line, or as much of it as a line may have; whether there was one.
async fn read_line<R: AsyncRead + Unpin>(from: &mut BufReader<R>, line: &mut Vec<u8>) -> bool {
    line.clear();
    matches!(from.take(LINE as u64).read_until(b'\n', line).await, Ok(read) if read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_line_that_is_not_blank_is_kept() {
        let stamp: Stamp = Arc::default();
        for (text, last) in
            [("", ""), ("a", "a"), ("a\nb\n\n  \n", "b\n"), ("{\"done\":1}", "{\"done\":1}")]
        {
            let kept = log_but_last(text.as_bytes(), Arc::clone(&stamp)).await;
            assert_eq!(kept, last.as_bytes(), "{text:?}");
        }
    }
}
