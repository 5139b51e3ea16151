//! The sweep: works off what is due of one agent, in order and bounded. Whatever is late acts as if it had come
//! in time, for every command checks the ends itself; the sweep makes it visible.

use pinrail_proto::limits;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{Tick, TickResult};
use pinrail_proto::v1::StepState;

use crate::key::{Key, Kind, Parts, RowKey, Timer};
use crate::outcome::Stop;
use crate::run::{self, Subject};
use crate::store::{Fault, KeyRange, Row};
use crate::txn::Txn;
use crate::{audit, bundle, dedupe, drift, event, front, level, memory, step};

/// Rows of the deadline index that are looked at in one go.
const CHUNK: usize = 64;

pub(crate) fn tick(txn: &mut Txn<'_>, it: &Tick) -> Result<Answer, Stop> {
    let mut left = it.max_items.clamp(1, limits::TICK_ITEMS);
    let asked = left;
    loop {
        // The row behind the last one that there is room for tells whether more is due.
        let most = CHUNK.min(left as usize + 1);
        let rows = txn.scan(&due_range(txn, it.agent)?, most)?;
        let Some((first, _)) = rows.first() else {
            front::advance(txn, it.agent, txn.now)?;
            break;
        };
        // Before it is worked off: what that sets in the past is seen by the next look.
        front::advance(txn, it.agent, due_of(first))?;
        for row in rows {
            if left == 0 {
                return Ok(Answer::Tick(TickResult { items: asked, more: true }));
            }
            left -= work_off(txn, it.agent, &row, left)?;
        }
    }
    Ok(Answer::Tick(TickResult { items: asked - left, more: false }))
}

/// What is due of an agent now.
fn due_range(txn: &Txn<'_>, agent: u32) -> Result<KeyRange, Fault> {
    let end = Key::of(Kind::Deadline, agent).u64(txn.now.saturating_add(1)).build();
    Ok(front::behind(txn.read(), agent)?.before(&end))
}

fn due_of(key: &[u8]) -> u64 {
    let mut parts = Parts::new(key);
    parts.u32();
    parts.u64().unwrap_or(0)
}

/// Works off one row, with at most `left` units of work. Answers how many it took: at least one.
fn work_off(txn: &mut Txn<'_>, agent: u32, (key, value): &Row, left: u32) -> Result<u32, Stop> {
    let mut parts = Parts::new(key);
    let (_, due_ms, timer) = (parts.u32(), parts.u64(), parts.u8().and_then(Timer::from_number));
    let Some(timer) = timer else {
        return Err(Fault(format!("deadline row {} has an unknown timer", hex::encode(key))).into());
    };
    let object = parts.rest().to_vec();
    let text = || String::from_utf8_lossy(&object).into_owned();
    match timer {
        Timer::DrainSoft | Timer::DrainHard | Timer::RollbackSweep => {
            return sweep(txn, agent, key, value, timer, &text(), due_ms.unwrap_or(0), left);
        }
        Timer::Children => {
            let (items, cursor) = run::end_children(txn, agent, &text(), value, left)?;
            match cursor {
                Some(last) => txn.mark(RowKey::from_slice(key), &last),
                None => txn.delete(RowKey::from_slice(key)),
            }
            return Ok(items);
        }
        Timer::SessionTurn => {
            txn.delete(RowKey::from_slice(key));
            run::session::take_turn(txn, agent, &text())?;
        }
        Timer::Session => {
            txn.delete(RowKey::from_slice(key));
            run::session::forget(txn, agent, &text())?;
        }
        Timer::Retention => {
            let forgotten = run::forget(txn, agent, &text(), left)?;
            if forgotten.whole {
                txn.delete(RowKey::from_slice(key));
            }
            return Ok(forgotten.items);
        }
        Timer::Events => {
            if forget_events(txn)? {
                txn.delete(RowKey::from_slice(key));
            }
            return Ok(1);
        }
        Timer::Audit => {
            // It sets itself anew: its row goes first.
            txn.delete(RowKey::from_slice(key));
            if !audit::sweep(txn)? {
                txn.mark(RowKey::from_slice(key), &[]);
            }
        }
        Timer::RunExpires => {
            txn.delete(RowKey::from_slice(key));
            settle(txn, agent, &text())?;
            run::follow_soft_end(txn, agent, &text())?;
        }
        Timer::RunHardEnd | Timer::KeepAlive | Timer::CancelBy | Timer::StartDue => {
            txn.delete(RowKey::from_slice(key));
            settle(txn, agent, &text())?;
        }
        Timer::Backoff | Timer::StartBy | Timer::AttemptEnd | Timer::Wait | Timer::ChildOver => {
            txn.delete(RowKey::from_slice(key));
            step_timer(txn, agent, timer, &object)?;
        }
        Timer::Dedupe => {
            txn.delete(RowKey::from_slice(key));
            dedupe::forget(txn, &text());
        }
        Timer::MemoryVersions => return memory::drop_old(txn, agent, key, left),
        Timer::LayerDrop => return memory::drop_layer(txn, agent, (key, value), &object, left),
        Timer::Scratch => return memory::drop_scratch(txn, agent, key, &object, left),
        Timer::DriftQuiet => {
            txn.delete(RowKey::from_slice(key));
            drift::fall_quiet(txn, agent, &object)?;
        }
        Timer::MemoryTtl => {
            txn.delete(RowKey::from_slice(key));
            memory::expire(txn, agent, &object)?;
        }
    }
    Ok(1)
}

fn settle(txn: &mut Txn<'_>, agent: u32, run_id: &str) -> Result<(), Stop> {
    let Some(mut subject) = Subject::find(txn, agent, run_id)? else { return Ok(()) };
    let before = subject.run.clone();
    run::settle(txn, &mut subject)?;
    // A sweep that finds nothing to do leaves the run's revision alone.
    if subject.run != before {
        subject.save(txn)?;
    }
    Ok(())
}

fn step_timer(txn: &mut Txn<'_>, agent: u32, timer: Timer, object: &[u8]) -> Result<(), Stop> {
    let Some((run_id, number)) = step::parse_object(object) else { return Ok(()) };
    let found = match number {
        step::TRUNK => Subject::find(txn, agent, &run_id)?,
        number => Subject::at(txn, agent, &run_id, number)?,
    };
    let Some(mut subject) = found else { return Ok(()) };
    let mut before = (subject.run.clone(), subject.step.clone());
    if number == step::TRUNK {
        subject.run.lease_timer_ms = 0;
    }
    run::settle(txn, &mut subject)?;
    let same_pin = subject.run.pinned_revision == before.0.pinned_revision;
    // What moves takes its steps along as they are; what begins anew has others.
    let moved = subject.run.repins > before.0.repins
        && txn.cluster.feature_level >= level::TIMERS_MOVE_ALONG;
    if (same_pin || moved) && !run::is_over(subject.run.state()) {
        let now = txn.now;
        let backing_off = |s: &Subject| {
            s.step.as_ref().is_some_and(|s| s.state() == StepState::Backoff && s.timer_ms <= now)
        };
        match timer {
            Timer::AttemptEnd => step::lease_timer_over(txn, &mut subject)?,
            Timer::StartBy => step::start_by_over(txn, &mut subject)?,
            Timer::Wait => step::wait_over(txn, &mut subject)?,
            Timer::ChildOver => step::child_over(txn, &mut subject)?,
            Timer::Backoff if backing_off(&subject) => {
                if let Some(step) = &mut subject.step {
                    step.timer_ms = 0;
                }
                step::ready_again(txn, &mut subject)?;
            }
            Timer::Backoff
            | Timer::RunExpires
            | Timer::RunHardEnd
            | Timer::DrainSoft
            | Timer::DrainHard
            | Timer::KeepAlive
            | Timer::CancelBy
            | Timer::Retention
            | Timer::RollbackSweep
            | Timer::Dedupe
            | Timer::Events
            | Timer::Audit
            | Timer::MemoryTtl
            | Timer::MemoryVersions
            | Timer::LayerDrop
            | Timer::Scratch
            | Timer::DriftQuiet
            | Timer::StartDue
            | Timer::SessionTurn
            | Timer::Session
            | Timer::Children => {}
        }
    }
    // That a timer stands elsewhere now is nothing that anybody sees.
    before.0.lease_timer_ms = subject.run.lease_timer_ms;
    if (&subject.run, &subject.step) != (&before.0, &before.1) {
        subject.save(txn)?;
    } else if number == step::TRUNK {
        subject.write_run(txn)?;
    }
    Ok(())
}

/// Settles the open pins of a bundle, oldest first, from where the last tick stopped: the row's value is the
/// last pin's key.
#[expect(clippy::too_many_arguments, reason = "one row's parts, read once by the caller")]
fn sweep(
    txn: &mut Txn<'_>,
    agent: u32,
    key: &[u8],
    cursor: &[u8],
    timer: Timer,
    bundle_id: &str,
    due_ms: u64,
    left: u32,
) -> Result<u32, Stop> {
    let Some(record) = bundle::find(txn.read(), agent, bundle_id)? else {
        txn.delete(RowKey::from_slice(key));
        return Ok(1);
    };
    let current = match timer {
        Timer::DrainSoft => record.drain_deadline_ms == due_ms,
        Timer::DrainHard => record.drain_deadline_ms + record.drain_grace_ms == due_ms,
        Timer::RollbackSweep => record.mark.is_some(),
        Timer::RunExpires
        | Timer::RunHardEnd
        | Timer::Backoff
        | Timer::StartBy
        | Timer::AttemptEnd
        | Timer::KeepAlive
        | Timer::CancelBy
        | Timer::Retention
        | Timer::Dedupe
        | Timer::Events
        | Timer::Audit
        | Timer::MemoryTtl
        | Timer::MemoryVersions
        | Timer::LayerDrop
        | Timer::Scratch
        | Timer::DriftQuiet
        | Timer::ChildOver
        | Timer::StartDue
        | Timer::SessionTurn
        | Timer::Session
        | Timer::Children
        | Timer::Wait => false,
    };
    let mut pins = Key::of(Kind::OpenPin, agent).text(bundle_id).range();
    if !cursor.is_empty() {
        pins = pins.after(cursor);
    }
    let rows = if current { txn.scan(&pins, left as usize)? } else { Vec::new() };
    for (pin, _) in &rows {
        let mut parts = Parts::new(pin);
        parts.u32();
        parts.text();
        parts.u64();
        let run_id = parts.last().unwrap_or_default().to_owned();
        settle(txn, agent, &run_id)?;
    }
    match rows.last() {
        Some((last, _)) if rows.len() == left as usize => txn.mark(RowKey::from_slice(key), last),
        Some(_) | None => end_sweep(txn, agent, key, timer, bundle_id)?,
    }
    Ok(u32::try_from(rows.len()).unwrap_or(left).max(1))
}

fn end_sweep(
    txn: &mut Txn<'_>,
    agent: u32,
    key: &[u8],
    timer: Timer,
    bundle_id: &str,
) -> Result<(), Stop> {
    txn.delete(RowKey::from_slice(key));
    if timer == Timer::RollbackSweep
        && let Some(mut record) = bundle::find(txn.read(), agent, bundle_id)?
        && let Some(mark) = &mut record.mark
    {
        mark.sweeping = false;
        bundle::save(txn, agent, &record);
    }
    Ok(())
}

/// Deletes events that are older than they are kept. Answers whether all such are gone.
fn forget_events(txn: &mut Txn<'_>) -> Result<bool, Stop> {
    let before_ms = txn.now.saturating_sub(limits::EVENTS_MS);
    let rows = txn.scan(&event::since(txn.cluster.events_compacted), CHUNK)?;
    let mut old = 0;
    for (key, value) in &rows {
        let event: pinrail_proto::log::EventRecord = crate::txn::decode(key, value)?;
        if event.at_ms >= before_ms {
            break;
        }
        txn.cluster.events_compacted = Parts::new(key).u64().unwrap_or(0);
        txn.delete(RowKey::from_slice(key));
        old += 1;
    }
    if old == CHUNK {
        return Ok(false);
    }
    watch_events(txn);
    Ok(true)
}

/// Sees to it that old events are looked for again.
pub(crate) fn watch_events(txn: &mut Txn<'_>) {
    txn.set_timer(0, txn.now + EVENTS_SWEEP_MS, Timer::Events, &[]);
}

/// How often old events are looked for.
const EVENTS_SWEEP_MS: u64 = 600_000;
