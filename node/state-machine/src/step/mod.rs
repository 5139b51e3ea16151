//! Steps: the units of work of a run, their attempts, their leases.
//!
//! ```text
//!  ready ──lease──> leased ──complete──> completed
//!    ▲                │ ├──fail, attempts left──> backoff ──timer──> ready
//!    │                │ └──fail, attempts used up──> failed | dead (the run is paused) ──retry──> ready
//!    └──hand back, expire──┘
//!    ▲
//!  waiting ──signal, timer, last branch: the step that a run goes on with after a wait or a fan-out
//! ```
//! A run has one open step, or, while it is fanned out, a join that waits and at least one in each branch that is not
//! over (`fan_out.rs`).
//! A lease is judged by its token alone, never by a clock: its deadline lives in the leader's memory, and it
//! ends by the leader's own command.

mod checkpoint;
mod complete;
mod end_lease;
mod fail;
mod fan_out;
mod lease;
mod queue;
mod standing;
mod state;
mod transfer;
mod wait;

use pinrail_proto::log::{RunRecord, StepRecord, StepRef, Token};
use pinrail_proto::v1::{EndReason, RunState, StepState};
use pinrail_proto::{id, reason};

use crate::effect::StepId;
use crate::key::{Key, Kind, RowKey};
use crate::mutant::{Mutant, is_planted};
use crate::outcome::{Stop, reject};
use crate::records::Record;
use crate::run::{Subject, is_over, put_ended, save as save_run, settle, step_in_row};
use crate::shared::Shared;
use crate::store::{Fault, Read};
use crate::txn::{Txn, checked, decode};

pub(crate) use checkpoint::checkpoint;
pub(crate) use complete::complete;
pub use complete::completion_digest;
pub(crate) use end_lease::{expire, hand_back};
use fail::attempt_over;
pub(crate) use fail::{fail, revive, start_by_over};
pub(crate) use fan_out::{branches, close_all, open_steps};
pub(crate) use lease::lease;
pub(crate) use queue::{hold, let_go, open_first, rank, ready_again};
pub(crate) use standing::{TRUNK, over as lease_timer_over, stands};
pub(crate) use state::is_closed;
pub(crate) use transfer::{has_recorded, leave_queue, move_along, take_back};
pub(crate) use wait::{child_over, deliver, over as wait_over, pending_bytes};

pub(crate) fn find(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
    number: u32,
) -> Result<Option<Shared<StepRecord>>, Fault> {
    let key = key(agent, run_id, number);
    if let Some(step) = checked(read.kept(&key), || stored(read, agent, run_id, number))? {
        return Ok(Some(step));
    }
    let Some(step) = stored(read, agent, run_id, number)? else { return Ok(None) };
    let step = Shared::from(step);
    read.keep(&key, step.arc() as Record);
    Ok(Some(step))
}

/// As [`find`], to be changed and saved.
pub(crate) fn take(
    txn: &Txn<'_>,
    agent: u32,
    run_id: &str,
    number: u32,
) -> Result<Option<Shared<StepRecord>>, Fault> {
    let read = txn.read();
    let taken = read.taken(&key(agent, run_id, number));
    match checked(taken, || stored(read, agent, run_id, number))? {
        Some(step) => Ok(Some(step)),
        None => Ok(stored(read, agent, run_id, number)?.map(Shared::from)),
    }
}

/// What a step's row says, or its run's.
fn stored(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
    number: u32,
) -> Result<Option<StepRecord>, Fault> {
    let key = key(agent, run_id, number);
    match read.get(&key)? {
        Some(row) => decode(&key, &row).map(Some),
        None => step_in_row(read, agent, run_id, number),
    }
}

pub(crate) fn key(agent: u32, run_id: &str, number: u32) -> RowKey {
    Key::of(Kind::Step, agent).text(run_id).u32(number).build()
}

/// Whether a step is written into its run's row.
pub(crate) fn lies_in_run(step: &StepRecord) -> bool {
    step.in_run && !is_closed(step.state())
}

/// Writes a step of a run: into its own row, or into its run's, which the command writes behind that when the step has ended.
pub(crate) fn save(
    txn: &mut Txn<'_>,
    agent: u32,
    run: &mut Shared<RunRecord>,
    step: &Shared<StepRecord>,
) {
    match (step.in_run, is_closed(step.state())) {
        (true, true) => put_ended(txn, agent, run, step),
        (true, false) => save_run(txn, agent, run, Some(step)),
        (false, true) => txn.put(key(agent, &run.run_id, step.number), &**step),
        (false, false) => txn.put_kept(key(agent, &run.run_id, step.number), step),
    }
}

pub(crate) fn step_id(agent: u32, run: &RunRecord, step: &StepRecord) -> StepId {
    StepId { agent, run_id: run.run_id.clone(), step: step.number }
}

/// Lets happen what was due of a run's open steps before this command, however late the sweep is: a wait has timed out, an
/// attempt or a step that no worker took has failed.
pub(crate) fn catch_up(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let open = open_steps(txn, subject)?;
    for number in open.into_iter().map(|step| step.number) {
        if is_over(subject.run.state()) {
            return Ok(());
        }
        // One step's end may change another: each is read when its turn comes.
        if subject.step.as_ref().is_none_or(|step| step.number != number) {
            subject.write_step(txn);
            subject.step = find(txn.read(), subject.agent.number, &subject.run.run_id, number)?;
        }
        wait_over(txn, subject)?;
        attempt_over(txn, subject)?;
        start_by_over(txn, subject)?;
    }
    Ok(())
}

/// Object of a step's timers, and the tail of its index rows.
pub(crate) fn object(run_id: &str, number: u32) -> RowKey {
    let mut object = RowKey::from_slice(run_id.as_bytes());
    object.push(0);
    object.extend_from_slice(&number.to_be_bytes());
    object
}

/// Takes a timer's object apart.
pub(crate) fn parse_object(object: &[u8]) -> Option<(String, u32)> {
    let (head, number) = object.split_last_chunk::<4>()?;
    let run_id = std::str::from_utf8(head.strip_suffix(&[0])?).ok()?;
    Some((run_id.to_owned(), u32::from_be_bytes(*number)))
}

/// The run whose open step is held under this token, settled. Everything that a worker reports goes through here.
///
/// # Errors
/// `LEASE_STALE` when the token is not the current one; `PIN_EXPIRED` when the pin's hard end is past.
pub(crate) fn held(
    txn: &mut Txn<'_>,
    step: Option<&StepRef>,
    token: Option<&Token>,
) -> Result<Subject, Stop> {
    if token.is_some_and(|token| token.incarnation != txn.cluster.incarnation) {
        return Err(stale(
            "the lease was given before the cluster began with a backup, or was recovered",
        ));
    }
    leased(txn, step, token)
}

/// As [`held`], for the leader, which ends leases of the cluster that a backup was taken of too.
pub(crate) fn leased(
    txn: &mut Txn<'_>,
    step: Option<&StepRef>,
    token: Option<&Token>,
) -> Result<Subject, Stop> {
    let none = StepRef::default();
    let asked = step.unwrap_or(&none);
    id::check_token("run id", &asked.run_id)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    let Some(mut subject) = Subject::at(txn, asked.agent, &asked.run_id, asked.step)? else {
        return Err(stale("the run or its step is gone"));
    };
    let before = subject.run.clone();
    settle(txn, &mut subject)?;
    let ended = is_over(subject.run.state()) && !is_over(before.state());
    if ended && subject.run.end_reason() != EndReason::Rollback {
        return Err(reject(reason::PIN_EXPIRED, "the end of the run's pin is past"));
    }
    if !is_current(&subject, asked.step, token) {
        return Err(stale("the lease is not current any more"));
    }
    // Start-to-close is replicated: a sweep that lags does not lengthen it.
    if subject.step.as_ref().is_some_and(|step| step.attempt_deadline_ms <= txn.now) {
        return Err(stale("the attempt took longer than start_to_close"));
    }
    // Not every caller changes the run, but the index of states may have moved with it here.
    if subject.run != before {
        subject.save(txn)?;
    }
    Ok(subject)
}

/// P2: only the holder of the current token is heard.
fn is_current(subject: &Subject, number: u32, token: Option<&Token>) -> bool {
    let Some(step) = &subject.step else { return false };
    step.number == number
        && step.state() == StepState::Leased
        && token.is_some()
        && (step.token.as_ref() == token || is_planted(Mutant::HearsStaleTokens))
        && !is_over(subject.run.state())
        && subject.run.state() != RunState::Paused
}

fn stale(why: &str) -> Stop {
    reject(reason::LEASE_STALE, why)
}
