//! All that a checker is given: the history, what the worker processes logged, the faults, and the final read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Entry, EventFinal, MemberLog, Pin, Watched};

/// Everything that a verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// In any order.
    pub history: Vec<Entry>,
    pub worker_log: Vec<WorkerLine>,
    pub faults: Vec<Fault>,
    /// One for each agent, read after everything was healed.
    pub finals: Vec<AgentFinal>,
    /// What those heard who watched.
    #[serde(default)]
    pub watched: Vec<Watched>,
    /// One for each member that kept what it applied; none: nobody did.
    #[serde(default)]
    pub logs: Vec<MemberLog>,
}

/// A line that a worker process wrote before or after it did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLine {
    pub at_us: u64,
    pub worker_id: String,
    /// What the process itself was built from: it knows this without the server.
    pub code: String,
    pub agent: String,
    pub run_id: String,
    pub step: u32,
    pub attempt: u32,
    /// Revision part of the lease's token.
    pub token: u64,
    pub event: WorkerEvent,
}

/// What a worker did with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkerEvent {
    /// It was assigned the step and is about to execute it. Checkpoints: names that the server gave back.
    Began {
        bundle_id: String,
        checkpoints: Vec<String>,
    },
    CheckpointAcked {
        name: String,
        revision: u64,
    },
    /// Written before the request leaves: the write may happen from here on.
    MemoryAsked {
        key: String,
        value: String,
    },
    MemoryAcked {
        key: String,
        value: String,
        revision: u64,
    },
    /// The result was recorded. `mark` names this completion in what it handed on.
    Completed {
        mark: String,
        revision: u64,
        closed: bool,
    },
    Refused {
        call: String,
        reason: String,
    },
    Cancelled {
        lease_lost: bool,
    },
}

/// A fault and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    pub nodes: Vec<usize>,
    pub injected_us: u64,
    /// When the process was seen to be gone or stopped, or its packets dropped; none: the fault never took effect.
    pub effective_us: Option<u64>,
    pub healed_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    KillLeader,
    PauseLeader,
    /// SIGTERM, and an end in order.
    StopLeader,
    KillFollower,
    StopFollower,
    PauseFollower,
    KillAll,
    KillWorker,
    PauseWorker,
    /// The leader and its followers do not hear each other. Clients still reach all of them, here and below.
    PartitionLeader,
    /// The leader does not hear its followers; they hear it.
    PartitionLeaderIn,
    /// The followers do not hear the leader; it hears them.
    PartitionLeaderOut,
    PartitionFollower,
    /// The leader and one follower do not hear each other; the others hear both.
    PartitionBridge,
    /// All members at once: what they had not synced is gone.
    LosePower,
    /// A sync of the leader's files fails.
    FailSync,
    /// Syncs of the leader's files take long.
    SlowSync,
    /// The leader's disk has no more room.
    FillDisk,
    /// The leader's disk takes no more writes.
    ReadOnlyDisk,
    /// The leader has only a part of one processor.
    StarveLeader,
    /// The leader begins anew with a boot clock that is a day ahead.
    SkewClock,
    /// What members send each other takes long.
    SlowNetwork,
    /// Some of what members send each other is lost.
    LossyNetwork,
    /// What members send each other arrives twice, out of order, damaged.
    WildNetwork,
    /// Simulation only, as all below: the disk of one member fails.
    FailDisk,
    Partition,
    LostWrites,
}

/// What a fault needs beside processes of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// To be root.
    Root,
    /// That, and a network namespace for each member.
    Network,
    /// That, with a switch of ours between them.
    Weather,
    /// To be root, and a file system for each member.
    Disk,
}

impl FaultKind {
    /// Whether all members begin anew after it.
    #[must_use]
    pub fn stops_all(self) -> bool {
        matches!(self, Self::KillAll | Self::LostWrites)
    }

    /// Whether the cluster may be without a serving leader because of it.
    #[must_use]
    pub fn stops_leader(self) -> bool {
        match self {
            Self::KillLeader
            | Self::StopLeader
            | Self::PauseLeader
            | Self::KillAll
            | Self::PartitionLeader
            | Self::PartitionLeaderIn
            | Self::PartitionLeaderOut
            | Self::PartitionBridge
            | Self::LosePower
            | Self::FailSync
            | Self::SlowSync
            | Self::FillDisk
            | Self::ReadOnlyDisk
            | Self::StarveLeader
            | Self::SkewClock
            | Self::FailDisk
            | Self::SlowNetwork
            | Self::LossyNetwork
            | Self::WildNetwork
            | Self::Partition
            | Self::LostWrites => true,
            Self::KillFollower
            | Self::StopFollower
            | Self::PauseFollower
            | Self::KillWorker
            | Self::PauseWorker
            | Self::PartitionFollower => false,
        }
    }

    /// What must be there for it.
    #[must_use]
    pub fn needs(self) -> Needs {
        match self {
            Self::PartitionLeader
            | Self::PartitionLeaderIn
            | Self::PartitionLeaderOut
            | Self::PartitionFollower
            | Self::PartitionBridge => Needs::Network,
            Self::LosePower | Self::FillDisk | Self::ReadOnlyDisk => Needs::Disk,
            Self::SlowNetwork | Self::LossyNetwork | Self::WildNetwork => Needs::Weather,
            Self::FailSync | Self::SlowSync | Self::StarveLeader | Self::SkewClock => Needs::Root,
            Self::KillLeader
            | Self::StopLeader
            | Self::StopFollower
            | Self::PauseLeader
            | Self::KillFollower
            | Self::PauseFollower
            | Self::KillAll
            | Self::KillWorker
            | Self::PauseWorker
            | Self::FailDisk
            | Self::Partition
            | Self::LostWrites => Needs::Nothing,
        }
    }
}

/// A time in which no leader served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub from_us: u64,
    pub to_us: u64,
}

impl Evidence {
    /// From a moment to the first write that was asked for after it and acknowledged, in microseconds.
    #[must_use]
    pub fn next_acked_write(&self, since_us: u64) -> Option<u64> {
        let acked =
            self.history.iter().filter(|entry| entry.call.is_write() && entry.ok().is_some());
        let later = acked.filter(|entry| entry.invoked_us >= since_us);
        later.map(|entry| entry.returned_us - since_us).min()
    }

    /// From each fault that stopped a leader to the first write that was asked for and acknowledged after it.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let mut acked: Vec<(u64, u64)> = self
            .history
            .iter()
            .filter(|entry| entry.call.is_write() && entry.ok().is_some())
            .map(|entry| (entry.invoked_us, entry.returned_us))
            .collect();
        acked.sort_unstable();
        self.faults
            .iter()
            .filter(|fault| fault.kind.stops_leader())
            .filter_map(|fault| {
                let from_us = fault.effective_us?;
                let next = acked.iter().filter(|(invoked, _)| *invoked >= from_us);
                let to_us = next.map(|(_, returned)| *returned).min().unwrap_or(u64::MAX);
                Some(Gap { from_us: fault.injected_us, to_us })
            })
            .collect()
    }
}

/// One agent as it was read in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFinal {
    pub agent: String,
    pub live_bundle_id: String,
    pub epoch: u64,
    /// Bundle to the code that its manifest names.
    pub code: BTreeMap<String, String>,
    pub runs: Vec<RunFinal>,
    /// Every version that any layer still sees.
    pub versions: Vec<VersionFinal>,
    /// Layers that could be read.
    pub layers: Vec<u64>,
    pub grace_ms: u64,
    /// Cluster time of the read.
    pub cluster_time_ms: u64,
    /// All that there are, in order.
    #[serde(default)]
    pub events: Vec<EventFinal>,
}

impl AgentFinal {
    /// Runs that were continued, by the id of the run that continues them.
    #[must_use]
    pub fn continued(&self) -> BTreeMap<&str, &RunFinal> {
        let continued = self.runs.iter().filter(|run| !run.continued_to.is_empty());
        continued.map(|run| (run.continued_to.as_str(), run)).collect()
    }
}

/// A run as it was read in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFinal {
    pub run_id: String,
    pub pin: Pin,
    /// Lower-case word: `completed`, `running`, …
    pub state: String,
    pub external: bool,
    pub started_at_ms: u64,
    /// 0: open.
    pub ended_at_ms: u64,
    /// Lower-case word: `drain_cap`, `max_age`, `rollback`, `requested`; empty.
    pub end_reason: String,
    pub restarts: u32,
    /// Of the last change: of the end, when it is over.
    pub revision: u64,
    pub output: String,
    pub steps: Vec<StepFinal>,
    /// The first run of the chain that it continues; empty: it continues none.
    #[serde(default)]
    pub first_run_id: String,
    /// The run that continues it; empty: none does.
    #[serde(default)]
    pub continued_to: String,
}

impl RunFinal {
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended_at_ms != 0
    }

    /// What the run's first step was given.
    #[must_use]
    pub fn input(&self) -> &str {
        self.steps.iter().find(|step| step.number == 1).map_or("", |step| &step.input)
    }
}

/// A step as it was read in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFinal {
    pub number: u32,
    pub name: String,
    pub state: String,
    pub attempt: u32,
    pub bundle_id: String,
    pub input: String,
}

/// A version of a memory key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionFinal {
    pub key: String,
    pub revision: u64,
    pub layer: u64,
    /// None: a tombstone.
    pub value: Option<String>,
    pub run_id: String,
}
