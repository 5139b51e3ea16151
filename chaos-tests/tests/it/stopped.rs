//! Whoever stops `chaos` is rid of the processes that it started, and of their networks and file systems.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The processes that a process started and that run.
fn children(of: u32) -> Vec<String> {
    let path = format!("/proc/{of}/task/{of}/children");
    let numbers = std::fs::read_to_string(path).unwrap_or_default();
    numbers.split_whitespace().map(str::to_owned).filter(|pid| runs(pid)).collect()
}

/// Whether a process does anything any more: one that ended may still wait for somebody to ask how.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} took too long");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Namespaces and mount points that a process made: they are named after it.
fn made_by(pid: u32) -> BTreeSet<String> {
    let spaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let spaces = spaces.map(|entry| entry.path().display().to_string());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned);
    let names = [format!("/pinrail-chaos-{pid}-"), format!("/pinrail-disk-{pid}-")];
    let all = spaces.chain(mounts);
    all.filter(|path| names.iter().any(|name| path.contains(name))).collect()
}

/// Starts a scenario, stops it once its servers run, and gives how much it had made.
async fn stop(scenario: &[&str]) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(scenario)
        .arg("--out")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("chaos starts");
    let id = chaos.id().expect("it runs");
    let mut servers = Vec::new();
    until("starting the servers", || {
        assert_eq!(chaos.try_wait().expect("its state"), None, "chaos ended by itself");
        servers = children(id);
        servers.len() >= 3
    })
    .await;
    let made = made_by(id).len();
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it is there");
    let status = chaos.wait().await.expect("its end");
    assert_eq!(status.code(), Some(143), "128 and the number of SIGTERM");
    until("the end of the servers", || !servers.iter().any(|pid| runs(pid))).await;
    assert_eq!(made_by(id), BTreeSet::new(), "nothing is left behind");
    made
}

#[tokio::test]
async fn servers_end_with_chaos_that_gets_sigterm() {
    assert_eq!(stop(&["kill-all", "--cycles", "1000"]).await, 0);
}

#[tokio::test]
async fn networks_and_file_systems_go_with_chaos_that_gets_sigterm() {
    let networks = stop(&["partitions", "--trials", "1000"]).await;
    assert_eq!(networks, 4, "three members and a switch: is this root?");
    let disks = stop(&["power-loss", "--cycles", "1000"]).await;
    assert_eq!(disks, 3, "three members: is this root, with loop devices?");
}
