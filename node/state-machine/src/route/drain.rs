//! The drain of a bundle that lost its traffic: its deadline, its exact counts, its end.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, SetDrain};
use pinrail_proto::time::timestamp;
use pinrail_proto::{limits, reason, v1};

use crate::event::With as _;
use crate::key::{Key, Kind, Parts, Timer};
use crate::level;
use crate::mutant::{Mutant, is_planted};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::Txn;
use crate::{agent, bundle, event};

/// Sets the deadline by the policy of this moment; it is fixed from here on.
pub(super) fn begin(txn: &mut Txn<'_>, agent: &AgentRecord, record: &mut BundleRecord) {
    set_deadline(txn, agent, record, txn.now + agent.drain_cap_ms, agent.grace_ms);
    record.drained_ms = if bundle::open_pins(record) == 0 { txn.now } else { 0 };
    record.left_ms = txn.now;
    record.on_drain = agent.on_drain;
    record.revision = txn.revision;
    txn.event(
        event::of_bundle("bundle.draining", agent, &record.bundle_id)
            .with("open_pins", bundle::open_pins(record))
            .with("deadline_ms", record.drain_deadline_ms),
    );
}

fn set_deadline(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    record: &mut BundleRecord,
    deadline_ms: u64,
    grace_ms: u64,
) {
    let left_ms = record.left_ms;
    clear(txn, agent.number, record);
    record.left_ms = left_ms;
    record.drain_deadline_ms = deadline_ms;
    record.drain_grace_ms = grace_ms;
    if is_planted(Mutant::DrainsNeverEnd) {
        return;
    }
    let object = record.bundle_id.clone();
    txn.set_timer(agent.number, deadline_ms, Timer::DrainSoft, object.as_bytes());
    txn.set_timer(agent.number, deadline_ms + grace_ms, Timer::DrainHard, object.as_bytes());
}

/// A route change back clears the deadline.
pub(crate) fn clear(txn: &mut Txn<'_>, agent: u32, record: &mut BundleRecord) {
    record.left_ms = 0;
    if record.drain_deadline_ms == 0 {
        return;
    }
    let object = record.bundle_id.clone();
    let hard_ms = record.drain_deadline_ms + record.drain_grace_ms;
    txn.clear_timer(agent, record.drain_deadline_ms, Timer::DrainSoft, object.as_bytes());
    txn.clear_timer(agent, hard_ms, Timer::DrainHard, object.as_bytes());
    record.drain_deadline_ms = 0;
    record.drain_grace_ms = 0;
    record.drained_ms = 0;
}

/// As [`clear`], of a bundle that is recycled or released anew: the sessions that it had are over.
pub(crate) fn forget(txn: &mut Txn<'_>, agent: &AgentRecord, record: &mut BundleRecord) {
    if txn.cluster.feature_level >= level::NEW_RELEASES_BEGIN_ANEW && record.left_ms != 0 {
        record.session_floor = agent.epoch;
    }
    clear(txn, agent.number, record);
}

/// Brings the deadline of a bundle without traffic nearer.
pub(crate) fn set_drain(txn: &mut Txn<'_>, it: &SetDrain) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut record = bundle::load(txn, agent.number, &it.bundle_id)?;
    agent::expect_revision(txn, record.revision)?;
    if record.bundle_id == agent.live_bundle_id || record.drain_deadline_ms == 0 {
        let message = format!("bundle {} has traffic or never had any", record.bundle_id);
        return Err(reject(reason::BUNDLE_HAS_TRAFFIC, message));
    }
    if it.cap_ms > limits::MAX_AGE_MS {
        return Err(reject(reason::INVALID_REQUEST, "cap is longer than 30 days")
            .with("limit_ms", limits::MAX_AGE_MS));
    }
    let deadline_ms = txn.now + it.cap_ms;
    if deadline_ms < record.drain_deadline_ms {
        let grace_ms = record.drain_grace_ms;
        let drained_ms = record.drained_ms;
        set_deadline(txn, &agent, &mut record, deadline_ms, grace_ms);
        record.drained_ms = drained_ms;
        record.revision = txn.revision;
        bundle::save(txn, agent.number, &record);
        txn.event(
            event::of_bundle("drain.shortened", &agent, &record.bundle_id)
                .with("deadline_ms", deadline_ms),
        );
    }
    Ok(Answer::Drain(message(txn.read(), &agent, &record)?))
}

/// The API's view of a drain. Counts are those of this revision, exactly.
pub(crate) fn message(
    read: &dyn Read,
    agent: &AgentRecord,
    record: &BundleRecord,
) -> Result<v1::Drain, Fault> {
    let deadline_ms = record.drain_deadline_ms;
    let drained_by = if deadline_ms == 0 { 0 } else { deadline_ms + record.drain_grace_ms };
    let pins = bundle::open_pins(record);
    Ok(v1::Drain {
        bundle_id: record.bundle_id.clone(),
        state: bundle::state(agent, record).into(),
        open_pins: record.open_pins,
        deadline: timestamp(deadline_ms),
        drained_by: timestamp(drained_by),
        oldest_pinned_at: timestamp(oldest_pin_ms(read, agent.number, &record.bundle_id)?),
        over: deadline_ms != 0 && pins == 0,
        over_at: timestamp(if pins == 0 { record.drained_ms } else { 0 }),
    })
}

/// 0 when there is none.
pub(crate) fn oldest_pin_ms(read: &dyn Read, agent: u32, bundle_id: &str) -> Result<u64, Fault> {
    let range = Key::of(Kind::OpenPin, agent).text(bundle_id).range();
    let rows = read.scan(&range, Order::Ascending, 1)?;
    let Some((key, _)) = rows.first() else { return Ok(0) };
    let mut parts = Parts::new(key);
    parts.u32();
    parts.text();
    parts.u64().ok_or_else(|| Fault("a pin's row has no time".to_owned()))
}
