//! The formation of a cluster from a list of members.
//!
//! Each member of the list whose directory is new forms the cluster once a majority of the list meets and none
//! of those has a cluster already. All of them write the same first entry, with the same members under numbers
//! that follow from their names, so it does not matter how many do it. A member that comes later, or whose
//! directory was lost, finds that the others have a cluster and waits for their leader. A second formation is
//! refused by Raft itself: its log is not empty then.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use pinrail_proto::peer;
use tokio::time::sleep;

use super::replica::Replica;
use super::settings::ReplicaConfig;
use super::start::founding_node_id;
use super::types::PeerNode;

/// How often the others are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long one of them may take to say who it is.
const ANSWER: Duration = Duration::from_millis(500);

pub(super) async fn form(replica: Replica, config: ReplicaConfig) {
    if !config.join.is_empty() || !replica.inner.started_empty {
        return;
    }
    if !config.members.is_empty() && !config.members.iter().any(|m| m.name == config.node) {
        tracing::warn!(node = config.node, "is not in the list of members: waits to be added");
        return;
    }
    loop {
        if is_part_of_a_cluster(&replica).await {
            return;
        }
        if may_form(&replica, &config).await {
            initialize(&replica, &config).await;
            return;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = replica.inner.stop.cancelled() => return,
        }
    }
}

async fn is_part_of_a_cluster(replica: &Replica) -> bool {
    replica.raft().is_initialized().await.unwrap_or(true)
}

/// Whether a majority of the list is here and none of it has a cluster.
async fn may_form(replica: &Replica, config: &ReplicaConfig) -> bool {
    let others: Vec<_> =
        config.members.iter().filter(|member| member.name != config.node).collect();
    let calls = others.iter().map(|member| ask(replica, &member.peer_address));
    let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().flatten().collect();
    let same = |answer: &&peer::IdentifyResponse| answer.cluster == config.cluster;
    let here = answers.iter().filter(same).count() + 1;
    let formed = answers.iter().filter(same).any(|answer| !answer.cluster_id.is_empty());
    here > config.members.len() / 2 && !formed
}

/// Who is at an address.
pub(super) async fn ask(replica: &Replica, address: &str) -> Option<peer::IdentifyResponse> {
    let request = peer::IdentifyRequest {
        cluster: replica.identity().cluster.clone(),
        from: replica.identity().node.clone(),
        from_node_id: replica.identity().node_id,
    };
    let mut client = replica.inner.network.kept_client(address);
    let answer = tokio::time::timeout(ANSWER, client.identify(request)).await.ok()?;
    Some(answer.ok()?.into_inner())
}

async fn initialize(replica: &Replica, config: &ReplicaConfig) {
    let own_address = own_peer_address(replica, config);
    let mut members: BTreeMap<u64, PeerNode> = config
        .members
        .iter()
        .map(|member| {
            let node = PeerNode {
                name: member.name.clone(),
                peer_address: member.peer_address.clone(),
                // Each node tells its own when it is asked; see `status.rs`.
                grpc_address: String::new(),
            };
            (founding_node_id(&config.cluster, &member.name), node)
        })
        .collect();
    if config.members.is_empty() {
        let node = PeerNode {
            name: config.node.clone(),
            peer_address: own_address,
            grpc_address: config.grpc_advertise.clone(),
        };
        members.insert(replica.identity().node_id, node);
    }
    match replica.raft().initialize(members).await {
        Ok(()) => tracing::info!(cluster = config.cluster, "forms the cluster"),
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
            tracing::debug!("another member was quicker");
        }
        Err(error) => tracing::error!(%error, "the cluster cannot be formed"),
    }
}

fn own_peer_address(replica: &Replica, config: &ReplicaConfig) -> String {
    config.peer_advertise.clone().unwrap_or_else(|| replica.peer_addr().to_string())
}
