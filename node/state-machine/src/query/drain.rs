//! Reads of the route and of drains.

use pinrail_proto::log::RunRecord;
use pinrail_proto::{reason, v1};

use crate::outcome::{Stop, reject};
use crate::store::Read;
use crate::{agent, bundle, release, route, run};

/// The drain of one bundle; or (`bundle_id` empty) of every bundle that has open pins or a drain deadline.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`.
pub fn drains(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle_id: &str,
) -> Result<Vec<v1::Drain>, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let records = if bundle_id.is_empty() {
        let mut all = bundle::all(read, agent.number)?;
        all.retain(|record| bundle::open_pins(record) > 0 || record.drain_deadline_ms != 0);
        all
    } else {
        vec![bundle::existing(read, agent.number, bundle_id)?]
    };
    records.iter().map(|record| Ok(route::drain_message(read, &agent, record)?)).collect()
}

/// The bundle that a run started now would get, the route's epoch, and the endpoint of the bundle's environment.
/// `key`: a session, whose pin comes first, or a run's id; either has its place in a canary's share.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `NO_LIVE_BUNDLE`.
pub fn resolve_route(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    key: &str,
) -> Result<(String, u64, String), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let now = super::position(read)?.now_ms;
    if let Some(bundle) = run::session::pinned(read, &agent, key, now)? {
        return Ok((bundle.bundle_id, agent.epoch, bundle.endpoint));
    }
    if agent.live_bundle_id.is_empty() {
        let message = format!("agent {} has no live bundle", agent.agent_id);
        return Err(reject(reason::NO_LIVE_BUNDLE, message));
    }
    let asked = RunRecord { session: key.to_owned(), ..RunRecord::default() };
    let routed = match !key.is_empty() && release::draws(read, &agent, &asked)? {
        true => &agent.candidate_bundle_id,
        false => &agent.live_bundle_id,
    };
    let routed = bundle::existing(read, agent.number, routed)?;
    Ok((routed.bundle_id, agent.epoch, routed.endpoint))
}
