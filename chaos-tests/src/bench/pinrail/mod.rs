//! Our side: three server processes with the settings that they have by default, on fresh data.

mod size;

use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use pinrail_client::bench::{Figures, Ground, Load, Subject, Workload, connections, kept};
use pinrail_client::{Client, Config, v1};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::failover::{ATTEMPT, first_write};
use super::folder;
use crate::cluster::{Cluster, Options, Timings};

/// How long a leader may take to be known.
const LEADER: Duration = Duration::from_secs(20);

/// A cluster that is there for one measurement.
pub(super) struct Pinrail {
    pub(super) cluster: Cluster,
    /// Goes after the processes.
    _folder: TempDir,
}

impl Pinrail {
    pub(super) async fn start(binary: &Path, out: Option<&Path>) -> Result<Self> {
        let folder = folder::fresh(out)?;
        let options = Options {
            timings: Timings::Production,
            folder: Some(folder.path().to_owned()),
            apart: true,
            ..Options::three(binary)
        };
        let cluster = Cluster::start(&options).await?;
        Ok(Self { cluster, _folder: folder })
    }

    /// Kills the leader once the cluster has settled; microseconds until one of the others acknowledges a write.
    pub(super) async fn lose_leader(&mut self, settle: Duration) -> Result<u64> {
        let leader = self.cluster.wait_leader(LEADER).await?;
        let others = (0..self.cluster.members.len()).filter(|node| *node != leader);
        let others: Vec<Client> =
            others.map(|node| self.at(node, ATTEMPT)).collect::<Result<_>>()?;
        let ground = Ground::make(&self.at(leader, LEADER)?).await?;
        let agent = Workload::Start.name();
        ground.agent(agent, Workload::Start.execution(), kept(settle)).await?;
        let start = |caller: usize, number: usize| {
            let client = others[(caller + number) % others.len()].with_namespace(ground.name());
            async move {
                let request =
                    v1::StartRunRequest { agent_id: agent.to_owned(), ..Default::default() };
                client.runs().start(request).await.is_ok()
            }
        };
        first_write(Instant::now(), start).await?;
        sleep(settle).await;
        let killed = Instant::now();
        self.cluster.members[leader].kill().await?;
        first_write(killed, start).await
    }

    /// One measurement, with such inputs and values; all clients ask the leader.
    pub(super) async fn measure(
        &mut self,
        workload: Workload,
        load: Load,
        value: Bytes,
    ) -> Result<Option<Figures>> {
        let leader = self.cluster.wait_leader(LEADER).await?;
        let client = || self.at(leader, Config::default().timeout);
        let ground = Ground::make(&client()?).await?;
        let connections: Vec<Client> = (0..connections(load.clients))
            .map(|_| Ok(client()?.with_namespace(ground.name())))
            .collect::<Result<_>>()?;
        let pids = self.cluster.pids();
        let subject = Subject { ground: &ground, connections, servers: &pids, value };
        let figures = subject.measure(workload, load, &CancellationToken::new()).await;
        self.cluster.must_run()?;
        figures.with_context(|| format!("measure {}", workload.name()))
    }

    /// A client of one member alone.
    fn at(&self, member: usize, timeout: Duration) -> Result<Client> {
        let endpoints = vec![self.cluster.members[member].grpc.clone()];
        let config = Config { endpoints, timeout, ..Config::default() };
        Ok(Client::builder(config).learn_members(false).build()?)
    }
}
