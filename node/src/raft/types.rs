//! Raft's types as we configure them, and their protobuf, which is what is persisted and sent: openraft's own
//! layouts are no stable format.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use pinrail_proto::log as pb;
use prost::Message as _;

use super::runtime::Runtime;

/// An encoded `pinrail.log.v1.Batch`. Encoded once, at the leader's proposer; log, network and followers pass on
/// the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EncodedBatch(pub(crate) Bytes);

impl fmt::Display for EncodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

/// Outcomes of a batch's commands, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Reply(pub(crate) Vec<pb::Outcome>);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outcomes", self.0.len())
    }
}

/// How the members find each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PeerNode {
    pub(crate) name: String,
    pub(crate) peer_address: String,
    pub(crate) grpc_address: String,
    /// Identity of its data directory; empty until the leader has seen it.
    pub(crate) directory: String,
    /// It came back without what it had acknowledged: it takes no part until it is removed and added again.
    pub(crate) forgot: bool,
}

openraft::declare_raft_types!(
    /// Pinrail's configuration of openraft.
    pub(crate) TypeConfig:
        D = EncodedBatch,
        R = Reply,
        NodeId = u64,
        Node = PeerNode,
        AsyncRuntime = Runtime,
);

pub(super) type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

pub(super) fn put_leader(leader: &LeaderId) -> pb::LeaderId {
    pb::LeaderId { term: leader.term, node_id: leader.node_id }
}

pub(super) fn get_leader(leader: Option<pb::LeaderId>) -> LeaderId {
    let leader = leader.unwrap_or_default();
    LeaderId { term: leader.term, node_id: leader.node_id }
}

pub(super) fn put_log_id(id: &LogId) -> pb::LogId {
    pb::LogId { leader_id: Some(put_leader(id.committed_leader_id())), index: id.index() }
}

pub(super) fn get_log_id(id: pb::LogId) -> LogId {
    LogId::new(get_leader(id.leader_id), id.index)
}

pub(super) fn put_vote(vote: &Vote) -> pb::Vote {
    pb::Vote { leader_id: Some(put_leader(&vote.leader_id)), committed: vote.committed }
}

pub(super) fn get_vote(vote: Option<pb::Vote>) -> Vote {
    let vote = vote.unwrap_or_default();
    Vote { leader_id: get_leader(vote.leader_id), committed: vote.committed }
}

pub(super) fn put_node(node: &PeerNode) -> pb::Node {
    pb::Node {
        name: node.name.clone(),
        peer_address: node.peer_address.clone(),
        grpc_address: node.grpc_address.clone(),
        directory: node.directory.clone(),
        forgot: node.forgot,
    }
}

pub(super) fn put_membership(membership: &Membership<u64, PeerNode>) -> pb::Membership {
    let set = |ids: &BTreeSet<u64>| pb::NodeSet { node_ids: ids.iter().copied().collect() };
    pb::Membership {
        configs: membership.get_joint_config().iter().map(set).collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, put_node(node))).collect(),
    }
}

pub(super) fn get_membership(membership: pb::Membership) -> io::Result<Membership<u64, PeerNode>> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let nodes: std::collections::BTreeMap<u64, PeerNode> = membership
        .nodes
        .into_iter()
        .map(|(id, node)| {
            let pb::Node { name, peer_address, grpc_address, directory, forgot } = node;
            (id, PeerNode { name, peer_address, grpc_address, directory, forgot })
        })
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

pub(super) fn put_stored_membership(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(put_log_id),
        membership: Some(put_membership(stored.membership())),
    }
}

pub(super) fn get_stored_membership(
    stored: Option<pb::StoredMembership>,
) -> io::Result<StoredMembership> {
    let stored = stored.unwrap_or_default();
    let membership = get_membership(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(stored.log_id.map(get_log_id), membership))
}

pub(super) fn put_entry(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(batch) => pb::entry::Payload::Batch(batch.0.clone()),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(put_membership(membership))
        }
    };
    pb::Entry { log_id: Some(put_log_id(&entry.log_id)), payload: Some(payload) }
}

pub(super) fn get_entry(entry: pb::Entry) -> io::Result<Entry> {
    let broken =
        |what| io::Error::new(io::ErrorKind::InvalidData, format!("log entry without {what}"));
    let log_id = get_log_id(entry.log_id.ok_or_else(|| broken("id"))?);
    let payload = match entry.payload.ok_or_else(|| broken("payload"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Batch(batch) => EntryPayload::Normal(EncodedBatch(batch)),
        pb::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(get_membership(membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

pub(super) fn decode_entry(bytes: Bytes) -> io::Result<Entry> {
    get_entry(
        pb::Entry::decode(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
    )
}

/// Reads an entry, and once more from what is written of it.
///
/// # Panics
/// When that is another one.
#[cfg(feature = "testing")]
pub(crate) fn read_twice(bytes: Bytes) -> io::Result<()> {
    let entry = decode_entry(bytes)?;
    let again = decode_entry(put_entry(&entry).encode_to_vec().into())?;
    assert_eq!(entry, again, "what is written of an entry is the entry");
    Ok(())
}

pub(super) fn put_snapshot_meta(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(put_log_id),
        membership: Some(put_stored_membership(&meta.last_membership)),
        snapshot_id: String::new(),
    }
}

pub(super) fn get_snapshot_meta(meta: Option<pb::SnapshotMeta>) -> io::Result<SnapshotMeta> {
    let meta = meta.unwrap_or_default();
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.map(get_log_id),
        last_membership: get_stored_membership(meta.membership)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_content() {
        let log_id = LogId::new(LeaderId { term: 3, node_id: 9 }, 41);
        let nodes = [(
            9,
            PeerNode {
                name: "n".into(),
                peer_address: "p:1".into(),
                grpc_address: "g:1".into(),
                directory: "d".into(),
                forgot: true,
            },
        )];
        let membership =
            Membership::new(vec![[9].into()], std::collections::BTreeMap::from(nodes)).unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EncodedBatch(Bytes::from_static(b"abc"))),
            EntryPayload::Membership(membership),
        ] {
            let entry = Entry { log_id, payload };
            let bytes = Bytes::from(put_entry(&entry).encode_to_vec());
            assert_eq!(decode_entry(bytes).unwrap(), entry);
        }
    }

    #[test]
    fn the_bytes_of_an_entry_never_change() {
        let log_id = LogId::new(LeaderId { term: 3, node_id: 9 }, 41);
        let entry = Entry {
            log_id,
            payload: EntryPayload::Normal(EncodedBatch(Bytes::from_static(b"abc"))),
        };
        assert_eq!(
            hex::encode(put_entry(&entry).encode_to_vec()),
            "0a080a040803100910291a03616263"
        );
    }
}
