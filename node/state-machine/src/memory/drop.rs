//! What a recycled bundle leaves: the versions of its layer that no other layer sees are dropped, some keys at a time.

use pinrail_proto::v1::DiscardMemoryResponse;

use crate::agent;
use crate::key::{RowKey, Timer};
use crate::outcome::Stop;
use crate::txn::Txn;

use super::discard::drop_own;
use super::scratch::{HELD_LOOK_MS, is_base};
use super::version::save_layer;
use super::{Keys, Place, layer};

/// Has the sweep drop what only this layer sees.
pub(crate) fn drop_unseen(txn: &mut Txn<'_>, agent: u32, layer: u32) {
    if layer != 0 {
        txn.set_timer(agent, txn.now, Timer::LayerDrop, &layer.to_be_bytes());
    }
}

/// Works off keys of a layer behind the row's cursor. Answers how many it took: at least one.
pub(crate) fn drop_layer(
    txn: &mut Txn<'_>,
    number: u32,
    (row, cursor): (&[u8], &[u8]),
    object: &[u8],
    left: u32,
) -> Result<u32, Stop> {
    let named = object.try_into().map(u32::from_be_bytes).unwrap_or(0);
    let Some(mut of) = layer(txn.read(), number, named)? else {
        txn.delete(RowKey::from_slice(row));
        return Ok(1);
    };
    if is_base(txn.read(), number, &of)? {
        // What runs that serve no user began with is kept until they are over.
        txn.delete(RowKey::from_slice(row));
        let later_ms = txn.now + HELD_LOOK_MS;
        txn.set_timer(number, later_ms, Timer::LayerDrop, object);
        return Ok(1);
    }
    let mut agent = agent::load(txn, number)?;
    let after = String::from_utf8_lossy(cursor).into_owned();
    let mut keys = Keys::of(number, [Place::Layer(of.number)], "", &after);
    let mut done = DiscardMemoryResponse::default();
    let mut taken = 0;
    let mut last = None;
    while taken < left {
        let Some(key) = keys.next(txn.read())? else {
            last = None;
            break;
        };
        let dropped = drop_own(txn, &mut agent, &mut of, &key, &mut done)?;
        taken = taken.saturating_add(1 + u32::try_from(dropped).unwrap_or(u32::MAX));
        last = Some(key);
    }
    match last {
        Some(key) => txn.mark(RowKey::from_slice(row), key.as_bytes()),
        None => txn.delete(RowKey::from_slice(row)),
    }
    save_layer(txn, number, &of);
    agent::save(txn, &agent);
    Ok(taken.clamp(1, left))
}
