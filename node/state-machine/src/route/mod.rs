//! The route of an agent: which bundle new runs start on, and how it changes.
//!
//! Every change is one command whatever the number of pins: it moves the route, counts the epoch on, sets the
//! drain deadline of the bundle that lost its traffic, and opens or re-activates a memory layer. What has to be
//! done run by run follows in bounded sweeps, and nothing waits for them: each command that touches a run
//! checks the deadline and the rollback's mark itself.

mod candidate;
mod drain;
mod rollback;
mod switch;
mod turn;

use pinrail_proto::log::AgentRecord;

use crate::effect::Effect;
use crate::txn::Txn;

pub(crate) use candidate::leave as leave_candidate;
pub(crate) use drain::{
    forget as forget_drain, message as drain_message, oldest_pin_ms, set_drain,
};
pub(crate) use rollback::{leave, leave_failed, rollback};
pub(crate) use switch::{make_live, switch};
pub(crate) use turn::turn;

/// Notes that the route moved.
pub(crate) fn moved(txn: &mut Txn<'_>, agent: &mut AgentRecord) {
    agent.epoch += 1;
    agent.route_changed_ms = txn.now;
    agent.route_revision = txn.revision;
    agent.revision = txn.revision;
    txn.effect(Effect::AgentChanged { agent: agent.number });
}
