//! What the leader's attempts came to.

use pinrail_proto::limits;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{DeliveryRecord, DeliveryResult, Empty, HookRecord, RecordDeliveries};
use pinrail_proto::v1::DeliveryState;

use crate::key::RowKey;
use crate::outcome::Stop;
use crate::run::clip;
use crate::store::Fault;
use crate::txn::{Txn, get};

use super::{Place, delivery_key, find_delivery, key, save, state_of};

/// Notes results and advances cursors. A hook that left the policy meanwhile is passed over, and so is what was
/// noted before: a batch whose fate was unknown may come twice.
pub(crate) fn record(txn: &mut Txn<'_>, it: &RecordDeliveries) -> Result<Answer, Stop> {
    for progress in &it.hooks {
        let row = key(it.agent, &progress.hook);
        let Some(mut hook) = get::<HookRecord>(txn.read(), &row)? else { continue };
        hook.cursor = hook.cursor.max(progress.cursor);
        for result in &progress.results {
            note(txn, it.agent, &mut hook, result)?;
        }
        trim(txn, it.agent, &mut hook)?;
        save(txn, it.agent, &hook);
    }
    Ok(Answer::Done(Empty {}))
}

fn note(
    txn: &mut Txn<'_>,
    agent: u32,
    hook: &mut HookRecord,
    result: &DeliveryResult,
) -> Result<(), Fault> {
    let place = Place { revision: result.revision, index: result.index };
    match find_delivery(txn.read(), agent, &hook.hook, place)? {
        None => {}
        Some((DeliveryState::Pending, before)) if result.attempts > before.attempts => {
            txn.delete(delivery_key(agent, &hook.hook, DeliveryState::Pending, place));
            hook.pending = hook.pending.saturating_sub(1);
        }
        Some(_) => return Ok(()),
    }
    match result.state() {
        DeliveryState::Unspecified => return Ok(()),
        DeliveryState::Pending => hook.pending += 1,
        DeliveryState::Dead => {
            hook.dead += 1;
            hook.dead_rows += 1;
        }
        DeliveryState::Delivered => {
            hook.delivered += 1;
            hook.delivered_rows += 1;
            hook.delivered_ms = result.tried_ms;
        }
    }
    let mut error = result.error.clone();
    clip::truncate(&mut error, limits::HOOK_ERROR_BYTES);
    if result.state() != DeliveryState::Delivered {
        hook.failed_ms = result.tried_ms;
        hook.error.clone_from(&error);
    }
    let row = DeliveryRecord {
        r#type: result.r#type.clone(),
        attempts: result.attempts,
        status: result.status,
        error,
        event_ms: result.event_ms,
        tried_ms: result.tried_ms,
        next_ms: result.next_ms,
        until_ms: result.until_ms,
    };
    txn.put(delivery_key(agent, &hook.hook, result.state(), place), &row);
    Ok(())
}

/// Forgets the oldest of what is over, beyond what is kept.
fn trim(txn: &mut Txn<'_>, agent: u32, hook: &mut HookRecord) -> Result<(), Fault> {
    let kept = [
        (DeliveryState::Dead, &mut hook.dead_rows, limits::HOOK_DEAD),
        (DeliveryState::Delivered, &mut hook.delivered_rows, limits::HOOK_DELIVERED),
    ];
    for (state, rows, most) in kept {
        let excess = usize::try_from(rows.saturating_sub(most)).unwrap_or(usize::MAX);
        for (row, _) in txn.scan(&state_of(agent, &hook.hook, state), excess)? {
            txn.delete(RowKey::from_slice(&row));
            *rows -= 1;
        }
    }
    Ok(())
}
