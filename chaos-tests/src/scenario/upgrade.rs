//! A rolling upgrade under load: members of one build are stopped in order and started again as another, one by one; one of
//! them goes back in between. While the builds are mixed the states must hash to the same, and clients hardly wait.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};

use super::conclude::conclude;
use super::opening::open_external;
use super::plan::{BUNDLES, bundle};
use super::{Nemesis, Setting};
use crate::cluster::{Cluster, Options, Timings};
use crate::history::{Call, Fault, FaultKind, Gap};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 6;
const ATTEMPT: Duration = Duration::from_millis(250);
/// Load between two changes, and behind each.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long a member may take to end, and the cluster to agree and to raise its feature level.
const END: Duration = Duration::from_secs(10);
const AGREE: Duration = Duration::from_secs(20);
/// What clients may wait for a write because of one change, at the 99th percentile of the changes.
const BOUND_US: u64 = 150_000;

/// What an upgrade came to.
#[derive(Debug)]
pub struct Upgrade {
    /// Longest time without an acknowledged write at each change.
    pub waits: Spread,
    /// Feature levels of the cluster before and after.
    pub levels: (u32, u32),
    pub report: Report,
}

impl Upgrade {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.waits.p99_us <= BOUND_US
    }
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  {} changes of a member's build; longest wait for a write: p50 {} ms, max {} ms (bound {} ms); feature level {} to {}",
            self.waits.count,
            ms(self.waits.median_us),
            ms(self.waits.max_us),
            BOUND_US / 1_000,
            self.levels.0,
            self.levels.1
        )?;
        if self.waits.p99_us > BOUND_US { writeln!(f, "  MISSED") } else { Ok(()) }
    }
}

/// From the build `old` to the one under test.
///
/// # Errors
/// When the harness failed.
pub async fn upgrade(setting: &Setting, old: &Path) -> Result<Upgrade> {
    ensure!(old.is_file(), "{} is not there", old.display());
    let mut keeper = Keeper::new(setting, "upgrade")?;
    let (mut waits, mut levels) = (Vec::new(), (0, 0));
    let result = story(setting, old, &keeper, &mut waits, &mut levels).await;
    let report = keeper.settle(result)?;
    Ok(Upgrade { waits: Spread::of(waits), levels, report })
}

async fn story(
    setting: &Setting,
    old: &Path,
    keeper: &Keeper,
    waits: &mut Vec<u64>,
    levels: &mut (u32, u32),
) -> Result<Report> {
    let new = setting.binaries.pinrail.as_path();
    let options = Options {
        folder: Some(keeper.folder()),
        timings: Timings::Production,
        ..Options::three(old)
    };
    let bundles: Vec<String> = (1..=BUNDLES).map(bundle).collect();
    let (mut load, mut nemesis) = open_external(setting, keeper, &options, AGENT, &bundles).await?;
    levels.0 = nemesis.cluster.nodes.feature_level(0).await?;
    let patience =
        Patience { attempt: ATTEMPT, pause: Duration::from_millis(10), ..Patience::default() };
    // The first one goes back to the old build while the builds are mixed.
    let changes =
        [(0, new, "new"), (1, new, "new"), (0, old, "old"), (0, new, "new"), (2, new, "new")];
    for (turn, (member, build, name)) in changes.into_iter().enumerate() {
        load.start_clients(AGENT, CLIENTS, Mix { get: 60, ..Mix::writes() }, patience);
        let window = change(&mut nemesis, member, build).await?;
        // Routes, pins and drains are made by both builds; and a wait ends with a write behind its window.
        let bundle_id = bundle(1 + (turn + 1) % BUNDLES);
        load.operator().operate(AGENT, Call::Switch { bundle_id }).await;
        let wait = load.recorder.longest_wait(window, Call::is_write).us;
        // Only members that stand still can be compared.
        load.finish().await;
        let agreed = nemesis.cluster.nodes.agree(AGREE).await.context("the builds differ")?;
        println!(
            "  pinrail-{member} runs the {name} build: longest wait for a write {} ms; all agree at index {}",
            ms(wait),
            agreed.applied_index
        );
        waits.push(wait);
    }
    levels.1 = raised(&nemesis.cluster, new, old, levels.0).await?;
    conclude(load, nemesis, keeper, 100).await
}

/// Stops a member in order and starts it as another build. Gives the time in which clients may have waited for it.
async fn change(nemesis: &mut Nemesis, member: usize, build: &Path) -> Result<Gap> {
    sleep(BETWEEN).await;
    let from_us = crate::clock::now_us();
    let server = &mut nemesis.cluster.members[member];
    server.terminate(END).await?;
    let effective_us = Some(crate::clock::now_us());
    server.start_build(build)?;
    let healed_us = crate::clock::now_us();
    // Whichever it was: it may have led.
    let kind = FaultKind::StopLeader;
    let fault = Fault { kind, nodes: vec![member], injected_us: from_us, effective_us, healed_us };
    nemesis.recorder.record_fault(fault);
    nemesis.cluster.wait_leader(END).await?;
    sleep(BETWEEN).await;
    Ok(Gap { from_us, to_us: crate::clock::now_us() })
}

/// The feature level once all run the new build: the old one's only when the two are the same.
async fn raised(cluster: &Cluster, new: &Path, old: &Path, before: u32) -> Result<u32> {
    let deadline = Instant::now() + AGREE;
    loop {
        let level = cluster.nodes.feature_level(0).await?;
        let same = std::fs::read(new)? == std::fs::read(old)?;
        if level > before || same || Instant::now() > deadline {
            return Ok(level);
        }
        sleep(Duration::from_millis(200)).await;
    }
}
