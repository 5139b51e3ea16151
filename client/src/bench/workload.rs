//! What can be measured.

use pinrail_proto::v1;

/// One kind of operation. Inputs and values have 256 bytes, ids and keys are new each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// A run is started if absent.
    Start,
    /// A value is put into memory.
    Put,
    /// The pin of a run is read linearizably.
    Read,
    /// The pin of a run is looked up in one member's state.
    Lookup,
    /// The pin of a run is looked up in what this process keeps of them.
    Cached,
    /// A value of memory is read linearizably.
    Get,
    /// A step is completed.
    Step,
    /// A run of one step is started and its result waited for.
    Run,
    /// A run of ten steps is started and its result waited for.
    Chain,
    /// A key of memory is written again and again, and each client is a watcher: a write is seen by one of them.
    Watch,
    /// A worker has a step that is ready.
    Dispatch,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 11] = [
        Workload::Start,
        Workload::Put,
        Workload::Read,
        Workload::Lookup,
        Workload::Cached,
        Workload::Get,
        Workload::Step,
        Workload::Run,
        Workload::Chain,
        Workload::Watch,
        Workload::Dispatch,
    ];

    /// What is measured where none is named: one of each kind.
    pub const USUAL: [Workload; 7] = [
        Workload::Start,
        Workload::Put,
        Workload::Read,
        Workload::Lookup,
        Workload::Get,
        Workload::Step,
        Workload::Run,
    ];

    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Workload::Start => "start",
            Workload::Put => "put",
            Workload::Read => "read",
            Workload::Lookup => "lookup",
            Workload::Cached => "cached",
            Workload::Get => "get",
            Workload::Step => "step",
            Workload::Run => "run",
            Workload::Chain => "chain",
            Workload::Watch => "watch",
            Workload::Dispatch => "dispatch",
        }
    }

    /// What one operation is.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Workload::Start => "start a run if absent; it is executed elsewhere, so no step waits",
            Workload::Put => "put a value into memory under a new key",
            Workload::Read => "read the pin of a run, linearizably",
            Workload::Lookup => "look up the pin of a run in the state of the member that is asked",
            Workload::Cached => "look up the pin of a run where a router keeps it",
            Workload::Get => "get a value of memory, linearizably",
            Workload::Step => "complete a step: runs of ten, and workers in this process",
            Workload::Run => "start a run of one step and wait for its result",
            Workload::Chain => "start a run of ten steps and wait for its result",
            Workload::Watch => "see a write: each client watches the key that is written",
            Workload::Dispatch => "get a step that is ready to a worker: nothing else is under way",
        }
    }

    /// Whether each operation follows another one, so that they cannot be asked for at a rate.
    #[must_use]
    pub fn is_chained(self) -> bool {
        matches!(self, Workload::Step | Workload::Dispatch)
    }

    /// Who executes the runs. A run that workers execute has a pin that may move, so that reading it takes a quorum; the
    /// pin of another one is the same for ever, and any member's state has it.
    #[must_use]
    pub fn execution(self) -> v1::Execution {
        match self {
            Workload::Start
            | Workload::Put
            | Workload::Lookup
            | Workload::Cached
            | Workload::Get
            | Workload::Watch => v1::Execution::External,
            Workload::Read
            | Workload::Step
            | Workload::Run
            | Workload::Chain
            | Workload::Dispatch => v1::Execution::Workers,
        }
    }
}
