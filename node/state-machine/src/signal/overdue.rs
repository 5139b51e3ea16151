//! Open runs that are slower already than a limit: they count with their age, so that a candidate that hangs is seen.

use pinrail_proto::limits;
use pinrail_proto::log::PinRecord;
use pinrail_proto::v1::RunKind;

use crate::key::{Key, Kind, Parts};
use crate::run::{self, busy_of_pin, cost_here};
use crate::store::{Fault, KeyRange, Order, Read};
use crate::txn::decode;

use super::histogram::{self, Histogram};

/// What they come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overdue {
    /// By the bucket of their age, without the time in which they had nothing to do.
    pub(crate) ages: Histogram,
    /// Of those that were looked at for it, so far.
    pub(crate) cost_micros: u64,
}

impl Overdue {
    pub(crate) fn runs(&self) -> u64 {
        histogram::total(&self.ages)
    }
}

/// Looks at the open pins of a bundle that are older than the limit, the oldest first, and at a bounded number of them.
pub(crate) fn overdue(
    read: &dyn Read,
    agent: u32,
    (bundle_id, kinds): (&str, &[RunKind]),
    limit_ms: u64,
    now_ms: u64,
) -> Result<Overdue, Fault> {
    let pins = Key::of(Kind::OpenPin, agent).text(bundle_id);
    let older = KeyRange {
        start: pins.clone().build(),
        end: pins.u64(now_ms.saturating_sub(limit_ms)).build(),
    };
    let mut found = Overdue::default();
    for (key, value) in read.scan(&older, Order::Ascending, limits::PINS_EXAMINED)? {
        let pin: PinRecord = decode(&key, &value)?;
        let mut parts = Parts::new(&key);
        let (_, _, Some(pinned_ms)) = (parts.u32(), parts.text(), parts.u64()) else {
            return Err(Fault(format!("key {} does not come apart", hex::encode(&key))));
        };
        let age_ms = busy_of_pin(pinned_ms, &pin, now_ms);
        // The same buckets as those of runs that ended.
        let is_slow = histogram::bucket(age_ms) > histogram::bucket(limit_ms);
        if !kinds.contains(&pin.kind()) || !is_slow {
            continue;
        }
        if found.runs() < limits::COSTS_EXAMINED as u64 {
            let run = run::find(read, agent, parts.last().unwrap_or_default())?;
            found.cost_micros += run.as_deref().map_or(0, cost_here);
        }
        histogram::count(&mut found.ages, age_ms);
    }
    Ok(found)
}
