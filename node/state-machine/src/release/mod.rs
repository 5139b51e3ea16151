//! Releases: the procedure that brings a candidate from its first check to live, and the bundle before it from standby
//! to recycled, as one state machine for each agent.
//!
//! ```text
//!  preparing ──> smoke ──> evals ──> shadow ──> canary ──> (switching) ──> switched ──> recycled
//!      └───────────┴─────────┴─────────┴──────────┤  gate failed: failed, or rolled back where traffic was moved
//!                                                 │  abort: aborted        rollback: rolled back
//! ```
//! The leader looks at the world and says what it found (`RecordVerdict`, `AdvanceCanary`); apply checks that stage and
//! attempt are still the present ones and moves on in the same command. So no stage is entered without the verdict of
//! the one before, and none is recorded twice (P6). It must not know how anything is judged.
//!
//! A release is *active* from its start to its switch, and there is at most one. Behind the switch its pair is in
//! *quarantine*, of which there is at most one too: another switch closes it.

mod canary;
mod end;
mod plan;
mod quarantine;
mod recycle;
mod stage;
mod start;
mod steer;
mod sum;
mod verdict;
mod view;

use std::collections::BTreeMap;

use pinrail_proto::log::{AgentRecord, GateRecord, MoveRecord, PolicyRecord, ReleaseRecord};
use pinrail_proto::reason;
use pinrail_proto::v1::{self, ReleaseState, Stage};

use crate::effect::Effect;
use crate::event;
use crate::event::With as _;
use crate::key::{Key, Kind, Parts, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, decode, get};

pub(crate) use canary::{draws, is_canary};
pub(crate) use end::{abort_active, end_by_rollback, leave_canary};
pub(crate) use plan::{Planned, gate_hooks, plan};
pub(crate) use quarantine::extend as extend_quarantine;
pub(crate) use recycle::recycle;
pub(crate) use stage::{attempt_id, switch};
pub(crate) use start::{admit, by_hand, start};
pub(crate) use steer::{abort, hold, promote, resume};
pub(crate) use sum::sum;
pub(crate) use verdict::{advance_canary, record as record_verdict};
pub(crate) use view::message;

/// The id of a release: `r7`.
pub(crate) fn id(number: u32) -> String {
    format!("r{number}")
}

/// The number of a release by its id.
pub(crate) fn number(id: &str) -> Option<u32> {
    id.strip_prefix('r')?.parse().ok()
}

pub(crate) fn find(
    read: &dyn Read,
    agent: u32,
    number: u32,
) -> Result<Option<ReleaseRecord>, Fault> {
    get(read, &row(Kind::Release, agent, number))
}

/// The release that is active or in quarantine has a record; another number is a fault.
fn existing(read: &dyn Read, agent: u32, number: u32) -> Result<ReleaseRecord, Fault> {
    find(read, agent, number)?
        .ok_or_else(|| Fault(format!("agent {agent} has no release {number}")))
}

/// # Errors
/// `RELEASE_NOT_ACTIVE` where none is.
fn active(txn: &Txn<'_>, agent: &AgentRecord) -> Result<ReleaseRecord, Stop> {
    if agent.active_release == 0 {
        let message = format!("agent {} has no active release", agent.agent_id);
        return Err(reject(reason::RELEASE_NOT_ACTIVE, message));
    }
    Ok(existing(txn.read(), agent.number, agent.active_release)?)
}

pub(crate) fn save(txn: &mut Txn<'_>, agent: u32, release: &mut ReleaseRecord) {
    release.revision = txn.revision;
    txn.put(row(Kind::Release, agent, release.number), release);
}

/// What the policy said when a release began.
pub(crate) fn policy(read: &dyn Read, agent: u32, number: u32) -> Result<v1::Policy, Fault> {
    let row: Option<PolicyRecord> = get(read, &row(Kind::ReleasePolicy, agent, number))?;
    row.and_then(|row| row.policy)
        .ok_or_else(|| Fault(format!("release {number} of agent {agent} has no policy")))
}

pub(crate) fn gate(
    read: &dyn Read,
    agent: u32,
    number: u32,
    stage: Stage,
    attempt: u32,
) -> Result<Option<GateRecord>, Fault> {
    get(read, &gate_key(agent, number, stage, attempt))
}

/// The last attempt at every stage that has begun, by the stage's number.
pub(crate) fn last_gates(
    read: &dyn Read,
    agent: u32,
    number: u32,
) -> Result<BTreeMap<i32, (u32, GateRecord)>, Fault> {
    let rows = Key::of(Kind::ReleaseGate, agent).u32(number).range();
    let mut last = BTreeMap::new();
    for (key, value) in read.scan(&rows, Order::Ascending, usize::MAX)? {
        let mut parts = Parts::new(&key);
        let (_, _, stage, attempt) = (parts.u32(), parts.u32(), parts.u8(), parts.u32());
        let (Some(stage), Some(attempt)) = (stage, attempt) else {
            return Err(Fault(format!("key {} does not come apart", hex::encode(&key))));
        };
        last.insert(i32::from(stage), (attempt, decode(&key, &value)?));
    }
    Ok(last)
}

fn save_gate(
    txn: &mut Txn<'_>,
    agent: u32,
    release: &ReleaseRecord,
    (stage, attempt): (Stage, u32),
    mut gate: GateRecord,
) {
    gate.revision = txn.revision;
    txn.put(gate_key(agent, release.number, stage, attempt), &gate);
}

fn gate_key(agent: u32, number: u32, stage: Stage, attempt: u32) -> RowKey {
    // Stages are few: their numbers fit a byte for ever.
    let stage = u8::try_from(i32::from(stage)).unwrap_or(u8::MAX);
    Key::of(Kind::ReleaseGate, agent).u32(number).u8(stage).u32(attempt).build()
}

fn move_key(agent: u32, number: u32, index: u32) -> RowKey {
    Key::of(Kind::ReleaseMove, agent).u32(number).u32(index).build()
}

pub(crate) fn row(kind: Kind, agent: u32, number: u32) -> RowKey {
    Key::of(kind, agent).u32(number).build()
}

/// Whether nothing happens to it any more.
pub(crate) fn is_over(state: ReleaseState) -> bool {
    match state {
        ReleaseState::Recycled
        | ReleaseState::Failed
        | ReleaseState::Aborted
        | ReleaseState::RolledBack => true,
        ReleaseState::Unspecified
        | ReleaseState::Preparing
        | ReleaseState::Smoke
        | ReleaseState::Evals
        | ReleaseState::Shadow
        | ReleaseState::Canary
        | ReleaseState::Switching
        | ReleaseState::Switched => false,
    }
}

/// The state of a release that is in a stage.
fn state_of(stage: Stage) -> ReleaseState {
    match stage {
        Stage::Unspecified | Stage::Prepare => ReleaseState::Preparing,
        Stage::Smoke => ReleaseState::Smoke,
        Stage::Evals => ReleaseState::Evals,
        Stage::Shadow => ReleaseState::Shadow,
        Stage::Canary => ReleaseState::Canary,
        Stage::Switch => ReleaseState::Switching,
        Stage::Quarantine | Stage::Recycle => ReleaseState::Switched,
    }
}

/// Notes a change in the release's own history and as an event.
fn note(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &mut ReleaseRecord,
    what: &'static str,
    from: ReleaseState,
    why: &str,
) {
    let reason = if why.is_empty() { txn.header.reason.clone() } else { why.to_owned() };
    let moved = MoveRecord {
        at_ms: txn.now,
        from: from.into(),
        to: release.state,
        actor: txn.header.actor.clone(),
        reason,
        seen_revision: txn.header.expected_revision,
        revision: txn.revision,
        what: what.rsplit('.').next().unwrap_or(what).to_owned(),
    };
    txn.put(move_key(agent.number, release.number, release.moves), &moved);
    release.moves += 1;
    let mut told = event::of_bundle(what, agent, &release.bundle_id)
        .with("release", id(release.number))
        .with("stage", word(release.stage()));
    if !why.is_empty() {
        told = told.with("why", why);
    }
    txn.event(told);
    txn.effect(Effect::AgentChanged { agent: agent.number });
}

/// `evals`, not `STAGE_EVALS`.
pub(crate) fn word(stage: Stage) -> String {
    event::word(stage.as_str_name(), "STAGE_")
}
