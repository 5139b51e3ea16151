//! What two scopes of memory see differently.

use pinrail_proto::log::AgentRecord;
use pinrail_proto::{limits, reason, v1};

use crate::memory::{Chain, Found, Keys, Place, View, late_behind, layer};
use crate::outcome::{Stop, reject};
use crate::store::Read;

use super::memory::{message, open, weight};
use super::page::size_of;

/// What is compared.
#[derive(Debug, Clone, Default)]
pub struct MemoryDiff {
    pub from: Option<v1::MemoryScope>,
    /// None: the live bundle.
    pub to: Option<v1::MemoryScope>,
    pub prefix: String,
    /// Only what is late in the layer of `from`.
    pub late: bool,
    pub keys_only: bool,
}

/// A page of the keys of which the two see different versions, or (late) that one has late versions of and the other
/// sees differently. Only keys of the layers in which the two differ are looked at, a bounded number of them.
///
/// # Errors
/// Those of `memory_get`; `INVALID_REQUEST` for a forged token.
pub fn memory_diff(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    diff: &MemoryDiff,
    page_size: u32,
    token: &str,
) -> Result<v1::DiffMemoryResponse, Stop> {
    let (record, from) = open(read, namespace, agent, diff.from.as_ref(), 0)?;
    let (_, to) = open(read, namespace, agent, diff.to.as_ref(), 0)?;
    let behind = parse(token)?;
    let late = if diff.late { Some(late_from(read, &record, &from)?) } else { None };
    let places = if diff.late { vec![Place::Layer(from.layer)] } else { from.apart(&to) };
    let mut keys = Keys::of(record.number, places, &diff.prefix, &behind);
    let mut told = v1::DiffMemoryResponse {
        from_layer: u64::from(from.layer),
        to_layer: u64::from(to.layer),
        revision: super::position(read)?.revision,
        ..v1::DiffMemoryResponse::default()
    };
    let size = size_of(page_size) as usize;
    let (mut last, mut bytes) = (String::new(), 0);
    for _ in 0..limits::MEMORY_EXAMINED {
        let Some(key) = keys.next(read)? else { return Ok(told) };
        if told.differences.len() == size || bytes >= limits::PAGE_BYTES {
            told.next_page_token = hex::encode(&last);
            return Ok(told);
        }
        if let Some(difference) = compare(read, &record, (&from, &to), &key, late)? {
            let difference = without_values(difference, diff.keys_only);
            bytes +=
                [&difference.from, &difference.to].into_iter().flatten().map(weight).sum::<usize>();
            told.differences.push(difference);
        }
        last = key;
    }
    told.next_page_token = hex::encode(&last);
    Ok(told)
}

fn parse(token: &str) -> Result<String, Stop> {
    let forged = || reject(reason::INVALID_REQUEST, "the page token is not one of this list");
    let key = hex::decode(token).map_err(|_| forged())?;
    String::from_utf8(key).map_err(|_| forged())
}

/// Nothing is late: behind every revision.
fn late_from(read: &dyn Read, agent: &AgentRecord, from: &View) -> Result<u64, Stop> {
    let behind = match layer(read, agent.number, from.layer)? {
        Some(layer) => late_behind(read, agent, &layer)?,
        None => None,
    };
    Ok(behind.unwrap_or(u64::MAX))
}

fn compare(
    read: &dyn Read,
    agent: &AgentRecord,
    (from, to): (&View, &View),
    key: &str,
    late: Option<u64>,
) -> Result<Option<v1::MemoryDifference>, Stop> {
    let theirs = to.find(read, key)?;
    let ours = match late {
        None => from.find(read, key)?,
        Some(behind) => {
            let newest = Chain::of(agent.number, key).next_of(read, from.layer)?;
            let Some(newest) = newest.filter(|newest| newest.revision > behind) else {
                return Ok(None);
            };
            Some(newest).filter(|it| it.record.value.is_some() && !from.is_over(&it.record))
        }
    };
    let value = |it: &Option<Found>| it.as_ref().and_then(|it| it.record.value.clone());
    if value(&ours) == value(&theirs) {
        return Ok(None);
    }
    let message = |it: Option<Found>| it.map(|it| message(read, agent, key, it)).transpose();
    Ok(Some(v1::MemoryDifference {
        key: key.to_owned(),
        from: message(ours)?,
        to: message(theirs)?,
    }))
}

fn without_values(mut difference: v1::MemoryDifference, keys_only: bool) -> v1::MemoryDifference {
    if keys_only {
        for version in [&mut difference.from, &mut difference.to].into_iter().flatten() {
            version.value = None;
        }
    }
    difference
}
