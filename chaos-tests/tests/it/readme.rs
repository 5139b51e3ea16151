//! The README's transcript, from zero to rollback, run as it is written. Only what a test cannot share with the
//! machine's user differs: the binaries were built already, and the port is a free one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pinrail_chaos_tests::config::Binaries;

const EXAMPLE: &str = "cargo run --release -p pinrail-client --example research --";

#[test]
fn the_readmes_transcript_goes_from_zero_to_rollback() {
    let binaries = Binaries::locate().unwrap();
    let port = free_ports();
    let mut background = Background::default();
    let mut answers = Vec::new();
    let lines = transcript();
    assert!(lines.len() >= 12, "the transcript is gone: {lines:?}");
    for line in lines {
        let (command, note) = line.split_once("  # ").unwrap_or((&line, ""));
        let command = command.trim().replace(EXAMPLE, &binaries.research.display().to_string());
        if command == "make install" {
            continue;
        }
        let command = command.replace("pinrail dev", &format!("pinrail dev --port {port}"));
        if note.contains("terminal") {
            background.start(&binaries, port, &command);
            continue;
        }
        let output = until_it_works(&binaries, port, &command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if command.contains("--wait") {
            answers.push(said.clone());
        }
        if command.starts_with("pinrail rollback") {
            assert!(said.contains("v1") && said.contains("v2"), "{said}");
        }
    }
    assert_eq!(answers.len(), 2);
    assert_ne!(answers[0], answers[1], "the two bundles answer alike");
}

/// Only the first command may have to wait: for the server of terminal 1.
fn until_it_works(binaries: &Binaries, port: u16, command: &str) -> Output {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let output = shell(binaries, port, command).output().unwrap();
        if output.status.success() {
            return output;
        }
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        // Exit 6: the node is not there yet.
        let early = output.status.code() == Some(6);
        assert!(early && Instant::now() < deadline, "`{command}` failed: {talk}");
    }
}

fn shell(binaries: &Binaries, port: u16, command: &str) -> Command {
    let bin = binaries.pinrail.parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {command}")])
        .current_dir(root())
        .env("PATH", format!("{bin}:{path}"))
        .env("PINRAIL_ENDPOINT", format!("127.0.0.1:{port}"))
        .env("NO_COLOR", "1");
    shell
}

/// What runs in other terminals; ended with the test.
#[derive(Default)]
struct Background(Vec<Child>);

impl Background {
    fn start(&mut self, binaries: &Binaries, port: u16, command: &str) {
        let mut shell = shell(binaries, port, command);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(shell.spawn().unwrap());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn transcript() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let after = readme.split_once("<!-- transcript").unwrap().1;
    let block = after.split("```").nth(1).unwrap();
    block.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A port whose two neighbours are free too.
fn free_ports() -> u16 {
    for _ in 0..100 {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < u16::MAX - 2 && free(port + 1) && free(port + 2) {
            return port;
        }
    }
    panic!("no three free ports in a row");
}
