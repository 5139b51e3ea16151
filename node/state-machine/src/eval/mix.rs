//! What production does: how many live runs began with each value of the label that names their category, by the hour.
//!
//! Rows are dropped where they are made: each new one takes more outlived ones with it than itself, so that there are
//! never more than the hours that are kept can hold.

use std::collections::BTreeMap;

use pinrail_proto::limits;
use pinrail_proto::log::{AgentRecord, RunRecord};
use pinrail_proto::v1::RunKind;

use crate::key::{Key, Kind, Parts, RowKey};
use crate::outcome::Stop;
use crate::store::{Fault, Order, Read};
use crate::txn::Txn;

const HOUR_MS: u64 = 3_600_000;
/// Outlived rows that a new one takes with it.
const DROPPED: usize = 4;

/// Stands for the values beyond those that are told apart in an hour.
const OTHER: &str = "(other)";

/// Counts a run that serves users and was started from outside, when it has the label.
pub(crate) fn count(txn: &mut Txn<'_>, agent: &AgentRecord, run: &RunRecord) -> Result<(), Stop> {
    let serves_users = match run.kind() {
        RunKind::Unspecified | RunKind::Live | RunKind::Canary => true,
        RunKind::Shadow | RunKind::Eval | RunKind::Smoke | RunKind::Drill => false,
    };
    let is_new = run.parent_run_id.is_empty() && run.first_run_id.is_empty();
    let Some(value) = run.labels.get(&agent.coverage_label).filter(|value| !value.is_empty())
    else {
        return Ok(());
    };
    if !serves_users || !is_new || agent.coverage_label.is_empty() {
        return Ok(());
    }
    let hour = hour(txn.now);
    let label = plain(&agent.coverage_label);
    let mut key = of_hour(agent.number, hour).text(&label).last(&plain(value));
    let mut counted = number(txn.read(), &key)?;
    if counted == 0 {
        drop_outlived(txn, agent.number, hour)?;
        let range = of_hour(agent.number, hour).text(&label).range();
        if txn.scan(&range, limits::EVAL_CATEGORIES)?.len() == limits::EVAL_CATEGORIES {
            key = of_hour(agent.number, hour).text(&label).last(OTHER);
            counted = number(txn.read(), &key)?;
        }
    }
    txn.mark(key, &counted.saturating_add(1).to_be_bytes());
    Ok(())
}

/// How many runs began since a moment, its whole hour included, with each value of a label.
pub(crate) fn counts(
    read: &dyn Read,
    agent: u32,
    label: &str,
    since_ms: u64,
) -> Result<BTreeMap<String, u64>, Fault> {
    let label = plain(label);
    let mut range = Key::of(Kind::TaskMix, agent).range();
    range.start = of_hour(agent, hour(since_ms)).build();
    let mut counts = BTreeMap::new();
    for (key, value) in read.scan(&range, Order::Ascending, usize::MAX)? {
        let mut parts = Parts::new(&key);
        let (_, _, of) = (parts.u32(), parts.u32(), parts.text());
        let (Some(of), Some(value_of)) = (of, parts.last()) else {
            return Err(Fault(format!("row {} of labels does not come apart", hex::encode(&key))));
        };
        if of == label {
            let sum: &mut u64 = counts.entry(value_of.to_owned()).or_default();
            *sum = sum.saturating_add(decoded(&key, &value)?);
        }
    }
    Ok(counts)
}

fn drop_outlived(txn: &mut Txn<'_>, agent: u32, hour: u32) -> Result<(), Fault> {
    let kept = hour.saturating_sub(u32::try_from(limits::TASK_MIX_HOURS).unwrap_or(u32::MAX));
    let mut range = Key::of(Kind::TaskMix, agent).range();
    range.end = of_hour(agent, kept).build();
    for (key, _) in txn.scan(&range, DROPPED)? {
        txn.delete(RowKey::from_slice(&key));
    }
    Ok(())
}

fn hour(ms: u64) -> u32 {
    u32::try_from(ms / HOUR_MS).unwrap_or(u32::MAX)
}

fn of_hour(agent: u32, hour: u32) -> Key {
    Key::of(Kind::TaskMix, agent).u32(hour)
}

/// Labels may hold any text; a key is built of text without zero bytes.
fn plain(text: &str) -> String {
    text.replace('\0', "?")
}

fn number(read: &dyn Read, key: &[u8]) -> Result<u64, Fault> {
    read.get(key)?.map_or(Ok(0), |value| decoded(key, &value))
}

fn decoded(key: &[u8], value: &[u8]) -> Result<u64, Fault> {
    let bytes: [u8; 8] = value
        .try_into()
        .map_err(|_| Fault(format!("row {} of labels holds no count", hex::encode(key))))?;
    Ok(u64::from_be_bytes(bytes))
}
