//! A follower that was down past the log's tail catches up by snapshot while writes go on; its content hash then
//! equals the others'.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

use super::conclude::conclude;
use super::plan::bundle;
use super::{Load, Nemesis, Setting};
use crate::api::setup::Policy;
use crate::cluster::{Cluster, Options};
use crate::history::{Fault, FaultKind, Recorder};
use crate::report::{Keeper, Report};
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
const CLIENTS: u32 = 8;
/// So small that a few seconds of load purge the log.
const SNAPSHOT_LOG: &str = "128KiB";
const KEEP_ENTRIES: u64 = 20;
/// How long the log may take to leave the follower behind, and the follower to come back.
const PURGE: Duration = Duration::from_secs(60);
const CATCH_UP: Duration = Duration::from_secs(60);

/// # Errors
/// When the harness failed.
pub async fn snapshot(setting: &Setting) -> Result<Report> {
    let mut keeper = Keeper::new(setting, "snapshot")?;
    let result = story(setting, &keeper).await;
    keeper.settle(result)
}

async fn story(setting: &Setting, keeper: &Keeper) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        log_archive: true,
        snapshot_log: Some(SNAPSHOT_LOG.to_owned()),
        keep_entries: Some(KEEP_ENTRIES),
        ..Options::three(&setting.binaries.pinrail)
    };
    let mut cluster = Cluster::start(&options).await?;
    let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
    let mut load = Load::new(cluster.nodes.clone(), recorder.clone(), setting.seed);
    let policy = Policy { external: true, ..Policy::default() };
    load.add_agent(AGENT, policy, &[bundle(1)]).await?;
    let mix = Mix { pause: Duration::from_millis(2), ..Mix::writes() };
    load.start_clients(AGENT, CLIENTS, mix, Patience::default());

    let follower = cluster.follower().await.context("no follower")?;
    let before = cluster.nodes.status(follower).await.context("the follower says nothing")?;
    let injected_us = crate::clock::now_us();
    cluster.members[follower].kill().await?;
    let effective_us = Some(crate::clock::now_us());
    println!(
        "  {} killed at applied index {}",
        cluster.members[follower].name, before.applied_index
    );
    let tail = wait_purged(&mut cluster, before.applied_index).await?;
    println!(
        "  the leader's snapshot is at index {tail}, and the log before it is gone; writes go on"
    );
    cluster.members[follower].start()?;
    let healed_us = crate::clock::now_us();
    let fault = Fault {
        kind: FaultKind::KillFollower,
        nodes: vec![follower],
        injected_us,
        effective_us,
        healed_us,
    };
    recorder.record_fault(fault);
    let begin = Instant::now();
    let status = wait_caught_up(&cluster, follower, tail).await?;
    println!(
        "  caught up after {:?}: applied index {}, snapshot index {}",
        begin.elapsed(),
        status.applied_index,
        status.snapshot_index
    );
    load.finish().await;
    let agreed = cluster.nodes.agree(Duration::from_secs(30)).await?;
    println!(
        "  content hash of all three at index {}: {}",
        agreed.applied_index, agreed.content_hash
    );
    let nemesis = Nemesis { cluster, workers: None, recorder };
    conclude(load, nemesis, keeper, 100).await
}

/// Waits until the leader's snapshot is so far ahead that the follower's next entry is purged.
async fn wait_purged(cluster: &mut Cluster, follower_index: u64) -> Result<u64> {
    let deadline = Instant::now() + PURGE;
    loop {
        let leader = cluster.wait_leader(Duration::from_secs(10)).await?;
        if let Some(status) = cluster.nodes.status(leader).await
            && status.snapshot_index > follower_index + 4 * KEEP_ENTRIES
        {
            return Ok(status.snapshot_index);
        }
        if Instant::now() > deadline {
            bail!("the log was not purged within {PURGE:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_caught_up(
    cluster: &Cluster,
    follower: usize,
    tail: u64,
) -> Result<crate::api::agree::Status> {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        if let Some(status) = cluster.nodes.status(follower).await
            && status.applied_index >= tail
            && status.snapshot_index >= tail
        {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!(
                "the follower did not catch up by snapshot within {CATCH_UP:?}: {:?}\n{}",
                cluster.nodes.status(follower).await,
                cluster.members[follower].tail(10)
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
}
