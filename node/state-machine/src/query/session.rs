//! Reads of sessions.

use pinrail_proto::log::SessionRecord;
use pinrail_proto::v1;

use crate::agent;
use crate::outcome::Stop;
use crate::run::session::{find, message, not_found, sessions as all};
use crate::store::Read;
use crate::txn::decode;

use super::page::page;

/// One session.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `SESSION_NOT_FOUND` when it holds no pin.
pub fn session(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    session: &str,
) -> Result<v1::Session, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let record = find(read, agent.number, session)?.ok_or_else(|| not_found(session))?;
    Ok(message(read, &agent, &record, super::position(read)?.now_ms)?)
}

/// A page of the sessions that hold a pin, by their key.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn sessions(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Session>, String), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let now = super::position(read)?.now_ms;
    let (rows, next) = page(read, &all(agent.number).range(), page_size, token)?;
    let mut sessions = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record: SessionRecord = decode(&key, &value)?;
        sessions.push(message(read, &agent, &record, now)?);
    }
    Ok((sessions, next))
}
