//! Reads of mirrored runs: what a shadow run and the live run that it mirrors came to.

use pinrail_proto::log::{CheckpointRecord, RunRecord};
use pinrail_proto::v1::Payload;

use crate::key::{Key, Kind, Parts};
use crate::run;
use crate::shared::Shared;
use crate::store::{Fault, KeyRange, Order, Read};
use crate::txn::decode;

/// Label of a shadow run that names the run that it mirrors.
pub const MIRROR_OF: &str = "pinrail.mirror_of";

/// Runs of an agent whose id begins with a text, in the order of their ids, behind `after`, at most `limit`.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn runs_named(
    read: &dyn Read,
    agent: u32,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<RunRecord>, Fault> {
    let mut range = KeyRange::prefix(&Key::of(Kind::Run, agent).last(prefix));
    if after.starts_with(prefix) && after.len() > prefix.len() {
        range = range.after(&Key::of(Kind::Run, agent).last(after));
    }
    let rows = read.scan(&range, Order::Ascending, limit)?;
    rows.iter().map(|(key, row)| Ok(run::split(key, row)?.0)).collect()
}

/// A run, by its agent's number.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn run_record(read: &dyn Read, agent: u32, run_id: &str) -> Result<Option<RunRecord>, Fault> {
    Ok(run::find(read, agent, run_id)?.map(Shared::into_inner))
}

/// What a run was given, or what it came to.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn run_input(read: &dyn Read, agent: u32, run_id: &str) -> Result<Option<Payload>, Fault> {
    let Some(run) = run::find(read, agent, run_id)? else { return Ok(None) };
    run::input(read, agent, &run)
}

/// The result of a run; none of one that has not completed.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn run_output(read: &dyn Read, agent: u32, run_id: &str) -> Result<Option<Payload>, Fault> {
    let Some(run) = run::find(read, agent, run_id)? else { return Ok(None) };
    run::output(read, agent, &run)
}

/// The tools that a run called, in the order of its steps and of the calls within each.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn trajectory(read: &dyn Read, agent: u32, run_id: &str) -> Result<Vec<String>, Fault> {
    let range = Key::of(Kind::Checkpoint, agent).text(run_id).range();
    let mut calls = Vec::new();
    for (key, value) in read.scan(&range, Order::Ascending, usize::MAX)? {
        let mut parts = Parts::new(&key);
        let (_, _, step) = (parts.u32(), parts.text().map(str::len), parts.u32());
        let (Some(step), Some(name)) = (step, parts.last()) else {
            return Err(Fault(format!("key {} does not come apart", hex::encode(&key))));
        };
        let Some(tool) = name.strip_prefix("tool:") else { continue };
        // The second call of a tool within a step is `tool:search#2`.
        let tool = tool.split_once('#').map_or(tool, |(tool, _)| tool).to_owned();
        let record: CheckpointRecord = decode(&key, &value)?;
        calls.push((step, record.order, tool));
    }
    calls.sort();
    Ok(calls.into_iter().map(|(_, _, tool)| tool).collect())
}
