//! Finished runs are kept for the policy's time and then forgotten, a bounded number of rows at a time.

use crate::key::{Key, Kind, RowKey};
use crate::outcome::Stop;
use crate::txn::Txn;

use super::ended::forget_ended;
use super::restart::STEP_ROWS;
use super::{find, is_over, lasting_keys, payloads, state_key};

/// Rows that one look at a finished run deletes at most, beside those that every run has.
const ROWS: usize = 256;
/// Rows that are one unit of a sweep's work.
const ROWS_OF_AN_ITEM: usize = 16;
/// A look for rows of one kind costs as much as so many deletions: it opens an iterator.
const ROWS_OF_A_LOOK: usize = 4;

/// What a look at a finished run did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forgotten {
    /// All of its rows are gone.
    pub(crate) whole: bool,
    /// Units of work that it took, at least one.
    pub(crate) items: u32,
}

/// Deletes rows of a finished run, with at most `left` units of work.
pub(crate) fn forget(
    txn: &mut Txn<'_>,
    agent: u32,
    run_id: &str,
    left: u32,
) -> Result<Forgotten, Stop> {
    let most = (left as usize).saturating_mul(ROWS_OF_AN_ITEM).min(ROWS);
    let did = |rows: usize, whole| {
        let items = u32::try_from(rows.div_ceil(ROWS_OF_AN_ITEM)).unwrap_or(left);
        Forgotten { whole, items: items.clamp(1, left.max(1)) }
    };
    let Some(mut run) = find(txn.read(), agent, run_id)? else { return Ok(did(0, true)) };
    if !is_over(run.state()) {
        return Ok(did(0, true));
    }
    // An external run never had a step.
    let kinds: &[Kind] = if run.external { &[] } else { &STEP_ROWS };
    let (mut deleted, mut looked) = (0, 0);
    for &kind in kinds.iter().chain([&Kind::Signal]) {
        looked += ROWS_OF_A_LOOK;
        let range = Key::of(kind, agent).text(run_id).range();
        for (key, _) in txn.scan(&range, most - deleted)? {
            txn.delete(RowKey::from_slice(&key));
            deleted += 1;
        }
        if deleted == most {
            return Ok(did(looked + deleted, false));
        }
    }
    forget_ended(txn, agent, &mut run);
    payloads::delete(txn, agent, &run);
    txn.delete(Key::of(Kind::Run, agent).last(run_id));
    txn.delete(state_key(agent, &run));
    for key in lasting_keys(agent, &run) {
        txn.delete(key);
    }
    Ok(did(looked + deleted, true))
}
