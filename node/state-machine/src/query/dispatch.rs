//! What a leader rebuilds its queues from, and what it tells a worker.

use pinrail_proto::log::{
    CheckpointRecord, ClusterRecord, Rejection, RunRecord, StepRecord, Token, WokenRecord,
};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, Payload};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::apply::cluster_key;
use crate::effect::{Rank, StepId};
use crate::key::{Key, Kind, Parts, RowKey};
use crate::mutant::{Mutant, is_planted};
use crate::outcome::Stop;
use crate::run::{self, ends};
use crate::shared::Shared;
use crate::store::{Fault, KeyRange, Order, Read};
use crate::txn::{decode, get};
use crate::{agent, bundle, front, step};

/// Agents that are read at once.
const AGENTS: usize = 256;

/// A step that waits for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyStep {
    /// Where to go on.
    pub key: RowKey,
    pub step: StepId,
    pub bundle_id: String,
    /// The step's name: only workers that serve it can have it.
    pub name: String,
    /// The attempt to start.
    pub attempt: u32,
    pub ready_revision: u64,
    pub rank: Rank,
}

/// A step that a worker holds.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedStep {
    /// Where to go on.
    pub key: RowKey,
    pub step: StepId,
    pub bundle_id: String,
    pub token: Token,
    pub worker_id: String,
    pub lease_ms: u64,
    pub rank: Rank,
}

/// What holds an agent's queue back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gate {
    pub paused: bool,
    pub running: u64,
    pub max_running: u64,
    /// Of one fairness key; 0: no limit.
    pub max_running_per_key: u64,
    /// Steps handed out in a second; 0: no limit.
    pub max_per_second: u64,
}

/// Steps of all agents that wait for a worker, behind `after`, at most `limit`.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn ready_steps(
    read: &dyn Read,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<ReadyStep>, Fault> {
    let rows = read.scan(&range_of(Kind::Ready, after), Order::Ascending, limit)?;
    let mut ready = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let mut parts = Parts::new(&key);
        let (agent, bundle, revision) = (parts.u32(), parts.text(), parts.u64());
        let (run, number) = (parts.text(), parts.u32());
        let (Some(agent), Some(bundle), Some(ready_revision), Some(run), Some(number)) =
            (agent, bundle, revision, run, number)
        else {
            return Err(broken(&key));
        };
        let record = existing(read, agent, run, number)?;
        ready.push(ReadyStep {
            step: StepId { agent, run_id: run.to_owned(), step: number },
            bundle_id: bundle.to_owned(),
            rank: step::rank(run, &record),
            name: record.name.clone(),
            attempt: record.attempt + 1,
            ready_revision,
            key: RowKey::from_slice(&key),
        });
    }
    Ok(ready)
}

/// Steps of all agents that a worker holds, behind `after`, at most `limit`.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn leased_steps(
    read: &dyn Read,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<LeasedStep>, Fault> {
    let rows = read.scan(&range_of(Kind::Leased, after), Order::Ascending, limit)?;
    let mut leased = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let mut parts = Parts::new(&key);
        let (Some(agent), Some(run), Some(number)) = (parts.u32(), parts.text(), parts.u32())
        else {
            return Err(broken(&key));
        };
        let number = match number {
            step::TRUNK => run::find(read, agent, run)?.ok_or_else(|| broken(&key))?.trunk,
            number => number,
        };
        let record = existing(read, agent, run, number)?;
        leased.push(LeasedStep {
            step: StepId { agent, run_id: run.to_owned(), step: number },
            rank: step::rank(run, &record),
            bundle_id: record.bundle_id.clone(),
            token: record.token.unwrap_or_default(),
            worker_id: record.worker_id.clone(),
            lease_ms: record.lease_ms,
            key: RowKey::from_slice(&key),
        });
    }
    Ok(leased)
}

/// The earliest deadline of each agent that has one; agent 0 is the cluster's own.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn next_deadlines(read: &dyn Read) -> Result<Vec<(u32, u64)>, Fault> {
    let mut found = Vec::new();
    let mut agents = Key::new(Kind::Agent).range();
    let mut page = vec![0];
    while !page.is_empty() {
        for agent in &page {
            found.extend(next_deadline(read, *agent)?.map(|due_ms| (*agent, due_ms)));
        }
        let rows = read.scan(&agents, Order::Ascending, AGENTS)?;
        if let Some((last, _)) = rows.last() {
            agents = agents.after(last);
        }
        page = rows
            .iter()
            .map(|(key, _)| Parts::new(key).u32().ok_or_else(|| broken(key)))
            .collect::<Result<_, _>>()?;
    }
    Ok(found)
}

/// The earliest deadline of one agent.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn next_deadline(read: &dyn Read, agent: u32) -> Result<Option<u64>, Fault> {
    let rows = read.scan(&front::behind(read, agent)?, Order::Ascending, 1)?;
    let Some((key, _)) = rows.first() else { return Ok(None) };
    let mut parts = Parts::new(key);
    parts.u32();
    parts.u64().map(Some).ok_or_else(|| broken(key))
}

/// What workers need to execute the attempts that they leased, one for each of the steps: `RUN_NOT_FOUND` where run or step
/// are gone. A step's input is not read where it is known.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn assignments<'s>(
    read: &dyn Read,
    steps: impl IntoIterator<Item = (&'s StepId, Option<&'s Payload>)>,
) -> Result<Vec<Result<v1::Assignment, Rejection>>, Fault> {
    let now_ms = super::position(read)?.now_ms;
    let assignments =
        steps.into_iter().map(|(id, input)| match assignment(read, id, input, now_ms) {
            Ok(assignment) => Ok(Ok(assignment)),
            Err(Stop::Rejected(rejection)) => Ok(Err(rejection)),
            Err(Stop::Fault(fault)) => Err(fault),
        });
    assignments.collect()
}

fn assignment(
    read: &dyn Read,
    id: &StepId,
    known_input: Option<&Payload>,
    now_ms: u64,
) -> Result<v1::Assignment, Stop> {
    let gone = || run::not_found(&id.run_id);
    let run = run::find(read, id.agent, &id.run_id)?.ok_or_else(gone)?;
    let step = step::find(read, id.agent, &id.run_id, id.step)?.ok_or_else(gone)?;
    let agent = agent::lend_by_number(read, id.agent)?.ok_or_else(gone)?;
    let bundle = bundle::lend(read, id.agent, &run.bundle_id)?;
    let soft_ms = ends(&run, &bundle).soft_ms;
    Ok(v1::Assignment {
        run_id: id.run_id.clone(),
        step: id.step,
        name: step.name.clone(),
        attempt: step.attempt,
        token: step
            .token
            .map(|t| v1::StepToken { incarnation: t.incarnation, revision: t.revision }),
        bundle_id: run.bundle_id.clone(),
        kind: run.kind,
        suppress_side_effects: run.kind().suppresses_effects(),
        input: Some(match known_input {
            Some(known) => known.clone(),
            None => input(read, id.agent, &run, &step)?,
        }),
        checkpoints: match step.checkpoints == 0 || is_planted(Mutant::LosesCheckpoints) {
            true => Vec::new(),
            false => checkpoints(read, id)?,
        },
        layer: u64::from(run.layer),
        deadline: timestamp(step.attempt_deadline_ms.min(soft_ms)),
        expires_at: timestamp(run.expires_ms),
        cluster_time: timestamp(now_ms),
        agent_id: agent.agent_id.clone(),
        labels: run.labels.clone(),
        join: (step.branches > 0)
            .then_some(v1::Join { branches: step.branches, settle: step.settle }),
        woken: if may_have_woken(&step) { woken(read, id)? } else { None },
        last_progress: step.progress.clone(),
        trace_parent: run.trace_parent.clone(),
        session: run.session.clone(),
    })
}

/// Input of a step; the first one's is the run's.
pub(super) fn input(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
    step: &StepRecord,
) -> Result<Payload, Fault> {
    let input = if step.number <= 1 {
        run::input(read, agent, run)?
    } else if step.made_by == 0 {
        get(read, &Key::of(Kind::StepInput, agent).text(&run.run_id).u32(step.number).build())?
    } else {
        existing(read, agent, &run.run_id, step.made_by)?.into_inner().result
    };
    Ok(input.unwrap_or_default())
}

/// Whether a step was behind a wait, as far as its record says: that of a branch, and an older one, does not.
fn may_have_woken(step: &StepRecord) -> bool {
    !step.in_run || step.woken || !step.wait_child.is_empty()
}

/// What ended the wait of a step, if it was behind one.
fn woken(read: &dyn Read, id: &StepId) -> Result<Option<v1::Woken>, Fault> {
    let row = Key::of(Kind::Woken, id.agent).text(&id.run_id).u32(id.step).build();
    let woken: Option<WokenRecord> = get(read, &row)?;
    Ok(woken.map(|woken| {
        if woken.child_run_id.is_empty() {
            return v1::Woken { signal: woken.signal, value: woken.value, child: None };
        }
        let child = v1::ChildEnd {
            run_id: woken.child_run_id,
            state: woken.child_state,
            output: woken.value,
            failure: woken.child_failure,
        };
        v1::Woken { child: Some(child), ..v1::Woken::default() }
    }))
}

fn checkpoints(read: &dyn Read, id: &StepId) -> Result<Vec<v1::Checkpoint>, Fault> {
    let prefix = Key::of(Kind::Checkpoint, id.agent).text(&id.run_id).u32(id.step);
    let skip = prefix.clone().build().len();
    let rows = read.scan(&prefix.range(), Order::Ascending, usize::MAX)?;
    let mut found = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record: CheckpointRecord = decode(&key, &value)?;
        found.push(v1::Checkpoint {
            name: String::from_utf8_lossy(&key[skip..]).into_owned(),
            value: record.value,
            order: record.order,
        });
    }
    found.sort_by_key(|checkpoint| checkpoint.order);
    Ok(found)
}

/// What holds the queue of an agent's bundle back. An agent that is gone is paused.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn agent_gate(read: &dyn Read, number: u32, bundle_id: &str) -> Result<Gate, Fault> {
    let gone = Gate { paused: true, ..Gate::default() };
    let Some(agent) = agent::by_number(read, number)? else { return Ok(gone) };
    let Some(bundle) = bundle::find(read, number, bundle_id)? else { return Ok(gone) };
    Ok(Gate {
        paused: agent.paused || bundle.paused,
        running: agent.running_steps,
        max_running: agent.max_running,
        max_running_per_key: agent.max_running_per_key,
        max_per_second: agent.max_per_second,
    })
}

/// A full scan: SHA-256 over all rows in key order, without the cluster's identity, so that a restored cluster
/// compares equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash {
    pub hash: [u8; 32],
    pub keys: u64,
}

/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn content_hash(read: &dyn Read) -> Result<ContentHash, Fault> {
    const CHUNK: usize = 1_000;
    let mut hash = Sha256::new();
    let mut keys = 0;
    // Kind 0 is the engine's own.
    let mut range =
        KeyRange { start: RowKey::from_slice(&[1]), end: RowKey::from_slice(&[u8::MAX]) };
    loop {
        let rows = read.scan(&range, Order::Ascending, CHUNK)?;
        for (key, value) in &rows {
            let value =
                if **key == *cluster_key() { anonymous(key, value)? } else { value.to_vec() };
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(key);
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
            keys += 1;
        }
        match rows.last() {
            Some((last, _)) if rows.len() == CHUNK => range = range.after(last),
            Some(_) | None => return Ok(ContentHash { hash: hash.finalize().into(), keys }),
        }
    }
}

fn anonymous(key: &[u8], value: &bytes::Bytes) -> Result<Vec<u8>, Fault> {
    let cluster: ClusterRecord = decode(key, value)?;
    let bare = ClusterRecord {
        cluster: String::new(),
        cluster_id: bytes::Bytes::new(),
        incarnation: 0,
        ..cluster
    };
    Ok(bare.encode_to_vec())
}

fn range_of(kind: Kind, after: Option<&[u8]>) -> KeyRange {
    let range = Key::new(kind).range();
    match after {
        Some(key) => range.after(key),
        None => range,
    }
}

fn existing(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
    number: u32,
) -> Result<Shared<StepRecord>, Fault> {
    step::find(read, agent, run_id, number)?
        .ok_or_else(|| Fault(format!("step {number} of run {run_id} is indexed and not there")))
}

fn broken(key: &[u8]) -> Fault {
    Fault(format!("key {} does not come apart", hex::encode(key)))
}
