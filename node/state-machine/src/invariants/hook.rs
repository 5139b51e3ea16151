//! Hooks are those of the policy, and their counts are exact.

use std::collections::BTreeSet;

use pinrail_proto::v1::DeliveryState;

use crate::hook::{self, state_of};
use crate::store::{Fault, Order};

use super::{Found, Scene};

/// Each hook of the policy has one row and no other has; counts are of rows; what is tried again says when.
pub(super) fn hooks_follow_the_policy(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let policy = crate::agent::policy(scene.read, scene.agent.number)?;
    let wanted: BTreeSet<&str> = policy.hooks.iter().map(|hook| hook.name.as_str()).collect();
    let rows = hook::all(scene.read, scene.agent.number)?;
    let is: BTreeSet<&str> = rows.iter().map(|row| row.hook.as_str()).collect();
    if wanted != is {
        found.say("hooks", format!("the policy has {wanted:?}, rows are of {is:?}"));
    }
    for row in &rows {
        for (state, counted) in [
            (DeliveryState::Pending, row.pending),
            (DeliveryState::Dead, row.dead_rows),
            (DeliveryState::Delivered, row.delivered_rows),
        ] {
            let range = state_of(scene.agent.number, &row.hook, state);
            let rows = scene.read.scan(&range, Order::Ascending, usize::MAX)?.len() as u64;
            if rows != counted {
                let state = state.as_str_name();
                found.say("hooks", format!("{}: {rows} rows {state}, counted {counted}", row.hook));
            }
        }
    }
    Ok(())
}
