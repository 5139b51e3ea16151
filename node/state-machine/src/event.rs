//! Builders for what happened. `docs/EVENTS.md` lists the types.

use pinrail_proto::log::{AgentRecord, EventRecord};

use crate::key::{Key, Kind};
use crate::store::KeyRange;

pub(crate) fn of(kind: &str) -> EventRecord {
    EventRecord { r#type: kind.to_owned(), ..EventRecord::default() }
}

/// Something that happened to an agent.
pub(crate) fn of_agent(kind: &str, agent: &AgentRecord) -> EventRecord {
    EventRecord { namespace: agent.namespace.clone(), agent_id: agent.agent_id.clone(), ..of(kind) }
}

/// Something that happened to a bundle.
pub(crate) fn of_bundle(kind: &str, agent: &AgentRecord, bundle_id: &str) -> EventRecord {
    EventRecord { bundle_id: bundle_id.to_owned(), ..of_agent(kind, agent) }
}

/// Something that happened to a run.
pub(crate) fn of_run(
    kind: &str,
    agent: &AgentRecord,
    bundle_id: &str,
    run_id: &str,
) -> EventRecord {
    EventRecord { run_id: run_id.to_owned(), ..of_bundle(kind, agent, bundle_id) }
}

/// The name of an enum's value as people read it: `max_age`, not `END_REASON_MAX_AGE`.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// The rows of events of this revision and of later ones.
pub(crate) fn since(revision: u64) -> KeyRange {
    let all = Key::new(Kind::Event);
    all.clone().range().since(all.u64(revision).build())
}

/// Adds a fact.
pub(crate) trait With {
    fn with(self, key: &str, value: impl ToString) -> Self;
}

impl With for EventRecord {
    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.attributes.insert(key.to_owned(), value.to_string());
        self
    }
}
