//! Where the deadline index of an agent begins. Its rows are deleted from the front on, and a store keeps deleted rows for a
//! while: a look that began at the very start would step over all of them each time.

use crate::key::{Key, Kind, RowKey};
use crate::store::{Fault, KeyRange, Read};
use crate::txn::Txn;

/// The deadlines of an agent, from the first that can be there.
pub(crate) fn behind(read: &dyn Read, agent: u32) -> Result<KeyRange, Fault> {
    let all = Key::of(Kind::Deadline, agent);
    Ok(all.clone().range().since(all.u64(at(read, agent)?).build()))
}

/// No deadline of an agent is before this time.
pub(crate) fn at(read: &dyn Read, agent: u32) -> Result<u64, Fault> {
    let Some(row) = read.get(&row(agent))? else { return Ok(0) };
    let time = row.as_ref().try_into().map(u64::from_be_bytes);
    time.map_err(|_| Fault(format!("the front of agent {agent} is no time")))
}

/// All deadlines before this time, which is not in the future, were worked off.
pub(crate) fn advance(txn: &mut Txn<'_>, agent: u32, to_ms: u64) -> Result<(), Fault> {
    if at(txn.read(), agent)? != to_ms {
        txn.mark(row(agent), &to_ms.to_be_bytes());
    }
    Ok(())
}

/// A deadline is set in the past: nothing is known of the front any more.
pub(crate) fn reset(txn: &mut Txn<'_>, agent: u32) {
    txn.mark(row(agent), &0_u64.to_be_bytes());
}

fn row(agent: u32) -> RowKey {
    Key::of(Kind::Front, agent).build()
}
