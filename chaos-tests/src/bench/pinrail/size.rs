//! Very many open runs of an agent that executes them itself, or keys of its memory.

use anyhow::{Context as _, Result};
use pinrail_client::bench::{Ground, connections, value};
use pinrail_client::payload::JSON;
use pinrail_client::{Client, Error, v1};
use tokio::time::{Duration, Instant};

use super::super::size::{AT_ONCE, Size, back, fill, weigh};
use super::{LEADER, Pinrail};

const AGENT: &str = "open";
/// A cluster that does nothing else may let a start wait for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than anything is measured: what is filled does not go meanwhile.
const KEPT: Duration = Duration::from_secs(86_400);
/// Of an agent; it may have no more.
const AGENT_BUNDLES: u64 = 100;
/// Of those, which an agent of the ground has from the start.
const GROUND_BUNDLES: u64 = 2;
/// How long a member that begins anew may hold one question.
const ANSWER: Duration = Duration::from_secs(1);

impl Pinrail {
    /// Starts so many runs, which stay open.
    pub(in super::super) async fn open_runs(&mut self, count: u64) -> Result<Ground> {
        let (ground, clients) = self.crowd().await?;
        let input = payload();
        let start = |number: u64| {
            let request = v1::StartRunRequest {
                agent_id: AGENT.to_owned(),
                run_id: format!("bench-{number:012}"),
                input: Some(input.clone()),
                ..Default::default()
            };
            let client = &clients[number as usize % clients.len()];
            async move { client.runs().start(request).await.map(drop) }
        };
        fill("open runs", count, start).await?;
        Ok(ground)
    }

    /// Puts so many values into memory.
    pub(in super::super) async fn put_keys(&mut self, count: u64) -> Result<()> {
        let (_, clients) = self.crowd().await?;
        let value = payload();
        let put = |number: u64| {
            let request = v1::PutMemoryRequest {
                agent_id: AGENT.to_owned(),
                key: format!("bench/{number:012}"),
                value: Some(value.clone()),
                ..Default::default()
            };
            let client = &clients[number as usize % clients.len()];
            async move { client.memory().put(request).await.map(drop) }
        };
        fill("keys", count, put).await
    }

    /// Registers so many bundles, [`AGENT_BUNDLES`] for each agent, of which one is live.
    pub(in super::super) async fn register_bundles(&mut self, count: u64) -> Result<()> {
        let leader = self.cluster.wait_leader(LEADER).await?;
        let ground = &Ground::make(&self.at(leader, PATIENCE)?).await?;
        let register = |number: u64| async move {
            let agent = format!("agent-{number}");
            ground.agent(&agent, v1::Execution::External, KEPT).await?;
            for bundle in GROUND_BUNDLES..AGENT_BUNDLES {
                ground.bundle(&agent, &format!("b{bundle}")).await?;
            }
            Ok::<(), Error>(())
        };
        fill("agents", count / AGENT_BUNDLES, register).await
    }

    /// An agent on ground of its own, and clients that share the work.
    async fn crowd(&mut self) -> Result<(Ground, Vec<Client>)> {
        let leader = self.cluster.wait_leader(LEADER).await?;
        let ground = Ground::make(&self.at(leader, PATIENCE)?).await?;
        ground.agent(AGENT, v1::Execution::External, KEPT).await?;
        let clients = (0..connections(AT_ONCE))
            .map(|_| Ok(self.at(leader, PATIENCE)?.with_namespace(ground.name())))
            .collect::<Result<_>>()?;
        Ok((ground, clients))
    }

    /// Weighs the members, empty and with so many open runs, and starts one of them anew.
    pub(in super::super) async fn size(&mut self, count: u64) -> Result<Size> {
        let idle_bytes = weigh(&self.cluster.pids()).await?;
        let ground = self.open_runs(count).await?;
        let full_bytes = weigh(&self.cluster.pids()).await?;
        let restart = self.restart(&ground).await?;
        self.cluster.must_run()?;
        Ok(Size { idle_bytes, full_bytes, restart })
    }

    /// Kills a follower and starts it; until it answers from its own state with all that was acknowledged.
    async fn restart(&mut self, ground: &Ground) -> Result<Duration> {
        let leader = self.cluster.wait_leader(LEADER).await?;
        let follower = self.cluster.follower().await.context("nobody follows")?;
        let leads = self.at(leader, PATIENCE)?.with_namespace(ground.name());
        let asked = |read: Option<v1::ReadOptions>| v1::GetAgentRequest {
            agent_id: AGENT.to_owned(),
            read,
            ..Default::default()
        };
        let min_revision = leads.agents().get(asked(None)).await?.revision;
        self.cluster.members[follower].kill().await?;
        let since = Instant::now();
        self.cluster.members[follower].start()?;
        let client = self.at(follower, ANSWER)?.with_namespace(ground.name());
        let consistency = v1::Consistency::Local.into();
        let read = Some(v1::ReadOptions { consistency, min_revision });
        back(since, || async { client.agents().get(asked(read)).await.is_ok() }).await
    }
}

fn payload() -> v1::Payload {
    v1::Payload { content_type: JSON.to_owned(), data: value() }
}
