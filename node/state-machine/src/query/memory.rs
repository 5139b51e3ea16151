//! Reads of memory through the view of a layer.

use pinrail_proto::log::{AgentRecord, RunRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::{id, limits, reason, v1};

use crate::key::{Key, Kind, Parts};
use crate::memory::{Found, View, find_scratch, layer};
use crate::outcome::{Stop, reject};
use crate::store::{KeyRange, Read};
use crate::{agent, bundle, run};

use super::page::{resume, size_of};

/// The newest version of a key that the scope sees, or sees as of a revision (0: the latest).
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`, `RUN_NOT_FOUND`, `INVALID_ID`; `COMPACTED` for a revision whose versions
/// are not all kept any more, and for a run that served no user and has been over for a while.
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
    let mut keys = view.keys(prefix, &key_of(&agent, prefix, token)?);
    let (mut last, mut bytes) = (String::new(), 0);
    let mut listed = v1::ListMemoryResponse {
        layer: u64::from(view.layer),
        revision: super::position(read)?.revision,
        ..v1::ListMemoryResponse::default()
    };
    for _ in 0..limits::MEMORY_EXAMINED {
        if listed.versions.len() == size || bytes >= limits::PAGE_BYTES {
            break;
        }
        let Some(key) = keys.next(read)? else { return Ok(listed) };
        if let Some(found) = view.find(read, &key)? {
            let mut version = message(read, &agent, &key, found)?;
            if keys_only {
                version.value = None;
            }
            bytes += weight(&version);
            listed.versions.push(version);
        }
        last = key;
    }
    if keys.next(read)?.is_some() {
        listed.next_page_token = hex::encode(chain(&agent, &last).build());
    }
    Ok(listed)
}

/// The key that a page ended with.
fn key_of(agent: &AgentRecord, prefix: &str, token: &str) -> Result<String, Stop> {
    if token.is_empty() {
        return Ok(String::new());
    }
    let all = KeyRange::prefix(&Key::of(Kind::Memory, agent.number).last(prefix));
    let rest = resume(&all, token)?;
    let mut parts = Parts::new(&rest.start);
    parts.u32();
    let key = parts.text();
    key.map(str::to_owned)
        .ok_or_else(|| reject(reason::INVALID_REQUEST, "the page token is not one of this list"))
}

fn chain(agent: &AgentRecord, key: &str) -> Key {
    Key::of(Kind::Memory, agent.number).text(key)
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
    let mut chain = view.versions(key, before);
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
    let now = super::position(read)?.now_ms;
    let view = match scope.and_then(|scope| scope.scope.as_ref()) {
        Some(Scope::RunId(run_id)) => {
            let run = run::find(read, agent.number, run_id)?;
            let run = run.ok_or_else(|| run::not_found(run_id))?;
            of_run(read, &agent, &run, at, now)?
        }
        Some(Scope::Layer(number)) => {
            let number = u32::try_from(*number)
                .map_err(|_| reject(reason::INVALID_REQUEST, "there is no such memory layer"))?;
            View::open(read, &agent, number, at, now)?
        }
        Some(Scope::BundleId(named)) if !named.is_empty() => {
            let record = bundle::existing(read, agent.number, named)?;
            // A bundle without a layer of its own would see the live one's.
            let number = if record.layer == 0 { live_layer(read, &agent)? } else { record.layer };
            View::open(read, &agent, number, at, now)?
        }
        Some(Scope::BundleId(_)) | None => {
            View::open(read, &agent, live_layer(read, &agent)?, at, now)?
        }
    };
    Ok((agent, view))
}

fn of_run(
    read: &dyn Read,
    agent: &AgentRecord,
    run: &RunRecord,
    at: u64,
    now: u64,
) -> Result<View, Stop> {
    if let Some(scratch) = run.scratch
        && find_scratch(read, agent.number, scratch)?.is_none()
    {
        let message = format!("the memory of run {:?} was dropped when it was over", run.run_id);
        return Err(reject(reason::COMPACTED, message));
    }
    Ok(View::of_run(read, agent, run, at, now)?)
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
    let bundle_id = match found.record.layer {
        // A run that serves no user wrote it.
        0 => run::find(read, agent.number, &found.record.run_id)?.map(|run| run.bundle_id.clone()),
        number => layer(read, agent.number, number)?.map(|layer| layer.bundle_id),
    };
    Ok(v1::MemoryVersion {
        key: key.to_owned(),
        deleted: found.record.value.is_none(),
        value: found.record.value,
        revision: found.revision,
        written_at: timestamp(found.record.written_ms),
        expires_at: timestamp(found.record.expires_ms),
        layer: u64::from(found.record.layer),
        bundle_id: bundle_id.unwrap_or_default(),
        run_id: found.record.run_id,
    })
}
