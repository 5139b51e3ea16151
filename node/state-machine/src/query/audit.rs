//! Reads of the audit: its entries, and whether its chain is whole.

use bytes::Bytes;
use pinrail_proto::log::{AuditEntry, AuditRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::{reason, v1};
use prost::Message as _;

use crate::audit::{key, link};
use crate::key::{Key, Kind, Parts};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read, Row};
use crate::txn::decode;

use super::page::{resume, size_of};

/// Which entries are meant. Empty fields mean all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub namespace: String,
    pub agent_id: String,
    pub actor: String,
    pub action: String,
    /// Milliseconds of cluster time: entries made then or later.
    pub since_ms: u64,
}

impl AuditFilter {
    fn matches(&self, entry: &AuditEntry) -> bool {
        let same = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        same(&self.namespace, &entry.namespace)
            && same(&self.agent_id, &entry.agent_id)
            && same(&self.actor, &entry.actor)
            && same(&self.action, &entry.action)
    }
}

/// Rows that one call looks at.
const LOOKED_AT: usize = 2_000;
/// Bytes of entries behind which a page ends: one may hold two policies.
const PAGE_BYTES: usize = 2 << 20;
/// Entries that one call checks.
const CHECKED: usize = 1_000;

/// Entries, the newest first, and the token of the next page. A page may be short because of what it looked at.
///
/// # Errors
/// `INVALID_REQUEST` for a forged token.
pub fn audit(
    read: &dyn Read,
    filter: &AuditFilter,
    page_size: u32,
    page_token: &str,
) -> Result<(Vec<v1::AuditEntry>, String), Stop> {
    let mut range = Key::new(Kind::Audit).range();
    if !page_token.is_empty() {
        // Newest first: the rest lies before the token.
        let last = resume(&range, page_token)?.start;
        range = range.before(&last[..last.len() - 1]);
    }
    let rows = read.scan(&range, Order::Descending, LOOKED_AT)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (place, (row, value)) in (1..).zip(&rows) {
        let (entry, hash) = parts(row, value)?;
        if entry.at_ms < filter.since_ms {
            return Ok((found, String::new()));
        }
        if filter.matches(&entry) {
            bytes += value.len();
            found.push(message(entry, &hash));
        }
        let full = found.len() == size_of(page_size) as usize || bytes > PAGE_BYTES;
        let looked_at_all = place == rows.len() && rows.len() < LOOKED_AT;
        if (full || place == LOOKED_AT) && !looked_at_all {
            return Ok((found, hex::encode(row)));
        }
    }
    Ok((found, String::new()))
}

/// What of the chain is to be checked.
#[derive(Debug, Clone, Default)]
pub struct AuditCheck {
    /// 0: from the oldest entry that is kept.
    pub from_sequence: u64,
    /// Hash of the entry before, in hex.
    pub from_hash: String,
    /// An entry that the chain must hold, by its hash in hex; 0: none.
    pub expect_sequence: u64,
    pub expect_hash: String,
}

/// Computes a part of the chain again.
///
/// # Errors
/// `INVALID_REQUEST` for a hash that is none, or an expected entry that is not kept any more.
pub fn verify_audit(read: &dyn Read, it: &AuditCheck) -> Result<v1::VerifyAuditResponse, Stop> {
    let cluster = super::cluster(read)?;
    let (first, last) = (cluster.audit_gone + 1, cluster.audit_entries);
    if it.expect_sequence != 0 && it.expect_sequence < first {
        let message = format!("entry {} is not kept any more", it.expect_sequence);
        return Err(reject(reason::INVALID_REQUEST, message).with("oldest", first));
    }
    let (mut next, mut hash) = if it.from_sequence < first {
        (first, cluster.audit_gone_hash.clone())
    } else {
        let hash = hex::decode(&it.from_hash)
            .map_err(|_| reject(reason::INVALID_REQUEST, "from_hash is no hash in hex"))?;
        (it.from_sequence, Bytes::from(hash))
    };
    let mut answer = v1::VerifyAuditResponse {
        last_sequence: last,
        first_sequence: first,
        ..v1::VerifyAuditResponse::default()
    };
    let mut range = Key::new(Kind::Audit).range();
    range.start = key(next);
    let rows = read.scan(&range, Order::Ascending, CHECKED)?;
    for row in &rows {
        if let Err(problem) = check(row, next, &hash) {
            answer.hash = hex::encode(&hash);
            return Ok(broken(answer, next, problem));
        }
        hash = decode::<AuditRecord>(&row.0, &row.1)?.hash;
        if next == it.expect_sequence && hex::encode(&hash) != it.expect_hash.to_lowercase() {
            answer.hash = hex::encode(&hash);
            let problem = "another entry stands where the expected one was";
            return Ok(broken(answer, next, problem.to_owned()));
        }
        next += 1;
        answer.checked += 1;
    }
    answer.hash = hex::encode(&hash);
    let told = if rows.len() == CHECKED && next <= last {
        answer.next_sequence = next;
        None
    } else if next != last + 1 {
        Some((next, format!("the chain ends before it; the cluster has made {last} entries")))
    } else if hash != cluster.audit_hash {
        let problem = "it is not the entry that the cluster remembers as its last";
        Some((last, problem.to_owned()))
    } else if it.expect_sequence > last {
        Some((it.expect_sequence, format!("the cluster has made {last} entries only")))
    } else {
        None
    };
    Ok(match told {
        Some((sequence, problem)) => broken(answer, sequence, problem),
        None => answer,
    })
}

fn broken(
    answer: v1::VerifyAuditResponse,
    sequence: u64,
    problem: String,
) -> v1::VerifyAuditResponse {
    v1::VerifyAuditResponse { broken_sequence: Some(sequence), problem, ..answer }
}

/// Whether a row is the entry `expected` behind the hash `before`.
fn check((row, value): &Row, expected: u64, before: &[u8]) -> Result<(), String> {
    let sequence = Parts::new(row).u64().unwrap_or(0);
    if sequence != expected {
        return Err(format!("it is missing: the next one is {sequence}"));
    }
    let record: AuditRecord = decode(row, value).map_err(|fault| fault.to_string())?;
    if link(before, &record.entry) != record.hash {
        return Err("it does not fit its hash: it, or the one before it, was altered".to_owned());
    }
    match AuditEntry::decode(record.entry) {
        Ok(entry) if entry.sequence == expected => Ok(()),
        Ok(entry) => Err(format!("it says that it is entry {}", entry.sequence)),
        Err(error) => Err(format!("it does not decode: {error}")),
    }
}

fn parts(row: &[u8], value: &Bytes) -> Result<(AuditEntry, Bytes), Fault> {
    let record: AuditRecord = decode(row, value)?;
    Ok((decode(row, &record.entry)?, record.hash))
}

fn message(entry: AuditEntry, hash: &[u8]) -> v1::AuditEntry {
    v1::AuditEntry {
        sequence: entry.sequence,
        revision: entry.revision,
        at: timestamp(entry.at_ms),
        action: entry.action,
        namespace: entry.namespace,
        agent_id: entry.agent_id,
        bundle_id: entry.bundle_id,
        run_id: entry.run_id,
        actor: entry.actor,
        reason: entry.reason,
        request_id: entry.request_id,
        before: entry.before,
        after: entry.after,
        policy_before: entry.policy_before,
        policy_after: entry.policy_after,
        hash: hex::encode(hash),
        details: entry.details,
    }
}
