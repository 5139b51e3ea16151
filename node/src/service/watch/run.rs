//! A run's changes.

use std::time::Duration;

use pinrail_proto::{time, v1};
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, Position};
use pinrail_state_machine::store::Read;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::super::Node;
use super::{Answers, Feed, Then, Watched, follow, stirred};

/// The present state of a run, then each change, until its end.
pub(in super::super) async fn run(
    node: Node,
    it: v1::WatchRunRequest,
    timeout: Duration,
) -> Result<Answers<v1::WatchRunResponse>, Status> {
    let seen = it.from_revision;
    follow(node, Run { it, seen }, timeout).await
}

struct Run {
    it: v1::WatchRunRequest,
    seen: u64,
}

impl Watched for Run {
    type Found = v1::WatchRunResponse;
    type Answer = v1::WatchRunResponse;

    fn look(&self, read: &dyn Read) -> Result<v1::WatchRunResponse, Stop> {
        present(read, &self.it)
    }

    fn tell(
        &mut self,
        found: v1::WatchRunResponse,
        at: Position,
    ) -> (Option<v1::WatchRunResponse>, Then) {
        let then = if found.closed { Then::End } else { Then::Wait };
        if found.revision <= self.seen && self.seen != 0 {
            return (None, then);
        }
        self.seen = found.revision.max(1);
        (Some(dated(found, at)), then)
    }

    fn is_concerned(&self, batch: &AppliedBatch) -> bool {
        concerns(batch, &self.it.run_id)
    }
}

/// Waits until something about a run was applied. False: the node ends.
pub(in super::super) async fn changed(feed: &mut Feed, run_id: &str) -> bool {
    stirred(feed, |batch| concerns(batch, run_id)).await
}

fn concerns(batch: &AppliedBatch, run_id: &str) -> bool {
    batch.effects().any(|effect| match effect {
        Effect::StepReady { step, .. }
        | Effect::StepWithdrawn { step, .. }
        | Effect::Leased { step, .. }
        | Effect::LeaseEnded { step, .. }
        | Effect::CancelRequested { step, .. } => step.run_id == run_id,
        Effect::RunClosed { run_id: closed, .. } => closed == run_id,
        Effect::DeadlineSet { .. } | Effect::AgentChanged { .. } => false,
    })
}

/// A run as this node knows it.
pub(in super::super) fn look(
    node: &Node,
    it: &v1::WatchRunRequest,
) -> Result<v1::WatchRunResponse, Status> {
    let (found, at) = node.query_now(|read| present(read, it))?;
    Ok(dated(found, at))
}

fn present(read: &dyn Read, it: &v1::WatchRunRequest) -> Result<v1::WatchRunResponse, Stop> {
    let run = query::run(read, &it.namespace, &it.agent_id, &it.run_id)?;
    let step = query::step(read, &it.namespace, &it.agent_id, &it.run_id, run.steps)?;
    Ok(v1::WatchRunResponse {
        revision: run.revision,
        closed: run.ended_at.is_some(),
        run: Some(run),
        step,
        ..v1::WatchRunResponse::default()
    })
}

fn dated(found: v1::WatchRunResponse, at: Position) -> v1::WatchRunResponse {
    v1::WatchRunResponse { at: time::timestamp(at.now_ms), ..found }
}
