//! Reads of drift: what is not what a bundle says, and what its policy wants done.

use std::collections::BTreeMap;

use pinrail_proto::v1::{self, DriftAction, DriftClass, DriftSource, DriftState};

use crate::outcome::Stop;
use crate::store::{Fault, Read};
use crate::{agent as agents, bundle as bundles_of, drift};

/// What drifted of an agent, by bundle, source and name.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`.
pub fn drifts(read: &dyn Read, asked: &v1::ListDriftsRequest) -> Result<Vec<v1::Drift>, Stop> {
    let agent = agents::find(read, &asked.namespace, &asked.agent_id)?;
    if !asked.bundle_id.is_empty() {
        bundles_of::existing(read, agent.number, &asked.bundle_id)?;
    }
    let filter = drift::Filter {
        bundle_id: &asked.bundle_id,
        name: &asked.name,
        source: asked.source(),
        all: asked.all,
    };
    let policy = agents::policy(read, agent.number)?;
    Ok(drift::shown(read, &agent, &policy, &filter)?)
}

/// What is known of the schemas that workers of a bundle saw, and what the policy wants done about open ones.
#[derive(Debug, Clone, Default)]
pub struct KnownSchemas {
    /// By tool and what was seen.
    pub seen: BTreeMap<(String, String), (DriftClass, DriftState)>,
    pub breaking: DriftAction,
    pub compatible: DriftAction,
}

impl KnownSchemas {
    /// Whether it is written down and not over.
    #[must_use]
    pub fn is_known(&self, tool: &str, seen: &str) -> bool {
        let state = self.seen.get(&(tool.to_owned(), seen.to_owned())).map(|(_, state)| *state);
        state.is_some_and(|state| state != DriftState::Cleared)
    }

    /// What is open: tool and what was seen.
    pub fn open(&self) -> impl Iterator<Item = (&str, &str)> {
        let open = self.seen.iter().filter(|(_, (_, state))| *state == DriftState::Open);
        open.map(|((tool, seen), _)| (tool.as_str(), seen.as_str()))
    }
}

/// See [`KnownSchemas`]. None: there is no such agent or bundle any more.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn known_schemas(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<Option<KnownSchemas>, Fault> {
    if bundles_of::find(read, agent, bundle_id)?.is_none() {
        return Ok(None);
    }
    let policy = agents::policy(read, agent)?;
    let action = |class| drift::action(&policy, DriftSource::Schema, class);
    Ok(Some(KnownSchemas {
        seen: drift::schemas(read, agent, bundle_id)?,
        breaking: action(DriftClass::Breaking),
        compatible: action(DriftClass::Compatible),
    }))
}
