//! What a leader has to do about a command that was applied. Followers drop it.
//!
//! Effects carry no decision: the state has changed already. A leader that lost some rebuilds its queues from
//! the state (`query::dispatch`).

use pinrail_proto::log::Token;
use pinrail_proto::v1::EndReason;

/// Names a step by the agent's number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    pub agent: u32,
    pub run_id: String,
    pub step: u32,
}

/// What decides when the turn of a waiting step comes, and who is asked first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rank {
    /// 1 first to 5 last.
    pub priority: u32,
    /// Steps of one key take turns with those of others. Never empty: a run without one is its own key.
    pub key: String,
    /// The worker that had the run before; empty: nobody. It has the step first while it has a free slot.
    pub prefers: String,
    /// The run is a shadow: only workers that are shadow-safe can have it.
    pub shadow: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A step waits for a worker of `bundle_id` that serves steps of this `name`; `attempt` is the one to start.
    StepReady {
        step: StepId,
        bundle_id: String,
        name: String,
        attempt: u32,
        ready_revision: u64,
        rank: Rank,
    },
    /// A step waits no longer without having been leased: its run ended, or the agent was paused.
    StepWithdrawn { step: StepId, bundle_id: String },
    /// A worker got a step.
    Leased {
        step: StepId,
        bundle_id: String,
        attempt: u32,
        token: Token,
        worker_id: String,
        lease_ms: u64,
        rank: Rank,
    },
    /// A lease is over, whatever the reason; the worker's slot is free.
    LeaseEnded { step: StepId, token: Token, worker_id: String },
    /// The holder should stop within `grace_ms`; its result is accepted until then.
    CancelRequested {
        step: StepId,
        token: Token,
        worker_id: String,
        reason: EndReason,
        grace_ms: u64,
    },
    /// Waiters for its result can be told.
    RunClosed { agent: u32, run_id: String },
    /// Something of this agent is due at `due_ms`: the sweep should look then.
    DeadlineSet { agent: u32, due_ms: u64 },
    /// Route, pause or policy changed: cached views of the agent are stale.
    AgentChanged { agent: u32 },
}
