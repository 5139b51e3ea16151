//! The cluster as a whole: its formation, its feature level, and a probe that it commits.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{Empty, InitCluster, Probe, SetFeatureLevel};
use pinrail_proto::reason;

use crate::FEATURE_LEVEL;
use crate::event::With as _;
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
