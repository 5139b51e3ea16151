//! Children: runs of the same agent with their parent's pin and at most its end. A child ends with its parent, and a
//! parent may wait for the end of a child.

use pinrail_proto::log::{ChildRun, RunRecord, StartRun, WokenRecord};
use pinrail_proto::v1::{EndReason, PinReason, RunState};
use pinrail_proto::{id, limits, reason};

use crate::key::{Key, Kind, Parts, RowKey, Timer};
use crate::outcome::{Stop, reject};
use crate::step;
use crate::store::Row;
use crate::txn::Txn;

use super::begin::{begin, record};
use super::cancel::request;
use super::start::{admit, digest};
use super::{Subject, ends, find, is_over, payloads, settle};

/// The name of the child that a step of a run waits for. A run that was restarted makes other children than before.
pub(crate) fn child_id(parent: &RunRecord, step: u32) -> String {
    match parent.restarts {
        0 => format!("{}.{step}", parent.run_id),
        restarts => format!("{}.{step}.r{restarts}", parent.run_id),
    }
}

/// Starts the child that the subject's open step waits for.
pub(crate) fn start_awaited(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    it: &ChildRun,
) -> Result<(), Stop> {
    let Some(step) = &subject.step else { return Ok(()) };
    let (run_id, number) = (step.wait_child.clone(), step.number);
    id::check_token("run id of the child", &run_id)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    if find(txn.read(), subject.agent.number, &run_id)?.is_some() {
        let message = format!("the child's run id {run_id:?} is taken");
        return Err(reject(reason::RUN_EXISTS, message));
    }
    admit(txn, &subject.agent)?;
    let mut start = StartRun {
        run_id,
        input: it.input.clone(),
        entry: it.entry.clone(),
        kind: subject.run.kind,
        parent_run_id: subject.run.run_id.clone(),
        ..StartRun::default()
    };
    let digest = digest(&mut start);
    let mut run = inherit(txn, &subject.run, &start, digest);
    run.parent_step = number;
    subject.run.has_children = true;
    // One agent and one bundle have one row each: parent and child take turns with them.
    let Subject { agent, bundle, .. } = subject;
    let child = begin(txn, agent.clone(), bundle.clone(), run, it.input.as_ref(), None)?;
    subject.agent = child.agent;
    subject.bundle = child.bundle;
    Ok(())
}

/// Starts a child that somebody asked for, and that nothing waits for.
pub(super) fn start_beside(
    txn: &mut Txn<'_>,
    mut parent: Subject,
    it: &StartRun,
    digest: [u8; 32],
) -> Result<Subject, Stop> {
    let before = parent.run.clone();
    settle(txn, &mut parent)?;
    step::catch_up(txn, &mut parent)?;
    let closed = is_over(parent.run.state()) || parent.run.state() == RunState::Cancelling;
    if parent.run.state() == RunState::Scheduled {
        return Err(reject(reason::RUN_NOT_BEGUN, "the parent is not due yet"));
    }
    if closed {
        let message = format!("the parent {:?} is over or being cancelled", it.parent_run_id);
        return Err(
            reject(reason::RUN_CLOSED, message).with("state", parent.run.state().as_str_name())
        );
    }
    if txn.now >= ends(&parent.run, &parent.bundle).soft_ms {
        return Err(reject(reason::PIN_EXPIRED, "the end of the parent's pin is past"));
    }
    let run = inherit(txn, &parent.run, it, digest);
    parent.run.has_children = true;
    if parent.run != before {
        parent.save(txn)?;
    }
    let (input, taker) = (it.input.as_ref(), it.lease_first.as_ref());
    begin(txn, parent.agent, parent.bundle, run, input, taker)
}

/// The record of a child: pin, kind and at most the end of its parent.
fn inherit(txn: &Txn<'_>, parent: &RunRecord, it: &StartRun, digest: [u8; 32]) -> RunRecord {
    RunRecord {
        kind: parent.kind,
        external: parent.external,
        bundle_id: parent.bundle_id.clone(),
        layer: parent.layer,
        scratch: parent.scratch,
        pin_reason: PinReason::Parent.into(),
        epoch: parent.epoch,
        expires_ms: match it.max_age_ms {
            0 => parent.expires_ms,
            asked => parent.expires_ms.min(txn.now + asked),
        },
        parent_run_id: parent.run_id.clone(),
        repinnable: parent.kind().serves_users() && it.repinnable.unwrap_or(parent.repinnable),
        restart_step: it.restart_step.unwrap_or(parent.restart_step),
        priority: if it.priority == 0 { parent.priority } else { it.priority },
        fairness_key: match it.fairness_key.as_str() {
            "" => parent.fairness_key.clone(),
            asked => asked.to_owned(),
        },
        trace_parent: match it.trace_parent.as_str() {
            "" => parent.trace_parent.clone(),
            asked => asked.to_owned(),
        },
        ..record(txn, it, digest)
    }
}

/// Place of an open child among those of its parent.
pub(crate) fn child_key(agent: u32, child: &RunRecord) -> RowKey {
    children(agent, &child.parent_run_id).last(&child.run_id)
}

fn children(agent: u32, parent: &str) -> Key {
    Key::of(Kind::Child, agent).text(parent)
}

/// The room that a parent has for one more open child.
pub(super) fn check_room(txn: &Txn<'_>, agent: u32, parent: &str) -> Result<(), Stop> {
    let open = txn.scan(&children(agent, parent).range(), limits::OPEN_CHILDREN)?;
    if open.len() < limits::OPEN_CHILDREN {
        return Ok(());
    }
    let message = format!("run {parent:?} has {} open children", open.len());
    Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::OPEN_CHILDREN))
}

/// What the end of a run means to its parent and its children. `is_continued`: another run takes its place.
pub(super) fn ended(txn: &mut Txn<'_>, subject: &Subject, is_continued: bool) -> Result<(), Stop> {
    let (agent, run) = (subject.agent.number, &subject.run);
    if run.has_children {
        txn.set_timer(agent, txn.now, Timer::Children, run.run_id.as_bytes());
    }
    if run.parent_run_id.is_empty() {
        return Ok(());
    }
    txn.delete(child_key(agent, run));
    if run.parent_step == 0 || is_continued {
        return Ok(());
    }
    let waits = step::find(txn.read(), agent, &run.parent_run_id, run.parent_step)?;
    if waits.is_none_or(|step| step.wait_child != first_of(run)) {
        return Ok(());
    }
    let woken = WokenRecord {
        value: payloads::output(txn.read(), agent, run)?,
        at_ms: txn.now,
        child_run_id: run.run_id.clone(),
        child_state: run.state,
        child_failure: run.failure.clone(),
        ..WokenRecord::default()
    };
    let row = Key::of(Kind::Woken, agent).text(&run.parent_run_id).u32(run.parent_step).build();
    txn.put(row, &woken);
    // The parent's row is another command's to change: the child may be what a command about the parent closes.
    let object = step::object(&run.parent_run_id, run.parent_step);
    txn.set_timer(agent, txn.now, Timer::ChildOver, &object);
    Ok(())
}

/// The first run of the chain that a run continues.
fn first_of(run: &RunRecord) -> &str {
    if run.first_run_id.is_empty() { &run.run_id } else { &run.first_run_id }
}

/// A child whose parent is over ends too; its lease holder has its grace.
pub(super) fn obey_parent(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let run = &subject.run;
    if run.parent_run_id.is_empty() || run.state() == RunState::Cancelling {
        return Ok(());
    }
    let parent = find(txn.read(), subject.agent.number, &run.parent_run_id)?;
    if parent.is_some_and(|parent| !is_over(parent.state())) {
        return Ok(());
    }
    request(txn, subject, EndReason::Parent)
}

/// Settles the open children of a run that is over, from where the last sweep stopped, at most `left`. The last one's
/// key when there may be more.
pub(crate) fn end_children(
    txn: &mut Txn<'_>,
    agent: u32,
    parent: &str,
    cursor: &[u8],
    left: u32,
) -> Result<(u32, Option<RowKey>), Stop> {
    let mut open = children(agent, parent).range();
    if !cursor.is_empty() {
        open = open.after(cursor);
    }
    let is_open = find(txn.read(), agent, parent)?.is_some_and(|run| !is_over(run.state()));
    let rows: Vec<Row> = if is_open { Vec::new() } else { txn.scan(&open, left as usize)? };
    for (key, _) in &rows {
        let mut parts = Parts::new(key);
        parts.u32();
        parts.text();
        let run_id = parts.last().unwrap_or_default();
        let Some(mut child) = Subject::find(txn, agent, run_id)? else { continue };
        let before = child.run.clone();
        settle(txn, &mut child)?;
        if child.run != before {
            child.save(txn)?;
        }
    }
    let last = rows.last().filter(|_| rows.len() == left as usize);
    let last = last.map(|(key, _)| RowKey::from_slice(key));
    Ok((u32::try_from(rows.len()).unwrap_or(left).max(1), last))
}
