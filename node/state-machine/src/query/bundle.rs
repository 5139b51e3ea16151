//! Reads of bundles: one, all, their differences, their environments.

use pinrail_proto::log::{AgentRecord, BundleRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1;

use crate::key::{Key, Kind};
use crate::outcome::Stop;
use crate::store::{Fault, Read};
use crate::txn::decode;
use crate::{agent, bundle as bundles_of, drift, route};

use super::page::page;
use super::signal::stalled_runs;

/// Nothing happened to a run for so long: somebody should look.
const STALLED_MS: u64 = 600_000;

/// A bundle with its manifest.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`.
pub fn bundle(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle: &str,
) -> Result<v1::Bundle, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let record = bundles_of::existing(read, agent.number, bundle)?;
    Ok(bundles_of::message(read, &agent, &record)?)
}

/// A page of an agent's bundles, by id, without manifests.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn bundles(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Bundle>, String), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let range = Key::of(Kind::Bundle, agent.number).range();
    let (rows, next) = page(read, &range, page_size, token)?;
    let mut bundles = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record: BundleRecord = decode(&key, &value)?;
        bundles.push(without_manifest(read, &agent, &record)?);
    }
    Ok((bundles, next))
}

/// What differs between two bundles, part by part.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`.
pub fn diff(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    from: &str,
    to: &str,
) -> Result<Vec<v1::PartChange>, Stop> {
    let from = bundle(read, namespace, agent, from)?.manifest.unwrap_or_default();
    let to = bundle(read, namespace, agent, to)?.manifest.unwrap_or_default();
    Ok(bundles_of::diff(&from, &to))
}

/// What is wanted of the compute of one bundle, or of all (`bundle` empty).
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`.
pub fn environments(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle: &str,
) -> Result<Vec<v1::Environment>, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let records = if bundle.is_empty() {
        bundles_of::all(read, agent.number)?
    } else {
        vec![bundles_of::existing(read, agent.number, bundle)?]
    };
    Ok(records.iter().map(|record| bundles_of::environment(&agent, record)).collect())
}

/// Bundles that are routed, being released, or have open pins, newest first; what only the leader knows is left 0.
///
/// # Errors
/// `AGENT_NOT_FOUND`.
pub fn bundle_statuses(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    now_ms: u64,
) -> Result<Vec<v1::BundleStatus>, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let mut records = bundles_of::all(read, agent.number)?;
    records.retain(|record| {
        let routed = [&agent.live_bundle_id, &agent.standby_bundle_id, &agent.candidate_bundle_id];
        routed.contains(&&record.bundle_id) || bundles_of::open_pins(record) > 0
    });
    records.sort_by_key(|record| std::cmp::Reverse(record.created_revision));
    let stalled_ms = now_ms.saturating_sub(STALLED_MS);
    let policy = agent::policy(read, agent.number)?;
    let of = |record: &BundleRecord| {
        let open_drifts = drift::alarming(&policy, record.drift);
        Ok(v1::BundleStatus { open_drifts, ..status(read, &agent, record, stalled_ms)? })
    };
    records.iter().map(of).collect()
}

fn status(
    read: &dyn Read,
    agent: &AgentRecord,
    record: &BundleRecord,
    stalled_ms: u64,
) -> Result<v1::BundleStatus, Fault> {
    let oldest = route::oldest_pin_ms(read, agent.number, &record.bundle_id)?;
    Ok(v1::BundleStatus {
        bundle: Some(without_manifest(read, agent, record)?),
        environment: Some(bundles_of::environment(agent, record)),
        stalled_runs: stalled_runs(read, agent.number, &record.bundle_id, stalled_ms)?,
        ready_steps: record.ready_steps,
        oldest_open_run_started_at: timestamp(oldest),
        drained_by: route::drain_message(read, agent, record)?.drained_by,
        ..v1::BundleStatus::default()
    })
}

fn without_manifest(
    read: &dyn Read,
    agent: &AgentRecord,
    record: &BundleRecord,
) -> Result<v1::Bundle, Fault> {
    Ok(v1::Bundle { manifest: None, ..bundles_of::message(read, agent, record)? })
}
