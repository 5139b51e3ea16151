//! Measures the single numbers of each side, a round at a time.

use anyhow::{Result, ensure};
use tokio::time::Duration;

use super::amount::{Amount, Group};
use super::etcd::Etcd;
use super::failover::failover;
use super::folder;
use super::peers::Harness;
use super::pinrail::Pinrail;
use super::report::Report;
use super::size::Size;
use crate::scenario::moves;

/// Leaders that are killed in a round, on each side.
const TRIALS: usize = 3;
/// Open on the bundle that is left by a switch or rollback, and how often it is left in a round.
const PINS: u64 = 10_000;
const MOVES: usize = 100;

/// One number of each side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub(super) amount: Amount,
    pub(super) ours: f64,
    pub(super) etcd: Option<f64>,
}

impl Harness<'_> {
    /// # Errors
    /// When the harness failed.
    pub(super) async fn amounts(&self, group: Group, report: &mut Report) -> Result<Vec<Pair>> {
        match group {
            Group::Memory => self.memory(report).await,
            Group::Failover => self.failover().await,
            Group::Moves => self.moves().await,
        }
    }

    async fn memory(&self, report: &mut Report) -> Result<Vec<Pair>> {
        let keys = self.options.keys;
        let mut pinrail = Pinrail::start(&self.setting.binaries.pinrail, self.out()).await?;
        let ours = pinrail.size(keys).await?;
        pinrail.cluster.kill_all().await?;
        let etcd = match &self.peers.etcd {
            Some(binary) => {
                let mut etcd = Etcd::start(binary, self.out()).await?;
                report.versions.insert("etcd".to_owned(), etcd.version.clone());
                Some(etcd.size(keys).await?)
            }
            None => None,
        };
        let pair = |amount, of: fn(&Size) -> f64| Pair {
            amount,
            ours: of(&ours),
            etcd: etcd.as_ref().map(of),
        };
        Ok(vec![
            pair(Amount::Idle, |size| mib(size.idle_bytes)),
            pair(Amount::Full, |size| mib(size.full_bytes)),
            pair(Amount::Restart, |size| size.restart.as_secs_f64()),
        ])
    }

    async fn failover(&self) -> Result<Vec<Pair>> {
        let (ours, etcd) = failover(self.setting, TRIALS, 0).await?.medians_us();
        let (ours, etcd) = (seconds(ours), etcd.map(seconds));
        Ok(vec![Pair { amount: Amount::Failover, ours, etcd }])
    }

    async fn moves(&self) -> Result<Vec<Pair>> {
        let folder = folder::fresh(self.out())?;
        let pins = usize::try_from(PINS.min(self.options.keys))?;
        let size = moves::Size { pins, moves: MOVES };
        let found = moves::moves(self.setting, size, Some(folder.path())).await?;
        ensure!(found.is_exact(), "a run started on the wrong bundle:\n{found}");
        let pair = |amount, p99_us| Pair { amount, ours: seconds(p99_us), etcd: None };
        Ok(vec![
            pair(Amount::Switch, found.switches.p99_us),
            pair(Amount::Rollback, found.rollbacks.p99_us),
        ])
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}
