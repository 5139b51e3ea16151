//! When the next drill is due. The leader draws the moment, for apply knows no time zone and no chance.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{Empty, ScheduleDrill};

use crate::effect::Effect;
use crate::event::With as _;
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{agent, event};

use super::stale;

pub(crate) fn schedule(txn: &mut Txn<'_>, it: &ScheduleDrill) -> Result<Answer, Stop> {
    let mut agent = agent::load(txn, it.agent)?;
    if agent.policy_revision != it.policy_revision || agent.drill_every_ms == 0 {
        return Err(stale("the policy changed"));
    }
    if agent.active_drill != 0 || agent.drill_due_ms > txn.now {
        return Err(stale("a drill is under way or planned already"));
    }
    agent.drill_due_ms = it.due_ms.max(txn.now + 1);
    agent::save(txn, &agent);
    txn.event(event::of_agent("drill.scheduled", &agent).with("due_ms", agent.drill_due_ms));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(Answer::Done(Empty {}))
}
