//! Where in the state's history a read stands, and who does not belong to the cluster any more.

use pinrail_proto::log::{ClusterRecord, GivenUpRecord};

use crate::apply::cluster_key;
use crate::cluster::given_up_key;
use crate::level;
use crate::store::{Fault, Read};
use crate::txn::get;

/// Revision and cluster time of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub revision: u64,
    pub now_ms: u64,
}

/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn position(read: &dyn Read) -> Result<Position, Fault> {
    let cluster = cluster(read)?;
    Ok(Position { revision: cluster.revision, now_ms: cluster.now_ms })
}

/// The row that every command changes; empty before the cluster was formed.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn cluster(read: &dyn Read) -> Result<ClusterRecord, Fault> {
    Ok(get(read, &cluster_key())?.unwrap_or_default())
}

/// Whether what an attempt used counts before it ends, with its checkpoints and when it is handed back.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn usage_comes_at_once(read: &dyn Read) -> Result<bool, Fault> {
    Ok(cluster(read)?.feature_level >= level::USAGE_COMES_AT_ONCE)
}

/// Whether a recovery gave the member with this number up.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn given_up(read: &dyn Read, node_id: u64) -> Result<Option<GivenUpRecord>, Fault> {
    get(read, &given_up_key(node_id))
}
