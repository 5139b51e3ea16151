//! Reads of the event stream: one order, resumable from a revision.

use pinrail_proto::log::EventRecord;
use pinrail_proto::time::timestamp;
use pinrail_proto::{reason, v1};

use crate::event;
use crate::key::Parts;
use crate::outcome::{Stop, reject};
use crate::store::{Order, Read, Row};
use crate::txn::decode;

/// Which events are meant. Empty fields mean all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub namespace: String,
    pub agent_id: String,
    /// A type, or a prefix of types that ends in `.`.
    pub type_: String,
    pub after_revision: u64,
    pub newest_first: bool,
}

impl EventFilter {
    /// Whether an event is meant, its revision aside.
    #[must_use]
    pub fn matches(&self, event: &v1::Event) -> bool {
        let same = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        let of_type = if self.type_.ends_with('.') {
            event.r#type.starts_with(&self.type_)
        } else {
            same(&self.type_, &event.r#type)
        };
        of_type && same(&self.namespace, &event.namespace) && same(&self.agent_id, &event.agent_id)
    }
}

/// Rows that one call looks at, so that a filter which matches little costs no full scan.
const LOOKED_AT: usize = 10_000;

/// At most `limit` events, never part of a revision's only, and the revision to go on after.
///
/// From the oldest that is kept when `after_revision` is 0.
///
/// # Errors
/// `COMPACTED` when events after `after_revision` are gone already: whoever resumes there has missed some.
pub fn events(
    read: &dyn Read,
    filter: &EventFilter,
    limit: usize,
) -> Result<(Vec<v1::Event>, u64), Stop> {
    let cluster = super::cluster(read)?;
    let resumes = filter.after_revision != 0 && !filter.newest_first;
    if resumes && filter.after_revision < cluster.events_compacted {
        let message = format!("events up to revision {} are gone", cluster.events_compacted);
        return Err(reject(reason::COMPACTED, message).with("oldest", cluster.events_compacted + 1));
    }
    let behind = filter.after_revision.max(cluster.events_compacted);
    let range = event::since(behind.saturating_add(1));
    let order = if filter.newest_first { Order::Descending } else { Order::Ascending };
    let rows = read.scan(&range, order, LOOKED_AT)?;
    let looked_at_all = rows.len() < LOOKED_AT;
    let mut found: Vec<v1::Event> = Vec::new();
    let mut next = filter.after_revision;
    for row in &rows {
        let event = read_row(row)?;
        let full = found.len() >= limit;
        if full && found.last().is_some_and(|last| last.revision != event.revision) {
            return Ok((found, next));
        }
        next = event.revision;
        if filter.matches(&event) {
            found.push(event);
        }
    }
    // A page cut inside a revision would lose its other events: go on after the one before it.
    if !looked_at_all {
        found.retain(|event| event.revision != next);
        next = next.saturating_sub(1);
    } else {
        next = next.max(cluster.revision);
    }
    Ok((found, next))
}

fn read_row((key, value): &Row) -> Result<v1::Event, Stop> {
    let mut parts = Parts::new(key);
    let (revision, index) = (parts.u64().unwrap_or(0), parts.u32().unwrap_or(0));
    Ok(message(revision, index, decode(key, value)?))
}

/// The API's view of an event; what only hooks are sent is left out.
pub(super) fn message(revision: u64, index: u32, record: EventRecord) -> v1::Event {
    v1::Event {
        revision,
        index,
        at: timestamp(record.at_ms),
        r#type: record.r#type,
        namespace: record.namespace,
        agent_id: record.agent_id,
        bundle_id: record.bundle_id,
        run_id: record.run_id,
        actor: record.actor,
        reason: record.reason,
        attributes: record.attributes,
    }
}
