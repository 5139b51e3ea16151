//! Where in the state's history a read stands.

use pinrail_proto::log::ClusterRecord;

use crate::apply::cluster_key;
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
