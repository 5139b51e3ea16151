//! Programs of the system that make namespaces, rules and file systems.

use std::io::ErrorKind;
use std::process::{Command as Blocking, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A program, and the Debian package that brings it.
pub(super) type Needed = (&'static str, &'static str);

/// Says everything that a kind of cluster lacks here, in one error.
///
/// # Errors
/// When this is not root, or a program is not installed.
pub(super) fn demand(what: &str, needed: &[Needed]) -> Result<()> {
    let mut lacks = Vec::new();
    if !rustix::process::geteuid().is_root() {
        lacks.push("it must run as root".to_owned());
    }
    for (program, package) in needed {
        let started = Blocking::new(program)
            .arg("--help")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if started.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            lacks.push(format!("{program} is not there (Debian package {package})"));
        }
    }
    if !lacks.is_empty() {
        bail!("{what} cannot be made here: {}", lacks.join("; "));
    }
    Ok(())
}

/// Runs a program, and gives what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub(super) async fn run(program: &str, args: &[&str]) -> Result<String> {
    feed(program, args, "").await
}

/// The same for a program that reads what it is to do.
///
/// # Errors
/// When it fails, with what it said.
pub(super) async fn feed(program: &str, args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let Some(mut stdin) = child.stdin.take()
        && !input.is_empty()
    {
        stdin.write_all(input.as_bytes()).await?;
    }
    outcome(program, args, &child.wait_with_output().await?)
}

/// Runs a program of which nothing is expected any more: whoever cleans up goes on whatever it says.
pub(super) fn quietly(program: &str, args: &[&str]) -> Option<String> {
    let output = Blocking::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    outcome(program, args, &output).ok()
}

fn outcome(program: &str, args: &[&str], output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{program} {} failed ({}): {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
