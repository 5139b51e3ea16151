//! The rows of a lease: the mark by which a new leader finds it, and the timer of the attempt's end.
//!
//! A trunk goes from a step to the next in one command, so its rows stand: one mark, and one timer that is never later than the end
//! of the attempt and is set anew when it comes. A step of a branch has rows of its own, as every step had before level 6.

use pinrail_proto::log::{RunRecord, StepRecord};
use pinrail_proto::v1::StepState;

use crate::key::{Key, Kind, RowKey, Timer};
use crate::level;
use crate::outcome::Stop;
use crate::run::Subject;
use crate::txn::Txn;

use super::fail::attempt_over;
use super::object;
use super::queue::clear_timer;

/// In place of a step's number: whichever step of the trunk is leased.
pub(crate) const TRUNK: u32 = 0;

/// Puts the rows of a lease that is handed out.
pub(super) fn put(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord, step: &mut StepRecord) {
    let stands = step.join == 0 && txn.cluster.feature_level >= level::LEASES_STAND;
    if !stands {
        step.timer_ms = step.attempt_deadline_ms;
        let object = object(&run.run_id, step.number);
        txn.set_timer(agent, step.timer_ms, Timer::AttemptEnd, &object);
        return txn.mark(mark(agent, &run.run_id, step.number), &[]);
    }
    step.timer_ms = 0;
    set_timer(txn, agent, run, step.attempt_deadline_ms);
    txn.mark_again(mark(agent, &run.run_id, TRUNK));
}

/// Takes the rows of a lease away, but for a timer that stands.
pub(super) fn take(txn: &mut Txn<'_>, agent: u32, run: &RunRecord, step: &mut StepRecord) {
    if stands(step) {
        return txn.unmark(mark(agent, &run.run_id, TRUNK));
    }
    txn.delete(mark(agent, &run.run_id, step.number));
    clear_timer(txn, agent, &run.run_id, step, Timer::AttemptEnd);
}

/// Whether a leased step's rows are those of its trunk: it has no timer of its own.
pub(crate) fn stands(step: &StepRecord) -> bool {
    step.timer_ms == 0
}

/// No step of the trunk is leased, or will be soon.
pub(super) fn clear(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord) {
    if run.lease_timer_ms != 0 {
        let object = object(&run.run_id, TRUNK);
        txn.clear_timer(agent, run.lease_timer_ms, Timer::AttemptEnd, &object);
        run.lease_timer_ms = 0;
    }
}

/// An attempt's timer has come and its row is gone: the attempt is over, or, where the timer stood, its end is later.
pub(crate) fn over(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    attempt_over(txn, subject)?;
    let Subject { agent, run, step: Some(step), .. } = subject else { return Ok(()) };
    if step.state() == StepState::Leased && stands(step) {
        set_timer(txn, agent.number, run, step.attempt_deadline_ms);
    }
    Ok(())
}

/// Sees to it that a timer comes at this time or before.
fn set_timer(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord, by_ms: u64) {
    if run.lease_timer_ms != 0 && run.lease_timer_ms <= by_ms {
        return;
    }
    clear(txn, agent, run);
    run.lease_timer_ms = by_ms;
    txn.set_timer(agent, by_ms, Timer::AttemptEnd, &object(&run.run_id, TRUNK));
}

fn mark(agent: u32, run_id: &str, number: u32) -> RowKey {
    Key::of(Kind::Leased, agent).text(run_id).u32(number).build()
}
