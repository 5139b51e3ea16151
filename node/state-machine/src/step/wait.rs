//! Waits: a step that is open and that nobody may have until a signal has come or a time is over. It holds no lease
//! and is in no queue. What ended the wait is a row of its own, so that every attempt is told the same.

use pinrail_proto::log::{SignalRecord, StepRecord, WaitStep, WokenRecord};
use pinrail_proto::v1::{Payload, StepState};
use pinrail_proto::{id, limits, reason};

use crate::key::{Key, Kind, RowKey, Timer};
use crate::outcome::{Stop, reject};
use crate::run::{Subject, is_over};
use crate::txn::{Txn, decode};

use super::fan_out::open_steps;
use super::object;
use super::queue::{clear_timer, enqueue};
use super::state::turn;

pub(super) fn check(it: &WaitStep) -> Result<(), Stop> {
    if it.signal.is_empty() && it.timeout_ms.is_none() {
        let message = "a wait names a signal or a time: nothing would end it";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    if it.signal.is_empty() {
        return Ok(());
    }
    id::check_name("signal", &it.signal)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))
}

/// Lets the step that was just opened wait. False: what it would wait for is there already, and it may go on.
pub(super) fn begin(txn: &mut Txn<'_>, subject: &mut Subject, it: &WaitStep) -> Result<bool, Stop> {
    if let Some(step) = &mut subject.step {
        step.wait_signal.clone_from(&it.signal);
    }
    if let Some(value) = take_pending(txn, subject, &it.signal)? {
        wake(txn, subject, &it.signal, value);
        return Ok(false);
    }
    if it.timeout_ms == Some(0) {
        wake(txn, subject, "", None);
        return Ok(false);
    }
    let agent = subject.agent.number;
    let Subject { run, step: Some(step), .. } = subject else { return Ok(false) };
    turn(txn, agent, run, step, StepState::Waiting);
    if let Some(timeout_ms) = it.timeout_ms {
        step.timer_ms = txn.now + timeout_ms.min(limits::MAX_AGE_MS);
        txn.set_timer(agent, step.timer_ms, Timer::Wait, &object(&run.run_id, step.number));
    }
    Ok(true)
}

/// The oldest signal of this name that came before its wait: its value is taken out of what is kept.
#[expect(clippy::option_option, reason = "a signal may have come without a value")]
fn take_pending(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    name: &str,
) -> Result<Option<Option<Payload>>, Stop> {
    if name.is_empty() || subject.run.pending_signals == 0 {
        return Ok(None);
    }
    let of_name = Key::of(Kind::Signal, subject.agent.number).text(&subject.run.run_id).text(name);
    let oldest = txn.scan(&of_name.range(), 1)?;
    let Some((key, value)) = oldest.first() else { return Ok(None) };
    let record: SignalRecord = decode(key, value)?;
    txn.delete(RowKey::from_slice(key));
    subject.run.pending_signals -= 1;
    Ok(Some(record.value))
}

/// Notes what ended the wait of the open step. The caller lets it go on.
fn wake(txn: &mut Txn<'_>, subject: &mut Subject, signal: &str, value: Option<Payload>) {
    if let Some(step) = &mut subject.step {
        step.woken = step.in_run;
    }
    let number = subject.step.as_ref().map_or(0, |step| step.number);
    let row = woken_key(subject.agent.number, &subject.run.run_id, number);
    let at_ms = txn.now;
    txn.put(
        row,
        &WokenRecord { signal: signal.to_owned(), value, at_ms, ..WokenRecord::default() },
    );
}

/// The child that the step waits for is over, as its row says: the step goes on. Nothing happens when it does not wait
/// for it any more.
pub(crate) fn child_over(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let Some(step) = &subject.step else { return Ok(()) };
    let row = woken_key(subject.agent.number, &subject.run.run_id, step.number);
    let waits = step.state() == StepState::Waiting && !step.wait_child.is_empty() && !step.held;
    if !waits || !txn.exists(&row)? || is_over(subject.run.state()) {
        return Ok(());
    }
    go_on(txn, subject)
}

pub(crate) fn woken_key(agent: u32, run_id: &str, step: u32) -> RowKey {
    Key::of(Kind::Woken, agent).text(run_id).u32(step).build()
}

/// The time of a wait is over: the step goes on without its signal. Nothing happens when it is not.
pub(crate) fn over(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let now = txn.now;
    let is_due = subject.step.as_ref().is_some_and(|step| {
        step.state() == StepState::Waiting && step.timer_ms != 0 && step.timer_ms <= now
    });
    if !is_due || is_over(subject.run.state()) {
        return Ok(());
    }
    wake(txn, subject, "", None);
    go_on(txn, subject)
}

/// Gives a signal to the open step that waits for it, the first if several do, and not to one whose time is over. False:
/// none does.
pub(crate) fn deliver(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    name: &str,
    value: Option<&Payload>,
) -> Result<bool, Stop> {
    let now = txn.now;
    let waits = |step: &StepRecord| {
        step.state() == StepState::Waiting
            && step.wait_signal == name
            && !step.held
            && (step.timer_ms == 0 || now < step.timer_ms)
    };
    let Some(step) = open_steps(txn, subject)?.into_iter().find(|step| waits(step)) else {
        return Ok(false);
    };
    subject.go_on_with(txn, step);
    wake(txn, subject, name, value.cloned());
    go_on(txn, subject)?;
    Ok(true)
}

fn go_on(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let Subject { agent, run, step: Some(step), .. } = subject else { return Ok(()) };
    clear_timer(txn, agent.number, &run.run_id, step, Timer::Wait);
    enqueue(txn, subject)
}

/// Bytes of the signals that nothing waited for yet; at most a thousand rows.
pub(crate) fn pending_bytes(txn: &Txn<'_>, subject: &Subject) -> Result<u64, Stop> {
    let of_run = Key::of(Kind::Signal, subject.agent.number).text(&subject.run.run_id);
    let mut bytes = 0;
    for (key, value) in txn.scan(&of_run.range(), limits::PENDING_SIGNALS as usize)? {
        let record: SignalRecord = decode(&key, &value)?;
        bytes += record.value.map_or(0, |value| value.data.len() as u64);
    }
    Ok(bytes)
}
