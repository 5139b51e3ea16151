//! Calls that only the leader can answer, passed on to it.

use pinrail_proto::limits::API_ANSWER_BYTES;
use pinrail_proto::v1;
use pinrail_proto::v1::cluster_service_client::ClusterServiceClient;
use pinrail_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::time::{Duration, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{Node, error};
use crate::raft::PeerInfo;

/// A node that forwards says so: the one it asks does not forward again.
pub(super) const FORWARDED: &str = "pinrail-forwarded";
/// How long a stream or call waits for a leader that it can be relayed to.
const LEADER_WITHIN: Duration = Duration::from_secs(2);
/// How long the leader may take to say which workers it has: the answer is worth it only when it comes soon.
const WORKERS: Duration = Duration::from_millis(1_500);

impl Node {
    /// A channel to the leader, which must be another node; a call that was forwarded already is not again.
    pub(super) fn leader_channel<T>(&self, request: &Request<T>) -> Result<Channel, Status> {
        let leader = self.replica.leadership().borrow().leader.clone();
        let own = self.replica.status().node_id;
        match leader {
            Some(leader)
                if leader.node_id != own
                    && !leader.grpc_address.is_empty()
                    && !request.metadata().contains_key(FORWARDED) =>
            {
                Ok(self.replica.env().net.connect(&leader.grpc_address))
            }
            leader => Err(error::no_leader(leader.as_ref())),
        }
    }

    /// The leader, once it is another node that has said where clients find it: one that is just elected may not have yet.
    pub(super) async fn other_leader(&self) -> Option<PeerInfo> {
        let own = self.replica.status().node_id;
        let mut leadership = self.replica.leadership();
        let elsewhere = leadership.wait_for(|now| {
            let other = now.leader.as_ref().filter(|leader| leader.node_id != own);
            other.is_some_and(|leader| !leader.grpc_address.is_empty())
        });
        timeout(LEADER_WITHIN, elsewhere).await.ok()?.ok()?.leader.clone()
    }

    pub(super) fn cluster_at_leader<T>(
        &self,
        request: &Request<T>,
    ) -> Result<ClusterServiceClient<Channel>, Status> {
        Ok(ClusterServiceClient::new(self.leader_channel(request)?))
    }

    /// Live workers of an agent, from the leader; none when it cannot say soon.
    pub(super) async fn workers(&self, namespace: &str, agent_id: &str) -> Option<Vec<v1::Worker>> {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        if let Some(workers) = self.dispatch.workers(namespace, agent_id, "") {
            return Some(workers);
        }
        let request = v1::ListWorkersRequest {
            namespace: namespace.to_owned(),
            agent_id: agent_id.to_owned(),
            bundle_id: String::new(),
        };
        let channel = self.leader_channel(&Request::new(())).ok()?;
        let mut client =
            WorkerServiceClient::new(channel).max_decoding_message_size(API_ANSWER_BYTES);
        let answer = timeout(WORKERS, client.list_workers(forwarded(request))).await.ok()?;
        Some(answer.ok()?.into_inner().workers)
    }

    /// The same for a change that is judged by them: what nobody knows is no zero, so a leader that is not known yet is waited for.
    pub(super) async fn known_workers(
        &self,
        namespace: &str,
        agent_id: &str,
    ) -> Result<Vec<v1::Worker>, Status> {
        if !self.dispatch.leads() {
            self.other_leader().await;
        }
        self.workers(namespace, agent_id).await.ok_or_else(|| error::no_leader(None))
    }
}

/// What the leader says to a call that changes something. Its own word stays as it is; without one nobody knows whether
/// it was done.
pub(super) async fn answered<T>(
    within: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    match timeout(within, call).await {
        Ok(Err(status)) if status.get_details_error_info().is_none() => {
            Err(error::unknown(&format!("the leader: {}", status.message()), ""))
        }
        Ok(answer) => answer,
        Err(_) => Err(error::unknown("the leader did not answer in time", "")),
    }
}

pub(super) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// Workers and slots of one bundle.
pub(super) fn slots_of(workers: &[v1::Worker], bundle_id: &str) -> (u64, u64, u64) {
    let live = workers
        .iter()
        .filter(|worker| worker.bundle_id == bundle_id && worker.state() == v1::WorkerState::Live);
    live.fold((0, 0, 0), |(count, slots, free), worker| {
        (count + 1, slots + u64::from(worker.slots), free + u64::from(worker.free_slots))
    })
}
