//! Reads of drills: how they went, and what the leader needs to carry one out.

use pinrail_proto::log::{AgentRecord, DrillRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::{id, reason, v1};

use crate::drill as drills_of;
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::decode;
use crate::{agent as agents, bundle};

use super::page::page_back;

/// The bundles of a drill's own route.
pub use crate::drill::{LIVE as DRILL_LIVE, STANDBY as DRILL_STANDBY};

/// A drill by its id; without one the drill that is under way, else the newest. The time comes in: while nothing is
/// written the state's own stands still.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `DRILL_NOT_FOUND`.
pub fn drill(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    drill_id: &str,
    now_ms: u64,
) -> Result<v1::Drill, Stop> {
    let agent = agents::find(read, namespace, agent)?;
    let number = match drill_id {
        "" => agent.next_drill,
        named => drills_of::number(named).unwrap_or(0),
    };
    let Some(record) = drills_of::find(read, agent.number, number)? else {
        let message = match drill_id {
            "" => format!("agent {} has had no drill", agent.agent_id),
            named => format!("agent {} has no drill {named:?}", agent.agent_id),
        };
        return Err(reject(reason::DRILL_NOT_FOUND, message));
    };
    Ok(drills_of::message(&agent, &record, now_ms))
}

/// A page of an agent's drills, newest first, with the token of the next page, and what is planned. The revision is for
/// the caller to fill in.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn drills(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    page_size: u32,
    token: &str,
    now_ms: u64,
) -> Result<v1::ListDrillsResponse, Stop> {
    let agent = agents::find(read, namespace, agent)?;
    let range = Key::of(Kind::Drill, agent.number).range();
    let (rows, next_page_token) = page_back(read, &range, page_size, token)?;
    let mut drills = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        drills.push(drills_of::message(&agent, &decode(&key, &value)?, now_ms));
    }
    Ok(v1::ListDrillsResponse {
        drills,
        next_page_token,
        policy: agents::policy(read, agent.number)?.drill,
        due_at: timestamp(agent.drill_due_ms),
        revision: 0,
    })
}

/// An agent that is in a drill, or has one planned.
#[derive(Debug, Clone)]
pub struct Drilled {
    pub agent: AgentRecord,
    pub policy: v1::Policy,
    /// The drill that is under way.
    pub drill: Option<DrillRecord>,
    /// When the last one began; 0: there was none.
    pub last_ms: u64,
    /// Workers of the bundle that the probes run on had a step at least once.
    pub had_worker: bool,
}

impl Drilled {
    /// The bundle of the real agent that probes run on: the one that the drill returns to.
    #[must_use]
    pub fn probed(&self) -> &str {
        self.drill.as_ref().map_or("", |drill| drill.to_bundle_id.as_str())
    }

    /// The agent's name on the route that the drill is on.
    #[must_use]
    pub fn route(&self) -> String {
        match &self.drill {
            Some(drill) if drill.route != 0 => id::drill_route(&self.agent.agent_id),
            Some(_) | None => self.agent.agent_id.clone(),
        }
    }
}

/// An agent by its number, if it is in a drill or the policy plans any.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn drilled(read: &dyn Read, agent: u32) -> Result<Option<Drilled>, Fault> {
    let Some(agent) = agents::by_number(read, agent)?.filter(wants_drills) else {
        return Ok(None);
    };
    let last = drills_of::find(read, agent.number, agent.next_drill)?;
    let last_ms = last.as_ref().map_or(0, |drill| drill.started_ms);
    let drill = last.filter(|drill| drill.number == agent.active_drill);
    let probed = match &drill {
        Some(drill) => bundle::find(read, agent.number, &drill.to_bundle_id)?,
        None => None,
    };
    Ok(Some(Drilled {
        policy: agents::policy(read, agent.number)?,
        had_worker: probed.is_some_and(|bundle| bundle.had_worker),
        last_ms,
        drill,
        agent,
    }))
}

/// The numbers of all such agents.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn agents_with_drills(read: &dyn Read) -> Result<Vec<u32>, Fault> {
    let rows = read.scan(&Key::new(Kind::Agent).range(), Order::Ascending, usize::MAX)?;
    let mut found = Vec::new();
    for (key, value) in rows {
        let agent: AgentRecord = decode(&key, &value)?;
        if wants_drills(&agent) {
            found.push(agent.number);
        }
    }
    Ok(found)
}

fn wants_drills(agent: &AgentRecord) -> bool {
    agent.active_drill != 0 || agent.drill_every_ms != 0
}
