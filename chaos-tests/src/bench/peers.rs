//! Ours and a peer by turns: for each round and row our servers are started, measured and ended, then the peer's. So whatever changes
//! on the machine meanwhile meets both, and no measurement has another one's data or work beside it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use pinrail_client::bench::{Figures, Load};
use tokio::time::Duration;

use super::compared::Compared;
use super::etcd::Etcd;
use super::folder;
use super::machine::{Machine, syncs_per_second};
use super::pinrail::Pinrail;
use super::postgres::Postgres;
use super::report::Report;
use super::restate::Restate;
use super::row::{Peer, ROWS, Row};
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
    /// Only rows of this name: start, put, read, lookup, step, run, chain, job, watch. May be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Where the report goes as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures every row whose peer is here, and says which are left out and why.
///
/// # Errors
/// When the harness failed.
pub async fn peers(setting: &Setting, options: &Options) -> Result<Report> {
    let harness = Harness { setting, options, peers: Peers::locate() };
    let probe = folder::fresh(setting.out.as_deref())?;
    let mut report = Report::new(Machine::here());
    report.syncs_before = syncs_per_second(probe.path())?;
    eprintln!("{}", report.machine());
    let rows = ROWS
        .iter()
        .filter(|row| options.only.is_empty() || options.only.iter().any(|name| name == row.name));
    report.rows = rows.map(|row| Compared::new(*row, harness.lacks(row.peer))).collect();
    for round in 1..=options.rounds {
        for at in 0..report.rows.len() {
            if report.rows[at].lacks.is_some() {
                continue;
            }
            let row = report.rows[at].row;
            eprintln!("round {round}: {}, clients: {}", row.name, row.both_clients());
            let ours = harness.ours(&row).await?;
            let peer = harness.peer(&row, &mut report).await?;
            eprintln!(
                "  ours {:.0}/s, {} {:.0}/s",
                ours.per_second,
                row.peer.name(),
                peer.per_second
            );
            report.rows[at].ours.push(ours);
            report.rows[at].peer.push(peer);
        }
    }
    report.syncs_after = syncs_per_second(probe.path())?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.json())?)?;
    }
    Ok(report)
}

struct Harness<'h> {
    setting: &'h Setting,
    options: &'h Options,
    peers: Peers,
}

impl Harness<'_> {
    fn load(&self, row: &Row, clients: usize) -> Load {
        let Options { warm_up, duration, .. } = *self.options;
        Load { clients, rate: row.rate, warm_up, duration }
    }

    fn out(&self) -> Option<&Path> {
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
            Peer::Restate(_) => (
                self.peers.restate.is_some(),
                "PINRAIL_RESTATE names no restate-server, or PINRAIL_RESTATE_SERVICE no pinrail-restate",
            ),
        };
        (!is_here).then(|| how.to_owned())
    }

    async fn ours(&self, row: &Row) -> Result<Figures> {
        let mut pinrail = Pinrail::start(&self.setting.binaries.pinrail, self.out()).await?;
        let figures = pinrail.measure(row.ours, self.load(row, row.clients)).await?;
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
            (Peer::Etcd(_) | Peer::Postgres(_) | Peer::Restate(_), _) => None,
        };
        Ok(figures.unwrap_or_default())
    }
}
