//! The live bundle and its standby change places for the time of a drill: the way of a rollback, and back.

use pinrail_proto::log::AgentRecord;

use crate::event::With as _;
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{bundle, event};

use super::rollback::hand_back;

/// As a rollback moves the route, but the bundle that is left becomes the standby and nobody is rejected. The caller
/// saves the agent.
pub(crate) fn turn(txn: &mut Txn<'_>, agent: &mut AgentRecord) -> Result<(), Stop> {
    let mut from = bundle::load(txn, agent.number, &agent.live_bundle_id)?;
    let to = hand_back(txn, agent, &mut from)?;
    agent.standby_bundle_id.clone_from(&from.bundle_id);
    bundle::save(txn, agent.number, &from);
    txn.event(
        event::of_bundle("route.turned", agent, &to.bundle_id)
            .with("from", &from.bundle_id)
            .with("epoch", agent.epoch),
    );
    Ok(())
}
