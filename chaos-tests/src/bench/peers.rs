//! Ours and a peer by turns: for each round and row our servers are started, measured and ended, then the peer's. So whatever changes
//! on the machine meanwhile meets both, and no measurement has another one's data or work beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use pinrail_client::bench::{Figures, Load, Workload, value};
use tokio::time::Duration;

use super::amount::{Amount, Group, Weighed};
use super::compared::Compared;
use super::etcd::Etcd;
use super::folder;
use super::machine::{Machine, syncs_per_second};
use super::pinrail::Pinrail;
use super::postgres::Postgres;
use super::report::{Method, Report};
use super::restate::Restate;
use super::row::{Own, Peer, ROWS, Row};
use crate::config::Peers;
use crate::scenario::Setting;

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Measurements of each side of each row.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of each measurement.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Before each measurement.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Runs that are open, or keys, in rows about many of them.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_900_000))]
    pub(super) keys: u64,
    /// Only rows of this name: start, put, read, lookup, cached, step, run, chain, job, watch, dispatch, flat, memory,
    /// failover, moves. May be repeated.
    #[arg(long, value_parser = known)]
    only: Vec<String>,
    /// Where the report goes as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Open runs that are few.
const FEW: u64 = 1_000;

/// The names of all rows.
fn names() -> Vec<&'static str> {
    let groups = Group::ALL.into_iter().map(Group::name);
    let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).chain(groups).collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

fn known(name: &str) -> Result<String, String> {
    let all = names();
    if all.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("no row has this name; there are {}", all.join(", ")))
}

/// Measures every row whose peer is here, and says which are left out and why.
///
/// # Errors
/// When the harness failed.
pub async fn peers(setting: &Setting, options: &Options) -> Result<Report> {
    let harness = Harness { setting, options, peers: Peers::locate() };
    let probe = folder::fresh(setting.out.as_deref())?;
    let Options { rounds, duration, keys, .. } = *options;
    let method = Method { rounds, seconds: duration.as_secs_f64(), keys };
    let mut report = Report::new(Machine::here(), method);
    report.syncs_before = syncs_per_second(probe.path())?;
    eprintln!("{}", report.machine());
    let rows = ROWS.iter().filter(|row| harness.is_wanted(row.name));
    report.rows = rows.map(|row| Compared::new(*row, harness.lacks(row.peer))).collect();
    let amounts = Amount::ALL.into_iter().filter(|it| harness.is_wanted(it.group().name()));
    report.amounts = amounts.map(Weighed::new).collect();
    for round in 1..=options.rounds {
        harness.loads(round, &mut report).await?;
        for group in Group::ALL.into_iter().filter(|group| harness.is_wanted(group.name())) {
            eprintln!("round {round}: {}", group.name());
            for pair in harness.amounts(group, &mut report).await? {
                for weighed in report.amounts.iter_mut().filter(|it| it.amount == pair.amount) {
                    weighed.ours.push(pair.ours);
                    weighed.etcd.extend(pair.etcd);
                }
            }
        }
    }
    report.syncs_after = syncs_per_second(probe.path())?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.json())?)?;
    }
    Ok(report)
}

/// What measures.
pub(super) struct Harness<'h> {
    pub(super) setting: &'h Setting,
    pub(super) options: &'h Options,
    pub(super) peers: Peers,
}

impl Harness<'_> {
    fn is_wanted(&self, name: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|only| only == name)
    }

    /// One round of the rows that have a load.
    async fn loads(&self, round: usize, report: &mut Report) -> Result<()> {
        for at in 0..report.rows.len() {
            if report.rows[at].lacks.is_some() {
                continue;
            }
            let row = report.rows[at].row;
            eprintln!("round {round}: {}, clients: {}", row.name, row.both_clients());
            let ours = self.ours(&row).await?;
            let peer = self.peer(&row, report).await?;
            eprintln!(
                "  ours {:.0}/s, {} {:.0}/s",
                ours.per_second,
                row.peer.name(),
                peer.per_second
            );
            report.rows[at].ours.push(ours);
            report.rows[at].peer.push(peer);
        }
        Ok(())
    }

    fn load(&self, row: &Row, clients: usize) -> Load {
        let Options { warm_up, duration, .. } = *self.options;
        Load { clients, rate: row.rate, warm_up, duration: duration.max(row.least) }
    }

    pub(super) fn out(&self) -> Option<&Path> {
        self.setting.out.as_deref()
    }

    /// What cannot be had here for this peer.
    fn lacks(&self, peer: Peer) -> Option<String> {
        let (is_here, how) = match peer {
            Peer::Etcd(_) => (self.peers.etcd.is_some(), "PINRAIL_ETCD names no etcd program"),
            Peer::Postgres(_) => (
                self.peers.postgres.is_some(),
                "PINRAIL_POSTGRES names no folder with postgres and initdb",
            ),
            Peer::Own(_) => return None,
            Peer::Restate(_) => (
                self.peers.restate.is_some(),
                "PINRAIL_RESTATE names no restate-server, or PINRAIL_RESTATE_SERVICE no pinrail-restate",
            ),
        };
        (!is_here).then(|| how.to_owned())
    }

    async fn ours(&self, row: &Row) -> Result<Figures> {
        let open = if row.among_many { self.options.keys } else { 0 };
        self.own(row.ours, self.load(row, row.clients), open).await
    }

    /// Ours, with so many runs open beside it.
    async fn own(&self, workload: Workload, load: Load, open: u64) -> Result<Figures> {
        let mut pinrail = Pinrail::start(&self.setting.binaries.pinrail, self.out()).await?;
        if open > 0 {
            pinrail.open_runs(open).await?;
        }
        let figures = pinrail.measure(workload, load, value()).await?;
        pinrail.cluster.kill_all().await?;
        Ok(figures.unwrap_or_default())
    }

    async fn peer(&self, row: &Row, report: &mut Report) -> Result<Figures> {
        let load = self.load(row, row.peer_clients());
        let figures = match (row.peer, &self.peers) {
            (Peer::Etcd(call), Peers { etcd: Some(binary), .. }) => {
                let mut etcd = Etcd::start(binary, self.out()).await?;
                report.versions.insert("etcd".to_owned(), etcd.version.clone());
                etcd.measure(call, load).await?
            }
            (Peer::Postgres(call), Peers { postgres: Some(programs), .. }) => {
                let mut postgres = Postgres::start(programs, self.out()).await?;
                report.versions.insert("PostgreSQL".to_owned(), postgres.version.clone());
                postgres.measure(call, load).await?
            }
            (Peer::Restate(call), Peers { restate: Some(programs), .. }) => {
                let mut restate = Restate::start(programs, self.out()).await?;
                report.versions.insert("Restate".to_owned(), restate.version.clone());
                restate.measure(call, load).await?
            }
            (Peer::Own(Own::Start), _) => {
                return self.own(Workload::Start, load, 0).await;
            }
            (Peer::Own(Own::StepAmongFew), _) => {
                return self.own(Workload::Step, load, FEW.min(self.options.keys)).await;
            }
            (Peer::Etcd(_) | Peer::Postgres(_) | Peer::Restate(_), _) => None,
        };
        Ok(figures.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_once_and_a_name_that_none_has_is_refused_with_those_that_are() {
        let all = names();
        assert_eq!(all.iter().filter(|name| **name == "start").count(), 1);
        assert_eq!(known("memory").as_deref(), Ok("memory"));
        let refused = known("stat").expect_err("no such row");
        assert!(refused.contains("start, put"), "{refused}");
    }
}
