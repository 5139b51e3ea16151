//! The audit: who did what, why, and what it changed. One entry for each administrative command that did something; a
//! refusal and a dry run leave none.
//!
//! Each entry holds the hash of the one before it, so a gap or an altered entry breaks the chain from there on. It is
//! written by `apply` around every verb: no verb can forget it, and a new command has to say in `action.rs` whether it
//! is one. What the leader and the workers do by themselves is none; their history is in the runs.

mod action;
mod facts;
mod retention;

use std::collections::BTreeMap;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::{AuditEntry, AuditRecord};
use pinrail_proto::v1::Policy;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind, RowKey};
use crate::namespace;
use crate::store::Fault;
use crate::txn::Txn;

use action::Action;
use facts::Facts;

pub(crate) use retention::sweep;

/// An administrative command that is under way.
pub(crate) struct Watched {
    action: Action,
    before: Facts,
    policy_before: Option<Policy>,
}

/// Looks at what a command is about to change. `None`: it is no administrative command.
pub(crate) fn watch(txn: &Txn<'_>, command: &Command) -> Result<Option<Watched>, Fault> {
    let Some(mut action) = action::of(command) else { return Ok(None) };
    facts::name_it(txn.read(), &mut action)?;
    let before = facts::of(txn.read(), &txn.cluster, &action)?;
    let policy_before = facts::policy(txn.read(), &action)?;
    Ok(Some(Watched { action, before, policy_before }))
}

/// Writes down what the command has changed. What did nothing and emitted nothing leaves no entry.
pub(crate) fn record(txn: &mut Txn<'_>, watched: Option<Watched>) -> Result<(), Fault> {
    let Some(Watched { action, before, policy_before }) = watched else { return Ok(()) };
    let after = facts::of(txn.read(), &txn.cluster, &action)?;
    let mut policies = (policy_before, facts::policy(txn.read(), &action)?);
    if policies.0 == policies.1 {
        policies = (None, None);
    }
    let (before, after) = differences(before, after);
    let nothing = before.is_empty() && after.is_empty() && !txn.has_events();
    let moves = before.contains_key("epoch") || after.contains_key("epoch");
    if nothing || (action.is_automatic && !moves) {
        return Ok(());
    }
    let entry = AuditEntry {
        sequence: txn.cluster.audit_entries + 1,
        revision: txn.revision,
        at_ms: txn.now,
        action: action.name.to_owned(),
        namespace: match action.namespace.as_str() {
            "" if action.agent_id.is_empty() => String::new(),
            named => namespace::or_default(named).to_owned(),
        },
        agent_id: action.agent_id,
        bundle_id: action.bundle_id,
        run_id: action.run_id,
        actor: txn.header.actor.clone(),
        reason: txn.header.reason.clone(),
        request_id: txn.header.request_id.clone(),
        before,
        after,
        policy_before: policies.0,
        policy_after: policies.1,
        details: action.details,
    };
    append(txn, &entry)
}

fn append(txn: &mut Txn<'_>, entry: &AuditEntry) -> Result<(), Fault> {
    let encoded = Bytes::from(entry.encode_to_vec());
    let hash = link(&txn.cluster.audit_hash, &encoded);
    txn.put(key(entry.sequence), &AuditRecord { entry: encoded, hash: hash.clone() });
    txn.cluster.audit_entries = entry.sequence;
    txn.cluster.audit_hash = hash;
    if entry.sequence == 1 {
        retention::look_later(txn);
    }
    retention::keep_to_most(txn)
}

/// The next link of the chain.
pub(crate) fn link(before: &[u8], entry: &[u8]) -> Bytes {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(entry);
    Bytes::copy_from_slice(&hash.finalize())
}

pub(crate) fn key(sequence: u64) -> RowKey {
    Key::new(Kind::Audit).u64(sequence).build()
}

/// What is not the same on both sides.
fn differences(mut before: Facts, mut after: Facts) -> (Facts, Facts) {
    let same: BTreeMap<String, String> = before
        .iter()
        .filter(|(k, v)| after.get(*k) == Some(v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    before.retain(|key, _| !same.contains_key(key));
    after.retain(|key, _| !same.contains_key(key));
    (before, after)
}
