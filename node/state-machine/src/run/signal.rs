//! Signals: something that a run waits for is told from outside. One that comes early is kept, in order.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{RunResult, SignalRecord, SignalRun};
use pinrail_proto::{id, limits, reason};

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event, step};

use super::{Subject, is_over, settle};

pub(crate) fn signal(txn: &mut Txn<'_>, it: &SignalRun) -> Result<Answer, Stop> {
    id::check_name("signal", &it.name)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    let size = it.value.as_ref().map_or(0, |value| value.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large("signal bytes", size, limits::PAYLOAD_BYTES));
    }
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    agent::expect_revision(txn, subject.run.revision)?;
    if subject.run.external {
        let message = "an external run waits for nothing here: tell its own program";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    settle(txn, &mut subject)?;
    step::catch_up(txn, &mut subject)?;
    if is_over(subject.run.state()) {
        let message = format!("run {:?} is over", it.run_id);
        return Err(
            reject(reason::RUN_CLOSED, message).with("state", subject.run.state().as_str_name())
        );
    }
    take_room(&mut subject, size as u64)?;
    let delivered = step::deliver(txn, &mut subject, &it.name, it.value.as_ref())?;
    if !delivered {
        keep(txn, &mut subject, it)?;
    }
    subject.save(txn)?;
    let told = event::of_run("run.signalled", &agent, &subject.run.bundle_id, &it.run_id);
    txn.event(told.with("signal", &it.name));
    let state = subject.run.state;
    Ok(Answer::Run(RunResult { state, already: false, keep_until_ms: 0, delivered }))
}

/// Counts bytes that the run stores, up to the limit.
pub(crate) fn take_room(subject: &mut Subject, bytes: u64) -> Result<(), Stop> {
    let stored = subject.run.stored_bytes + bytes;
    if stored > limits::RUN_STORED_BYTES {
        let message = format!("the run would store {stored} bytes");
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::RUN_STORED_BYTES));
    }
    subject.run.stored_bytes = stored;
    Ok(())
}

/// Keeps a signal until a step waits for it. Its revision is its place among those of its name.
fn keep(txn: &mut Txn<'_>, subject: &mut Subject, it: &SignalRun) -> Result<(), Stop> {
    if subject.run.pending_signals >= limits::PENDING_SIGNALS {
        let message =
            format!("{} signals of the run wait to be taken", subject.run.pending_signals);
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::PENDING_SIGNALS));
    }
    subject.run.pending_signals += 1;
    let row = Key::of(Kind::Signal, subject.agent.number)
        .text(&it.run_id)
        .text(&it.name)
        .u64(txn.revision)
        .build();
    txn.put(row, &SignalRecord { value: it.value.clone(), at_ms: txn.now });
    Ok(())
}
