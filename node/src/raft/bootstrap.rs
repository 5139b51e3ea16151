//! The formation of a cluster from a list of members, and who may take part in one that is there.
//!
//! Each member of the list whose directory is new forms the cluster once a majority of the list meets and none
//! of those has a log already. All of them write the same first entry, with the same members under numbers
//! that follow from their names, so it does not matter how many do it. A second formation is refused by Raft
//! itself: its log is not empty then.
//!
//! A member of the list that comes later has an empty directory, and so has one whose disk was lost. The second may
//! have voted and acknowledged under its number, and must not do so again as if it had not: that could lose what was
//! acknowledged. The cluster remembers the directory of each member (`membership::register`), so a member
//! with an empty one asks before it takes part. Only a leader's word admits it, for only a leader surely knows of every
//! directory that was registered.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use pinrail_proto::peer;
use tokio::time::sleep;

use crate::storage::Identity;

use super::replica::Replica;
use super::settings::{MemberConfig, ReplicaConfig};
use super::start::founding_node_id;
use super::types::PeerNode;

/// How often the others are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long one of them may take to say who it is.
const ANSWER: Duration = Duration::from_millis(500);

/// Where a member with an empty directory stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// A majority of the list is here and none of it has a log.
    MayForm,
    /// The leader knows this directory, or none for this member.
    Admitted,
    /// The cluster knows this member by another directory.
    Replaced { known: String },
    /// Nobody who knows answers.
    Unclear,
}

pub(super) async fn form(replica: Replica, config: ReplicaConfig) {
    if !replica.inner.started_empty {
        return;
    }
    if !config.founds() {
        // Its number is a new one: nothing was ever said under it.
        replica.admit();
        if config.join.is_empty() {
            tracing::warn!(node = config.node, "is not in the list of members: waits to be added");
        }
        return;
    }
    let mut told = false;
    loop {
        match standing(&replica, &config).await {
            Standing::MayForm => {
                replica.admit();
                return initialize(&replica, &config).await;
            }
            Standing::Admitted => return replica.admit(),
            Standing::Replaced { known } if !told => {
                told = true;
                let (node, here) = (&config.node, &replica.identity().directory);
                tracing::error!(
                    node,
                    known,
                    here,
                    "takes no part: the cluster knows this member by another data directory, and with an empty one it \
                     could undo what it has acknowledged. Bring the old directory back; or, if it is lost, \
                     `pinrail cluster remove {node}` and then `pinrail cluster add {node} PEER_ADDRESS`"
                );
            }
            Standing::Replaced { .. } | Standing::Unclear => {}
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = replica.inner.stop.cancelled() => return,
        }
    }
}

impl Replica {
    fn admit(&self) {
        self.inner.admitted.store(true, Ordering::Release);
    }

    /// Whether this member may vote and acknowledge.
    pub(super) fn is_admitted(&self) -> bool {
        self.inner.admitted.load(Ordering::Acquire) && !self.inner.given_up.load(Ordering::Acquire)
    }

    /// The cluster does not count on this member any more, which must not vote or lead: neither now nor after a restart.
    fn stand_aside(&self, why: &str) {
        if self.inner.given_up.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(
            why,
            "takes no part: this member was given up. Stop it, and start it with an empty data directory and `join` in \
             server.toml; then `pinrail cluster add`. docs/RECOVERY.md has the steps"
        );
        if let Some(Err(error)) = self.inner.directory.lock().as_ref().map(|it| it.give_up(why)) {
            tracing::error!(%error, "that it was given up could not be written down");
        }
    }
}

async fn standing(replica: &Replica, config: &ReplicaConfig) -> Standing {
    let others = config.members.iter().filter(|member| member.name != config.node);
    let calls = others.map(|member| ask(replica, &member.peer_address));
    let mut answers: Vec<_> =
        futures::future::join_all(calls).await.into_iter().flatten().collect();
    answers.retain(|answer| answer.cluster == config.cluster);
    // The members may have changed since the list was written.
    let leader = answers.iter().map(|answer| &answer.leader_peer_address).find(|at| !at.is_empty());
    if let Some(leader) = leader.cloned()
        && !answers.iter().any(|answer| answer.leads)
    {
        answers.extend(ask(replica, &leader).await);
    }
    judge(&answers, config.members.len(), &replica.identity().directory)
}

fn judge(answers: &[peer::IdentifyResponse], members: usize, own: &str) -> Standing {
    let formed = answers.iter().any(|answer| !answer.cluster_id.is_empty());
    if !formed && answers.len() + 1 > members / 2 {
        return Standing::MayForm;
    }
    let foreign = |answer: &&peer::IdentifyResponse| {
        !answer.known_directory.is_empty() && answer.known_directory != own
    };
    if let Some(leader) = answers.iter().find(|answer| answer.leads)
        && !foreign(&leader)
    {
        return Standing::Admitted;
    }
    match answers.iter().find(foreign) {
        Some(answer) => Standing::Replaced { known: answer.known_directory.clone() },
        None => Standing::Unclear,
    }
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
    let answer = answer.ok()?.into_inner();
    if let Some(why) = given_up(&answer, replica.identity()) {
        replica.stand_aside(&why);
    }
    Some(answer)
}

/// Why the cluster does not count on this member any more, as another one says.
fn given_up(told: &peer::IdentifyResponse, own: &Identity) -> Option<String> {
    if told.cluster != own.cluster {
        return None;
    }
    if told.given_up_at != 0 {
        return Some(format!(
            "cluster {} went on without it by `pinrail cluster recover`, at revision {}, as {} says",
            told.cluster, told.given_up_at, told.node
        ));
    }
    let forgot = told.known_forgot && told.known_directory == own.directory;
    forgot.then(|| {
        format!(
            "it came back without entries that it had acknowledged, as {} says; `pinrail cluster remove {}` first",
            told.node, own.node
        )
    })
}

async fn initialize(replica: &Replica, config: &ReplicaConfig) {
    let own_address = own_peer_address(replica, config);
    let mut members = founders(config);
    if config.members.is_empty() {
        let node = PeerNode {
            name: config.node.clone(),
            peer_address: own_address,
            grpc_address: config.grpc_advertise.clone(),
            directory: replica.identity().directory.clone(),
            forgot: false,
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

/// The members of the list under their numbers.
pub(super) fn founders(config: &ReplicaConfig) -> BTreeMap<u64, PeerNode> {
    let founder = |member: &MemberConfig| {
        let node = PeerNode {
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            // Each node tells its own when it is asked; see `status.rs`.
            grpc_address: String::new(),
            directory: String::new(),
            forgot: false,
        };
        (founding_node_id(&config.cluster, &member.name), node)
    };
    config.members.iter().map(founder).collect()
}

fn own_peer_address(replica: &Replica, config: &ReplicaConfig) -> String {
    config.peer_advertise.clone().unwrap_or_else(|| replica.peer_addr().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(formed: bool, leads: bool, known: &str) -> peer::IdentifyResponse {
        let cluster_id = if formed { "c".into() } else { bytes::Bytes::new() };
        let known_directory = known.to_owned();
        peer::IdentifyResponse { cluster_id, leads, known_directory, ..Default::default() }
    }

    #[test]
    fn a_majority_without_a_log_forms_the_cluster() {
        assert_eq!(judge(&[], 1, "own"), Standing::MayForm);
        assert_eq!(judge(&[], 3, "own"), Standing::Unclear);
        assert_eq!(judge(&[answer(false, false, "")], 3, "own"), Standing::MayForm);
        let mixed = [answer(false, false, ""), answer(true, false, "")];
        assert_eq!(judge(&mixed, 3, "own"), Standing::Unclear);
    }

    #[test]
    fn only_a_leader_admits_and_its_word_counts_more_than_a_follower_s() {
        let follower = answer(true, false, "");
        assert_eq!(judge(std::slice::from_ref(&follower), 3, "own"), Standing::Unclear);
        for known in ["", "own"] {
            let answers = [answer(true, false, "old"), answer(true, true, known)];
            assert_eq!(judge(&answers, 3, "own"), Standing::Admitted);
        }
        let replaced = Standing::Replaced { known: "old".to_owned() };
        assert_eq!(judge(&[answer(true, true, "old")], 3, "own"), replaced);
        assert_eq!(judge(&[follower, answer(true, false, "old")], 3, "own"), replaced);
    }
}
