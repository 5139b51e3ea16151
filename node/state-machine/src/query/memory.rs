//! Reads of memory through the view of a layer.

use pinrail_proto::log::AgentRecord;
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::{id, limits, reason, v1};

use crate::key::{Key, Kind, Parts};
use crate::memory::{Chain, Found, View, layer};
use crate::outcome::{Stop, reject};
use crate::store::{KeyRange, Order, Read};
use crate::{agent, bundle, run};

use super::page::{resume, size_of};

/// The newest version of a key that the scope sees, or sees as of a revision (0: the latest).
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`, `RUN_NOT_FOUND`, `INVALID_ID`; `COMPACTED` for a revision whose versions
/// are not all kept any more.
pub fn memory_get(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    scope: Option<&v1::MemoryScope>,
    key: &str,
    at_revision: u64,
) -> Result<v1::GetMemoryResponse, Stop> {
    id::check_memory_key(key).map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    let (agent, view) = open(read, namespace, agent, scope, at_revision)?;
    let found = view.find(read, key)?;
    Ok(v1::GetMemoryResponse {
        found: found.is_some(),
        version: found.map(|found| message(read, &agent, key, found)).transpose()?,
        layer: u64::from(view.layer),
        revision: super::position(read)?.revision,
    })
}

/// A page of the keys that begin with `prefix` and that the scope sees; `next_page_token` goes on.
///
/// # Errors
/// As [`memory_get`]; `INVALID_REQUEST` for a forged token.
#[expect(clippy::too_many_arguments, reason = "the fields of one request")]
pub fn memory_list(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    scope: Option<&v1::MemoryScope>,
    prefix: &str,
    at_revision: u64,
    keys_only: bool,
    page_size: u32,
    token: &str,
) -> Result<v1::ListMemoryResponse, Stop> {
    if prefix.contains('\0') {
        return Err(reject(reason::INVALID_ID, "a prefix holds no control characters"));
    }
    let (agent, view) = open(read, namespace, agent, scope, at_revision)?;
    let size = size_of(page_size) as usize;
    let range = KeyRange::prefix(&Key::of(Kind::Memory, agent.number).last(prefix));
    let mut rest = resume(&range, token)?;
    let mut bytes = 0;
    let mut listed = v1::ListMemoryResponse {
        layer: u64::from(view.layer),
        revision: super::position(read)?.revision,
        ..v1::ListMemoryResponse::default()
    };
    for _ in 0..limits::MEMORY_EXAMINED {
        let rows = read.scan(&rest, Order::Ascending, 1)?;
        let Some((row, _)) = rows.first() else { return Ok(listed) };
        let mut parts = Parts::new(row);
        let (_, Some(key)) = (parts.u32(), parts.text()) else { return Ok(listed) };
        if listed.versions.len() == size || bytes >= limits::PAGE_BYTES {
            break;
        }
        // All versions of a key lie together: jump behind them.
        let behind = Key::of(Kind::Memory, agent.number).text(key).range().end;
        if let Some(found) = view.find(read, key)? {
            let mut version = message(read, &agent, key, found)?;
            if keys_only {
                version.value = None;
            }
            bytes += weight(&version);
            listed.versions.push(version);
        }
        let mut last = Key::of(Kind::Memory, agent.number).text(key).build();
        last.extend_from_slice(&[u8::MAX; 8]);
        listed.next_page_token = hex::encode(&last);
        rest.start = behind;
    }
    if read.scan(&rest, Order::Ascending, 1)?.is_empty() {
        listed.next_page_token.clear();
    }
    Ok(listed)
}

/// A page of the versions of a key that the scope sees, newest first, deletions included.
///
/// # Errors
/// As [`memory_get`]; `INVALID_REQUEST` for a forged token.
pub fn memory_history(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    scope: Option<&v1::MemoryScope>,
    key: &str,
    page_size: u32,
    token: &str,
) -> Result<v1::GetMemoryHistoryResponse, Stop> {
    id::check_memory_key(key).map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    let (agent, view) = open(read, namespace, agent, scope, 0)?;
    let before = match token {
        "" => u64::MAX,
        token => token.parse().map_err(|_| {
            reject(reason::INVALID_REQUEST, "the page token is not one of this list")
        })?,
    };
    let size = size_of(page_size) as usize;
    let mut chain = Chain::older_than(agent.number, key, before);
    let mut seen: Vec<Found> = Vec::new();
    let (mut bytes, mut more) = (0, false);
    while let Some(found) = chain.next(read)? {
        if !view.sees(&found) {
            continue;
        }
        more = seen.len() == size || bytes >= limits::PAGE_BYTES;
        if more {
            break;
        }
        bytes += found.record.value.as_ref().map_or(0, |value| value.data.len());
        seen.push(found);
    }
    let next =
        seen.last().filter(|_| more).map_or_else(String::new, |found| found.revision.to_string());
    let versions = seen
        .into_iter()
        .map(|found| message(read, &agent, key, found))
        .collect::<Result<_, _>>()?;
    let revision = super::position(read)?.revision;
    Ok(v1::GetMemoryHistoryResponse { versions, next_page_token: next, revision })
}

/// Bytes of a version's value in an answer.
pub(super) fn weight(version: &v1::MemoryVersion) -> usize {
    version.value.as_ref().map_or(0, |value| value.data.len())
}

pub(super) fn open(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    scope: Option<&v1::MemoryScope>,
    at: u64,
) -> Result<(AgentRecord, View), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    if at != 0 && at < agent.memory_compacted {
        let message = format!("versions up to revision {} may be gone", agent.memory_compacted);
        return Err(reject(reason::COMPACTED, message).with("oldest", agent.memory_compacted));
    }
    let number = layer_of(read, &agent, scope.and_then(|scope| scope.scope.as_ref()))?;
    let now = super::position(read)?.now_ms;
    let view = View::open(read, &agent, number, at, now)?;
    Ok((agent, view))
}

fn layer_of(read: &dyn Read, agent: &AgentRecord, scope: Option<&Scope>) -> Result<u32, Stop> {
    match scope {
        Some(Scope::RunId(run_id)) => {
            Ok(run::find(read, agent.number, run_id)?.ok_or_else(|| run::not_found(run_id))?.layer)
        }
        Some(Scope::Layer(number)) => u32::try_from(*number)
            .map_err(|_| reject(reason::INVALID_REQUEST, "there is no such memory layer")),
        Some(Scope::BundleId(named)) if !named.is_empty() => {
            let record = bundle::existing(read, agent.number, named)?;
            // A bundle without a layer of its own would see the live one's.
            if record.layer == 0 { live_layer(read, agent) } else { Ok(record.layer) }
        }
        Some(Scope::BundleId(_)) | None => live_layer(read, agent),
    }
}

fn live_layer(read: &dyn Read, agent: &AgentRecord) -> Result<u32, Stop> {
    if agent.live_bundle_id.is_empty() {
        return Ok(0);
    }
    Ok(bundle::existing(read, agent.number, &agent.live_bundle_id)?.layer)
}

pub(super) fn message(
    read: &dyn Read,
    agent: &AgentRecord,
    key: &str,
    found: Found,
) -> Result<v1::MemoryVersion, Stop> {
    let bundle_id =
        layer(read, agent.number, found.record.layer)?.map_or_else(String::new, |l| l.bundle_id);
    Ok(v1::MemoryVersion {
        key: key.to_owned(),
        deleted: found.record.value.is_none(),
        value: found.record.value,
        revision: found.revision,
        written_at: timestamp(found.record.written_ms),
        expires_at: timestamp(found.record.expires_ms),
        layer: u64::from(found.record.layer),
        bundle_id,
        run_id: found.record.run_id,
    })
}
