//! The audit is one chain: each entry holds the hash of the one before it, and none is missing.

use pinrail_proto::log::{AuditEntry, AuditRecord, ClusterRecord};
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind};
use crate::store::{Fault, Read};
use crate::txn::decode;

use super::{Found, rows};

/// From where it begins to what the cluster remembers of its end.
pub(super) fn the_audit_is_one_chain(
    read: &dyn Read,
    cluster: &ClusterRecord,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut hash = cluster.audit_gone_hash.clone();
    let mut sequence = cluster.audit_gone;
    for (key, value) in rows(read, Key::new(Kind::Audit))? {
        let record: AuditRecord = decode(&key, &value)?;
        let entry: AuditEntry = decode(&key, &record.entry)?;
        sequence += 1;
        if entry.sequence != sequence {
            found.say("audit", format!("entry {} stands where {sequence} belongs", entry.sequence));
        }
        let mut link = Sha256::new();
        link.update(&hash);
        link.update(&record.entry);
        if link.finalize().as_slice() != record.hash {
            found.say("audit", format!("entry {sequence} does not fit the one before it"));
        }
        hash = record.hash;
    }
    if (sequence, &hash) != (cluster.audit_entries, &cluster.audit_hash) {
        found.say("audit", format!("it ends at {sequence} of {}", cluster.audit_entries));
    }
    Ok(())
}
