//! What was asked and what came back: one entry an attempt, written as JSON lines.
//!
//! Both engines, real processes and the simulation, write this format, and one checker judges both. Times are
//! microseconds of one monotonic clock that all processes of the machine share (in a simulation: simulated time).
//! It knows nothing of connections or of any rule of the system.

mod evidence;
mod member_log;
mod recorder;
mod watched;

use serde::{Deserialize, Serialize};

pub use evidence::{
    AgentFinal, Evidence, Fault, FaultKind, Gap, Needs, RunFinal, StepFinal, VersionFinal,
    WorkerEvent, WorkerLine,
};
pub use member_log::{Logged, LoggedCommand, MemberLog};
pub use recorder::{Recorder, Wait};
pub use watched::{EventFinal, Watched, chain};

/// One attempt of one operation at one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub client: u32,
    /// The node that was asked, by its place in the list of members.
    pub node: usize,
    /// Attempts of one operation share it.
    pub operation: u64,
    /// Empty for reads and for calls whose id is the run's.
    pub request_id: String,
    pub invoked_us: u64,
    pub returned_us: u64,
    pub agent: String,
    pub call: Call,
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    StartRun {
        run_id: String,
        input: String,
        /// Empty: the route decides.
        bundle_id: String,
    },
    /// Ends an external run with this output.
    FinishRun {
        run_id: String,
        output: String,
    },
    CancelRun {
        run_id: String,
    },
    LookupPin {
        run_id: String,
    },
    ResolveRoute {
        local: bool,
    },
    /// The agent's route as it is stored.
    ReadRoute,
    Switch {
        bundle_id: String,
    },
    Rollback {
        from_bundle_id: String,
        in_flight: InFlight,
    },
    /// No value: a delete.
    PutMemory {
        scope: Scope,
        key: String,
        value: Option<String>,
        expected: Option<u64>,
    },
    GetMemory {
        scope: Scope,
        key: String,
        /// 0: the latest.
        at_revision: u64,
        local: bool,
    },
    GetDrain {
        bundle_id: String,
        local: bool,
    },
}

/// Whose memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The newest layer of a bundle; empty: of the live one.
    Bundle(String),
    Run(String),
    Layer(u64),
}

/// What a rollback does with open runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InFlight {
    Keep,
    Cancel,
    Restart,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Ok {
        revision: u64,
        answer: Answer,
    },
    /// A definite no: nothing was changed.
    Rejected {
        reason: String,
        message: String,
    },
    /// Nobody knows: a write may have happened.
    Unknown {
        why: String,
    },
}

/// What a call that succeeded said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Started {
        pin: Pin,
        already: bool,
    },
    Ended {
        state: String,
        already: bool,
    },
    Pinned {
        pin: Pin,
        open: bool,
    },
    Route {
        bundle_id: String,
        epoch: u64,
        /// Of the last change; 0 where the call does not say it.
        changed_revision: u64,
    },
    Moved {
        from: String,
        to: String,
        epoch: u64,
        already: bool,
        /// Of the bundle that lost its traffic; 0: none did.
        drain_deadline_ms: u64,
        drained_by_ms: u64,
    },
    Wrote {
        key_revision: u64,
        layer: u64,
    },
    Deleted {
        deleted: bool,
    },
    Read {
        version: Option<Version>,
        layer: u64,
    },
    Drain {
        /// Open pins by the server's count.
        open: u64,
        deadline_ms: u64,
        drained_by_ms: u64,
        over: bool,
        cluster_time_ms: u64,
    },
}

/// The pin of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub bundle_id: String,
    pub layer: u64,
    pub epoch: u64,
    /// Of the command that made the pin.
    pub revision: u64,
    pub expires_at_ms: u64,
}

/// A version of a memory key, as a read saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub value: String,
    pub revision: u64,
    pub layer: u64,
}

impl Call {
    /// Whether the call may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Self::StartRun { .. }
            | Self::FinishRun { .. }
            | Self::CancelRun { .. }
            | Self::Switch { .. }
            | Self::Rollback { .. }
            | Self::PutMemory { .. } => true,
            Self::LookupPin { .. }
            | Self::ResolveRoute { .. }
            | Self::ReadRoute
            | Self::GetMemory { .. }
            | Self::GetDrain { .. } => false,
        }
    }

    /// Whether the answer must see every write that was acknowledged before the call. The pin of a run that
    /// cannot move may be answered from older state: it never changes.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        match self {
            Self::ResolveRoute { local }
            | Self::GetMemory { local, .. }
            | Self::GetDrain { local, .. } => !local,
            Self::LookupPin { .. } => false,
            Self::StartRun { .. }
            | Self::FinishRun { .. }
            | Self::CancelRun { .. }
            | Self::ReadRoute
            | Self::Switch { .. }
            | Self::Rollback { .. }
            | Self::PutMemory { .. } => true,
        }
    }

    /// The verb, for tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::StartRun { .. } => "start run",
            Self::FinishRun { .. } => "finish run",
            Self::CancelRun { .. } => "cancel run",
            Self::LookupPin { .. } => "look up pin",
            Self::ResolveRoute { .. } => "resolve route",
            Self::ReadRoute => "read route",
            Self::Switch { .. } => "switch",
            Self::Rollback { .. } => "roll back",
            Self::PutMemory { value: Some(_), .. } => "put memory",
            Self::PutMemory { value: None, .. } => "delete memory",
            Self::GetMemory { .. } => "get memory",
            Self::GetDrain { .. } => "get drain",
        }
    }
}

impl Entry {
    /// The answer and its revision, when there is one.
    #[must_use]
    pub fn ok(&self) -> Option<(u64, &Answer)> {
        match &self.outcome {
            Outcome::Ok { revision, answer } => Some((*revision, answer)),
            Outcome::Rejected { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// Whether this attempt may have changed something.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match &self.outcome {
            Outcome::Ok { .. } => true,
            Outcome::Unknown { .. } => self.call.is_write(),
            Outcome::Rejected { .. } => false,
        }
    }
}
