//! Rows of drift for whoever reads them.

use std::collections::BTreeMap;

use pinrail_proto::log::{AgentRecord, BundleRecord, DriftRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, DriftClass, DriftSource, DriftState};

use crate::store::{Fault, Order, Read};
use crate::txn::decode;
use crate::{bundle, event};

use super::place::{Place, of_bundle};
use super::policy::action;
use super::row::{is_open, state};

/// Which rows are meant; what is empty or unspecified means any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter<'a> {
    pub(crate) bundle_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) source: DriftSource,
    /// Accepted and cleared ones too.
    pub(crate) all: bool,
}

/// The rows of an agent by bundle, source and name.
pub(super) fn rows(
    read: &dyn Read,
    agent: &AgentRecord,
    filter: &Filter<'_>,
) -> Result<Vec<(Place, DriftRecord)>, Fault> {
    let mut found = Vec::new();
    for it in bundle::all(read, agent.number)? {
        let is_meant = filter.bundle_id.is_empty() || filter.bundle_id == it.bundle_id;
        if is_meant && it.drift.is_some_and(|drift| drift.rows > 0) {
            found.extend(of(read, agent.number, &it.bundle_id)?);
        }
    }
    found.retain(|(place, record)| {
        (filter.name.is_empty() || filter.name == place.name)
            && (filter.source == DriftSource::Unspecified || filter.source == place.source)
            && (filter.all || is_open(record))
    });
    Ok(found)
}

fn of(read: &dyn Read, agent: u32, bundle_id: &str) -> Result<Vec<(Place, DriftRecord)>, Fault> {
    let rows = read.scan(&of_bundle(agent, bundle_id).range(), Order::Ascending, usize::MAX)?;
    rows.iter().map(|(key, value)| Ok((Place::of_key(key)?, decode(key, value)?))).collect()
}

/// The rows of an agent as the API shows them.
pub(crate) fn shown(
    read: &dyn Read,
    agent: &AgentRecord,
    policy: &v1::Policy,
    filter: &Filter<'_>,
) -> Result<Vec<v1::Drift>, Fault> {
    let rows = rows(read, agent, filter)?;
    Ok(rows.into_iter().map(|(place, record)| message(policy, &place, record)).collect())
}

/// What is known of schemas: by tool and what was seen.
pub(crate) type Known = BTreeMap<(String, String), (DriftClass, DriftState)>;

/// What is known of the schemas that workers of a bundle saw.
pub(crate) fn schemas(read: &dyn Read, agent: u32, bundle_id: &str) -> Result<Known, Fault> {
    let mut rows = of(read, agent, bundle_id)?;
    rows.retain(|(place, _)| place.source == DriftSource::Schema);
    let known = |(place, record): (Place, DriftRecord)| {
        ((place.name, place.seen), (record.class(), state(&record)))
    };
    Ok(rows.into_iter().map(known).collect())
}

/// Something open, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) class: DriftClass,
    pub(crate) told: String,
    pub(crate) count: u64,
}

/// What is open of a bundle. `None`: nothing was ever compared.
pub(crate) fn open(
    read: &dyn Read,
    agent: u32,
    bundle: &BundleRecord,
) -> Result<Option<Vec<Open>>, Fault> {
    let Some(count) = bundle.drift.filter(|drift| drift.compared) else { return Ok(None) };
    if count.breaking + count.compatible == 0 {
        return Ok(Some(Vec::new()));
    }
    let mut rows = of(read, agent, &bundle.bundle_id)?;
    rows.retain(|(_, record)| is_open(record));
    let open = |(place, record): (Place, DriftRecord)| Open {
        name: place.name,
        class: record.class(),
        told: told(&record),
        count: record.count,
    };
    Ok(Some(rows.into_iter().map(open).collect()))
}

/// The first breaking difference, or the first one, in words.
pub(super) fn told(record: &DriftRecord) -> String {
    let is_breaking = |change: &&v1::DriftChange| change.class() == DriftClass::Breaking;
    let first = record.changes.iter().find(is_breaking).or_else(|| record.changes.first());
    let Some(first) = first else { return "it is another one".to_owned() };
    match first.path.as_str() {
        "" => first.what.clone(),
        path => format!("{path}: {}", first.what),
    }
}

/// `breaking`.
pub(super) fn class_word(class: DriftClass) -> String {
    event::word(class.as_str_name(), "DRIFT_CLASS_")
}

/// `schema`.
pub(super) fn source_word(source: DriftSource) -> String {
    event::word(source.as_str_name(), "DRIFT_SOURCE_")
}

/// The API's view of a row.
pub(super) fn message(policy: &v1::Policy, place: &Place, it: DriftRecord) -> v1::Drift {
    v1::Drift {
        bundle_id: place.bundle_id.clone(),
        source: place.source.into(),
        name: place.name.clone(),
        class: it.class,
        state: state(&it).into(),
        action: action(policy, place.source, it.class()).into(),
        expected: it.expected,
        seen: place.seen.clone(),
        changes: it.changes,
        count: it.count,
        first_seen_at: timestamp(it.first_ms),
        last_seen_at: timestamp(it.last_ms),
        worker_id: it.worker_id,
        run_id: it.run_id,
        accepted_at: timestamp(it.accepted_ms),
        accepted_by: it.accepted_by,
        accept_reason: it.accept_reason,
        cleared_at: timestamp(it.cleared_ms),
        revision: it.revision,
        input_schema_json: it.input_schema_json,
        output_schema_json: it.output_schema_json,
    }
}
