//! Finished runs are kept for the policy's time and then forgotten, a bounded number of rows at a time.

use crate::key::{Key, Kind};
use crate::outcome::Stop;
use crate::txn::Txn;

use super::{find, is_over, state_key};

/// Rows that one unit of a sweep's work deletes at most.
const ROWS: usize = 256;

/// Deletes rows of a finished run. Answers whether all are gone.
pub(crate) fn forget(txn: &mut Txn<'_>, agent: u32, run_id: &str) -> Result<bool, Stop> {
    let Some(run) = find(txn.read(), agent, run_id)? else { return Ok(true) };
    if !is_over(run.state()) {
        return Ok(true);
    }
    let mut deleted = 0;
    for kind in
        [Kind::Step, Kind::StepInput, Kind::StepOutput, Kind::Checkpoint, Kind::Signal, Kind::Woken]
    {
        let range = Key::of(kind, agent).text(run_id).range();
        for (key, _) in txn.scan(&range, ROWS - deleted)? {
            txn.delete(key.to_vec());
            deleted += 1;
        }
        if deleted == ROWS {
            return Ok(false);
        }
    }
    for kind in [Kind::Run, Kind::RunInput, Kind::RunOutput] {
        txn.delete(Key::of(kind, agent).last(run_id));
    }
    txn.delete(state_key(agent, &run));
    Ok(true)
}
