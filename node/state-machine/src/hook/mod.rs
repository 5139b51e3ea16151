//! Hooks: how far the events of an agent have come to each hook of its policy, and what became of those that did not
//! get through at once.
//!
//! ```text
//!   event ──first attempt──> delivered            the cursor passes over it; a row of the newest is kept
//!                  └───────> pending ──attempt──> delivered
//!                               │ └─────────────> pending, later
//!                               └─24 h──────────> dead ──redeliver──> pending
//! ```
//! The leader's driver makes the attempts and says what they came to, in batches; it knows nothing that is not here,
//! so another leader goes on where it stopped. What was sent and not recorded yet is sent again: at least once.

mod progress;
mod redeliver;
mod row;

use std::collections::BTreeSet;

use pinrail_proto::log::{AgentRecord, HookRecord};
use pinrail_proto::{reason, v1};

use crate::key::{Key, Kind, RowKey};
use crate::nearest;
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Read};
use crate::txn::{Txn, decode, get};

pub(crate) use progress::record;
pub(crate) use redeliver::redeliver;
pub use row::Place;
pub(crate) use row::{deliveries, delivery_key, find_delivery, parse_delivery, state_of};

/// The end of a run, with its result: emitted only where somebody asks for it.
pub(crate) const RUN_FINISHED: &str = "run.finished";

/// The fact of such an event that names the hook which the run's start asked to be told.
pub(crate) const CALLBACK: &str = "callback";

/// Whether a hook is sent events of a type: `*` is all, `release.*` all of a noun. What carries results goes only to
/// who names it.
pub(crate) fn asks_for(hook: &v1::Hook, type_: &str) -> bool {
    hook.events.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => type_ != RUN_FINISHED && type_.starts_with(prefix),
        None => pattern == type_,
    })
}

/// Sees to it that the agent has a row for each hook of its policy and for no other one. A new one is sent the events
/// from this command on.
pub(crate) fn follow_policy(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    policy: &v1::Policy,
) -> Result<(), Fault> {
    agent.tells_finished = policy.hooks.iter().any(|hook| asks_for(hook, RUN_FINISHED));
    let mut names: BTreeSet<&str> = policy.hooks.iter().map(|hook| hook.name.as_str()).collect();
    for hook in all(txn.read(), agent.number)? {
        if !names.remove(hook.hook.as_str()) {
            txn.delete(key(agent.number, &hook.hook));
            for (row, _) in txn.scan(&deliveries(agent.number, &hook.hook), usize::MAX)? {
                txn.delete(RowKey::from_slice(&row));
            }
        }
    }
    for name in names {
        let hook = HookRecord {
            hook: name.to_owned(),
            cursor: txn.revision.saturating_sub(1),
            since_revision: txn.revision,
            ..HookRecord::default()
        };
        save(txn, agent.number, &hook);
    }
    Ok(())
}

/// The hooks of an agent, by name.
pub(crate) fn all(read: &dyn Read, agent: u32) -> Result<Vec<HookRecord>, Fault> {
    let range = Key::of(Kind::Hook, agent).u8(HOOK).range();
    let rows = read.scan(&range, crate::store::Order::Ascending, usize::MAX)?;
    rows.iter().map(|(key, value)| decode(key, value)).collect()
}

/// # Errors
/// `HOOK_NOT_FOUND` suggests the nearest name.
pub(crate) fn existing(read: &dyn Read, agent: u32, name: &str) -> Result<HookRecord, Stop> {
    if let Some(hook) = get(read, &key(agent, name))? {
        return Ok(hook);
    }
    let all = all(read, agent)?;
    let message = format!("the agent's policy has no hook {name:?}");
    let stop = reject(reason::HOOK_NOT_FOUND, message);
    Err(match nearest::nearest(name, all.iter().map(|hook| hook.hook.as_str())) {
        Some(near) => stop.with("suggestion", near),
        None => stop,
    })
}

pub(crate) fn save(txn: &mut Txn<'_>, agent: u32, hook: &HookRecord) {
    txn.put(key(agent, &hook.hook), hook);
}

/// First byte behind the agent: a hook, or a delivery of one.
const HOOK: u8 = 0;
const DELIVERY: u8 = 1;

pub(crate) fn key(agent: u32, name: &str) -> RowKey {
    Key::of(Kind::Hook, agent).u8(HOOK).last(name)
}

/// The first agent with hooks whose number is at least `from`.
pub(crate) fn next_agent(read: &dyn Read, from: u32) -> Result<Option<u32>, Fault> {
    let mut range = Key::new(Kind::Hook).range();
    range.start = Key::of(Kind::Hook, from).build();
    let rows = read.scan(&range, crate::store::Order::Ascending, 1)?;
    Ok(rows.first().and_then(|(key, _)| crate::key::Parts::new(key).u32()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_only_to_who_names_them() {
        let hook = |events: &[&str]| v1::Hook {
            events: events.iter().map(|it| (*it).to_owned()).collect(),
            ..v1::Hook::default()
        };
        assert!(asks_for(&hook(&["release.*"]), "release.failed"));
        assert!(!asks_for(&hook(&["release.*"]), "route.switched"));
        assert!(asks_for(&hook(&["*"]), "route.switched"));
        assert!(asks_for(&hook(&["run.*"]), "run.failed"));
        assert!(!asks_for(&hook(&["run.*", "*"]), RUN_FINISHED));
        assert!(asks_for(&hook(&["run.finished"]), RUN_FINISHED));
        assert!(!asks_for(&hook(&["run"]), "run.failed"));
        assert!(!asks_for(&hook(&[]), "run.failed"));
    }
}
