//! The candidate of a canary loses its share: by a rollback, an abort, or a gate that failed.

use pinrail_proto::log::AgentRecord;

use crate::bundle;
use crate::event;
use crate::event::With as _;
use crate::outcome::Stop;
use crate::txn::Txn;

use super::{drain, moved};

/// Takes the candidate's share away, with its sessions, and begins its drain. The caller saves the agent.
pub(crate) fn leave(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    bundle_id: &str,
    is_rejected: bool,
) -> Result<(), Stop> {
    let mut candidate = bundle::load(txn, agent.number, bundle_id)?;
    agent.canary_bp = 0;
    moved(txn, agent);
    candidate.rejected = is_rejected;
    // Sessions on it are over, however many there are.
    candidate.session_floor = agent.epoch;
    drain::begin(txn, agent, &mut candidate);
    bundle::save(txn, agent.number, &candidate);
    txn.event(
        event::of_bundle("route.canary_left", agent, bundle_id)
            .with("live", &agent.live_bundle_id)
            .with("epoch", agent.epoch),
    );
    Ok(())
}
