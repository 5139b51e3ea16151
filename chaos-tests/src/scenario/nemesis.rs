//! The one that hurts: it injects a fault, sees that it took effect, heals it, and writes it down.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use crate::api::perform;
use crate::clock;
use crate::cluster::{Cluster, Way, Weather};
use crate::history::{Answer, Call, Fault, FaultKind, Outcome, Recorder};
use crate::worker::Workers;

/// How long the cluster may take to elect a leader before a fault is aimed at it.
const AIM: Duration = Duration::from_secs(10);
/// How long a member may take to end in order.
const END: Duration = Duration::from_secs(10);
/// How far the boot clock of a member is off when it begins anew.
const AHEAD: Duration = Duration::from_hours(24);
const ASK: Duration = Duration::from_secs(1);

/// Owns the processes while it hurts them.
#[derive(Debug)]
pub struct Nemesis {
    pub cluster: Cluster,
    pub workers: Option<Workers>,
    pub recorder: Recorder,
}

impl Nemesis {
    /// Injects faults one after the other, the next while those before it last, and heals them all.
    ///
    /// # Errors
    /// When a process does not do what it is told, or ended by itself.
    pub async fn strike(&mut self, kinds: &[FaultKind], lasts: Duration) -> Result<()> {
        let count = u32::try_from(kinds.len().max(1))?;
        let mut struck = Vec::new();
        for kind in kinds {
            let nodes = self.aim(*kind).await?;
            let injected_us = clock::now_us();
            let effective_us = self.inject(*kind, &nodes).await?;
            struck.push(Fault { kind: *kind, nodes, injected_us, effective_us, healed_us: 0 });
            sleep(lasts / count).await;
        }
        self.heal().await?;
        let healed_us = clock::now_us();
        for fault in struck {
            self.recorder.record_fault(Fault { healed_us, ..fault });
        }
        Ok(())
    }

    /// Which nodes a fault is aimed at, or which worker: one of the live bundle, which has work.
    async fn aim(&mut self, kind: FaultKind) -> Result<Vec<usize>> {
        Ok(match kind {
            FaultKind::KillLeader
            | FaultKind::StopLeader
            | FaultKind::PauseLeader
            | FaultKind::PartitionLeader
            | FaultKind::PartitionLeaderIn
            | FaultKind::PartitionLeaderOut
            | FaultKind::FailSync
            | FaultKind::SlowSync
            | FaultKind::FillDisk
            | FaultKind::ReadOnlyDisk
            | FaultKind::StarveLeader
            | FaultKind::SkewClock => vec![self.cluster.wait_leader(AIM).await?],
            FaultKind::KillFollower
            | FaultKind::StopFollower
            | FaultKind::PauseFollower
            | FaultKind::PartitionFollower => {
                self.cluster.wait_leader(AIM).await?;
                vec![self.cluster.follower().await.context("no follower is up")?]
            }
            FaultKind::PartitionBridge => {
                let leader = self.cluster.wait_leader(AIM).await?;
                let follower = self.cluster.follower().await.context("no follower is up")?;
                anyhow::ensure!(leader != follower, "the leader changed while it was aimed at");
                vec![leader, follower]
            }
            FaultKind::KillAll
            | FaultKind::LosePower
            | FaultKind::SlowNetwork
            | FaultKind::LossyNetwork
            | FaultKind::WildNetwork => (0..self.cluster.members.len()).collect(),
            FaultKind::KillWorker | FaultKind::PauseWorker => vec![self.busy_worker().await?],
            FaultKind::FailDisk | FaultKind::Partition | FaultKind::LostWrites => {
                anyhow::bail!("{kind:?} is a fault of the simulation")
            }
        })
    }

    async fn busy_worker(&mut self) -> Result<usize> {
        let leader = self.cluster.wait_leader(AIM).await?;
        let Some(workers) = &self.workers else { return Ok(0) };
        let call = Call::ResolveRoute { local: true };
        let channel = self.cluster.nodes.channel(leader);
        let route = perform(channel, workers.agent(), &call, "", ASK).await;
        let live = match route {
            Outcome::Ok { answer: Answer::Route { bundle_id, .. }, .. } => bundle_id,
            Outcome::Ok { .. } | Outcome::Rejected { .. } | Outcome::Unknown { .. } => {
                String::new()
            }
        };
        Ok(workers.of_bundle(&live).unwrap_or_default())
    }

    /// When the fault was seen to have taken effect.
    async fn inject(&mut self, kind: FaultKind, nodes: &[usize]) -> Result<Option<u64>> {
        match kind {
            FaultKind::KillLeader | FaultKind::KillFollower => {
                for node in nodes {
                    self.cluster.members[*node].kill().await?;
                }
            }
            FaultKind::StopLeader | FaultKind::StopFollower => {
                for node in nodes {
                    self.cluster.members[*node].terminate(END).await?;
                }
            }
            FaultKind::PauseLeader | FaultKind::PauseFollower => {
                for node in nodes {
                    self.cluster.members[*node].freeze().await?;
                }
            }
            FaultKind::KillAll => self.cluster.kill_all().await?,
            FaultKind::LosePower => self.cluster.cut_power().await?,
            FaultKind::FailSync => self.cluster.fail_sync(nodes[0]).await?,
            FaultKind::SlowSync => self.cluster.slow_syncs(nodes[0]).await?,
            FaultKind::FillDisk => self.cluster.fill_disk(nodes[0]).await?,
            FaultKind::ReadOnlyDisk => self.cluster.turn_read_only(nodes[0]).await?,
            FaultKind::StarveLeader => self.cluster.starve(nodes[0]).await?,
            FaultKind::SkewClock => self.cluster.start_ahead(nodes[0], AHEAD).await?,
            FaultKind::KillWorker => match &mut self.workers {
                Some(workers) => workers.replace(nodes[0]).await?,
                None => return Ok(None),
            },
            FaultKind::PauseWorker => match &mut self.workers {
                Some(workers) => workers.freeze(nodes[0]).await?,
                None => return Ok(None),
            },
            FaultKind::PartitionLeader | FaultKind::PartitionFollower => {
                return self.isolate(nodes[0], Way::Both).await;
            }
            FaultKind::PartitionLeaderIn => return self.isolate(nodes[0], Way::In).await,
            FaultKind::PartitionLeaderOut => return self.isolate(nodes[0], Way::Out).await,
            FaultKind::PartitionBridge => {
                return self.cluster.cut(nodes[0], Way::Both, &nodes[1..]).await.map(Some);
            }
            FaultKind::SlowNetwork => self.cluster.set_weather(Weather::SLOW).await?,
            FaultKind::LossyNetwork => self.cluster.set_weather(Weather::LOSSY).await?,
            FaultKind::WildNetwork => self.cluster.set_weather(Weather::WILD).await?,
            FaultKind::FailDisk | FaultKind::Partition | FaultKind::LostWrites => return Ok(None),
        }
        // Killing and freezing return once the kernel shows that it is done; lost power, once no write goes through.
        Ok(Some(clock::now_us()))
    }

    /// Cuts a member off from all others.
    async fn isolate(&self, node: usize, way: Way) -> Result<Option<u64>> {
        let others: Vec<usize> =
            (0..self.cluster.members.len()).filter(|other| *other != node).collect();
        self.cluster.cut(node, way, &others).await.map(Some)
    }

    /// Mends the network, gives power back, starts what is down and thaws what is frozen.
    ///
    /// # Errors
    /// When a process cannot be started, or ended by itself.
    pub async fn heal(&mut self) -> Result<()> {
        self.cluster.heal().await?;
        if let Some(workers) = &mut self.workers {
            workers.thaw_all()?;
            workers.must_run()?;
        }
        self.cluster.must_run()
    }
}
