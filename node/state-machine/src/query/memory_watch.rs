//! What changed in memory behind a revision, as a scope sees it.

use pinrail_proto::log::MemoryRecord;
use pinrail_proto::{limits, reason, v1};

use crate::key::{Key, Kind, Parts};
use crate::memory::{Found, version_key};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::get;

use super::memory::{message, open, weight};

/// Whose changes are meant, and from where on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryFilter {
    pub namespace: String,
    pub agent_id: String,
    pub scope: Option<v1::MemoryScope>,
    pub prefix: String,
    /// 0: from the oldest that is kept.
    pub after_revision: u64,
}

/// At most about `limit` changes that the scope sees, never part of a revision's only, and the revision to go on
/// after. The scope is resolved anew each time: the layer says whether it means another one now.
///
/// # Errors
/// `COMPACTED` when changes after `after_revision` are gone already; those of `memory_get`.
pub fn memory_changes(
    read: &dyn Read,
    filter: &MemoryFilter,
    limit: usize,
) -> Result<v1::WatchMemoryResponse, Stop> {
    let scope = filter.scope.as_ref();
    let (agent, view) = open(read, &filter.namespace, &filter.agent_id, scope, 0)?;
    if view.is_scratch() {
        let message = "what a run that serves no user writes cannot be followed, only read";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    if filter.after_revision != 0 && filter.after_revision < agent.memory_compacted {
        let message = format!("changes up to revision {} are gone", agent.memory_compacted);
        return Err(reject(reason::COMPACTED, message).with("oldest", agent.memory_compacted));
    }
    let mut range = Key::of(Kind::MemoryChange, agent.number).range();
    range.start = Key::of(Kind::MemoryChange, agent.number)
        .u64(filter.after_revision.saturating_add(1))
        .build();
    let rows = read.scan(&range, Order::Ascending, limits::MEMORY_EXAMINED)?;
    let mut told = v1::WatchMemoryResponse {
        versions: Vec::new(),
        revision: filter.after_revision,
        layer: u64::from(view.layer),
    };
    let mut bytes = 0;
    for (row, _) in &rows {
        let mut parts = Parts::new(row);
        let (_, Some(revision), Some(key)) = (parts.u32(), parts.u64(), parts.last()) else {
            return Err(Fault(format!("change {} does not come apart", hex::encode(row))).into());
        };
        let is_full = told.versions.len() >= limit || bytes >= limits::PAGE_BYTES;
        if is_full && revision != told.revision {
            return Ok(told);
        }
        told.revision = revision;
        if !key.starts_with(&filter.prefix) {
            continue;
        }
        // A change whose version is gone was discarded.
        let Some(record) = get::<MemoryRecord>(read, &version_key(agent.number, key, revision))?
        else {
            continue;
        };
        let found = Found { revision, record };
        let seen =
            view.sees(&found) && (!found.record.ended || view.sees_end(read, key, &found)?);
        if seen {
            let version = message(read, &agent, key, found)?;
            bytes += weight(&version);
            told.versions.push(version);
        }
    }
    if rows.len() == limits::MEMORY_EXAMINED {
        // The last revision may have more rows behind these: it is told whole the next time.
        let last = told.revision;
        told.versions.retain(|version| version.revision != last);
        told.revision = last.saturating_sub(1);
    } else {
        told.revision = told.revision.max(super::position(read)?.revision);
    }
    Ok(told)
}
