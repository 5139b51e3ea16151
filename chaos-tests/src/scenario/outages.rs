//! What clients wait when a member fails under load, by the way it fails: it is killed, stopped, paused, cut off from the
//! others, or its disk, processor or clock lets it down. And whether one that is paused or cut off ever answers with what is
//! not true any more.
//!
//! Clients reach every member all the time, also those that are cut off from the others: only so can one lie to them.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::conclude::conclude;
use super::opening::open_external;
use super::plan::bundle;
use super::{Load, Nemesis, Setting};
use crate::cluster::{Ground, Options, Timings};
use crate::history::{Call, FaultKind, Gap, Wait};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 6;
/// How long a client waits for one member before it asks another: a member that is cut off may say nothing.
const ATTEMPT: Duration = Duration::from_millis(250);
/// Load between two faults, and how long most last.
const BETWEEN: Duration = Duration::from_millis(1_500);
const LASTS: Duration = Duration::from_millis(2_500);
const SNAPSHOT_LOG: &str = "64KiB";
/// The return of a member may disturb too: it is watched for so long.
const AFTER: Duration = Duration::from_millis(1_000);
/// A client that waits is served again by then.
const SETTLED: Duration = Duration::from_secs(5);

/// A way to fail, and what a client may have to wait because of it.
#[derive(Debug)]
struct Target {
    kind: FaultKind,
    what: &'static str,
    lasts: Duration,
    bound: Bound,
}

/// Bounds of the longest waits of all trials, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bound {
    median: Option<u64>,
    p95: u64,
    max: Option<u64>,
}

/// Which failures are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// SIGKILL of the leader alone.
    Failover,
    /// Members that are killed, stopped in order, and paused.
    Ends,
    /// Cuts between members, each in a network namespace of its own.
    Cuts,
    /// Disks that fail, are slow, full or read-only, each member on a file system of its own.
    Disks,
    /// Links between members that are slow, lossy and wild, with a switch of ours between them.
    Weather,
    /// A leader that has too little of a processor, or begins anew with another clock.
    Strain,
}

/// The figures are those of the page of promises; where it gives a range for the three cuts of a leader, a leader that
/// merely hears nobody is given the longer end: it must find out by itself.
impl Group {
    fn targets(self) -> Vec<Target> {
        let target = |kind, what, p95| Target { kind, what, lasts: LASTS, bound: Bound::p95(p95) };
        let paused = |what, millis| Target {
            lasts: Duration::from_millis(millis),
            ..target(FaultKind::PauseLeader, what, 1_000)
        };
        match self {
            Self::Failover => {
                let bound = Bound { median: Some(600), p95: 1_000, max: Some(2_000) };
                vec![Target { bound, ..target(FaultKind::KillLeader, "leader killed", 1_000) }]
            }
            Self::Ends => vec![
                target(FaultKind::StopLeader, "leader stopped", 150),
                target(FaultKind::StopFollower, "follower stopped", 100),
                target(FaultKind::KillFollower, "follower killed", 100),
                paused("leader paused 0.5 s", 500),
                paused("leader paused 3 s", 3_000),
                paused("leader paused 30 s", 30_000),
            ],
            Self::Disks => vec![
                target(FaultKind::FailSync, "a sync fails", 3_000),
                target(FaultKind::SlowSync, "syncs take 200 ms", 3_000),
                target(FaultKind::FillDisk, "disk full", 3_000),
                target(FaultKind::ReadOnlyDisk, "disk read-only", 3_000),
            ],
            Self::Weather => vec![
                target(FaultKind::SlowNetwork, "25 to 75 ms each way", 1_000),
                target(FaultKind::LossyNetwork, "5 % lost", 1_000),
                target(FaultKind::WildNetwork, "doubled, reordered", 1_000),
            ],
            Self::Strain => vec![
                target(FaultKind::StarveLeader, "a fifth of a processor", 1_000),
                target(FaultKind::SkewClock, "clock a day ahead", 1_000),
            ],
            Self::Cuts => vec![
                target(FaultKind::PartitionLeader, "leader cut off", 1_000),
                target(FaultKind::PartitionLeaderIn, "leader hears nobody", 1_500),
                target(FaultKind::PartitionLeaderOut, "leader not heard", 1_000),
                target(FaultKind::PartitionFollower, "follower cut off", 1_000),
                target(FaultKind::PartitionBridge, "leader and follower", 3_000),
            ],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Ends => "ends",
            Self::Cuts => "partitions",
            Self::Disks => "disks",
            Self::Weather => "weather",
            Self::Strain => "strain",
        }
    }

    fn ground(self) -> Ground {
        match self {
            Self::Failover | Self::Ends | Self::Disks | Self::Strain => Ground::Loopback,
            Self::Cuts => Ground::Namespaces,
            Self::Weather => Ground::Weather,
        }
    }
}

impl Bound {
    fn p95(p95: u64) -> Self {
        Self { median: None, p95, max: None }
    }

    /// Names of the figures of some waits that are above their bounds.
    fn misses(&self, found: &Spread) -> Vec<String> {
        let pairs = [
            ("median", found.median_us, self.median),
            ("p95", found.p95_us, Some(self.p95)),
            ("max", found.max_us, self.max),
        ];
        let above = pairs.into_iter().filter_map(|(figure, found, bound)| {
            let bound = bound.filter(|bound| found > bound * 1_000)?;
            Some(format!("{figure} {} ms is above {bound} ms", ms(found)))
        });
        above.collect()
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none =
            |bound: Option<u64>| bound.map_or_else(|| "-".to_owned(), |it| it.to_string());
        write!(f, "{}/{}/{}", or_none(self.median), self.p95, or_none(self.max))
    }
}

/// What one way to fail came to.
#[derive(Debug)]
struct Line {
    what: &'static str,
    /// Longest time of a trial without any acknowledged write.
    writes: Spread,
    /// Longest time without an answer to any linearizable read.
    reads: Spread,
    /// Longest time without either, for the client that waited longest.
    client: Spread,
    bound: Bound,
    /// Trials in which another member led afterwards.
    moved: usize,
}

/// What all of them came to.
#[derive(Debug)]
pub struct Outages {
    lines: Vec<Line>,
    pub report: Report,
}

impl Outages {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.misses().is_empty()
    }

    /// Ways to fail that were tried.
    #[must_use]
    pub fn kinds(&self) -> usize {
        self.lines.len()
    }

    /// The longest wait for a write or a read, in microseconds.
    #[must_use]
    pub fn longest_us(&self) -> u64 {
        let waits = self.lines.iter().flat_map(|line| [line.writes.max_us, line.reads.max_us]);
        waits.max().unwrap_or_default()
    }

    fn misses(&self) -> Vec<String> {
        let waits = self
            .lines
            .iter()
            .flat_map(|line| [("writes", &line.writes, line), ("reads", &line.reads, line)]);
        let misses = waits.flat_map(|(of, waits, line)| {
            let name = move |miss| format!("{}, {of}: {miss}", line.what);
            line.bound.misses(waits).into_iter().map(name)
        });
        misses.collect()
    }
}

impl fmt::Display for Outages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  {:<20} {:>6} {:>6} {:>19}  {:>26}  {:>26}  {:>26}",
            "longest wait, ms",
            "trials",
            "moved",
            "p50/p95/max at most",
            "writes p50/p95/max",
            "reads",
            "slowest client"
        )?;
        for line in &self.lines {
            writeln!(
                f,
                "  {:<20} {:>6} {:>6} {:>19}  {:>26}  {:>26}  {:>26}",
                line.what,
                line.writes.count,
                line.moved,
                line.bound.to_string(),
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
pub async fn outages(
    setting: &Setting,
    group: Group,
    trials: u32,
    only: Option<FaultKind>,
) -> Result<Outages> {
    let mut targets = group.targets();
    targets.retain(|target| only.is_none_or(|only| only == target.kind));
    anyhow::ensure!(!targets.is_empty(), "there is no such fault among {}", group.name());
    let mut keeper = Keeper::new(setting, group.name())?;
    let mut lines = Vec::new();
    let options = Options {
        folder: Some(keeper.folder()),
        log_archive: true,
        ground: group.ground(),
        timings: Timings::Production,
        disks: group == Group::Disks,
        // A disk that is full is met when something new is written there: a snapshot is, every second or so.
        snapshot_log: (group == Group::Disks).then(|| SNAPSHOT_LOG.to_owned()),
        ..Options::three(&setting.binaries.pinrail)
    };
    let result = all_trials(setting, &options, trials, &targets, &keeper, &mut lines).await;
    let report = keeper.settle(result)?;
    Ok(Outages { lines, report })
}

async fn all_trials(
    setting: &Setting,
    options: &Options,
    trials: u32,
    targets: &[Target],
    keeper: &Keeper,
    lines: &mut Vec<Line>,
) -> Result<Report> {
    let bundles = [bundle(1), bundle(2)];
    let (mut load, mut nemesis) = open_external(setting, keeper, options, AGENT, &bundles).await?;
    let patience =
        Patience { attempt: ATTEMPT, pause: Duration::from_millis(10), ..Patience::default() };
    load.start_clients(AGENT, CLIENTS, Mix { get: 60, ..Mix::writes() }, patience);
    for target in targets {
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
        nemesis.strike(&[target.kind], target.lasts).await?;
        let fault = load.recorder.faults().get(before).cloned().context("the fault is recorded")?;
        let from_us = fault.effective_us.context("the fault took no effect")?;
        sleep(AFTER).await;
        let leads = nemesis.cluster.wait_leader(SETTLED).await?;
        let window = Gap { from_us, to_us: crate::clock::now_us() };
        let waits = settled(load, window).await;
        println!(
            "  {} {trial:>2}: longest wait for a write {} ms ({} ms after the fault), for a read {} ms, of the slowest \
             client {} ms; pinrail-{led} led, pinrail-{leads} leads",
            target.what,
            ms(waits.write.us),
            ms(waits.write.from_us.saturating_sub(from_us)),
            ms(waits.read.us),
            ms(waits.client)
        );
        writes.push(waits.write.us);
        reads.push(waits.read.us);
        client.push(waits.client);
        moved += usize::from(led != leads);
    }
    Ok(Line {
        what: target.what,
        writes: Spread::of(writes),
        reads: Spread::of(reads),
        client: Spread::of(client),
        bound: target.bound,
        moved,
    })
}

fn is_read(call: &Call) -> bool {
    call.is_linearizable() && !call.is_write()
}

/// The longest waits of a window.
struct Waits {
    write: Wait,
    read: Wait,
    /// Of the client that waited longest, in microseconds.
    client: u64,
}

impl Waits {
    fn of(load: &Load, window: Gap) -> Self {
        Self {
            write: load.recorder.longest_wait(window, Call::is_write),
            read: load.recorder.longest_wait(window, is_read),
            client: load.recorder.slowest_client(window),
        }
    }

    /// Whether each kind, and each client, was served after the window.
    fn are_over(&self) -> bool {
        [self.write.us, self.read.us, self.client].iter().all(|us| *us != u64::MAX)
    }
}

/// The waits of a window, once they are over: a kind that is rare may be asked for only later.
async fn settled(load: &Load, window: Gap) -> Waits {
    let deadline = tokio::time::Instant::now() + SETTLED;
    loop {
        let waits = Waits::of(load, window);
        if waits.are_over() || tokio::time::Instant::now() > deadline {
            return waits;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
