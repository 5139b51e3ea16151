//! What the end of a run, and a score of it, add to the windows.

use pinrail_proto::v1::{EndReason, RunState};

use crate::outcome::Stop;
use crate::run::{Subject, busy_ms, cost_here};
use crate::txn::Txn;

use super::histogram;
use super::window::{change, change_past, is_compared};

/// How a run ended, as far as it says something of its bundle.
enum Way {
    Completed,
    Failed,
    Cancelled,
    /// It goes on as another run.
    Continued,
}

/// Counts the end of a pinned run. A run that was not over at the end of its time has failed its user; one that others
/// ended, or that a route change took, says little of its bundle.
pub(crate) fn ended(
    txn: &mut Txn<'_>,
    subject: &Subject,
    state: RunState,
    reason: EndReason,
) -> Result<(), Stop> {
    let Subject { agent, run, .. } = subject;
    if !is_compared(run.kind()) {
        return Ok(());
    }
    let way = match (state, reason) {
        (RunState::Completed, _) => Way::Completed,
        (RunState::Failed, _) | (RunState::Expired, EndReason::MaxAge | EndReason::KeepAlive) => {
            Way::Failed
        }
        (RunState::Continued, _) => Way::Continued,
        (
            RunState::Expired
            | RunState::Cancelled
            | RunState::Unspecified
            | RunState::Scheduled
            | RunState::Queued
            | RunState::Running
            | RunState::Waiting
            | RunState::Paused
            | RunState::Cancelling,
            _,
        ) => Way::Cancelled,
    };
    let (took_ms, cost_micros) = (busy_ms(run, txn.now), cost_here(run));
    let is_child = !run.parent_run_id.is_empty();
    change(txn, agent, (&run.bundle_id, run.kind()), |slice| {
        slice.cost_micros = slice.cost_micros.saturating_add(cost_micros);
        match way {
            Way::Continued => {}
            Way::Completed | Way::Failed | Way::Cancelled if is_child => {}
            Way::Completed => {
                slice.completed += 1;
                histogram::count(&mut slice.latency, took_ms);
            }
            Way::Failed => {
                slice.failed += 1;
                histogram::count(&mut slice.cut, took_ms);
            }
            Way::Cancelled => {
                slice.cancelled += 1;
                histogram::count(&mut slice.cut, took_ms);
            }
        }
    })
}

/// A score in thousandths, and when it was given.
pub(crate) type Scored = (u32, u64);

/// Counts what a run is worth now, instead of what it was worth while that is in its window.
pub(crate) fn scored(
    txn: &mut Txn<'_>,
    subject: &Subject,
    before: Option<Scored>,
    now: Scored,
) -> Result<(), Stop> {
    let Subject { agent, run, .. } = subject;
    let cohort = (run.bundle_id.as_str(), run.kind());
    if let Some((score, at_ms)) = before {
        change_past(txn, agent, cohort, at_ms, |slice| {
            slice.scored = slice.scored.saturating_sub(1);
            slice.score_sum_permille = slice.score_sum_permille.saturating_sub(u64::from(score));
        })?;
    }
    change(txn, agent, cohort, |slice| {
        slice.scored += 1;
        slice.score_sum_permille += u64::from(now.0);
    })
}
