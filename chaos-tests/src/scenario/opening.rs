//! How scenarios with one agent begin: everything that is written down goes into the scenario's folder.

use std::time::Duration;

use anyhow::Result;

use super::{Load, Nemesis, Setting};
use crate::api::setup::Policy;
use crate::cluster::{Cluster, Options};
use crate::history::Recorder;
use crate::report::Keeper;
use crate::worker::Workers;

/// Starts a cluster with an agent that somebody watches at each member, and a worker of each of its bundles.
///
/// # Errors
/// When the harness failed.
pub(super) async fn open(
    setting: &Setting,
    keeper: &Keeper,
    options: &Options,
    agent: &str,
    bundles: &[String],
) -> Result<(Load, Nemesis)> {
    let policy = Policy::default();
    let (mut load, mut nemesis) = begin(setting, keeper, options, agent, policy, bundles).await?;
    let cluster = &nemesis.cluster;
    load.start_watchers(agent, cluster.members.len(), Duration::ZERO);
    let mut workers =
        Workers::new(&setting.binaries.worker, &keeper.folder(), &cluster.endpoints())?;
    for bundle_id in bundles {
        workers.start(agent, bundle_id)?;
    }
    nemesis.workers = Some(workers);
    Ok((load, nemesis))
}

/// Starts a cluster with an agent whose runs execute elsewhere.
///
/// # Errors
/// When the harness failed.
pub(super) async fn open_external(
    setting: &Setting,
    keeper: &Keeper,
    options: &Options,
    agent: &str,
    bundles: &[String],
) -> Result<(Load, Nemesis)> {
    let policy = Policy { external: true, ..Policy::default() };
    begin(setting, keeper, options, agent, policy, bundles).await
}

async fn begin(
    setting: &Setting,
    keeper: &Keeper,
    options: &Options,
    agent: &str,
    policy: Policy,
    bundles: &[String],
) -> Result<(Load, Nemesis)> {
    let cluster = Cluster::start(options).await?;
    let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
    let mut load = Load::new(cluster.nodes.clone(), recorder.clone(), setting.seed);
    load.add_agent(agent, policy, bundles).await?;
    Ok((load, Nemesis { cluster, workers: None, recorder }))
}
