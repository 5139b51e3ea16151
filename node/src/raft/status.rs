//! What this node knows of the cluster, without asking anybody.

use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::type_config::async_runtime::WatchReceiver as _;
use pinrail_state_machine::query;
use tokio::time::Instant;

use super::replica::{PeerInfo, Replica};

/// A member that has not answered for so long counts as unreachable.
const SILENT: Duration = Duration::from_millis(2_500);

/// One member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberStatus {
    pub node_id: u64,
    pub name: String,
    pub grpc_address: String,
    pub peer_address: String,
    pub voter: bool,
    pub leader: bool,
    pub reachable: bool,
    pub applied_index: u64,
    /// Since it last answered; none: it never did.
    pub last_contact_ms: Option<u64>,
    pub version: String,
    /// Identity of its data directory as the cluster knows it; empty until the leader has seen it.
    pub directory: String,
    /// It answers from another directory, and takes no part.
    pub replaced: bool,
    /// It came back without entries that it had acknowledged, and takes no part.
    pub forgot: bool,
}

impl MemberStatus {
    /// Whether it answers, and counts for a majority.
    pub(super) fn takes_part(&self) -> bool {
        self.reachable && !self.replaced && !self.forgot
    }

    pub(super) fn info(&self) -> PeerInfo {
        PeerInfo {
            node_id: self.node_id,
            name: self.name.clone(),
            grpc_address: self.grpc_address.clone(),
            peer_address: self.peer_address.clone(),
        }
    }
}

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaStatus {
    pub cluster: String,
    /// Empty before the cluster was formed.
    pub cluster_id: Bytes,
    pub node: String,
    pub node_id: u64,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub leader: Option<PeerInfo>,
    /// Since this node last knew of a leader; 0 while it does, none: it never did.
    pub leader_age_ms: Option<u64>,
    pub members: Vec<MemberStatus>,
}

impl Replica {
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let metrics = self.raft().metrics();
        let now = metrics.borrow_watched().clone();
        let leader = self.inner.leadership.borrow().leader.clone();
        let leads = now.state == ServerState::Leader;
        let voters: Vec<u64> = now.membership_config.membership().voter_ids().collect();
        let contacts = self.inner.contacts.lock().clone();
        let own = self.identity();
        let members = now.membership_config.membership().nodes().map(|(id, node)| {
            let contact = contacts.get(id);
            let itself = *id == own.node_id;
            let age = contact.map(|contact| Instant::now().duration_since(contact.at));
            let grpc = contact.map_or_else(String::new, |c| c.answer.grpc_address.clone());
            MemberStatus {
                node_id: *id,
                name: node.name.clone(),
                grpc_address: if itself {
                    self.inner.grpc_address.clone()
                } else if grpc.is_empty() {
                    node.grpc_address.clone()
                } else {
                    grpc
                },
                peer_address: node.peer_address.clone(),
                voter: voters.contains(id),
                leader: leader.as_ref().is_some_and(|leader| leader.node_id == *id),
                reachable: itself || age.is_some_and(|age| age < SILENT),
                applied_index: if itself {
                    self.applied().borrow().log_index
                } else {
                    contact.map_or(0, |contact| contact.answer.applied_index)
                },
                last_contact_ms: if itself { Some(0) } else { age.map(millis) },
                version: if itself {
                    env!("CARGO_PKG_VERSION").to_owned()
                } else {
                    contact.map_or_else(String::new, |contact| contact.answer.version.clone())
                },
                directory: node.directory.clone(),
                replaced: contact.is_some_and(|contact| {
                    let answered = &contact.answer.directory;
                    !node.directory.is_empty()
                        && !answered.is_empty()
                        && *answered != node.directory
                }),
                forgot: node.forgot,
            }
        });
        let mut members: Vec<MemberStatus> = members.collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let cluster = self.read(query::cluster).unwrap_or_default();
        // A leader counts while a quorum hears it; a follower goes by its own contact with the leader.
        let silence = |id: &u64| match contacts.get(id) {
            _ if *id == own.node_id => Some(Duration::ZERO),
            Some(contact) => Some(Instant::now().duration_since(contact.at)),
            None => None,
        };
        let heard = if leads {
            let mut ages: Vec<Duration> = voters.iter().filter_map(silence).collect();
            ages.sort_unstable();
            ages.get(voters.len() / 2).copied()
        } else {
            leader.as_ref().and_then(|leader| silence(&leader.node_id))
        };
        let seen = || self.inner.leader_seen.lock().map(|at| Instant::now().duration_since(at));
        let leader_age_ms = heard.or_else(seen).map(millis);
        ReplicaStatus {
            cluster: own.cluster.clone(),
            cluster_id: cluster.cluster_id,
            node: own.node.clone(),
            node_id: own.node_id,
            term: now.current_term,
            last_log_index: now.last_log_index.unwrap_or(0),
            applied_index: self.applied().borrow().log_index,
            snapshot_index: now.snapshot.map_or(0, |id| id.index()),
            leader,
            leader_age_ms,
            members,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
