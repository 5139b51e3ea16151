//! The README's transcripts, from zero to rollback, run as they are written. Only what a test cannot share with the
//! machine's user differs: the binaries were built already, and the port is a free one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pinrail_chaos_tests::config::Binaries;

const EXAMPLE: &str = "cargo run --release -p pinrail-client --example research --";

#[test]
fn the_readmes_first_transcript_goes_from_an_empty_folder_to_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let answers = play(&transcripts()[0], folder.path());
    assert_eq!(answers.len(), 2);
    assert_ne!(answers[0], answers[1], "the two bundles answer alike");
}

#[test]
fn the_readmes_second_transcript_releases_a_real_agent() {
    let answers = play(&transcripts()[1], &root());
    assert_eq!(answers.len(), 2);
    assert_ne!(answers[0], answers[1], "the two bundles answer alike");
}

/// Types a transcript into terminals that are in this folder, and gives what the runs answered.
fn play(lines: &[String], folder: &Path) -> Vec<String> {
    assert!(lines.len() >= 12, "the transcript is gone: {lines:?}");
    let binaries = Binaries::locate().unwrap();
    let mut terminal = Terminal { folder: folder.to_owned(), port: free_ports(), binaries };
    let mut background = Background::default();
    let mut answers = Vec::new();
    for line in lines {
        let (command, note) = line.split_once("  # ").unwrap_or((line, ""));
        let research = terminal.binaries.research.display().to_string();
        let command = command.trim().replace(EXAMPLE, &research);
        if command == "make install" {
            continue;
        }
        let command =
            command.replace("pinrail dev", &format!("pinrail dev --port {}", terminal.port));
        if note.contains("terminal") {
            background.start(&terminal, &command);
            continue;
        }
        let output = terminal.until_it_works(&command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some((_, folder)) = command.split_once("&& cd ") {
            terminal.folder.push(folder);
        }
        if command.contains("--wait") {
            answers.push(said.clone());
        }
        if command.starts_with("pinrail rollback") {
            assert!(said.contains("v1") && said.contains("v2"), "{said}");
        }
    }
    answers
}

/// Where a person types.
struct Terminal {
    folder: PathBuf,
    port: u16,
    binaries: Binaries,
}

impl Terminal {
    /// Commands may have to wait for what the other terminals have just started.
    fn until_it_works(&self, command: &str) -> Output {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let output = self.shell(command).output().unwrap();
            if output.status.success() {
                return output;
            }
            let talk = String::from_utf8_lossy(&output.stderr).into_owned();
            // Exit 6: the node is not there yet. A worker in its terminal may still be on its way, too.
            let early = output.status.code() == Some(6) || talk.contains("NO_WORKERS");
            assert!(early && Instant::now() < deadline, "`{command}` failed: {talk}");
        }
    }

    fn shell(&self, command: &str) -> Command {
        let bin = self.binaries.pinrail.parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(&self.folder)
            .env("PATH", format!("{bin}:{path}"))
            .env("PINRAIL_ENDPOINT", format!("127.0.0.1:{}", self.port))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_COLOR", "1");
        shell
    }
}

/// What runs in other terminals; ended with the test.
#[derive(Default)]
struct Background(Vec<Child>);

impl Background {
    fn start(&mut self, terminal: &Terminal, command: &str) {
        let mut shell = terminal.shell(&format!("exec {command}"));
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

/// The lines of each block that is marked as one.
fn transcripts() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines = |part: &str| {
        let block = part.split("```").nth(1).unwrap();
        let lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    readme.split("<!-- transcript").skip(1).map(lines).collect()
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
