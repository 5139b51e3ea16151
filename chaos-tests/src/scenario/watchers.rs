//! Very many watch an agent's events, some of them slowly and some without ever reading, while the leader is killed again and
//! again: nobody misses an event or hears one twice, and those who do not read hold up nobody.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pinrail_proto::v1;
use tokio::time::sleep;

use super::Setting;
use super::conclude::conclude;
use super::opening::open_external;
use super::plan::bundle;
use crate::api::{Nodes, request};
use crate::cluster::Options;
use crate::history::{Call, FaultKind, Gap};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 2;
/// One watcher in ten takes so long over every answer, and one in twenty never reads.
const SLOW: Duration = Duration::from_millis(200);
const OPENS: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_secs(3);
const DOWN: Duration = Duration::from_secs(1);
/// A machine with so many watchers and two processors is busy: that writes go on is demanded, not how soon.
const BOUND_US: u64 = 2_000_000;

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub watchers: usize,
    pub kills: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Watchers {
    pub size: Size,
    /// Longest time without an acknowledged write around each kill.
    pub waits: Spread,
    pub report: Report,
}

impl Watchers {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.waits.max_us <= BOUND_US
    }
}

impl fmt::Display for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  {} watchers, {} kills of the leader; longest wait for a write: p50 {} ms, max {} ms (bound {} ms)",
            self.size.watchers,
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
pub async fn watchers(setting: &Setting, size: Size) -> Result<Watchers> {
    let mut keeper = Keeper::new(setting, "watchers")?;
    let mut waits = Vec::new();
    let result = story(setting, size, &keeper, &mut waits).await;
    let report = keeper.settle(result)?;
    Ok(Watchers { size, waits: Spread::of(waits), report })
}

async fn story(
    setting: &Setting,
    size: Size,
    keeper: &Keeper,
    waits: &mut Vec<u64>,
) -> Result<Report> {
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let bundles = [bundle(1), bundle(2)];
    let (mut load, mut nemesis) = open_external(setting, keeper, &options, AGENT, &bundles).await?;
    let slow = size.watchers / 10;
    load.start_watchers(AGENT, size.watchers - slow, Duration::ZERO);
    load.start_watchers(AGENT, slow, SLOW);
    // They have a connection of their own: what is not read there is not in anybody's way.
    let addresses = nemesis.cluster.members.iter().map(|member| member.grpc.as_str());
    let dead = dead(&Nodes::connect(addresses)?, size.watchers / 20).await?;
    load.start_clients(AGENT, CLIENTS, Mix::external(), Patience::default());
    for _ in 0..size.kills {
        sleep(BETWEEN).await;
        let from_us = crate::clock::now_us();
        nemesis.strike(&[FaultKind::KillLeader], DOWN).await?;
        sleep(BETWEEN).await;
        let window = Gap { from_us, to_us: crate::clock::now_us() };
        // A wait ends with a write behind its window.
        sleep(DOWN).await;
        waits.push(load.recorder.longest_wait(window, Call::is_write).us);
    }
    load.finish().await;
    drop(dead);
    conclude(load, nemesis, keeper, 100).await
}

/// Opens streams that nobody reads.
async fn dead(
    nodes: &Nodes,
    count: usize,
) -> Result<Vec<tonic::Streaming<v1::WatchEventsResponse>>> {
    let mut streams = Vec::new();
    for number in 0..count {
        let message = v1::WatchEventsRequest {
            agent_id: AGENT.to_owned(),
            ..v1::WatchEventsRequest::default()
        };
        let mut events = nodes.stubs(number).events;
        let opened = events.watch_events(request(message, OPENS)).await;
        streams.push(opened.context("open a stream")?.into_inner());
    }
    Ok(streams)
}
