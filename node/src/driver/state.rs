//! What the driver reads of the replicated state, beside the queries made for it.

use pinrail_proto::log::{AgentRecord, RunRecord};
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::store::Read;
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

/// An agent's namespace and name by its number. None when it is gone.
pub(crate) fn agent_name(replica: &Replica, agent: u32) -> Option<(String, String)> {
    let key = Key::of(Kind::Agent, agent).build();
    let record: AgentRecord = replica.read(|read| txn::get(read, &key)).ok()??;
    Some((record.namespace, record.agent_id))
}

/// A run's record. None when it is gone.
pub(crate) fn run(replica: &Replica, agent: u32, run_id: &str) -> Option<RunRecord> {
    let key = Key::of(Kind::Run, agent).last(run_id);
    replica.read(|read| txn::get(read, &key)).ok()?
}
