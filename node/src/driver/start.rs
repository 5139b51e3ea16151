//! Starts that find a worker waiting: the worker is added to the command that starts the run, which leases it the first
//! step at once.
//!
//! Its slot is taken while the command is under way. It comes back when apply found otherwise: another bundle, a pause, a
//! start that was there before. Nothing depends on the guess.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_state_machine::effect::StepId;
use pinrail_state_machine::query::{self, FirstStep};
use prost::Message as _;
use tokio::time::Instant;

use super::desk::Assigned;
use super::dispatch::{load_gate, settle};
use super::queues::{Match, Waiting};
use super::{Dispatch, Inner};
use crate::raft::{Added, Adder};

/// What the driver adds to callers' commands. It does not keep the driver alive.
pub(super) fn adder(driver: Weak<Inner>) -> Adder {
    Arc::new(move |command: &Bytes| add(&Dispatch { inner: driver.upgrade()? }, command))
}

fn add(dispatch: &Dispatch, command: &Bytes) -> Option<Added> {
    if !dispatch.with_desk(|desk| desk.queues.has_idle())? {
        return None;
    }
    let mut asked = log::Command::decode(command.clone()).ok()?;
    let dry_run = asked.header.as_ref().is_some_and(|header| header.dry_run);
    let Some(Kind::StartRun(start)) = asked.kind.as_mut().filter(|_| !dry_run) else { return None };
    let replica = &dispatch.inner.replica;
    let first = replica.read(|read| query::first_step(read, start)).ok()??;
    let coming = waiting(first, &start.run_id);
    let (taken, worker_id) = dispatch.with_desk(|desk| {
        let taken = desk
            .reserve(coming, Instant::now(), |agent, bundle| load_gate(dispatch, agent, bundle))?;
        let worker_id = desk.intro(taken.session)?.worker_id.clone();
        Some((taken, worker_id))
    })??;
    let bundle_id = taken.waiting.bundle_id.clone();
    start.lease_first = Some(log::Taker { worker_id, bundle_id, ..log::Taker::default() });
    let command = Bytes::from(pinrail_proto::encode(&asked));
    let dispatch = dispatch.clone();
    Some(Added { command, heard: Box::new(move |outcome| heard(&dispatch, taken, outcome)) })
}

fn waiting(first: FirstStep, run_id: &str) -> Waiting {
    let FirstStep { agent, bundle_id, name, rank } = first;
    let step = StepId { agent, run_id: run_id.to_owned(), step: 1 };
    let since = Instant::now();
    Waiting { step, bundle_id, name, attempt: 1, ready_revision: 0, rank, since }
}

/// The step is the worker's, or the worker has its slot again and the step waits if there is one.
fn heard(dispatch: &Dispatch, taken: Match, outcome: Option<&log::Outcome>) {
    let became = outcome.map_or(Assigned::Gone, became);
    settle(dispatch, std::iter::once((taken, became)));
    dispatch.inner.assign.notify_one();
}

fn became(outcome: &log::Outcome) -> Assigned {
    match &outcome.result {
        Some(Answer::StartRun(started)) => {
            // An answer that was kept for its request id tells of a lease of then.
            let leased = started.token.filter(|token| token.revision == outcome.revision);
            leased.map_or(Assigned::Gone, |token| Assigned::Leased((&token).into()))
        }
        // Refused. No other answer belongs to a start.
        Some(_) | None => Assigned::Gone,
    }
}
