//! `kill -9` of all members at once under load, again and again: every acknowledged write is there afterwards, and the
//! states of the members hash to the same.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use super::Setting;
use super::conclude::conclude;
use super::opening::open;
use super::plan::bundle;
use crate::cluster::Options;
use crate::history::FaultKind;
use crate::report::{Keeper, Report, ms};
use crate::workload::{AdminStep, Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 5;
/// Load before the kill, and after the restart.
const BEFORE: Duration = Duration::from_millis(1_200);
const AFTER: Duration = Duration::from_millis(500);
const DOWN: Duration = Duration::from_millis(50);
/// The restarted cluster must serve within this time.
const SERVE: Duration = Duration::from_secs(15);
const AGREE: Duration = Duration::from_secs(20);

/// # Errors
/// When the harness failed.
pub async fn kill_all(setting: &Setting, cycles: u32) -> Result<Report> {
    let mut keeper = Keeper::new(setting, "kill-all")?;
    let result = all_cycles(setting, cycles, &keeper).await;
    keeper.settle(result)
}

async fn all_cycles(setting: &Setting, cycles: u32, keeper: &Keeper) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        log_archive: true,
        ..Options::three(&setting.binaries.pinrail)
    };
    let bundles = [bundle(1), bundle(2)];
    let (mut load, mut nemesis) = open(setting, keeper, &options, AGENT, &bundles).await?;
    let mut problems = Vec::new();
    for cycle in 1..=cycles {
        // The route changes right when the members die.
        let to = bundles[cycle as usize % 2].clone();
        let at = u64::try_from(BEFORE.as_millis())?.saturating_sub(u64::from(cycle) % 5 * 10);
        load.start_admin(AGENT, Instant::now(), &[(at, AdminStep::SwitchTo(to))]);
        load.start_clients(AGENT, CLIENTS, Mix::everything(), Patience::default());
        sleep(BEFORE).await;
        let killed_us = crate::clock::now_us();
        nemesis.strike(&[FaultKind::KillAll], DOWN).await?;
        nemesis.cluster.wait_leader(SERVE).await.context("no leader after the restart")?;
        sleep(AFTER).await;
        load.finish().await;
        let served = load.recorder.first_acked_write_since(killed_us);
        match nemesis.cluster.nodes.agree(AGREE).await {
            Ok(agreed) => println!(
                "  cycle {cycle:>2}: next acknowledged write {} ms after the kill; members agree at index {}: {}",
                served.map_or_else(|| "no".to_owned(), |at| ms(at - killed_us)),
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
