//! What the driver reads of the replicated state, beside the queries made for it.

use pinrail_proto::log::AgentRecord;
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::store::{Fault, Read};
use pinrail_state_machine::txn;

use crate::raft::{ReadError, Replica};

/// Asks a query that may answer "no".
///
/// # Errors
/// The query's "no" as [`ReadError::Rejected`], or why nothing could be read.
pub(crate) fn ask<T>(
    replica: &Replica,
    query: impl FnOnce(&dyn Read) -> Result<T, Stop>,
) -> Result<T, ReadError> {
    replica
        .read(|read| match query(read) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Stop::Rejected(rejection)) => Ok(Err(rejection)),
            Err(Stop::Fault(fault)) => Err(fault),
        })?
        .map_err(ReadError::Rejected)
}

/// An agent's namespace and name by its number. None when it is gone, or cannot be read.
pub(crate) fn agent_name(replica: &Replica, agent: u32) -> Option<(String, String)> {
    replica.read(|read| agent_name_in(read, agent)).ok()?
}

/// The same at one moment of the state.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub(crate) fn agent_name_in(
    read: &dyn Read,
    agent: u32,
) -> Result<Option<(String, String)>, Fault> {
    let record: Option<AgentRecord> = txn::get(read, &Key::of(Kind::Agent, agent).build())?;
    Ok(record.map(|record| (record.namespace, record.agent_id)))
}
