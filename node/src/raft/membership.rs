//! Who belongs to the cluster: adding, removing, handing the leadership over; and who answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::type_config::async_runtime::WatchReceiver as _;
use pinrail_proto::log as pb;
use pinrail_proto::peer;
use pinrail_proto::reason::{self, Reason};
use pinrail_state_machine::{FEATURE_LEVEL, query};
use tokio::time::{Instant, sleep};

use super::bootstrap::ask;
use super::replica::{PeerInfo, Replica};
use super::status::MemberStatus;
use super::types::{PeerNode, TypeConfig};

/// How long a new member may take to catch up before it stays a learner.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long the leadership may take to move.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often the other members are asked who they are.
const CONTACT: Duration = Duration::from_millis(500);

/// Why the members did not change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MemberError {
    #[error("{}", .0.message)]
    Rejected(pb::Rejection),
    #[error("this node does not lead")]
    NotLeader { leader: Option<PeerInfo> },
    #[error("whether the members changed is not known: {why}")]
    Unknown { why: String },
    #[error("the node is stopping, or no majority answers")]
    Unavailable,
}

fn reject(reason: Reason, message: String) -> MemberError {
    let reason = reason.name.to_owned();
    MemberError::Rejected(pb::Rejection { reason, message, metadata: BTreeMap::new() })
}

impl Replica {
    /// Adds the node that answers at `peer_address`: first as learner, then, once it has caught up, as voter.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_member(
        &self,
        name: &str,
        peer_address: &str,
        learner: bool,
    ) -> Result<MemberStatus, MemberError> {
        self.must_lead()?;
        let taken =
            self.status().members.into_iter().any(|m| m.name == name && (learner || m.voter));
        if taken {
            return Err(reject(reason::ALREADY_A_MEMBER, format!("{name} is a member already")));
        }
        let answer = ask(self, peer_address).await.ok_or_else(|| {
            reject(
                reason::MEMBER_NOT_FOUND,
                format!("nobody answers at {peer_address}: start the node first"),
            )
        })?;
        if answer.cluster != self.identity().cluster || answer.node != name {
            let message =
                format!("at {peer_address} is node {} of cluster {}", answer.node, answer.cluster);
            return Err(reject(reason::MEMBER_NOT_FOUND, message));
        }
        if self.given_up_at(answer.node_id) != 0 {
            let message = format!(
                "{name} comes with number {} of before the recovery, which is never used again: start it with an empty \
                 data directory and `join` in server.toml",
                answer.node_id
            );
            return Err(reject(reason::ALREADY_A_MEMBER, message));
        }
        let node = PeerNode {
            name: name.to_owned(),
            peer_address: peer_address.to_owned(),
            grpc_address: answer.grpc_address,
            directory: answer.directory,
            forgot: false,
        };
        let added =
            tokio::time::timeout(CATCH_UP, self.raft().add_learner(answer.node_id, node, true));
        added
            .await
            .map_err(|_| late("the node did not catch up in time; it stays a learner"))?
            .map_err(|error| self.refused(error))?;
        if !learner {
            let voters = BTreeSet::from([answer.node_id]);
            self.change(ChangeMembers::AddVoterIds(voters), false).await?;
        }
        self.member(name)
    }

    /// Removes a member. Refused when the others could not carry on, unless `force` says otherwise.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove_member(
        &self,
        name: &str,
        force: bool,
    ) -> Result<MemberStatus, MemberError> {
        self.must_lead()?;
        let member = self.member(name)?;
        if member.voter && !force {
            self.must_keep_quorum(&member)?;
        }
        let gone = BTreeSet::from([member.node_id]);
        if member.voter {
            self.change(ChangeMembers::RemoveVoters(gone.clone()), false).await?;
        }
        // The leader that removes itself has stepped down by now; the next one forgets it.
        if member.node_id != self.identity().node_id || !member.voter {
            let _ = self.change(ChangeMembers::RemoveNodes(gone), false).await;
        }
        Ok(member)
    }

    fn must_keep_quorum(&self, member: &MemberStatus) -> Result<(), MemberError> {
        let members = self.status().members;
        let rest: Vec<_> =
            members.iter().filter(|m| m.voter && m.node_id != member.node_id).collect();
        let answering = rest.iter().filter(|m| m.takes_part()).count();
        if rest.is_empty() || answering <= rest.len() / 2 {
            let message =
                format!("without {} only {answering} of {} voters answer", member.name, rest.len());
            return Err(reject(reason::QUORUM_WOULD_BE_LOST, message));
        }
        Ok(())
    }

    /// Hands the leadership to a member, or to the follower that is furthest.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn transfer_leader(&self, to: Option<&str>) -> Result<PeerInfo, MemberError> {
        self.must_lead()?;
        let own = self.identity().node_id;
        let target = match to {
            Some(name) => self.member(name)?,
            None => self
                .status()
                .members
                .into_iter()
                .filter(|m| m.voter && m.takes_part() && m.node_id != own)
                .max_by_key(|m| m.applied_index)
                .ok_or_else(|| {
                    reject(reason::MEMBER_NOT_FOUND, "no other voter answers".to_owned())
                })?,
        };
        if !target.voter {
            return Err(reject(reason::MEMBER_NOT_FOUND, format!("{} does not vote", target.name)));
        }
        if target.node_id != own {
            let asked = self.raft().trigger().transfer_leader(target.node_id).await;
            asked.map_err(|_| MemberError::Unavailable)?;
            self.wait_for_leader(target.node_id).await?;
        }
        Ok(target.info())
    }

    async fn wait_for_leader(&self, node_id: u64) -> Result<(), MemberError> {
        let mut leadership = self.leadership();
        let leads =
            leadership.wait_for(|now| now.leader.as_ref().is_some_and(|l| l.node_id == node_id));
        match tokio::time::timeout(HAND_OVER, leads).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MemberError::Unavailable),
            Err(_) => Err(late("the other node did not take the leadership in time")),
        }
    }

    fn must_lead(&self) -> Result<(), MemberError> {
        let leadership = self.inner.leadership.borrow().clone();
        if leadership.here {
            Ok(())
        } else {
            Err(MemberError::NotLeader { leader: leadership.leader })
        }
    }

    fn member(&self, name: &str) -> Result<MemberStatus, MemberError> {
        self.status()
            .members
            .into_iter()
            .find(|member| member.name == name)
            .ok_or_else(|| reject(reason::MEMBER_NOT_FOUND, format!("there is no member {name}")))
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, PeerNode>,
        retain: bool,
    ) -> Result<(), MemberError> {
        let changed = tokio::time::timeout(CATCH_UP, self.raft().change_membership(change, retain));
        changed
            .await
            .map_err(|_| late("no majority agreed in time"))?
            .map(|_| ())
            .map_err(|error| self.refused(error))
    }

    fn refused(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MemberError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                MemberError::NotLeader { leader: self.inner.leadership.borrow().leader.clone() }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )) => {
                reject(reason::MEMBERSHIP_BUSY, "another change of members is under way".to_owned())
            }
            RaftError::APIError(error) => MemberError::Unknown { why: error.to_string() },
            RaftError::Fatal(_) => MemberError::Unavailable,
        }
    }

    /// The revision of the recovery that gave a member up; 0: none did.
    fn given_up_at(&self, node_id: u64) -> u64 {
        let given_up = self.read(|read| query::given_up(read, node_id)).ok().flatten();
        given_up.map_or(0, |given_up| given_up.revision)
    }

    /// What this node answers when it is asked who it is.
    pub(super) fn identify(&self, to: u64) -> peer::IdentifyResponse {
        let (formed, known) = {
            let metrics = self.raft().metrics();
            let now = metrics.borrow_watched();
            let known = now.membership_config.membership().get_node(&to).cloned();
            // The formation's own entry is the first one, and the same whoever wrote it.
            (now.last_log_index > Some(0), known)
        };
        let leadership = self.inner.leadership.borrow().clone();
        let has_leader = leadership.leader.is_some();
        peer::IdentifyResponse {
            cluster: self.identity().cluster.clone(),
            node: self.identity().node.clone(),
            node_id: self.identity().node_id,
            cluster_id: if formed {
                self.identity().cluster.clone().into()
            } else {
                bytes::Bytes::new()
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time_estimate_ms: self.time_estimate_ms(),
            remembers_time: self.time().remembered().is_some(),
            has_leader,
            grpc_address: self.inner.grpc_address.clone(),
            applied_index: self.applied().borrow().log_index,
            directory: self.identity().directory.clone(),
            leads: leadership.here,
            known_forgot: known.as_ref().is_some_and(|node| node.forgot),
            known_directory: known.map_or_else(String::new, |node| node.directory),
            leader_peer_address: leadership.leader.map_or_else(String::new, |it| it.peer_address),
            given_up_at: self.given_up_at(to),
            feature_level: FEATURE_LEVEL,
        }
    }

    /// What the other members that answer say of themselves now.
    pub(super) async fn ask_others(&self) -> BTreeMap<u64, peer::IdentifyResponse> {
        let others = self.others();
        let calls = others.iter().map(|(_, node)| ask(self, &node.peer_address));
        let answers = futures::future::join_all(calls).await;
        let answered = others.iter().zip(answers);
        answered.filter_map(|((id, _), answer)| Some((*id, answer?))).collect()
    }

    pub(super) fn others(&self) -> Vec<(u64, PeerNode)> {
        let metrics = self.raft().server_metrics();
        let now = metrics.borrow_watched();
        let own = self.identity().node_id;
        let nodes = now.membership_config.membership().nodes().filter(|(id, _)| **id != own);
        nodes.map(|(id, node)| (*id, node.clone())).collect()
    }
}

fn late(why: &str) -> MemberError {
    MemberError::Unknown { why: why.to_owned() }
}

/// When another member last answered, and what it said.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) at: Instant,
    pub(super) answer: peer::IdentifyResponse,
}

/// Asks the other members who they are, again and again, so that any node can say who answers without a leader.
pub(super) async fn watch_contacts(replica: Replica) {
    loop {
        for (id, answer) in replica.ask_others().await {
            let contact = Contact { at: Instant::now(), answer };
            replica.inner.contacts.lock().insert(id, contact);
        }
        tokio::select! {
            () = sleep(CONTACT) => {}
            () = replica.inner.stop.cancelled() => return,
        }
    }
}

/// The leader writes down what it learns of the members, once: by which data directory it met each, which `bootstrap.rs`
/// asks for, and who has forgotten what it acknowledged.
pub(super) async fn register(replica: Replica) {
    loop {
        if replica.inner.leadership.borrow().here {
            let mut found = unregistered(&replica);
            found.extend(forgetful(&replica));
            if !found.is_empty() {
                tracing::debug!(members = found.len(), "writes down what it learnt of members");
                if let Err(error) = replica.change(ChangeMembers::SetNodes(found), true).await {
                    tracing::debug!(%error, "what it learnt of members was not written down");
                }
            }
        }
        tokio::select! {
            () = sleep(CONTACT) => {}
            () = replica.inner.stop.cancelled() => return,
        }
    }
}

/// Members whose directory is known to this node and not to the cluster.
fn unregistered(replica: &Replica) -> BTreeMap<u64, PeerNode> {
    let metrics = replica.raft().server_metrics();
    let members = metrics.borrow_watched().membership_config.membership().clone();
    let contacts = replica.inner.contacts.lock();
    let directory = |id: &u64| {
        if *id == replica.identity().node_id {
            return Some(replica.identity().directory.clone());
        }
        let contact = contacts.get(id).filter(|contact| contact.answer.node_id == *id);
        contact.map(|contact| contact.answer.directory.clone())
    };
    let without = members.nodes().filter(|(_, node)| node.directory.is_empty());
    let found = without.filter_map(|(id, node)| {
        let directory = directory(id).filter(|directory| !directory.is_empty())?;
        Some((*id, PeerNode { directory, ..node.clone() }))
    });
    found.collect()
}

/// Members that have forgotten what they acknowledged, and of which the cluster does not know it yet.
fn forgetful(replica: &Replica) -> BTreeMap<u64, PeerNode> {
    let acknowledged = &replica.inner.network.acknowledged;
    let forgot = |(id, node): &(u64, PeerNode)| {
        !node.directory.is_empty()
            && !node.forgot
            && acknowledged.has_forgotten(*id, &node.directory)
    };
    let found = replica.others().into_iter().filter(forgot);
    found.map(|(id, node)| (id, PeerNode { forgot: true, ..node })).collect()
}
