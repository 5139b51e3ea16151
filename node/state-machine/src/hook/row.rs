//! Rows of deliveries: by state, then in the order of their events.

use pinrail_proto::log::DeliveryRecord;
use pinrail_proto::v1::DeliveryState;

use crate::key::{Key, Kind, Parts, RowKey};
use crate::store::{Fault, KeyRange, Read};
use crate::txn::get;

use super::DELIVERY;

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub revision: u64,
    pub index: u32,
}

/// What a delivery can be, in the order of the rows.
pub(super) const STATES: [DeliveryState; 3] =
    [DeliveryState::Pending, DeliveryState::Dead, DeliveryState::Delivered];

/// All deliveries of a hook.
pub(crate) fn deliveries(agent: u32, hook: &str) -> KeyRange {
    Key::of(Kind::Hook, agent).u8(DELIVERY).text(hook).range()
}

/// Those that are in one state.
pub(crate) fn state_of(agent: u32, hook: &str, state: DeliveryState) -> KeyRange {
    in_state(agent, hook, state).range()
}

fn in_state(agent: u32, hook: &str, state: DeliveryState) -> Key {
    Key::of(Kind::Hook, agent).u8(DELIVERY).text(hook).u8(number(state))
}

pub(crate) fn delivery_key(agent: u32, hook: &str, state: DeliveryState, place: Place) -> RowKey {
    in_state(agent, hook, state).u64(place.revision).u32(place.index).build()
}

/// State and place of a delivery's row.
pub(crate) fn parse_delivery(key: &[u8]) -> Option<(DeliveryState, Place)> {
    let mut parts = Parts::new(key);
    parts.u32()?;
    parts.u8()?;
    parts.text()?;
    let state = DeliveryState::try_from(i32::from(parts.u8()?)).ok()?;
    Some((state, Place { revision: parts.u64()?, index: parts.u32()? }))
}

/// The row of a delivery, in whatever state it is.
pub(crate) fn find_delivery(
    read: &dyn Read,
    agent: u32,
    hook: &str,
    place: Place,
) -> Result<Option<(DeliveryState, DeliveryRecord)>, Fault> {
    for state in STATES {
        if let Some(record) = get(read, &delivery_key(agent, hook, state, place))? {
            return Ok(Some((state, record)));
        }
    }
    Ok(None)
}

/// Part of a key, so for ever.
fn number(state: DeliveryState) -> u8 {
    match state {
        DeliveryState::Unspecified => 0,
        DeliveryState::Pending => 1,
        DeliveryState::Dead => 2,
        DeliveryState::Delivered => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_apart_as_they_were_built() {
        for state in STATES {
            let place = Place { revision: 7, index: 2 };
            let key = delivery_key(3, "pager", state, place);
            assert_eq!(parse_delivery(&key), Some((state, place)));
        }
    }
}
