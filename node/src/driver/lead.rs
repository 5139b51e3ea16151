//! Starts the leader's work when this node begins to lead, and ends it when it leads no more.
//!
//! ```text
//!   not leading ──here──> subscribe to effects, rebuild the desk, run the loops ──not here, or another term──┐
//!        ^───────────────── end the loops, end all worker streams, forget the desk ──────────────────────────┘
//! ```
//! The feed is subscribed to before the state is read, so nothing is missed between the two. Effects that the read has
//! seen already are skipped; those that were lost make it read again.

use std::sync::Arc;

use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::mutant::{Mutant, is_planted};
use pinrail_state_machine::query;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use super::desk::Desk;
use super::lease::Lease;
use super::queues::Waiting;
use super::session::SessionEnd;
use super::{
    Dispatch, dispatch as assigning, drift, drill, expiry, hooks, metrics, release, sweep,
};
use crate::raft::{AppliedBatch, ReadError};

/// Rows that one look at the state takes; then others have their turn.
const PAGE: usize = 1_000;
/// After the state could not be read.
const RETRY: Duration = Duration::from_millis(200);

/// Follows the leadership until the node ends.
pub(super) async fn run(dispatch: Dispatch) {
    let stop = dispatch.inner.stop.clone();
    let mut leadership = dispatch.inner.replica.leadership();
    while !stop.is_cancelled() {
        let now = leadership.borrow_and_update().clone();
        if !now.here {
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            continue;
        }
        tracing::info!(term = now.term, "this node leads: it hands out work");
        let mut tasks = begin(&dispatch, now.term);
        let over = leadership.wait_for(|seen| !seen.here || seen.term != now.term);
        tokio::select! {
            _ = over => {}
            () = stop.cancelled() => {}
        }
        tasks.shutdown().await;
        end(&dispatch);
    }
}

fn begin(dispatch: &Dispatch, term: u64) -> JoinSet<()> {
    let feed = dispatch.inner.replica.feed();
    *dispatch.inner.desk.lock() = Some(Desk::for_term(term));
    let mut tasks = JoinSet::new();
    tasks.spawn(attend(dispatch.clone(), feed));
    tasks.spawn(assigning::run(dispatch.clone()));
    tasks.spawn(expiry::run(dispatch.clone()));
    tasks.spawn(sweep::run(dispatch.clone()));
    tasks.spawn(drift::run(dispatch.clone()));
    tasks.spawn(metrics::run(dispatch.clone()));
    tasks.spawn(release::run(dispatch.clone(), dispatch.inner.replica.feed()));
    tasks.spawn(hooks::run(dispatch.clone()));
    tasks.spawn(drill::run(dispatch.clone(), dispatch.inner.replica.feed()));
    tasks
}

fn end(dispatch: &Dispatch) {
    let desk = dispatch.inner.desk.lock().take();
    if let Some(mut desk) = desk {
        desk.close_all(&SessionEnd::NotLeader);
    }
    metrics::forget();
    hooks::metrics::forget();
    tracing::info!("this node leads no more: it hands out no work");
}

/// Reads the state once and takes in every effect from there on.
async fn attend(dispatch: Dispatch, mut feed: broadcast::Receiver<Arc<AppliedBatch>>) {
    loop {
        let seen = match rebuild(&dispatch).await {
            Ok(revision) => revision,
            Err(error) => {
                tracing::warn!(%error, "what waits cannot be read");
                sleep(RETRY).await;
                continue;
            }
        };
        loop {
            match feed.recv().await {
                Ok(batch) if batch.revision <= seen => {}
                Ok(batch) => take_in(&dispatch, &batch),
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "effects were lost; everything is read again");
                    break;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn take_in(dispatch: &Dispatch, batch: &AppliedBatch) {
    let now = Instant::now();
    let (mut assign, mut sweep, mut drift) = (false, false, false);
    dispatch.with_desk(|desk| {
        for effect in batch.effects() {
            let wake = desk.effect(effect, now);
            assign |= wake.assign;
            sweep |= wake.sweep;
            drift |= wake.drift;
        }
        desk.seen(batch.revision);
    });
    let mut closed: Vec<(u32, &str)> = Vec::new();
    for effect in batch.effects() {
        match effect {
            Effect::RunClosed { agent, run_id } => closed.push((*agent, run_id.as_str())),
            Effect::AgentChanged { agent } => dispatch.inner.hooks.changed(*agent),
            Effect::StepReady { .. }
            | Effect::StepWithdrawn { .. }
            | Effect::Leased { .. }
            | Effect::LeaseEnded { .. }
            | Effect::CancelRequested { .. }
            | Effect::DeadlineSet { .. } => {}
        }
    }
    if !closed.is_empty() {
        metrics::runs_closed(dispatch, &closed);
    }
    if assign {
        dispatch.inner.assign.notify_one();
    }
    if sweep {
        dispatch.inner.sweep.notify_one();
    }
    if drift {
        dispatch.inner.drift.notify_one();
    }
}

/// Reads what waits, what is leased and what is due. The revision that it has seen at least.
async fn rebuild(dispatch: &Dispatch) -> Result<u64, ReadError> {
    let replica = &dispatch.inner.replica;
    let began = Instant::now();
    let seen = replica.read(query::position)?.revision;
    let Some(before) = dispatch.with_desk(Desk::forget_state) else { return Ok(seen) };
    let (mut ready, mut after) = (0, None::<RowKey>);
    loop {
        let page =
            replica.read(|read| query::dispatch::ready_steps(read, after.as_deref(), PAGE))?;
        after = page.last().map(|row| row.key.clone());
        ready += page.len();
        let full = page.len() == PAGE;
        dispatch.with_desk(|desk| {
            for row in page {
                desk.queues.ready(Waiting {
                    step: row.step,
                    bundle_id: row.bundle_id,
                    name: row.name,
                    attempt: row.attempt,
                    ready_revision: row.ready_revision,
                    rank: row.rank,
                    since: began,
                });
            }
        });
        if !full {
            break;
        }
        tokio::task::yield_now().await;
    }
    after = None;
    loop {
        let page =
            replica.read(|read| query::dispatch::leased_steps(read, after.as_deref(), PAGE))?;
        after = page.last().map(|row| row.key.clone());
        let full = page.len() == PAGE;
        let now = Instant::now();
        dispatch.with_desk(|desk| {
            for row in page {
                let ttl = Duration::from_millis(row.lease_ms);
                desk.inherited(
                    (&row.token).into(),
                    Lease::new(&row.step, &row.bundle_id, &row.worker_id, &row.rank, ttl, now),
                );
            }
        });
        if !full {
            break;
        }
        tokio::task::yield_now().await;
    }
    let due = match is_planted(Mutant::ForgetsDeadlines) {
        true => Vec::new(),
        false => replica.read(query::dispatch::next_deadlines)?,
    };
    let leases = dispatch.with_desk(|desk| {
        due.iter().for_each(|(agent, due_ms)| desk.set_due(*agent, *due_ms));
        desk.remember(&before);
        desk.seen(seen);
        desk.leases.len()
    });
    tracing::info!(ready, leases, agents = due.len(), took = ?began.elapsed(), "work was read");
    dispatch.inner.assign.notify_one();
    dispatch.inner.sweep.notify_one();
    // Changes that this look has seen come by no effect any more.
    dispatch.inner.hooks.changed_somewhere();
    Ok(seen)
}
