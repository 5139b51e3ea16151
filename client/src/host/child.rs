//! One child: its process group, its socket, its logs. Dropping it ends the whole group.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child as Process, Command};
use tokio::time::{Duration, sleep, timeout};

use super::Host;
use super::protocol::{FromChild, Hello, VERSION};

/// A framework may take its time to load.
const HELLO: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL.
const TERM: Duration = Duration::from_secs(2);
/// The longest line: a value at its limit, escaped, with its frame.
const LINE: u64 = 8 << 20;
/// What is kept of stderr for a failure's message.
const STDERR: usize = 4 << 10;

/// Whose output it is, for the log.
pub(super) type Stamp = Arc<Mutex<String>>;

pub(super) struct Child {
    process: Process,
    group: Option<Pid>,
    lines: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    stamp: Stamp,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    socket: PathBuf,
    pub(super) hello: Hello,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child").field("pid", &self.process.id()).finish_non_exhaustive()
    }
}

impl Child {
    /// Starts the program and waits for its hello.
    pub(super) async fn start(host: &Host, socket: PathBuf) -> io::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let mut process = spawn(host, &socket)?;
        let group = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let stamp: Stamp = Arc::new(Mutex::new(format!("bundle={}", host.bundle)));
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(out) = process.stdout.take() {
            tokio::spawn(log(out, Arc::clone(&stamp), None));
        }
        if let Some(out) = process.stderr.take() {
            tokio::spawn(log(out, Arc::clone(&stamp), Some(Arc::clone(&stderr))));
        }
        let connected = async {
            tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, _)| stream),
                ended = process.wait() => Err(ended_early(&ended?.to_string(), &stderr)),
            }
        };
        let met = timeout(HELLO, async { greet(connected.await?).await }).await;
        let met = met.unwrap_or_else(|_| Err(io::Error::other("it did not say hello in time")));
        match met {
            Ok((hello, lines, to)) => {
                Ok(Self { process, group, lines, to, stamp, stderr, socket, hello })
            }
            Err(error) => {
                signal(group, Signal::KILL);
                let _ = std::fs::remove_file(&socket);
                Err(error)
            }
        }
    }

    /// Says whose output comes from here on.
    pub(super) fn stamp(&self, text: String) {
        *self.stamp.lock() = text;
        self.stderr.lock().clear();
    }

    /// Whether it could take a step.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.to.write_all(&line).await
    }

    /// The next message; `None` when it closed the connection. What is no message is `InvalidData`, and the line is
    /// passed over. May be dropped and asked again: what was read of a line stays in `line`.
    pub(super) async fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<FromChild>> {
        next(&mut self.lines, line).await
    }

    /// Why it is gone, with the end of its stderr.
    pub(super) async fn obituary(&mut self) -> String {
        let status = match timeout(TERM, self.process.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its connection".to_owned(),
        };
        // What it said last may still be on its way through the pipe.
        sleep(Duration::from_millis(20)).await;
        ended_early(&status, &self.stderr).to_string()
    }

    /// Asks it to end, and sees to it.
    pub(super) async fn end(mut self) {
        let _ = self.send(&serde_json::json!({ "type": "shutdown" })).await;
        if timeout(TERM, self.process.wait()).await.is_err() {
            signal(self.group, Signal::TERM);
            let _ = timeout(TERM, self.process.wait()).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        if !self.is_alive() {
            // Its group may hold what it started.
            signal(self.group, Signal::KILL);
            return;
        }
        signal(self.group, Signal::TERM);
        let group = self.group;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep(TERM).await;
                signal(group, Signal::KILL);
            });
        } else {
            signal(group, Signal::KILL);
        }
    }
}

fn spawn(host: &Host, socket: &Path) -> io::Result<Process> {
    let (program, arguments) =
        host.command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PINRAIL_SOCKET", socket)
        .env("PINRAIL_AGENT", &host.agent)
        .env("PINRAIL_BUNDLE", &host.bundle)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: Ctrl-C is for the host, which ends the children in order.
        .process_group(0);
    if let Some(dir) = &host.dir {
        command.current_dir(dir);
    }
    let started = command.spawn();
    started.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))
}

async fn greet(
    stream: UnixStream,
) -> io::Result<(Hello, BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let (from, to) = stream.into_split();
    let mut lines = BufReader::new(from);
    match next(&mut lines, &mut Vec::new()).await? {
        Some(FromChild::Hello(hello)) if hello.protocol == VERSION => Ok((hello, lines, to)),
        Some(FromChild::Hello(hello)) => {
            let theirs = hello.protocol;
            Err(io::Error::other(format!("it speaks protocol {theirs}, not {VERSION}")))
        }
        Some(_) | None => Err(io::Error::other("its first message is no hello")),
    }
}

async fn next(
    lines: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> io::Result<Option<FromChild>> {
    let room = LINE.saturating_sub(line.len() as u64);
    // Cancel safe: what was read is in `line`, and the next call goes on behind it.
    let read = lines.take(room).read_until(b'\n', line).await?;
    if line.last() != Some(&b'\n') {
        return match (read, line.len() as u64 >= LINE) {
            (_, true) => Err(io::Error::other(format!("a line is longer than {LINE} bytes"))),
            (_, false) => Ok(None),
        };
    }
    let parsed = serde_json::from_slice(line);
    let shown: String = String::from_utf8_lossy(line).trim().chars().take(200).collect();
    line.clear();
    parsed
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}: {shown}")))
}

fn ended_early(status: &str, stderr: &Mutex<VecDeque<u8>>) -> io::Error {
    let tail: Vec<u8> = stderr.lock().iter().copied().collect();
    let tail = String::from_utf8_lossy(&tail).trim().to_owned();
    let colon = if tail.is_empty() { "" } else { ": " };
    io::Error::other(format!("the program ended ({status}){colon}{tail}"))
}

/// To everything that the child started.
fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It may be gone already.
        let _ = kill_process_group(group, signal);
    }
}

/// Passes lines on to the host's own stderr, and keeps the end of them.
async fn log(from: impl AsyncRead + Unpin, stamp: Stamp, keep: Option<Arc<Mutex<VecDeque<u8>>>>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut from).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(keep) = &keep {
            let mut keep = keep.lock();
            keep.extend(&line);
            let over = keep.len().saturating_sub(STDERR);
            keep.drain(..over);
        }
        let stamp = stamp.lock().clone();
        eprintln!("{stamp} {}", String::from_utf8_lossy(&line).trim_end());
    }
}
