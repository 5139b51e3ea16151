//! What begins and ends with leadership: who leads is watched, time is anchored, the cluster is founded once,
//! snapshots are taken when the log has grown.

use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::type_config::async_runtime::WatchReceiver as _;
use pinrail_proto::log as pb;
use pinrail_state_machine::{FEATURE_LEVEL, query};
use prost::Message as _;
use tokio::time::{Instant, sleep};

use super::replica::{PeerInfo, Replica};
use super::state_machine::stored_position;
use super::types::PeerNode;

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    pub leader: Option<PeerInfo>,
    pub term: u64,
    /// This node leads, and everything of earlier leaders is applied here.
    pub here: bool,
}

/// How often the log's growth is looked at.
const GROWTH: Duration = Duration::from_millis(500);
/// How long the founding of the cluster may take before it is tried again.
const FOUNDING: Duration = Duration::from_secs(5);

/// Follows Raft's own view until the replica stops.
pub(super) async fn watch(replica: Replica) {
    let mut metrics = replica.raft().server_metrics();
    loop {
        let (leader, term, leads) = {
            let now = metrics.borrow_watched();
            let leader = now.current_leader.and_then(|id| {
                let node = now.membership_config.membership().get_node(&id)?;
                Some(PeerInfo {
                    node_id: id,
                    name: node.name.clone(),
                    grpc_address: replica.grpc_address_of(id, node),
                    peer_address: node.peer_address.clone(),
                })
            });
            (leader, now.vote.leader_id.term, now.state == ServerState::Leader)
        };
        if leader.is_some() {
            *replica.inner.leader_seen.lock() = Some(Instant::now());
        }
        let changed = {
            let before = replica.inner.leadership.borrow();
            before.leader != leader || before.term != term || before.here != leads
        };
        if changed {
            if leads {
                take_over(&replica, leader, term).await;
            } else {
                replica.time().follow();
                replica.inner.leadership.send_replace(Leadership { leader, term, here: false });
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = sleep(GROWTH) => {}
            () = replica.inner.stop.cancelled() => return,
        }
    }
}

/// Leads once every entry of earlier leaders is applied, the time is anchored and the cluster is founded.
async fn take_over(replica: &Replica, leader: Option<PeerInfo>, term: u64) {
    let known = replica.inner.leadership.borrow().clone();
    if known.term != term || known.here {
        replica.inner.leadership.send_replace(Leadership {
            leader: leader.clone(),
            term,
            here: false,
        });
    }
    let Ok(index) = replica.read_index_here().await else { return };
    if replica.wait_index(index, Instant::now() + FOUNDING).await.is_err() {
        return;
    }
    let floor = floor_ms(replica).await;
    replica.time().lead(floor);
    if !found(replica).await {
        return;
    }
    tracing::info!(term, node = replica.identity().node, "leads");
    replica.inner.leadership.send_replace(Leadership { leader, term, here: true });
}

/// The least stamp of a new leader: the state's time; or, when it does not remember, what another member does; or, when
/// nobody does, a quorum's guess from its wall clocks.
async fn floor_ms(replica: &Replica) -> u64 {
    let now_ms = replica.applied().borrow().now_ms;
    if replica.time().remembered().is_some() {
        return now_ms;
    }
    let others = replica.ask_others().await;
    let remembered = others.values().filter(|it| it.remembers_time).map(|it| it.time_estimate_ms);
    if let Some(remembered) = remembered.max() {
        return now_ms.max(remembered);
    }
    let mut guesses: Vec<u64> = others.values().map(|it| it.time_estimate_ms).collect();
    guesses.push(replica.time_estimate_ms());
    guesses.sort_unstable();
    let voters = replica.raft().voter_ids().count();
    // The lower one of two: a clock that is ahead would end pins early.
    let median = guesses[(guesses.len() - 1) / 2];
    // Fewer than a majority would trust a single odd clock.
    if guesses.len() > voters / 2 { now_ms.max(median) } else { now_ms }
}

impl Replica {
    /// Where clients find a member: what it said itself, else what was said when it was added.
    fn grpc_address_of(&self, id: u64, node: &PeerNode) -> String {
        if id == self.identity().node_id {
            return self.inner.grpc_address.clone();
        }
        let contacts = self.inner.contacts.lock();
        let said = contacts.get(&id).map(|contact| contact.answer.grpc_address.clone());
        said.filter(|said| !said.is_empty()).unwrap_or_else(|| node.grpc_address.clone())
    }

    /// What this node would say that the cluster's time is: what it remembers, or the state's time and the wall
    /// time since that was applied, or (in a new cluster) the wall's.
    pub(super) fn time_estimate_ms(&self) -> u64 {
        if let Some(remembered) = self.time().remembered() {
            return remembered;
        }
        let wall_ms = self.env().clock.wall_ms();
        let now_ms = self.applied().borrow().now_ms;
        if now_ms == 0 {
            return wall_ms;
        }
        let stored = stored_position(&*self.state().engine).ok().flatten().unwrap_or_default();
        now_ms + wall_ms.saturating_sub(stored.wall_ms.max(1)).min(wall_ms)
    }
}

/// The first command of a cluster: exactly one leader's is accepted.
async fn found(replica: &Replica) -> bool {
    let Ok(cluster) = replica.read(query::cluster) else { return false };
    if cluster.incarnation != 0 {
        return true;
    }
    let env = replica.env();
    let init = pb::InitCluster {
        cluster: replica.identity().cluster.clone(),
        cluster_id: Bytes::copy_from_slice(&env.random_u128().to_be_bytes()),
        incarnation: env.random_u64().max(1),
        feature_level: FEATURE_LEVEL,
    };
    let command = pb::Command { header: None, kind: Some(pb::command::Kind::InitCluster(init)) };
    let command = Bytes::from(command.encode_to_vec());
    replica.propose_here(vec![command], FOUNDING).await.is_ok()
}

/// Takes a snapshot whenever the log has grown by the configured bytes since the last one, whoever wrote them: a node that is
/// started again and again would replay an ever longer log otherwise.
pub(super) async fn take_snapshots(replica: Replica, every_bytes: u64) {
    let log = replica.inner.log.clone();
    let mut seen = log.appended_bytes();
    let mut grown = found_at_the_start(&replica, every_bytes).await;
    loop {
        tokio::select! {
            () = sleep(GROWTH) => {}
            () = replica.inner.stop.cancelled() => return,
        }
        let bytes = log.appended_bytes();
        grown += bytes.saturating_sub(seen);
        seen = bytes;
        if grown >= every_bytes {
            grown = 0;
            if let Err(error) = replica.trigger_snapshot().await {
                tracing::warn!(%error, "a snapshot could not be taken");
            }
        }
    }
}

/// Bytes of the log behind the newest snapshot that were there before this process.
async fn found_at_the_start(replica: &Replica, most: u64) -> u64 {
    let log = replica.inner.log.clone();
    let behind = replica.snapshot_index();
    match replica.env().blocking(move || log.bytes_behind(behind, most)).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(%error, "the log that was found cannot be measured");
            0
        }
    }
}

/// Ends the process when Raft has stopped by itself: a node that only looks alive is worse than none.
pub(super) async fn supervise(replica: Replica) {
    let mut metrics = replica.raft().metrics();
    loop {
        let state = metrics.borrow_watched().running_state.clone();
        if let Err(fatal) = state {
            if replica.inner.stop.is_cancelled() {
                return;
            }
            tracing::error!(%fatal, "Raft has stopped: the node ends");
            if replica.env().abort_on_fault {
                std::process::abort();
            }
            replica.inner.stop.cancel();
            return;
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = replica.inner.stop.cancelled() => return,
        }
    }
}
