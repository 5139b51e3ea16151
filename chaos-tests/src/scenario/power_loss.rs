//! All members lose power at once under load, again and again: whatever they had not synced is gone. Every acknowledged
//! write is there afterwards, the states of the members hash to the same, and they serve soon after they start.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use super::Setting;
use super::conclude::conclude;
use super::opening::open;
use super::plan::bundle;
use crate::cluster::{Options, Timings};
use crate::history::FaultKind;
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{AdminStep, Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 8;
/// Load before power is lost, and after it is back.
const BEFORE: Duration = Duration::from_millis(2_500);
const AFTER: Duration = Duration::from_millis(500);
const DOWN: Duration = Duration::from_millis(20);
/// So small that a snapshot is taken about once a cycle: snapshots must outlive the loss too, and what is applied again
/// at the start stays about the same from cycle to cycle.
const SNAPSHOT_LOG: &str = "64KiB";
const KEEP_ENTRIES: u64 = 200;
/// The members must come back within this time, and agree.
const BACK: Duration = Duration::from_secs(30);
const AGREE: Duration = Duration::from_secs(20);
/// How soon after the start of the processes a write must be acknowledged.
const SERVING_US: u64 = 3_000_000;
/// So many writes must have been acknowledged shortly before the power was lost, or the loss hit nothing.
const LEAST_BEFORE: usize = 20;

/// What the cycles came to.
#[derive(Debug)]
pub struct PowerLoss {
    /// From the start of the processes to the first acknowledged write.
    pub serving: Spread,
    pub report: Report,
}

impl PowerLoss {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.serves_in_time()
    }

    fn serves_in_time(&self) -> bool {
        self.serving.max_us <= SERVING_US
    }
}

impl fmt::Display for PowerLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  first acknowledged write after the start, {} losses of power: median {} ms, p95 {} ms, max {} ms (target {})",
            self.serving.count,
            ms(self.serving.median_us),
            ms(self.serving.p95_us),
            ms(self.serving.max_us),
            ms(SERVING_US)
        )?;
        if !self.serves_in_time() {
            writeln!(f, "  MISSED: it did not serve in time")?;
        }
        Ok(())
    }
}

/// # Errors
/// When the harness failed.
pub async fn power_loss(setting: &Setting, cycles: u32) -> Result<PowerLoss> {
    let mut keeper = Keeper::new(setting, "power-loss")?;
    let mut serving = Vec::new();
    let result = all_cycles(setting, cycles, &keeper, &mut serving).await;
    let report = keeper.settle(result)?;
    Ok(PowerLoss { serving: Spread::of(serving), report })
}

async fn all_cycles(
    setting: &Setting,
    cycles: u32,
    keeper: &Keeper,
    serving: &mut Vec<u64>,
) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        log_archive: true,
        disks: true,
        timings: Timings::Production,
        snapshot_log: Some(SNAPSHOT_LOG.to_owned()),
        keep_entries: Some(KEEP_ENTRIES),
        ..Options::three(&setting.binaries.pinrail)
    };
    let bundles = [bundle(1), bundle(2)];
    let (mut load, mut nemesis) = open(setting, keeper, &options, AGENT, &bundles).await?;
    let mut problems = Vec::new();
    for cycle in 1..=cycles {
        // The route changes right when the power goes.
        let to = bundles[cycle as usize % 2].clone();
        let at = u64::try_from(BEFORE.as_millis())?.saturating_sub(u64::from(cycle) % 5 * 10);
        load.start_admin(AGENT, Instant::now(), &[(at, AdminStep::SwitchTo(to))]);
        load.start_clients(AGENT, CLIENTS, mix(), patience());
        let begin_us = crate::clock::now_us();
        sleep(BEFORE).await;
        let before = load.recorder.faults().len();
        nemesis.strike(&[FaultKind::LosePower], DOWN).await?;
        let fault = load.recorder.faults().get(before).cloned().context("the fault is recorded")?;
        let down_us = fault.effective_us.context("power was not lost")?;
        if let Err(error) = nemesis.cluster.wait_leader(BACK).await {
            // It promises to come back: there is nothing to be read any more, but a verdict.
            let problem = format!("cycle {cycle}: no leader after the power was back: {error:#}");
            return Ok(Report { problems: vec![problem], ..Report::default() });
        }
        sleep(AFTER).await;
        load.finish().await;
        let acked = load.recorder.acked_writes(begin_us, down_us);
        anyhow::ensure!(acked >= LEAST_BEFORE, "only {acked} writes before the power was lost");
        let served = load.recorder.first_acked_write_since(down_us);
        let took = served.map_or(u64::MAX, |at| at.saturating_sub(fault.healed_us));
        serving.push(took);
        match nemesis.cluster.nodes.agree(AGREE).await {
            Ok(agreed) => println!(
                "  cycle {cycle:>2}: {acked} writes before it, the first one {} ms after the start; members agree at index {}: {}",
                ms(took),
                agreed.applied_index,
                agreed.state_hash
            ),
            Err(error) => problems.push(format!("cycle {cycle}: {error:#}")),
        }
    }
    let mut report = conclude(load, nemesis, keeper, 100).await?;
    report.problems.extend(problems);
    Ok(report)
}

/// Mostly writes, and so many that some are always under way.
fn mix() -> Mix {
    Mix { pause: Duration::from_millis(20), put: 60, ..Mix::everything() }
}

/// Attempts at members without power end soon, so that what is measured is the members' time.
fn patience() -> Patience {
    Patience { attempt: Duration::from_millis(500), ..Patience::default() }
}
