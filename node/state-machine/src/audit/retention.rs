//! How long the audit goes back: 400 days, and a million entries at most. Where it begins is kept, so that the rest of
//! the chain can be checked all the same.

use pinrail_proto::limits;
use pinrail_proto::log::{AuditEntry, AuditRecord};
use prost::Message as _;

use crate::key::Timer;
use crate::store::Fault;
use crate::txn::Txn;

use super::key;

/// How often old entries are looked for.
const SWEEP_MS: u64 = 24 * 3_600_000;
/// Entries that one look drops.
const CHUNK: usize = 64;

/// Sees to it that old entries are looked for.
pub(super) fn look_later(txn: &mut Txn<'_>) {
    txn.set_timer(0, txn.now + SWEEP_MS, Timer::Audit, &[]);
}

/// Drops entries that are older than they are kept. Answers whether all such are gone.
pub(crate) fn sweep(txn: &mut Txn<'_>) -> Result<bool, Fault> {
    let before_ms = txn.now.saturating_sub(limits::AUDIT_MS);
    for _ in 0..CHUNK {
        let Some(oldest) = oldest(txn)? else { break };
        let entry = AuditEntry::decode(oldest.entry.clone())
            .map_err(|error| Fault(format!("audit entry does not decode: {error}")))?;
        if entry.at_ms >= before_ms {
            look_later(txn);
            return Ok(true);
        }
        drop_oldest(txn, oldest);
    }
    let over = txn.cluster.audit_gone == txn.cluster.audit_entries;
    if over {
        look_later(txn);
    }
    Ok(over)
}

/// Drops the oldest entry when there are too many.
pub(super) fn keep_to_most(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let kept = txn.cluster.audit_entries - txn.cluster.audit_gone;
    if kept > limits::AUDIT_ENTRIES
        && let Some(oldest) = oldest(txn)?
    {
        drop_oldest(txn, oldest);
    }
    Ok(())
}

fn oldest(txn: &Txn<'_>) -> Result<Option<AuditRecord>, Fault> {
    txn.get(&key(txn.cluster.audit_gone + 1))
}

fn drop_oldest(txn: &mut Txn<'_>, oldest: AuditRecord) {
    txn.cluster.audit_gone += 1;
    txn.cluster.audit_gone_hash = oldest.hash;
    txn.delete(key(txn.cluster.audit_gone));
}
