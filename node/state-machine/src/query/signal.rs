//! Reads of signals: what is watched, how it stands, what fired.

use pinrail_proto::v1::SignalKind;
use pinrail_proto::{limits, v1};

use crate::key::{Key, Kind, Parts};
use crate::outcome::Stop;
use crate::run;
use crate::store::{Fault, KeyRange, Order, Read};
use crate::{agent as agents, release as releases_of, signal};

/// What is watched of an agent, how it stands, and what fired in a release: by its id, else in what is watched, else in the
/// newest one. The time comes in: while nothing is written the state's own stands still, and open runs grow older.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RELEASE_NOT_FOUND`.
pub fn signals(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    release_id: &str,
    now_ms: u64,
) -> Result<v1::GetSignalsResponse, Stop> {
    let record = agents::find(read, namespace, agent)?;
    let watches = signal::watched(read, &record, now_ms)?;
    let numbers = match release_id {
        "" if watches.is_empty() => vec![record.next_release],
        "" => watches.iter().filter_map(|it| releases_of::number(&it.release_id)).collect(),
        named => {
            super::release(read, namespace, agent, named)?;
            releases_of::number(named).into_iter().collect()
        }
    };
    let mut firings = Vec::new();
    for number in numbers {
        if let Some(release) = releases_of::find(read, record.number, number)? {
            firings.extend(signal::firings(read, record.number, &release)?);
        }
    }
    firings.sort_by_key(|firing| std::cmp::Reverse(firing.revision));
    let live = match record.live_bundle_id.as_str() {
        "" => None,
        live => Some(signal::present(read, &record, live, now_ms)?),
    };
    Ok(v1::GetSignalsResponse {
        agent_id: record.agent_id,
        watches,
        live,
        firings,
        mutes: signal::mutes(read, record.number, now_ms)?,
        revision: super::position(read)?.revision,
    })
}

/// What is watched of an agent by its number, and how it stands.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn signal_watches(
    read: &dyn Read,
    agent: u32,
    now_ms: u64,
) -> Result<Vec<v1::SignalWatch>, Fault> {
    let Some(record) = agents::by_number(read, agent)? else { return Ok(Vec::new()) };
    signal::watched(read, &record, now_ms)
}

/// Signals that fired and were not clean since: agent, bundle, signal.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn open_firings(read: &dyn Read) -> Result<Vec<(String, String, SignalKind)>, Fault> {
    let mut found = Vec::new();
    for agent in super::agents_with_releases(read)? {
        let Some(record) = agents::by_number(read, agent)? else { continue };
        for number in [record.active_release, record.quarantine_release] {
            let Some(release) = releases_of::find(read, agent, number)? else { continue };
            found.extend(
                release.open_firings.iter().map(|open| {
                    (record.agent_id.clone(), release.bundle_id.clone(), open.signal())
                }),
            );
        }
    }
    Ok(found)
}

/// What the runs of a bundle are like: at present, or as they were when a switch took its traffic.
pub(super) fn cohort(
    read: &dyn Read,
    agent: &pinrail_proto::log::AgentRecord,
    bundle_id: &str,
    now_ms: u64,
) -> Result<v1::Cohort, Fault> {
    let newest = releases_of::find(read, agent.number, agent.quarantine_release)?;
    if let Some(release) = newest.filter(|it| it.baseline_bundle_id == bundle_id)
        && let Some(frozen) = signal::frozen(read, agent.number, release.number)?
    {
        let sum = frozen.sum.unwrap_or_default();
        return Ok(signal::cohort(bundle_id, (frozen.since_ms, frozen.until_ms), &sum));
    }
    signal::present(read, agent, bundle_id, now_ms)
}

/// Open runs of a bundle that have something to do and that nothing happened to since a moment, of the oldest.
pub(super) fn stalled_runs(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
    before_ms: u64,
) -> Result<u64, Fault> {
    let pins = Key::of(Kind::OpenPin, agent).text(bundle_id);
    let older = KeyRange { start: pins.clone().build(), end: pins.u64(before_ms).build() };
    let mut stalled = 0;
    for (key, _) in read.scan(&older, Order::Ascending, limits::PAGE as usize)? {
        let mut parts = Parts::new(&key);
        let _ = (parts.u32(), parts.text(), parts.u64());
        let Some(it) = run::find(read, agent, parts.last().unwrap_or_default())? else { continue };
        stalled += u64::from(it.changed_ms < before_ms && it.idle_since_ms == 0);
    }
    Ok(stalled)
}
