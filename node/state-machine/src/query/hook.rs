//! Reads about hooks: how far they are, their deliveries, and what the leader's driver needs to make them.

use pinrail_proto::log::{AgentRecord, DeliveryRecord, EventRecord, HookRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, DeliveryState};

use crate::agent;
use crate::hook::{self, CALLBACK, RUN_FINISHED, deliveries, parse_delivery, state_of};
use crate::key::{Key, Kind, Parts};
use crate::outcome::Stop;
use crate::store::{Fault, Order, Read, Row};
use crate::txn::{decode, get};

pub use crate::hook::Place;

use super::event::message;
use super::page::page;

/// The hooks of an agent, by name.
///
/// # Errors
/// `AGENT_NOT_FOUND`.
pub fn hooks(
    read: &dyn Read,
    namespace: &str,
    agent_id: &str,
) -> Result<Vec<v1::HookStatus>, Stop> {
    let agent = agent::find(read, namespace, agent_id)?;
    let policy = agent::policy(read, agent.number)?;
    let hooks = hook::all(read, agent.number)?;
    Ok(hooks.into_iter().map(|record| status(&agent, &policy, record)).collect())
}

/// One hook of an agent.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `HOOK_NOT_FOUND`.
pub fn hook(
    read: &dyn Read,
    namespace: &str,
    agent_id: &str,
    name: &str,
) -> Result<v1::HookStatus, Stop> {
    let agent = agent::find(read, namespace, agent_id)?;
    let record = hook::existing(read, agent.number, name)?;
    Ok(status(&agent, &agent::policy(read, agent.number)?, record))
}

fn status(agent: &AgentRecord, policy: &v1::Policy, record: HookRecord) -> v1::HookStatus {
    v1::HookStatus {
        agent_id: agent.agent_id.clone(),
        hook: policy.hooks.iter().find(|hook| hook.name == record.hook).cloned(),
        cursor: record.cursor,
        pending: record.pending,
        delivered: record.delivered,
        dead: record.dead,
        delivered_at: timestamp(record.delivered_ms),
        failed_at: timestamp(record.failed_ms),
        error: record.error,
        since_revision: record.since_revision,
    }
}

/// A page of a hook's deliveries, of one state unless that is unspecified: pending ones, dead ones, those that were made.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `HOOK_NOT_FOUND`, or a forged token.
pub fn hook_deliveries(
    read: &dyn Read,
    namespace: &str,
    agent_id: &str,
    name: &str,
    state: DeliveryState,
    page_size: u32,
    page_token: &str,
) -> Result<(Vec<v1::Delivery>, String), Stop> {
    let agent = agent::find(read, namespace, agent_id)?;
    hook::existing(read, agent.number, name)?;
    let range = match state {
        DeliveryState::Unspecified => deliveries(agent.number, name),
        DeliveryState::Pending | DeliveryState::Dead | DeliveryState::Delivered => {
            state_of(agent.number, name, state)
        }
    };
    let (rows, next) = page(read, &range, page_size, page_token)?;
    let found: Result<_, Fault> = rows.iter().map(delivery).collect();
    Ok((found?, next))
}

fn delivery(row: &Row) -> Result<v1::Delivery, Fault> {
    let (state, place, record) = parts(row)?;
    Ok(v1::Delivery {
        delivery_id: format!("{}/{}", place.revision, place.index),
        r#type: record.r#type,
        state: state.into(),
        attempts: record.attempts,
        status: record.status,
        error: record.error,
        event_at: timestamp(record.event_ms),
        tried_at: timestamp(record.tried_ms),
        next_at: if state == DeliveryState::Pending { timestamp(record.next_ms) } else { None },
    })
}

fn parts((key, value): &Row) -> Result<(DeliveryState, Place, DeliveryRecord), Fault> {
    let (state, place) = parse_delivery(key)
        .ok_or_else(|| Fault(format!("key {} does not come apart", hex::encode(key))))?;
    Ok((state, place, decode(key, value)?))
}

/// A hook as its driver sees it.
#[derive(Debug, Clone)]
pub struct Hooked {
    pub namespace: String,
    pub agent_id: String,
    pub hook: v1::Hook,
    pub cursor: u64,
    /// Deliveries that are tried again.
    pub pending: Vec<(Place, DeliveryRecord)>,
    /// Events behind the cursor that are over already.
    pub over: Vec<Place>,
}

/// The hooks of an agent by its number, with what is not over; none when it is gone.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn hooked(read: &dyn Read, agent: u32) -> Result<Vec<Hooked>, Fault> {
    let Some(record) = agent::by_number(read, agent)? else { return Ok(Vec::new()) };
    let policy = agent::policy(read, agent)?;
    let mut found = Vec::new();
    for row in hook::all(read, agent)? {
        let Some(hook) = policy.hooks.iter().find(|hook| hook.name == row.hook) else { continue };
        let mut hooked = Hooked {
            namespace: record.namespace.clone(),
            agent_id: record.agent_id.clone(),
            hook: hook.clone(),
            cursor: row.cursor,
            pending: Vec::new(),
            over: Vec::new(),
        };
        let rows = read.scan(&deliveries(agent, &row.hook), Order::Ascending, usize::MAX)?;
        for row in &rows {
            match parts(row)? {
                (DeliveryState::Pending, place, record) => hooked.pending.push((place, record)),
                (_, place, _) if place.revision > hooked.cursor => hooked.over.push(place),
                (_, _, _) => {}
            }
        }
        found.push(hooked);
    }
    Ok(found)
}

/// The first agent with hooks whose number is at least `from`.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn next_hooked_agent(read: &dyn Read, from: u32) -> Result<Option<u32>, Fault> {
    hook::next_agent(read, from)
}

/// An event, as far as it decides who is sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHead {
    pub place: Place,
    pub namespace: String,
    pub agent_id: String,
    pub type_: String,
    pub at_ms: u64,
    /// The hook that the start of the run which is over asked to be told; empty: none.
    pub callback: String,
}

impl EventHead {
    /// Whether a hook of the event's agent is sent it.
    #[must_use]
    pub fn is_for(&self, hook: &v1::Hook) -> bool {
        self.callback == hook.name || hook::asks_for(hook, &self.type_)
    }
}

/// Events of agents behind a revision, at most about `limit` and never part of a revision's only, and the revision up
/// to which they are all.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn event_heads(
    read: &dyn Read,
    after_revision: u64,
    limit: usize,
) -> Result<(Vec<EventHead>, u64), Fault> {
    let now = super::cluster(read)?.revision;
    let mut range = Key::new(Kind::Event).range();
    range.start = Key::new(Kind::Event).u64(after_revision.saturating_add(1)).build();
    let mut rows = read.scan(&range, Order::Ascending, limit)?;
    let mut upto = now;
    if rows.len() == limit
        && let Some(last) = rows.last().and_then(|(key, _)| Parts::new(key).u64())
    {
        // The page may end inside of a revision: the rest of that one belongs to it.
        let mut rest = Key::new(Kind::Event).u64(last).range();
        if let Some((key, _)) = rows.last() {
            rest = rest.after(key);
        }
        rows.extend(read.scan(&rest, Order::Ascending, usize::MAX)?);
        upto = last;
    }
    let mut heads = Vec::new();
    for (key, value) in &rows {
        let event: EventRecord = decode(key, value)?;
        if event.agent_id.is_empty() {
            continue;
        }
        let mut parts = Parts::new(key);
        let place = Place { revision: parts.u64().unwrap_or(0), index: parts.u32().unwrap_or(0) };
        let is_finish = event.r#type == RUN_FINISHED;
        let callback = event.attributes.get(CALLBACK).filter(|_| is_finish);
        heads.push(EventHead {
            place,
            callback: callback.cloned().unwrap_or_default(),
            namespace: event.namespace,
            agent_id: event.agent_id,
            type_: event.r#type,
            at_ms: event.at_ms,
        });
    }
    Ok((heads, upto))
}

/// One event with what only hooks are sent. None: it is not kept any more.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn event_at(
    read: &dyn Read,
    place: Place,
) -> Result<Option<(v1::Event, Option<v1::Payload>)>, Fault> {
    let key = Key::new(Kind::Event).u64(place.revision).u32(place.index).build();
    let Some(record) = get::<EventRecord>(read, &key)? else { return Ok(None) };
    let data = record.data.clone();
    Ok(Some((message(place.revision, place.index, record), data)))
}
