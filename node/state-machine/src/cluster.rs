//! The cluster as a whole: its formation, its recovery from a lost majority, its feature level, and a probe that it commits.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    Empty, GivenUpRecord, InitCluster, Probe, RecoverCluster, SetFeatureLevel,
};
use pinrail_proto::reason;

use crate::FEATURE_LEVEL;
use crate::event::With as _;
use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::Fault;
use crate::txn::Txn;
use crate::{event, namespace, tick};

/// Forms the cluster. A second formation is refused, whoever asks.
pub(crate) fn init(txn: &mut Txn<'_>, it: &InitCluster) -> Result<Answer, Stop> {
    if txn.cluster.incarnation != 0 {
        return Err(reject(reason::REVISION_MISMATCH, "the cluster has been formed already"));
    }
    if it.incarnation == 0 || it.cluster_id.is_empty() {
        return Err(reject(reason::INVALID_REQUEST, "a cluster needs an id and an incarnation"));
    }
    txn.cluster.cluster.clone_from(&it.cluster);
    txn.cluster.cluster_id.clone_from(&it.cluster_id);
    txn.cluster.incarnation = it.incarnation;
    txn.cluster.feature_level = it.feature_level;
    txn.cluster.next_agent = 1;
    namespace::insert(txn, namespace::DEFAULT);
    tick::watch_events(txn);
    txn.event(event::of("cluster.formed"));
    Ok(Answer::Done(Empty {}))
}

/// One member goes on as the cluster. Leases of before are void, for tokens carry the incarnation.
pub(crate) fn recover(txn: &mut Txn<'_>, it: &RecoverCluster) -> Result<Answer, Stop> {
    let is_new = it.incarnation != 0 && it.incarnation != txn.cluster.incarnation;
    if !is_new || it.cluster_id.is_empty() {
        return Err(reject(reason::INVALID_REQUEST, "a recovery needs a new id and incarnation"));
    }
    txn.cluster.cluster_id.clone_from(&it.cluster_id);
    txn.cluster.incarnation = it.incarnation;
    let (revision, at_ms) = (txn.revision, txn.now);
    for member in &it.given_up {
        let record = GivenUpRecord { node: member.node.clone(), revision, at_ms };
        txn.put(given_up_key(member.node_id), &record);
    }
    let recovered = event::of("cluster.recovered").with("node", &it.node);
    let recovered = recovered.with("given_up", names_of_given_up(it));
    txn.event(recovered.with("last_index", it.last_index));
    Ok(Answer::Done(Empty {}))
}

/// Of the others: the member that goes on gives up only its number.
pub(crate) fn names_of_given_up(it: &RecoverCluster) -> String {
    let others = it.given_up.iter().map(|lost| lost.node.as_str()).filter(|name| *name != it.node);
    others.collect::<Vec<_>>().join(", ")
}

pub(crate) fn given_up_key(node_id: u64) -> RowKey {
    Key::new(Kind::GivenUp).u64(node_id).build()
}

/// Raises the feature level; it never falls.
pub(crate) fn set_feature_level(txn: &mut Txn<'_>, it: &SetFeatureLevel) -> Result<Answer, Stop> {
    if it.level > FEATURE_LEVEL {
        // Every replica of this version stops here, and a newer one goes on: skipping would let them differ.
        return Err(Fault(format!(
            "feature level {} was switched on; this binary knows {FEATURE_LEVEL}: it is too old",
            it.level
        ))
        .into());
    }
    if it.level > txn.cluster.feature_level {
        txn.cluster.feature_level = it.level;
        txn.event(event::of("cluster.feature_level_raised").with("level", it.level));
    }
    Ok(Answer::Done(Empty {}))
}

pub(crate) fn probe(_txn: &mut Txn<'_>, _it: &Probe) -> Result<Answer, Stop> {
    Ok(Answer::Done(Empty {}))
}
