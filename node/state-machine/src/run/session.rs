//! Sessions: runs that belong together, a conversation say. While a session holds a pin its runs start on one bundle; open
//! ones begin one after the other unless the policy says otherwise.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, EndSession, RunRecord, SessionRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{Overlap, RunState};
use pinrail_proto::{id, limits, reason, v1};

use crate::event;
use crate::event::With as _;
use crate::key::{Key, Kind, Parts, RowKey, Timer};
use crate::level;
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, get};
use crate::{agent, bundle};

use super::begin::open_entry;
use super::{Subject, is_over, settle};

pub(super) fn check(session: &str) -> Result<(), Stop> {
    if session.is_empty() {
        return Ok(());
    }
    id::check_token("session", session)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))
}

/// The bundle that a session's next run starts on, if it holds a pin that is not over.
pub(crate) fn pinned(
    read: &dyn Read,
    agent: &AgentRecord,
    session: &str,
    now: u64,
) -> Result<Option<BundleRecord>, Fault> {
    if session.is_empty() {
        return Ok(None);
    }
    let Some(record) = find(read, agent.number, session)? else { return Ok(None) };
    let Some(bundle) = bundle::find(read, agent.number, &record.bundle_id)? else {
        return Ok(None);
    };
    Ok((now < ends_ms(agent, &bundle, &record)).then_some(bundle))
}

/// When a session's pin is over; 0: since a rollback.
fn ends_ms(agent: &AgentRecord, bundle: &BundleRecord, record: &SessionRecord) -> u64 {
    if bundle.rejected || record.epoch < bundle.session_floor {
        return 0;
    }
    let own_ms = record.pinned_ms + agent.session_max_age_ms;
    if bundle.left_ms == 0 {
        return own_ms;
    }
    let drain_ms = match bundle.drain_deadline_ms {
        0 => u64::MAX,
        deadline_ms => deadline_ms,
    };
    own_ms.min(bundle.left_ms + agent.session_cutoff_ms).min(drain_ms)
}

/// Pins a session to the bundle that the route gave a run of it.
pub(super) fn pin(txn: &mut Txn<'_>, agent: &AgentRecord, session: &str, bundle_id: &str) {
    if session.is_empty() {
        return;
    }
    let record = SessionRecord {
        session: session.to_owned(),
        bundle_id: bundle_id.to_owned(),
        epoch: agent.epoch,
        pinned_ms: txn.now,
        revision: txn.revision,
    };
    txn.put(row(agent.number, session), &record);
    let over_ms = txn.now + agent.session_max_age_ms;
    txn.set_timer(agent.number, over_ms, Timer::Session, session.as_bytes());
}

/// Gives a run its place in its session, and says whether it has to wait for its turn.
pub(super) fn enter(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    if subject.run.session.is_empty() {
        return Ok(());
    }
    let (agent, run) = (&subject.agent, &mut subject.run);
    // Who continues another run has that one's place.
    let is_successor = run.session_place != 0;
    if !is_successor {
        reject_if_busy(txn, agent, run)?;
        match agent.session_overlap() {
            Overlap::Unspecified | Overlap::Queue => {
                let others = txn.scan(&open_runs(agent.number, &run.session).range(), 1)?;
                run.awaits_turn = !others.is_empty() && !run.external;
            }
            Overlap::Parallel | Overlap::Reject => {}
        }
        run.session_place = last_place(txn, agent.number, &run.session)?;
    }
    txn.mark(place(agent.number, run), &[]);
    Ok(())
}

/// The place behind all open runs of a session: this revision, or, where others began in the same command, one behind theirs.
fn last_place(txn: &Txn<'_>, agent: u32, session: &str) -> Result<u64, Stop> {
    if txn.cluster.feature_level < level::SESSIONS_KEEP_THEIR_ORDER {
        return Ok(txn.revision);
    }
    let range = open_runs(agent, session).range();
    let last = txn.read().scan(&range, Order::Descending, 1)?;
    let taken = last.first().map_or(0, |(key, _)| place_and_run(key).0);
    Ok(txn.revision.max(taken + 1))
}

/// Refuses a run whose session has an open one, where the policy says so.
pub(super) fn reject_if_busy(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    run: &RunRecord,
) -> Result<(), Stop> {
    if run.session.is_empty() || agent.session_overlap() != Overlap::Reject {
        return Ok(());
    }
    let others = txn.scan(&open_runs(agent.number, &run.session).range(), 1)?;
    let Some((key, _)) = others.first() else { return Ok(()) };
    let message = format!("another run of session {:?} is open", run.session);
    Err(reject(reason::SESSION_BUSY, message).with("run_id", run_of(key)))
}

/// Takes a run that is over out of its session; the next one has its turn.
pub(super) fn leave(
    txn: &mut Txn<'_>,
    agent: u32,
    run: &RunRecord,
    is_continued: bool,
) -> Result<(), Stop> {
    if run.session_place == 0 {
        return Ok(());
    }
    txn.delete(place(agent, run));
    if is_continued {
        return Ok(());
    }
    let next = txn.scan(&open_runs(agent, &run.session).range(), 1)?;
    if let Some((key, _)) = next.first() {
        // It is another run's row, which only a command about that run changes.
        txn.set_timer(agent, txn.now, Timer::SessionTurn, run_of(key).as_bytes());
    }
    Ok(())
}

/// Whether a run of this session that starts now begins now.
pub(crate) fn is_free(read: &dyn Read, agent: &AgentRecord, session: &str) -> Result<bool, Fault> {
    if session.is_empty() || agent.session_overlap() == Overlap::Parallel {
        return Ok(true);
    }
    let others = read.scan(&open_runs(agent.number, session).range(), Order::Ascending, 1)?;
    Ok(others.is_empty())
}

/// Lets a run begin whose turn it is. Nothing happens when it is not.
pub(crate) fn take_turn(txn: &mut Txn<'_>, agent: u32, run_id: &str) -> Result<(), Stop> {
    let Some(mut subject) = Subject::find(txn, agent, run_id)? else { return Ok(()) };
    settle(txn, &mut subject)?;
    let first = txn.scan(&open_runs(agent, &subject.run.session).range(), 1)?;
    let is_first = first.first().is_some_and(|(key, _)| run_of(key) == run_id);
    if subject.run.awaits_turn && is_first && !is_over(subject.run.state()) {
        subject.run.awaits_turn = false;
        open_entry(txn, &mut subject, None)?;
    }
    subject.save(txn)?;
    Ok(())
}

/// Forgets a session whose pin has grown old; the policy may give it more time than it did.
pub(crate) fn forget(txn: &mut Txn<'_>, number: u32, session: &str) -> Result<(), Stop> {
    let agent = agent::load(txn, number)?;
    let Some(record) = find(txn.read(), number, session)? else { return Ok(()) };
    let over_ms = record.pinned_ms + agent.session_max_age_ms;
    if over_ms <= txn.now {
        txn.delete(row(number, session));
    } else {
        txn.set_timer(number, over_ms, Timer::Session, session.as_bytes());
    }
    Ok(())
}

pub(crate) fn end(txn: &mut Txn<'_>, it: &EndSession) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let Some(record) = find(txn.read(), agent.number, &it.session)? else {
        return Err(not_found(&it.session));
    };
    agent::expect_revision(txn, record.revision)?;
    let was = message(txn.read(), &agent, &record, txn.now)?;
    txn.delete(row(agent.number, &it.session));
    let ended = event::of_bundle("session.ended", &agent, &record.bundle_id);
    txn.event(ended.with("session", &it.session));
    Ok(Answer::Session(was))
}

pub(crate) fn not_found(session: &str) -> Stop {
    reject(reason::SESSION_NOT_FOUND, format!("session {session:?} holds no pin"))
}

pub(crate) fn find(
    read: &dyn Read,
    agent: u32,
    session: &str,
) -> Result<Option<SessionRecord>, Fault> {
    get(read, &row(agent, session))
}

/// The API's view of a session.
pub(crate) fn message(
    read: &dyn Read,
    agent: &AgentRecord,
    record: &SessionRecord,
    now: u64,
) -> Result<v1::Session, Fault> {
    let bundle = bundle::find(read, agent.number, &record.bundle_id)?.unwrap_or_default();
    let ends_ms = ends_ms(agent, &bundle, record);
    let open = open_runs(agent.number, &record.session).range();
    let open = read.scan(&open, Order::Ascending, limits::PAGE_DEFAULT as usize)?;
    Ok(v1::Session {
        session: record.session.clone(),
        bundle_id: record.bundle_id.clone(),
        pinned_at: timestamp(record.pinned_ms),
        ends_at: timestamp(ends_ms),
        holds: now < ends_ms,
        open_run_ids: open.iter().map(|(key, _)| run_of(key)).collect(),
        epoch: record.epoch,
        revision: record.revision,
    })
}

/// Sessions of an agent; a key follows.
pub(crate) fn sessions(agent: u32) -> Key {
    Key::of(Kind::Session, agent)
}

fn row(agent: u32, session: &str) -> RowKey {
    sessions(agent).last(session)
}

/// The open runs of a session that are pinned, in the order of their turns.
fn open_runs(agent: u32, session: &str) -> Key {
    Key::of(Kind::SessionRun, agent).text(session)
}

pub(crate) fn place(agent: u32, run: &RunRecord) -> RowKey {
    open_runs(agent, &run.session).u64(run.session_place).last(&run.run_id)
}

fn run_of(key: &[u8]) -> String {
    place_and_run(key).1
}

/// What the row of an open run says of its turn.
fn place_and_run(key: &[u8]) -> (u64, String) {
    let mut parts = Parts::new(key);
    parts.u32();
    parts.text();
    let place = parts.u64().unwrap_or_default();
    (place, parts.last().unwrap_or_default().to_owned())
}

/// Whether an open run has its place in its session.
pub(crate) fn has_place(run: &RunRecord) -> bool {
    run.session_place != 0 && run.state() != RunState::Scheduled && !is_over(run.state())
}
