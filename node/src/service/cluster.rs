//! ClusterService.

use std::time::Duration;

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{ClusterRecord, Probe};
use pinrail_proto::time::{duration, timestamp};
use pinrail_proto::v1::cluster_service_server::ClusterService;
use pinrail_proto::v1::{self, HealthState, MemberRole};
use pinrail_proto::{id, reason};
use pinrail_state_machine::query;
use pinrail_state_machine::query::dispatch::{ContentHash, content_hash};
use pinrail_state_machine::store::{Fault, Read};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use crate::raft::{MemberStatus, ReadError, Replica, ReplicaStatus};

use super::forward::{answered, forwarded};
use super::read::timeout_of;
use super::{Node, backup, error};

/// A quorum that does not answer a probe for so long counts as lost.
const PROBE: Duration = Duration::from_secs(1);

/// How often a look at the state is repeated that fell between a write and the news of it, and how soon.
const LOOKS: usize = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Cluster(pub(super) Node);

fn member(status: &MemberStatus) -> v1::Member {
    let role = match (status.leader, status.voter) {
        (true, _) => MemberRole::Leader,
        (false, true) => MemberRole::Follower,
        (false, false) => MemberRole::Learner,
    };
    v1::Member {
        node_id: status.node_id,
        name: status.name.clone(),
        grpc_address: status.grpc_address.clone(),
        peer_address: status.peer_address.clone(),
        role: role.into(),
        reachable: status.reachable,
        applied_index: status.applied_index,
        last_contact: status.last_contact_ms.map(duration),
        version: status.version.clone(),
        directory: status.directory.clone(),
        replaced: status.replaced,
        forgot: status.forgot,
    }
}

fn problems(status: &ReplicaStatus) -> Vec<String> {
    let problem = |member: &MemberStatus| {
        let name = &member.name;
        if member.forgot && !member.replaced {
            return Some(format!(
                "{name} came back without entries that it had acknowledged, and takes no part: pinrail cluster remove \
                 {name}, then docs/RECOVERY.md, A damaged member"
            ));
        }
        if !member.reachable {
            return Some(format!("{name} does not answer"));
        }
        member.replaced.then(|| {
            format!(
                "{name} has lost its data directory and takes no part: pinrail cluster remove {name}, then \
                 pinrail cluster add {name} {}",
                member.peer_address
            )
        })
    };
    status.members.iter().filter_map(problem).collect()
}

/// One moment of the state and the log index that it belongs to: members are compared by it. The state is written
/// before its index is told, so a look in between gives none, unless it is the `last` one.
fn look<T>(
    replica: &Replica,
    last: bool,
    f: impl FnOnce(&dyn Read) -> Result<T, Fault>,
) -> Result<Option<(T, ClusterRecord, u64)>, ReadError> {
    replica.read(|read| {
        let cluster = query::cluster(read)?;
        let at = *replica.applied().borrow();
        if (at.revision, at.now_ms) != (cluster.revision, cluster.now_ms) && !last {
            return Ok(None);
        }
        Ok(Some((f(read)?, cluster, at.log_index)))
    })
}

impl Cluster {
    async fn state(&self) -> Result<(ClusterRecord, u64), Status> {
        for left in (0..LOOKS).rev() {
            let looked = look(&self.0.replica, left == 0, |_| Ok(()));
            if let Some(((), cluster, index)) = looked.map_err(error::read)? {
                return Ok((cluster, index));
            }
            sleep(LOOK_AGAIN).await;
        }
        Err(error::read(ReadError::Stopping))
    }

    /// A full scan: not on the thread that answers everybody else.
    async fn content(&self) -> Result<(ContentHash, ClusterRecord, u64), Status> {
        for left in (0..LOOKS).rev() {
            let replica = self.0.replica.clone();
            let scan = move || look(&replica, left == 0, content_hash);
            let scanned = self.0.replica.env().blocking(scan).await;
            if let Some(found) = scanned.map_err(error::read)? {
                return Ok(found);
            }
            sleep(LOOK_AGAIN).await;
        }
        Err(error::read(ReadError::Stopping))
    }

    /// How long a quorum read and a committed probe take, or which of them failed.
    async fn probe(&self) -> Result<(Duration, Duration, u64), String> {
        let began = Instant::now();
        let read = self.0.replica.barrier(PROBE).await;
        read.map_err(|error| format!("no read with a quorum: {error}"))?;
        let read = began.elapsed();
        let began = Instant::now();
        let written = self.0.propose(None, Kind::Probe(Probe {}), PROBE).await;
        let (_, revision) = written.map_err(|status| format!("no write: {}", status.message()))?;
        Ok((read, began.elapsed(), revision))
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_cluster_status(
        &self,
        _request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        let status = self.0.replica.status();
        let (cluster, applied_index) = self.state().await?;
        let leader = status.leader.clone().unwrap_or_default();
        Ok(Response::new(v1::GetClusterStatusResponse {
            cluster: status.cluster,
            cluster_id: hex::encode(&status.cluster_id),
            node: status.node,
            node_id: status.node_id,
            leader: leader.name,
            leader_grpc_address: leader.grpc_address,
            term: status.term,
            last_log_index: status.last_log_index,
            applied_index,
            revision: cluster.revision,
            cluster_time: timestamp(cluster.now_ms),
            members: status.members.iter().map(member).collect(),
            state_hash: hex::encode(&cluster.state_hash),
            feature_level: cluster.feature_level,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            age: status.leader_age_ms.map(duration),
            snapshot_index: status.snapshot_index,
        }))
    }

    async fn get_cluster_health(
        &self,
        _request: Request<v1::GetClusterHealthRequest>,
    ) -> Result<Response<v1::GetClusterHealthResponse>, Status> {
        let mut health = v1::GetClusterHealthResponse::default();
        let millis = |d: Duration| duration(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        health.problems = problems(&self.0.replica.status());
        match self.probe().await {
            Ok((read, write, revision)) => {
                health.read_latency = Some(millis(read));
                health.write_latency = Some(millis(write));
                health.revision = revision;
                let degraded = !health.problems.is_empty();
                health.set_state(if degraded {
                    HealthState::Degraded
                } else {
                    HealthState::Healthy
                });
            }
            Err(problem) => {
                health.problems.push(problem);
                health.set_state(HealthState::NoQuorum);
            }
        }
        Ok(Response::new(health))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        if !self.0.replica.leadership().borrow().here {
            let mut leader = self.0.cluster_at_leader(&request)?;
            let timeout = timeout_of(&request);
            let call = leader.add_member(forwarded(request.into_inner()));
            return answered(timeout, call).await;
        }
        let it = request.into_inner();
        id::check_name("member", &it.name)
            .map_err(|error| error::refuse(reason::INVALID_ID, error.to_string()))?;
        let added = self.0.replica.add_member(&it.name, &it.peer_address, it.learner).await;
        let added = added.map_err(error::member)?;
        Ok(Response::new(v1::AddMemberResponse { member: Some(member(&added)) }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        if !self.0.replica.leadership().borrow().here {
            let mut leader = self.0.cluster_at_leader(&request)?;
            let timeout = timeout_of(&request);
            let call = leader.remove_member(forwarded(request.into_inner()));
            return answered(timeout, call).await;
        }
        let it = request.into_inner();
        let removed = self.0.replica.remove_member(&it.name, it.force).await;
        let removed = removed.map_err(error::member)?;
        Ok(Response::new(v1::RemoveMemberResponse { member: Some(member(&removed)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        if !self.0.replica.leadership().borrow().here {
            let mut leader = self.0.cluster_at_leader(&request)?;
            let timeout = timeout_of(&request);
            let call = leader.transfer_leader(forwarded(request.into_inner()));
            return answered(timeout, call).await;
        }
        let it = request.into_inner();
        let to = (!it.to.is_empty()).then_some(it.to.as_str());
        let leader = self.0.replica.transfer_leader(to).await.map_err(error::member)?;
        Ok(Response::new(v1::TransferLeaderResponse { leader: leader.name }))
    }

    type SaveSnapshotStream = backup::Parts;

    async fn save_snapshot(
        &self,
        _request: Request<v1::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        Ok(Response::new(backup::save(&self.0).await?))
    }

    async fn get_content_hash(
        &self,
        request: Request<v1::GetContentHashRequest>,
    ) -> Result<Response<v1::GetContentHashResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let mut applied = self.0.replica.applied();
        let there = applied.wait_for(|at| at.log_index >= it.min_applied_index);
        if tokio::time::timeout(timeout, there).await.is_err() {
            let message = format!("index {} is not applied here", it.min_applied_index);
            return Err(error::refuse(reason::STALE_READ, message));
        }
        let (content, cluster, applied_index) = self.content().await?;
        Ok(Response::new(v1::GetContentHashResponse {
            content_hash: hex::encode(content.hash),
            revision: cluster.revision,
            applied_index,
            keys: content.keys,
            state_hash: hex::encode(&cluster.state_hash),
        }))
    }
}
