//! The rows, and the counts of their bundle, which change together.

use pinrail_proto::limits;
use pinrail_proto::log::{AgentRecord, BundleRecord, DriftCount, DriftRecord};
use pinrail_proto::v1::{DriftClass, DriftSource, DriftState};

use crate::effect::Effect;
use crate::event::With as _;
use crate::key::{RowKey, Timer};
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{agent, event, namespace};

use super::place::{Place, of_bundle};
use super::policy::action;
use super::show::{class_word, source_word, told};

pub(super) fn state(record: &DriftRecord) -> DriftState {
    match (record.accepted_ms, record.cleared_ms) {
        (0, 0) => DriftState::Open,
        (0, _) => DriftState::Cleared,
        (_, _) => DriftState::Accepted,
    }
}

pub(super) fn is_open(record: &DriftRecord) -> bool {
    state(record) == DriftState::Open
}

/// Writes a row and counts it. The caller saves the bundle.
pub(super) fn put(
    txn: &mut Txn<'_>,
    bundle: &mut BundleRecord,
    place: &Place,
    before: Option<&DriftRecord>,
    after: &DriftRecord,
) {
    let count = bundle.drift.get_or_insert_default();
    count.compared = true;
    match before {
        None => {
            count.rows += 1;
            count.of_runs += u32::from(is_of_runs(place.source));
        }
        Some(before) if is_open(before) => {
            let open = open_of(count, before.class());
            *open = open.saturating_sub(1);
        }
        Some(_) => {}
    }
    if is_open(after) {
        *open_of(count, after.class()) += 1;
    }
    txn.put(place.key(), after);
}

fn open_of(count: &mut DriftCount, class: DriftClass) -> &mut u32 {
    match class {
        DriftClass::Compatible => &mut count.compatible,
        DriftClass::Breaking | DriftClass::Unspecified => &mut count.breaking,
    }
}

/// Runs report what they met; schemas are what workers report.
pub(super) fn is_of_runs(source: DriftSource) -> bool {
    match source {
        DriftSource::Response | DriftSource::Model => true,
        DriftSource::Schema | DriftSource::Unspecified => false,
    }
}

/// Runs may meet anything; they leave room for what workers report.
fn has_room(bundle: &BundleRecord, source: DriftSource) -> bool {
    let count = bundle.drift.unwrap_or_default();
    let room_for_runs = count.of_runs < limits::DRIFTS_OF_RUNS || !is_of_runs(source);
    count.rows < limits::DRIFTS_PER_BUNDLE && room_for_runs
}

/// Something was seen: a new row, one that opens again, or once more the same. `None`: the bundle has as many rows as it
/// may. The caller saves the bundle.
pub(super) fn see(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    bundle: &mut BundleRecord,
    place: &Place,
    sighting: DriftRecord,
) -> Result<Option<DriftRecord>, Stop> {
    let before: Option<DriftRecord> = txn.get(&place.key())?;
    if before.is_none() && !has_room(bundle, place.source) {
        return Ok(None);
    }
    let opens = before.as_ref().is_none_or(|it| state(it) == DriftState::Cleared);
    let earlier = before.clone().unwrap_or_default();
    let count = earlier.count.saturating_add(sighting.count);
    let after = if opens {
        let first_ms = if earlier.first_ms == 0 { txn.now } else { earlier.first_ms };
        DriftRecord { count, first_ms, last_ms: txn.now, revision: txn.revision, ..sighting }
    } else {
        DriftRecord { count, last_ms: txn.now, ..earlier }
    };
    put(txn, bundle, place, before.as_ref(), &after);
    if opens {
        tell(txn, agent, place, &after)?;
        if is_of_runs(place.source) {
            let due_ms = txn.now + limits::DRIFT_QUIET_MS;
            txn.set_timer(agent.number, due_ms, Timer::DriftQuiet, &place.object());
        }
    }
    Ok(Some(after))
}

fn tell(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    place: &Place,
    record: &DriftRecord,
) -> Result<(), Stop> {
    let policy = agent::policy(txn.read(), agent.number)?;
    let action = action(&policy, place.source, record.class());
    let (name, flag) = (&agent.agent_id, namespace::flag(&agent.namespace));
    let list = format!("pinrail tool drift {name} {}{flag}", place.name);
    let accept = format!("pinrail tool accept {name} {}{flag} --reason \"…\"", place.name);
    txn.event(
        of_place("drift.found", agent, place)
            .with("class", class_word(record.class()))
            .with("expected", &record.expected)
            .with("summary", told(record))
            .with("action", event::word(action.as_str_name(), "DRIFT_ACTION_"))
            .with("next_1", list)
            .with("next_2", accept),
    );
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(())
}

/// An event about a row.
pub(super) fn of_place(
    kind: &str,
    agent: &AgentRecord,
    place: &Place,
) -> pinrail_proto::log::EventRecord {
    event::of_bundle(kind, agent, &place.bundle_id)
        .with("source", source_word(place.source))
        .with("name", &place.name)
        .with("seen", &place.seen)
}

/// It is not seen any more. The caller saves the bundle.
pub(super) fn close(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    bundle: &mut BundleRecord,
    place: &Place,
    before: &DriftRecord,
) -> DriftRecord {
    let (cleared_ms, revision) = (txn.now, txn.revision);
    let after = DriftRecord { cleared_ms, revision, ..before.clone() };
    put(txn, bundle, place, Some(before), &after);
    txn.event(of_place("drift.cleared", agent, place));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    after
}

/// Forgets the drift of a bundle that is recycled: at most a few hundred rows. The caller saves the bundle.
pub(crate) fn forget(txn: &mut Txn<'_>, agent: u32, bundle: &mut BundleRecord) -> Result<(), Stop> {
    let rows = txn.scan(&of_bundle(agent, &bundle.bundle_id).range(), usize::MAX)?;
    for (key, _) in rows {
        txn.delete(RowKey::from_slice(&key));
    }
    bundle.drift = None;
    Ok(())
}
