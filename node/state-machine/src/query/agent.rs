//! Reads of namespaces and agents.

use pinrail_proto::log::NamespaceRecord;
use pinrail_proto::{limits, v1};
use prost::Message as _;

use crate::key::{Key, Kind};
use crate::outcome::Stop;
use crate::store::{Fault, Order, Read};
use crate::txn::decode;
use crate::{agent as agents_of, namespace};

use super::page::page;

/// All namespaces, by name.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn namespaces(read: &dyn Read) -> Result<Vec<v1::Namespace>, Stop> {
    let rows = read.scan(&Key::new(Kind::Namespace).range(), Order::Ascending, usize::MAX)?;
    let namespace = |(key, value): &crate::store::Row| {
        let record: NamespaceRecord = decode(key, value)?;
        Ok(namespace::message(&String::from_utf8_lossy(&key[1..]), &record))
    };
    rows.iter().map(namespace).collect()
}

/// A namespace with all that its agents have, counted for a quota or not: one read an agent.
///
/// # Errors
/// `NAMESPACE_NOT_FOUND` with the nearest name.
pub fn namespace(read: &dyn Read, name: &str) -> Result<v1::Namespace, Stop> {
    let name = namespace::or_default(name);
    let record = namespace::existing(read, name)?;
    let used = Some(namespace::quota::sum(read, name)?);
    Ok(v1::Namespace { used, ..namespace::message(name, &record) })
}

/// The number of an agent.
///
/// # Errors
/// `AGENT_NOT_FOUND` with the nearest name.
pub fn agent_number(read: &dyn Read, namespace: &str, agent: &str) -> Result<u32, Stop> {
    Ok(agents_of::find(read, namespace, agent)?.number)
}

/// # Errors
/// `AGENT_NOT_FOUND` with the nearest name.
pub fn agent(read: &dyn Read, namespace: &str, agent: &str) -> Result<v1::Agent, Stop> {
    let record = agents_of::find(read, namespace, agent)?;
    Ok(agents_of::message(read, &record)?)
}

/// A page of a namespace's agents, by name, and the token of the next page. It ends early behind so many bytes of
/// policies that more might not fit an answer.
///
/// # Errors
/// `INVALID_REQUEST` for a forged token.
pub fn agents(
    read: &dyn Read,
    namespace: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Agent>, String), Stop> {
    let range = Key::new(Kind::AgentName).text(namespace::or_default(namespace)).range();
    let (rows, mut next) = page(read, &range, page_size, token)?;
    let mut agents = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for (at, (key, value)) in rows.iter().enumerate() {
        let number = value
            .as_ref()
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| Fault(format!("row {} has no number", hex::encode(key))))?;
        let found = agents_of::by_number(read, number)?;
        // A drill's own route is no agent that users know.
        if let Some(record) = found.filter(|record| record.drill_of == 0) {
            let agent = agents_of::message(read, &record)?;
            bytes += agent.encoded_len();
            agents.push(agent);
        }
        if bytes > limits::PAGE_BYTES && at + 1 < rows.len() {
            next = hex::encode(key);
            break;
        }
    }
    Ok((agents, next))
}
