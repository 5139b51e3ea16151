//! Members are taken out of the cluster and others put in their place under load: an empty member joins, gets a snapshot, and votes.
//! Clients hardly wait.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pinrail_proto::v1;
use tokio::time::{Instant, sleep};

use super::Setting;
use super::conclude::conclude;
use super::opening::open_external;
use super::plan::bundle;
use crate::api::{request, until_ok};
use crate::cluster::{Cluster, Options, Timings};
use crate::history::{Call, Gap};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 6;
const ATTEMPT: Duration = Duration::from_millis(250);
const BETWEEN: Duration = Duration::from_millis(1_500);
const END: Duration = Duration::from_secs(10);
/// How long a change may take, with a snapshot that is sent.
const CHANGE: Duration = Duration::from_secs(30);
/// So small that the new member needs a snapshot.
const SNAPSHOT_LOG: &str = "64KiB";
const KEEP_ENTRIES: u64 = 100;
/// What clients may wait for a write because of one change.
const BOUND_US: u64 = 1_000_000;

/// What the changes came to.
#[derive(Debug)]
pub struct Membership {
    /// Longest time without an acknowledged write at each change.
    pub waits: Spread,
    pub report: Report,
}

impl Membership {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.waits.max_us <= BOUND_US
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  {} members removed and replaced; longest wait for a write: p50 {} ms, max {} ms (bound {} ms)",
            self.waits.count,
            ms(self.waits.median_us),
            ms(self.waits.max_us),
            BOUND_US / 1_000
        )?;
        if self.waits.max_us > BOUND_US { writeln!(f, "  MISSED") } else { Ok(()) }
    }
}

/// # Errors
/// When the harness failed.
pub async fn membership(setting: &Setting, changes: usize) -> Result<Membership> {
    let mut keeper = Keeper::new(setting, "membership")?;
    let mut waits = Vec::new();
    let result = story(setting, changes, &keeper, &mut waits).await;
    let report = keeper.settle(result)?;
    Ok(Membership { waits: Spread::of(waits), report })
}

async fn story(
    setting: &Setting,
    changes: usize,
    keeper: &Keeper,
    waits: &mut Vec<u64>,
) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        timings: Timings::Production,
        snapshot_log: Some(SNAPSHOT_LOG.to_owned()),
        keep_entries: Some(KEEP_ENTRIES),
        ..Options::three(&setting.binaries.pinrail)
    };
    let bundles = [bundle(1), bundle(2)];
    let (mut load, mut nemesis) = open_external(setting, keeper, &options, AGENT, &bundles).await?;
    load.start_watchers(AGENT, nemesis.cluster.members.len(), Duration::ZERO);
    let patience =
        Patience { attempt: ATTEMPT, pause: Duration::from_millis(10), ..Patience::default() };
    load.start_clients(AGENT, CLIENTS, Mix { get: 60, ..Mix::writes() }, patience);
    for change in 0..changes {
        sleep(BETWEEN).await;
        // The leader among them: it hands over first.
        let member = change % nemesis.cluster.members.len();
        let from_us = crate::clock::now_us();
        replace(&mut nemesis.cluster, member).await.with_context(|| format!("change {change}"))?;
        sleep(BETWEEN).await;
        let window = Gap { from_us, to_us: crate::clock::now_us() };
        // A wait ends with a write behind its window.
        sleep(BETWEEN).await;
        let wait = load.recorder.longest_wait(window, Call::is_write).us;
        println!("  pinrail-{member} was replaced: longest wait for a write {} ms", ms(wait));
        waits.push(wait);
    }
    load.finish().await;
    conclude(load, nemesis, keeper, 100).await
}

/// Removes a member, takes its data away, and adds it again under a new number.
async fn replace(cluster: &mut Cluster, member: usize) -> Result<()> {
    let name = cluster.members[member].name.clone();
    let removal = v1::RemoveMemberRequest { name: name.clone(), force: false };
    until_ok(&cluster.nodes, CHANGE, |mut stubs| {
        let removal = removal.clone();
        async move { stubs.cluster.remove_member(request(removal, CHANGE)).await }
    })
    .await
    .with_context(|| format!("remove {name}"))?;
    let other = (member + 1) % cluster.members.len();
    let join = cluster.members[other].peer.clone();
    let server = &mut cluster.members[member];
    server.terminate(END).await?;
    server.begin_anew(&join)?;
    let addition = v1::AddMemberRequest { name, peer_address: server.peer.clone(), learner: false };
    // Until the new process answers, nobody is there to be added.
    let deadline = Instant::now() + CHANGE;
    while let Err(error) = add(cluster, &addition).await {
        anyhow::ensure!(Instant::now() < deadline, "add {}: {error:#}", addition.name);
        sleep(Duration::from_millis(50)).await;
    }
    cluster.must_run()
}

async fn add(cluster: &Cluster, addition: &v1::AddMemberRequest) -> Result<()> {
    until_ok(&cluster.nodes, CHANGE, |mut stubs| {
        let addition = addition.clone();
        async move { stubs.cluster.add_member(request(addition, CHANGE)).await }
    })
    .await
    .map(drop)
}
