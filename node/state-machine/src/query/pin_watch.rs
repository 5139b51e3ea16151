//! What becomes of an agent's pins: all open ones, then those that are made, move, change or end.
//!
//! ```text
//! begin ──> bundles with open pins ──> a page of the first one's … until none is left
//!             ^                          │
//!             │ of a bundle              v
//!             └────────────── events since then ──of a run──> that one's pin
//! ```
//! What happens while pages are read is among the events behind them, so that whoever keeps what is told last of each run has
//! what is there.

use std::collections::BTreeSet;

use pinrail_proto::v1;

use crate::outcome::Stop;
use crate::store::Read;
use crate::{agent, bundle};

use super::event::{EventFilter, events};
use super::pin::{answer, pin};
use super::run::open_pins;

/// How far somebody is who is told of all pins of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinCursor {
    namespace: String,
    agent_id: String,
    /// Everything up to here was told; 0: the first list is not complete yet.
    told: u64,
    /// Events up to here were read; 0: nothing was read yet.
    read: u64,
    /// Bundles whose open pins are still to be told.
    bundles: BTreeSet<String>,
    /// Where to go on with the first of them.
    page_token: String,
}

/// Whose pins an event may have changed.
enum Concern {
    Nobody,
    Run,
    Bundle,
    Agent,
}

impl PinCursor {
    /// Behind what happened up to a revision; 0: before the first open pin.
    #[must_use]
    pub fn after(namespace: String, agent_id: String, revision: u64) -> Self {
        let (told, read) = (revision, revision);
        Self {
            namespace,
            agent_id,
            told,
            read,
            bundles: BTreeSet::new(),
            page_token: String::new(),
        }
    }

    /// Everything up to this revision was told; 0: the open pins are still being listed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.told
    }

    /// Whether nothing was told yet of a list that begins.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.read == 0
    }

    /// Whether there may be more to tell at once, of a state that is at this revision.
    #[must_use]
    pub fn is_behind(&self, revision: u64) -> bool {
        !self.bundles.is_empty() || self.read < revision
    }

    /// The same, of who has read events up to here, and has to tell of the open pins of these bundles.
    fn having_read(&self, read: u64, bundles: BTreeSet<String>) -> Self {
        Self { read, bundles, page_token: String::new(), ..self.clone() }.settled()
    }

    /// What was read is told once there is no bundle left.
    fn settled(mut self) -> Self {
        if self.bundles.is_empty() {
            self.told = self.read;
        }
        self
    }
}

/// The next pins and where to go on: a page of `limit`, or what so many events were about, those of one revision together.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `COMPACTED` when events behind the cursor are gone already.
pub fn pin_changes(
    read: &dyn Read,
    cursor: &PinCursor,
    limit: u32,
) -> Result<(Vec<v1::LookupPinResponse>, PinCursor), Stop> {
    if let Some(bundle_id) = cursor.bundles.first() {
        return listed(read, cursor, bundle_id, limit);
    }
    if cursor.is_new() {
        let all = with_open_pins(read, cursor)?;
        return Ok((vec![], cursor.having_read(super::position(read)?.revision, all)));
    }
    changed(read, cursor, limit)
}

/// A page of the open pins of a bundle.
fn listed(
    read: &dyn Read,
    cursor: &PinCursor,
    bundle_id: &str,
    limit: u32,
) -> Result<(Vec<v1::LookupPinResponse>, PinCursor), Stop> {
    let agent = agent::find(read, &cursor.namespace, &cursor.agent_id)?;
    // None where the agent is another one of the same name by now: then it has no pins either.
    let bundle = bundle::find(read, agent.number, bundle_id)?;
    let (runs, page_token) = open_pins(read, &agent, bundle_id, limit, &cursor.page_token)?;
    let revision = super::position(read)?.revision;
    let pins = runs.iter().map(|run| answer(run, bundle.as_ref(), revision)).collect();
    let mut next = cursor.clone();
    if page_token.is_empty() {
        next.bundles.remove(bundle_id);
    }
    next.page_token = page_token;
    Ok((pins, next.settled()))
}

/// The pins of runs that something happened to.
fn changed(
    read: &dyn Read,
    cursor: &PinCursor,
    limit: u32,
) -> Result<(Vec<v1::LookupPinResponse>, PinCursor), Stop> {
    let filter = EventFilter {
        namespace: cursor.namespace.clone(),
        agent_id: cursor.agent_id.clone(),
        after_revision: cursor.read,
        ..EventFilter::default()
    };
    let (events, behind) = events(read, &filter, limit as usize)?;
    let (mut runs, mut bundles) = (BTreeSet::new(), BTreeSet::new());
    for event in &events {
        match concern(event) {
            Concern::Nobody => {}
            Concern::Run => drop(runs.insert(&event.run_id)),
            Concern::Bundle => drop(bundles.insert(event.bundle_id.clone())),
            Concern::Agent => bundles.extend(with_open_pins(read, cursor)?),
        }
    }
    let mut pins = Vec::with_capacity(runs.len());
    for run_id in runs {
        let found = match pin(read, &cursor.namespace, &cursor.agent_id, run_id) {
            Ok(found) => found,
            Err(Stop::Rejected(_)) => gone(run_id, super::position(read)?.revision),
            Err(fault) => return Err(fault),
        };
        // One that begins later has no pin yet.
        if found.pin.is_some() || !found.open {
            pins.push(found);
        }
    }
    Ok((pins, cursor.having_read(behind.max(cursor.read), bundles)))
}

/// Pins change with their run, and with the address and the deadline of their bundle, which the route sets and clears.
fn concern(event: &v1::Event) -> Concern {
    match event.r#type.split_once('.').map_or("", |(noun, _)| noun) {
        "run" => Concern::Run,
        "bundle" | "drain" | "environment" | "route" => Concern::Bundle,
        "agent" => Concern::Agent,
        _ => Concern::Nobody,
    }
}

fn with_open_pins(read: &dyn Read, cursor: &PinCursor) -> Result<BTreeSet<String>, Stop> {
    let agent = agent::find(read, &cursor.namespace, &cursor.agent_id)?;
    let mut bundles = bundle::all(read, agent.number)?;
    bundles.retain(|it| bundle::open_pins(it) > 0);
    Ok(bundles.into_iter().map(|it| it.bundle_id).collect())
}

fn gone(run_id: &str, revision: u64) -> v1::LookupPinResponse {
    v1::LookupPinResponse { run_id: run_id.to_owned(), revision, ..Default::default() }
}
