//! SIGKILL of the leader under load: how long until a write is acknowledged again.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::conclude::conclude;
use super::plan::bundle;
use super::{Load, Nemesis, Setting};
use crate::api::setup::Policy;
use crate::cluster::{Cluster, Options};
use crate::history::{FaultKind, Recorder};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 4;
const MEDIAN_US: u64 = 1_300_000;
const P90_US: u64 = 2_000_000;
const MAX_US: u64 = 5_000_000;
/// Load between two kills.
const BETWEEN: Duration = Duration::from_millis(1_000);
const DOWN: Duration = Duration::from_millis(2_500);

/// What the trials came to.
#[derive(Debug)]
pub struct Failover {
    pub times: Spread,
    pub report: Report,
}

impl Failover {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.misses().is_empty()
    }

    fn misses(&self) -> Vec<String> {
        [
            ("median", self.times.median_us, MEDIAN_US),
            ("p90", self.times.p90_us, P90_US),
            ("max", self.times.max_us, MAX_US),
        ]
        .into_iter()
        .filter(|(_, found, bound)| found > bound)
        .map(|(what, found, bound)| format!("{what} {} ms is above {} ms", ms(found), ms(bound)))
        .collect()
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  next acknowledged write after SIGKILL of the leader, {} trials: median {} ms (bound {}), p90 {} ms \
             (bound {}), max {} ms (bound {})",
            self.times.count,
            ms(self.times.median_us),
            ms(MEDIAN_US),
            ms(self.times.p90_us),
            ms(P90_US),
            ms(self.times.max_us),
            ms(MAX_US)
        )?;
        self.misses().iter().try_for_each(|miss| writeln!(f, "  MISSED: {miss}"))
    }
}

/// # Errors
/// When the harness failed.
pub async fn failover(setting: &Setting, trials: u32) -> Result<Failover> {
    let mut keeper = Keeper::new(setting, "failover")?;
    let mut times = Vec::new();
    let result = all_trials(setting, trials, &keeper, &mut times).await;
    let report = keeper.settle(result)?;
    Ok(Failover { times: Spread::of(times), report })
}

async fn all_trials(
    setting: &Setting,
    trials: u32,
    keeper: &Keeper,
    times: &mut Vec<u64>,
) -> Result<Report> {
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let cluster = Cluster::start(&options).await?;
    let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
    let mut load = Load::new(cluster.nodes.clone(), recorder.clone(), setting.seed);
    let policy = Policy { external: true, ..Policy::default() };
    load.add_agent(AGENT, policy, &[bundle(1)]).await?;
    let mut nemesis = Nemesis { cluster, workers: None, recorder };
    let patience = Patience {
        attempt: Duration::from_millis(1_000),
        pause: Duration::from_millis(10),
        ..Patience::default()
    };
    load.start_clients(AGENT, CLIENTS, Mix::writes(), patience);
    for trial in 1..=trials {
        sleep(BETWEEN).await;
        let before = load.recorder.faults().len();
        nemesis.strike(FaultKind::KillLeader, DOWN).await?;
        let fault = load.recorder.faults().get(before).cloned().context("the fault is recorded")?;
        // The next write may still be outstanding when the member is back.
        let served = wait_served(&load, fault.injected_us).await;
        let took = served.map_or(u64::MAX, |at| at - fault.injected_us);
        println!(
            "  trial {trial:>2}: leader pinrail-{} killed, next acknowledged write after {} ms",
            fault.nodes[0],
            ms(took)
        );
        times.push(took);
        nemesis.cluster.wait_leader(Duration::from_secs(10)).await?;
    }
    load.finish().await;
    conclude(load, nemesis, keeper, 100).await
}

async fn wait_served(load: &Load, since_us: u64) -> Option<u64> {
    for _ in 0..400 {
        if let Some(at) = load.recorder.first_acked_write_since(since_us) {
            return Some(at);
        }
        sleep(Duration::from_millis(20)).await;
    }
    None
}
