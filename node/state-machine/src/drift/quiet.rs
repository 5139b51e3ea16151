//! Drift that only runs show is over when none has shown it for a day.

use pinrail_proto::limits;
use pinrail_proto::log::DriftRecord;

use crate::key::Timer;
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{agent, bundle};

use super::place::Place;
use super::row::{close, is_open};

/// The timer of a row: it was set when the row opened, and looks again when something was seen since.
pub(crate) fn fall_quiet(txn: &mut Txn<'_>, agent: u32, object: &[u8]) -> Result<(), Stop> {
    let place = Place::of_object(agent, object)?;
    let found: Option<DriftRecord> = txn.get(&place.key())?;
    let Some(record) = found.filter(is_open) else { return Ok(()) };
    let due_ms = record.last_ms + limits::DRIFT_QUIET_MS;
    if due_ms > txn.now {
        txn.set_timer(agent, due_ms, Timer::DriftQuiet, object);
        return Ok(());
    }
    let agent = agent::load(txn, agent)?;
    let mut bundle = bundle::load(txn, agent.number, &place.bundle_id)?;
    close(txn, &agent, &mut bundle, &place, &record);
    bundle::save(txn, agent.number, &bundle);
    Ok(())
}
