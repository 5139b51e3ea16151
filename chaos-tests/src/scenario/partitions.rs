//! Cuts in the network under load: how long until clients are served again, and whether a member that is cut off ever
//! answers with what is not true any more.
//!
//! Clients reach every member all the time, also those that are cut off from the others: only so can one lie to them.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::conclude::conclude;
use super::plan::bundle;
use super::{Load, Nemesis, Setting};
use crate::api::setup::Policy;
use crate::cluster::{Cluster, Ground, Options, Timings};
use crate::history::{Call, FaultKind, Gap, Recorder};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 6;
/// How long a client waits for one member before it asks another: a member that is cut off may say nothing.
const ATTEMPT: Duration = Duration::from_millis(250);
/// Load between two cuts, and how long each lasts.
const BETWEEN: Duration = Duration::from_millis(1_500);
const LASTS: Duration = Duration::from_millis(2_500);
/// The mended network may disturb too: it is watched for so long.
const AFTER: Duration = Duration::from_millis(1_000);
/// A client that waits is served again by then.
const SETTLED: Duration = Duration::from_secs(5);

/// A kind of cut, and what a client may have to wait because of it at most.
struct Target {
    kind: FaultKind,
    what: &'static str,
    wait_us: u64,
}

/// Of the page of promises; where it gives a range for the three cuts of a leader, a leader that merely hears nobody is
/// given the longer end: it must find out by itself.
const TARGETS: [Target; 5] = [
    Target { kind: FaultKind::PartitionLeader, what: "leader cut off", wait_us: 1_000_000 },
    Target { kind: FaultKind::PartitionLeaderIn, what: "leader hears nobody", wait_us: 1_500_000 },
    Target { kind: FaultKind::PartitionLeaderOut, what: "leader not heard", wait_us: 1_000_000 },
    Target { kind: FaultKind::PartitionFollower, what: "follower cut off", wait_us: 1_000_000 },
    Target { kind: FaultKind::PartitionBridge, what: "leader and follower", wait_us: 3_000_000 },
];

/// What one kind of cut came to.
#[derive(Debug)]
pub struct Line {
    pub kind: FaultKind,
    pub what: &'static str,
    /// Longest time of a trial without any acknowledged write.
    pub writes: Spread,
    /// Longest time without an answer to any linearizable read.
    pub reads: Spread,
    /// Longest time without either, for the client that waited longest.
    pub client: Spread,
    pub target_us: u64,
    /// Trials in which another member led afterwards.
    pub moved: usize,
}

/// What all of them came to.
#[derive(Debug)]
pub struct Partitions {
    pub lines: Vec<Line>,
    pub report: Report,
}

impl Partitions {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.misses().is_empty()
    }

    fn misses(&self) -> Vec<String> {
        let waits = self.lines.iter().flat_map(|line| {
            [("writes", line.writes.p95_us, line), ("reads", line.reads.p95_us, line)]
        });
        waits
            .filter(|(_, found, line)| *found > line.target_us)
            .map(|(of, found, line)| {
                let (found, target) = (ms(found), ms(line.target_us));
                format!("{}: p95 of {of} {found} ms is above {target} ms", line.what)
            })
            .collect()
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  {:<20} {:>6} {:>6} {:>8}  {:>26}  {:>26}  {:>26}",
            "longest wait, ms",
            "trials",
            "moved",
            "target",
            "writes p50/p95/max",
            "reads",
            "slowest client"
        )?;
        for line in &self.lines {
            writeln!(
                f,
                "  {:<20} {:>6} {:>6} {:>8}  {:>26}  {:>26}  {:>26}",
                line.what,
                line.writes.count,
                line.moved,
                ms(line.target_us),
                three(&line.writes),
                three(&line.reads),
                three(&line.client)
            )?;
        }
        self.misses().iter().try_for_each(|miss| writeln!(f, "  MISSED: {miss}"))
    }
}

fn three(spread: &Spread) -> String {
    format!("{} / {} / {}", ms(spread.median_us), ms(spread.p95_us), ms(spread.max_us))
}

/// # Errors
/// When the harness failed.
pub async fn partitions(
    setting: &Setting,
    trials: u32,
    only: Option<FaultKind>,
) -> Result<Partitions> {
    let mut keeper = Keeper::new(setting, "partitions")?;
    let mut lines = Vec::new();
    let result = all_trials(setting, trials, only, &keeper, &mut lines).await;
    let report = keeper.settle(result)?;
    Ok(Partitions { lines, report })
}

async fn all_trials(
    setting: &Setting,
    trials: u32,
    only: Option<FaultKind>,
    keeper: &Keeper,
    lines: &mut Vec<Line>,
) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        ground: Ground::Namespaces,
        timings: Timings::Production,
        ..Options::three(&setting.binaries.pinrail)
    };
    let cluster = Cluster::start(&options).await?;
    let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
    let mut load = Load::new(cluster.nodes.clone(), recorder.clone(), setting.seed);
    let policy = Policy { external: true, ..Policy::default() };
    load.add_agent(AGENT, policy, &[bundle(1), bundle(2)]).await?;
    let mut nemesis = Nemesis { cluster, workers: None, recorder };
    let patience =
        Patience { attempt: ATTEMPT, pause: Duration::from_millis(10), ..Patience::default() };
    load.start_clients(AGENT, CLIENTS, Mix { get: 60, ..Mix::writes() }, patience);
    for target in TARGETS.iter().filter(|target| only.is_none_or(|only| only == target.kind)) {
        lines.push(kind(target, trials, &load, &mut nemesis).await?);
    }
    load.finish().await;
    conclude(load, nemesis, keeper, 100).await
}

/// All trials of one kind.
async fn kind(target: &Target, trials: u32, load: &Load, nemesis: &mut Nemesis) -> Result<Line> {
    let (mut writes, mut reads, mut client) = (Vec::new(), Vec::new(), Vec::new());
    let mut moved = 0;
    for trial in 1..=trials {
        sleep(BETWEEN).await;
        let before = load.recorder.faults().len();
        let led = nemesis.cluster.wait_leader(SETTLED).await?;
        nemesis.strike(target.kind, LASTS).await?;
        let fault = load.recorder.faults().get(before).cloned().context("the fault is recorded")?;
        let from_us = fault.effective_us.context("the cut took no effect")?;
        sleep(AFTER).await;
        let leads = nemesis.cluster.wait_leader(SETTLED).await?;
        let window = Gap { from_us, to_us: crate::clock::now_us() };
        client.push(settled(load, window).await);
        writes.push(load.recorder.longest_wait(window, Call::is_write));
        reads.push(load.recorder.longest_wait(window, is_read));
        let last = |waits: &[u64]| ms(waits.last().copied().unwrap_or_default());
        println!(
            "  {} {trial:>2}: longest wait for a write {} ms, for a read {} ms, of the slowest client {} ms; \
             pinrail-{led} led, pinrail-{leads} leads",
            target.what,
            last(&writes),
            last(&reads),
            last(&client)
        );
        moved += usize::from(led != leads);
    }
    Ok(Line {
        kind: target.kind,
        what: target.what,
        writes: Spread::of(writes),
        reads: Spread::of(reads),
        client: Spread::of(client),
        target_us: target.wait_us,
        moved,
    })
}

fn is_read(call: &Call) -> bool {
    call.is_linearizable() && !call.is_write()
}

/// What the slowest client of a window waited, once it was served again.
async fn settled(load: &Load, window: Gap) -> u64 {
    let deadline = tokio::time::Instant::now() + SETTLED;
    loop {
        let wait = load.recorder.slowest_client(window);
        if wait != u64::MAX || tokio::time::Instant::now() > deadline {
            return wait;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
