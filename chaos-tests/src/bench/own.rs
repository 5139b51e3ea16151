//! A cluster of three server processes on this machine, and `pinrail bench` on it.

use anyhow::{Context as _, Result};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::machine::{Machine, syncs_per_second};
use super::pinrail::Pinrail;
use crate::scenario::Setting;

/// Runs `pinrail bench` with these arguments; what it prints is printed. Answers whether it succeeded. It hears Ctrl-C by itself, and
/// is waited for: it shows what it has measured so far.
///
/// # Errors
/// When the cluster does not form, or the program cannot be started.
pub async fn own(setting: &Setting, arguments: &[String]) -> Result<bool> {
    let folder = super::folder::fresh(setting.out.as_deref())?;
    eprintln!("{}", Machine::here().line());
    eprintln!("{:.0} appends of 4 KiB synced in a second", syncs_per_second(folder.path())?);
    let mut pinrail = Pinrail::start(&setting.binaries.pinrail, setting.out.as_deref()).await?;
    let mut command = Command::new(&setting.binaries.pinrail);
    command.args(["--endpoint", &pinrail.cluster.endpoints(), "bench"]).args(arguments);
    for pid in pinrail.cluster.pids() {
        command.args(["--server-pid", &pid.to_string()]);
    }
    // A terminal's Ctrl-C reaches the child too: it is only heard here so that it does not end this process.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = command.kill_on_drop(true).spawn().context("start pinrail bench")?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => return Ok(false),
        }
    };
    pinrail.cluster.must_run()?;
    Ok(status.success())
}
