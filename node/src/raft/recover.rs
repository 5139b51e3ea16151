//! A majority of the members is lost for good: one that is left becomes the cluster, under a new number.
//!
//! Carried out on the stopped member. What it writes is the end of its log: a change of members that leaves it the only
//! voter, and a `RecoverCluster` command, which gives the cluster another identity and another incarnation, writes down who was
//! given up, and stands in the audit. The next start applies both as any other entry, so revisions and cluster time go on.
//!
//! The new number keeps the lost members out: what they send to the old one is refused, and what they knew of this member is
//! nobody any more. When they come back they ask who is there, are told that they were given up, and stand aside
//! (`bootstrap.rs`).
//!
//! ```text
//!   plan written and synced -> number of the member -> end of the log, synced -> plan removed
//! ```
//! A crash in between is finished by the next start. It must not know what a command means beyond the one that it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use pinrail_proto::log as pb;
use pinrail_proto::peer;
use pinrail_proto::peer::peer_service_client::PeerServiceClient;
use prost::Message as _;
use tokio::time::timeout;

use crate::env::Env;
use crate::storage::{
    DataDir, DataDirError, Identity, LogEngine, LogOp, StateEngine, sync_directory, write_durably,
};

use super::log_end;
use super::settings::ReplicaConfig;
use super::state_machine::{fault, read, stored_position};
use super::types::{
    EncodedBatch, Entry, LeaderId, LogId, PeerNode, StoredMembership, Vote, decode_entry,
    get_log_id, get_stored_membership, get_vote, put_entry, put_log_id, put_vote,
};

const PLAN: &str = "recovery.pb";
/// How long another member may take to say that it is alive.
const ALIVE: Duration = Duration::from_secs(2);

/// Why a member is not recovered. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("{0} is no member's data directory: nothing is there to recover")]
    NoMember(std::path::PathBuf),
    #[error(transparent)]
    Directory(#[from] DataDirError),
    #[error("the {what} of this member cannot be read: {error}. Recover another member")]
    Storage { what: &'static str, error: io::Error },
    #[error("this member has never been part of a cluster: there is nothing to recover")]
    NeverFormed,
    #[error("nothing is lost: {node} is the only voter. Start its server")]
    OnlyVoter { node: String },
    #[error(
        "nothing is lost: {} of {voters} voters {verb} and with this one are a majority. Start this member's server",
        .alive.join(", "), verb = if .alive.len() == 1 { "answers" } else { "answer" }
    )]
    MajorityAlive { alive: Vec<String>, voters: usize },
    #[error(
        "{node} knows more: it has applied entry {theirs}, and this member has none after {ours}. Recover {node} instead, or \
         stop it if its state is not wanted"
    )]
    Behind { node: String, theirs: u64, ours: u64 },
}

/// A member that is left, stopped and held.
#[derive(Debug)]
pub struct Survivor {
    directory: DataDir,
    log: Box<dyn LogEngine>,
    state: Arc<dyn StateEngine>,
    own: PeerNode,
    membership: StoredMembership,
    vote: Option<Vote>,
    last: LogId,
    /// When the state is ahead of the log.
    purge_to: Option<LogId>,
    incarnation: u64,
    /// Of the last entry, and the cluster's time then.
    pub revision: u64,
    pub now_ms: u64,
    /// Entries that were not applied here yet: whether the lost majority acknowledged them is not known. They are kept.
    pub unapplied: u64,
}

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub node_id: u64,
    pub term: u64,
}

impl Survivor {
    /// Takes the data directory of a stopped member and reads all of its log that is not applied.
    ///
    /// # Errors
    /// When a server runs on it, it is damaged, or nothing is there.
    pub fn open(config: &ReplicaConfig, env: &Env) -> Result<Self, RecoverError> {
        if !DataDir::is_there(&config.data) {
            return Err(RecoverError::NoMember(config.data.clone()));
        }
        let wanted = Identity {
            cluster: config.cluster.clone(),
            node: config.node.clone(),
            node_id: 0,
            directory: String::new(),
        };
        let mut directory = DataDir::open(&config.data, &wanted)?;
        let broken = |what| move |error| RecoverError::Storage { what, error };
        let mut log = env.engines.open_log(&config.data).map_err(broken("log"))?;
        finish(&config.data, &mut directory, &mut *log).map_err(broken("recovery"))?;
        let state = env.engines.open_state(&config.data, config.memory).map_err(broken("state"))?;
        let own = config.own(format!("{:032x}", env.random_u128()));
        Self::read(directory, log, state, own)
    }

    fn read(
        directory: DataDir,
        log: Box<dyn LogEngine>,
        state: Arc<dyn StateEngine>,
        own: PeerNode,
    ) -> Result<Self, RecoverError> {
        let broken = |what| move |error| RecoverError::Storage { what, error };
        let cluster = read(&*state, pinrail_state_machine::query::cluster).map_err(fault);
        let cluster = cluster.map_err(broken("state"))?;
        let position = stored_position(&*state).map_err(broken("state"))?.unwrap_or_default();
        let applied = position.last_log_id.map(get_log_id);
        let mut membership = get_stored_membership(position.membership).map_err(broken("state"))?;
        let loaded = log.load().map_err(broken("log"))?;
        let vote = loaded.vote.map(pb::Vote::decode).transpose();
        let vote = vote.map_err(io::Error::other).map_err(broken("log"))?;
        let from = applied.map_or(0, |id| id.index() + 1);
        let behind = loaded.entries.map_or(0, |(_, last)| last + 1);
        let entries = log.reader().read(from..behind.max(from)).map_err(broken("log"))?;
        let (mut revision, mut now_ms) = (cluster.revision, cluster.now_ms);
        let (mut last, unapplied) = (applied, entries.len() as u64);
        for (entry, wanted) in entries.into_iter().zip(from..) {
            let entry = decode_entry(entry).map_err(broken("log"))?;
            if entry.log_id.index() != wanted {
                let error = format!("entry {wanted} is missing");
                return Err(broken("log")(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(it) => membership = StoredMembership::new(last, it),
                EntryPayload::Normal(batch) => {
                    let batch = pb::Batch::decode(batch.0).map_err(io::Error::other);
                    let batch = batch.map_err(broken("log"))?;
                    revision += batch.commands.len() as u64;
                    now_ms = now_ms.max(batch.stamp_ms);
                }
            }
        }
        let Some(last) = last.filter(|_| revision > 0) else {
            return Err(RecoverError::NeverFormed);
        };
        let vote = vote.map(|vote| get_vote(Some(vote)));
        log_end::verify(&directory, vote, Some(last)).map_err(broken("log"))?;
        let purge_to = applied.filter(|applied| applied.index() + 1 > behind);
        let incarnation = cluster.incarnation;
        Ok(Self {
            directory,
            log,
            state,
            own,
            membership,
            vote,
            last,
            purge_to,
            incarnation,
            revision,
            now_ms,
            unapplied,
        })
    }

    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.directory.identity
    }

    /// Index and term of the last entry.
    #[must_use]
    pub fn last(&self) -> (u64, u64) {
        (self.last.index(), self.last.committed_leader_id().term)
    }

    /// Name, peer address, and whether it votes, of all members that would be given up.
    #[must_use]
    pub fn given_up(&self) -> Vec<(String, String, bool)> {
        let members = self.membership.membership();
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        let others = members.nodes().filter(|(id, _)| **id != self.identity().node_id);
        others
            .map(|(id, it)| (it.name.clone(), it.peer_address.clone(), voters.contains(id)))
            .collect()
    }

    /// Asks the other members whether they are alive, and refuses where it is clear that nothing is lost, or that another
    /// member knows more.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub async fn judge(&self, env: &Env) -> Result<(), RecoverError> {
        let own = self.identity().node_id;
        let members = self.membership.membership();
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        if voters == BTreeSet::from([own]) {
            return Err(RecoverError::OnlyVoter { node: self.own.name.clone() });
        }
        let others = members.nodes().filter(|(id, _)| **id != own);
        let asked = others.map(|(id, node)| self.ask(env, *id, node));
        let alive: Vec<_> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        let is_alive = |id: &u64| *id == own || alive.iter().any(|it| it.node_id == *id);
        let majority = members
            .get_joint_config()
            .iter()
            .all(|config| config.iter().filter(|id| is_alive(id)).count() > config.len() / 2);
        if majority {
            let alive = alive.into_iter().map(|it| it.node).collect();
            return Err(RecoverError::MajorityAlive { alive, voters: voters.len() });
        }
        match alive.into_iter().find(|it| it.applied_index > self.last.index()) {
            Some(it) => {
                let (theirs, ours) = (it.applied_index, self.last.index());
                Err(RecoverError::Behind { node: it.node, theirs, ours })
            }
            None => Ok(()),
        }
    }

    /// A member that is alive, and not an empty one under its name.
    async fn ask(&self, env: &Env, id: u64, node: &PeerNode) -> Option<peer::IdentifyResponse> {
        let request = peer::IdentifyRequest {
            cluster: self.identity().cluster.clone(),
            from: self.identity().node.clone(),
            from_node_id: self.identity().node_id,
        };
        let mut client = PeerServiceClient::new(env.net.connect(&node.peer_address));
        let answer = timeout(ALIVE, client.identify(request)).await.ok()?.ok()?.into_inner();
        let is_member = answer.cluster == self.identity().cluster && answer.node_id == id;
        (is_member && !answer.cluster_id.is_empty()).then_some(answer)
    }

    /// Makes this member the cluster. Whoever asked has been warned.
    ///
    /// # Errors
    /// When the disk fails; the next start, or the same again, goes on where it stopped.
    pub fn carry_out(mut self, env: &Env, actor: &str, reason: &str) -> io::Result<Recovered> {
        let node_id = env.random_u64().max(1);
        let term = self.vote.map_or(0, |vote| vote.leader_id.term).max(self.last().1) + 1;
        let leader = LeaderId { term, node_id };
        let at = |ahead| LogId::new(leader, self.last.index() + ahead);
        let nodes = BTreeMap::from([(node_id, self.own.clone())]);
        let alone = Membership::new(vec![BTreeSet::from([node_id])], nodes);
        let alone = alone.map_err(|error| io::Error::other(error.to_string()))?;
        let batch = self.command(env, node_id, actor, reason);
        let entries = [
            Entry { log_id: at(1), payload: EntryPayload::Membership(alone) },
            Entry { log_id: at(2), payload: EntryPayload::Normal(EncodedBatch(batch)) },
        ];
        let plan = pb::RecoveryPlan {
            node_id,
            directory: self.own.directory.clone(),
            purge_to: self.purge_to.as_ref().map(put_log_id),
            entries: entries.iter().map(put_entry).collect(),
            vote: Some(put_vote(&Vote { leader_id: leader, committed: true })),
        };
        let data = self.directory.path().to_owned();
        write_durably(&data.join(PLAN), &plan.encode_to_vec())?;
        finish(&data, &mut self.directory, &mut *self.log)?;
        self.state.flush()?;
        Ok(Recovered { node_id, term })
    }

    fn command(&self, env: &Env, node_id: u64, actor: &str, reason: &str) -> Bytes {
        let members = self.membership.membership().nodes();
        let mut given_up: Vec<_> =
            members.map(|(id, it)| pb::GivenUp { node_id: *id, node: it.name.clone() }).collect();
        let identity = self.identity();
        if !given_up.iter().any(|it| it.node_id == identity.node_id) {
            given_up.push(pb::GivenUp { node_id: identity.node_id, node: identity.node.clone() });
        }
        let (last_index, last_term) = self.last();
        let it = pb::RecoverCluster {
            cluster_id: Bytes::copy_from_slice(&env.random_u128().to_be_bytes()),
            incarnation: next_incarnation(self.incarnation, env.random_u64()),
            node: identity.node.clone(),
            node_id,
            given_up,
            last_index,
            last_term,
        };
        let header = pb::Header {
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            ..pb::Header::default()
        };
        let kind = Some(pb::command::Kind::RecoverCluster(it));
        let command = pb::Command { header: Some(header), kind }.encode_to_vec().into();
        // Time goes on where it stopped, as after a restore: no pin ends early because of the outage.
        pb::Batch { stamp_ms: self.now_ms, commands: vec![command] }.encode_to_vec().into()
    }
}

/// Random, so that two members that are recovered apart never give the same tokens.
fn next_incarnation(before: u64, random: u64) -> u64 {
    if random == before || random == 0 { before.wrapping_add(1).max(1) } else { random }
}

/// Carries out what is left of a recovery, if one was begun.
///
/// # Errors
/// When the disk fails, or the plan is damaged.
pub(super) fn finish(
    data: &Path,
    directory: &mut DataDir,
    log: &mut dyn LogEngine,
) -> io::Result<()> {
    let path = data.join(PLAN);
    let plan = match fs::read(&path) {
        Ok(plan) => plan,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let plan = pb::RecoveryPlan::decode(plan.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    directory.renumber(plan.node_id, &plan.directory)?;
    let mut ops = Vec::new();
    if let Some(at) = plan.purge_to {
        ops.push(LogOp::PurgeTo { index: at.index, position: at.encode_to_vec().into() });
    }
    for entry in plan.entries {
        let index = entry.log_id.unwrap_or_default().index;
        ops.push(LogOp::Put { index, entry: entry.encode_to_vec().into() });
    }
    ops.push(LogOp::Vote(plan.vote.unwrap_or_default().encode_to_vec().into()));
    log.write(&ops, true)?;
    fs::remove_file(&path)?;
    sync_directory(data)?;
    tracing::warn!(
        cluster = directory.identity.cluster,
        node = directory.identity.node,
        "was recovered from a lost majority: it is the only voter now"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_never_the_one_before_nor_none() {
        for (before, random) in [(7, 7), (7, 0), (u64::MAX, 0), (0, 0), (7, 9)] {
            let next = next_incarnation(before, random);
            assert!(next != before && next != 0, "{before} {random} {next}");
        }
    }
}
