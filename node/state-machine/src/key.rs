//! The catalogue of keys: what the store holds, in which order. One byte of kind, then the agent's number, so
//! that all of an agent is found in a few ranges. Numbers are persisted and never used for anything else again.
//!
//! Texts that something follows end in a zero byte; no id may hold one (`pinrail_proto::id`). Numbers are
//! big-endian, so that their order is the keys' order.

pub use crate::row_key::RowKey;
use crate::store::KeyRange;

/// Every kind of row. The value of each is the record of `log/v1/record.proto` named beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// `()` → `ClusterRecord`. Changed by every command.
    Cluster = 0x01,
    /// `namespace` → `NamespaceRecord`.
    Namespace = 0x02,
    /// `namespace\0 agent` → the agent's number, 4 bytes.
    AgentName = 0x03,
    /// `agent hash (8 hex)` `number` → empty: run ids of our libraries lead to their agent.
    AgentHash = 0x04,
    /// `node id` → `GivenUpRecord`: members that never take part again.
    GivenUp = 0x05,
    /// `agent#` → `AgentRecord`.
    Agent = 0x10,
    /// `agent#` → `PolicyRecord`.
    Policy = 0x11,
    /// `agent# bundle` → `BundleRecord`. Changes.
    Bundle = 0x12,
    /// `agent# bundle` → `BundleManifestRecord`. Written once.
    BundleManifest = 0x13,
    /// `agent# bundle` → `BundleStepsRecord`. Written once.
    BundleSteps = 0x14,
    /// `agent# part\0 name\0 version` → `PartSeenRecord`. Written once.
    PartSeen = 0x15,
    /// `agent# run` → `RunRecord`, with the `StepRecord` of its trunk while that is open.
    Run = 0x20,
    /// `agent# run` → `Payload`. Written once.
    RunInput = 0x21,
    /// `agent# run` → `Payload`. Written once.
    RunOutput = 0x22,
    /// `agent# run\0 step#` → `StepRecord`: steps that are closed, and those of branches.
    Step = 0x23,
    /// `agent# run\0 step#` → `Payload`. Written once; step 1 has the run's input instead, and one that a step made alone has that
    /// step's result.
    StepInput = 0x24,
    /// `agent# run\0 step#` → `Payload`. Written once.
    StepOutput = 0x25,
    /// `agent# run\0 step# name` → `CheckpointRecord`. Written once.
    Checkpoint = 0x26,
    /// `agent# bundle\0 pinned_ms run` → `PinRecord`: the open pins of a bundle, oldest first.
    OpenPin = 0x28,
    /// `agent# state bundle\0 started_ms run` → empty: runs by state, for lists.
    RunByState = 0x29,
    /// `agent# started_ms run` → empty: every run by its age.
    RunByStart = 0x3a,
    /// `agent# kind started_ms run` → empty: the runs that serve no user or only a part of them: of every kind but
    /// `live`, which is nearly all there is.
    RunByKind = 0x3b,
    /// `agent# label(16) started_ms run` → empty: a run once for each of its labels, by the label's digest.
    RunByLabel = 0x3c,
    /// `agent# bundle\0 kind step\0 model\0 served` → `CostRecord`: what runs used, summed up when it is reported.
    Cost = 0x3d,
    /// `agent# bundle\0 ready_revision run\0 step#` → empty: what waits for a worker, in order.
    Ready = 0x30,
    /// `agent# run\0 step#` → empty: what is leased; number 0: the step of the trunk.
    Leased = 0x31,
    /// `agent# run\0 name\0 revision` → `SignalRecord`: signals that no step has waited for yet, in order.
    Signal = 0x32,
    /// `agent# run\0 step#` → `WokenRecord`: what ended the wait of a step. Written once.
    Woken = 0x33,
    /// `agent# run\0 join# step#` → empty: the open steps of a join's branches.
    OpenBranch = 0x34,
    /// `agent# run\0 join# branch#` → `BranchRecord`: how a branch ended. Written once.
    Branch = 0x35,
    /// `agent# parent\0 child` → empty: the open children of a run.
    Child = 0x36,
    /// `agent# session` → `SessionRecord`: where the runs of a session start.
    Session = 0x37,
    /// `agent# session\0 place run` → empty: the open runs of a session, in the order of their turns.
    SessionRun = 0x38,
    /// `agent# due_ms timer object` → cursor or empty: everything timed. Agent 0 is the cluster's own.
    Deadline = 0x40,
    /// `agent#` → a time, 8 bytes: no row of `Deadline` is due before it.
    Front = 0x41,
    /// `agent# key\0 revision (inverted)` → `MemoryRecord`: one chain of versions for all layers, newest first.
    Memory = 0x50,
    /// `agent# layer#` → `LayerRecord`.
    Layer = 0x51,
    /// `agent# layer# key` → empty: which keys a layer has versions of.
    LayerKey = 0x52,
    /// `agent# revision key` → number of the layer, 4 bytes: what changed in memory, oldest first. Kept as long as
    /// old versions are.
    MemoryChange = 0x5a,
    /// `agent# base layer# base revision scratch#` → `ScratchRecord`: the memories of runs that serve no user, by what they
    /// begin with.
    Scratch = 0x82,
    /// `agent# scratch# key\0 revision (inverted)` → `MemoryRecord`: what such runs wrote, newest first, away from the chains
    /// that others read.
    ScratchMemory = 0x83,
    /// `agent# bundle\0 source(1) name\0 seen` → `DriftRecord`: tools and models that are not what the bundle says.
    Drift = 0x86,
    /// `agent# bundle` → `BundleModelsRecord`. Written once.
    BundleModels = 0x87,
    /// `request id` → `DedupeRecord`.
    Dedupe = 0x60,
    /// `place(8)` → `TrafficIdRecord`: the request ids of what traffic asks, oldest first.
    TrafficId = 0x61,
    /// `revision index(4)` → `EventRecord`.
    Event = 0x70,
    /// `agent# release#` → `ReleaseRecord`.
    Release = 0x90,
    /// `agent# release#` → `PolicyRecord`: what the policy said when the release began. Written once.
    ReleasePolicy = 0x91,
    /// `agent# release# stage(1) attempt#` → `GateRecord`.
    ReleaseGate = 0x92,
    /// `agent# release# index(4)` → `MoveRecord`: the history of a release, oldest first. Written once.
    ReleaseMove = 0x93,
    /// `agent# name\0 version` → `EvalSetRecord`. Written once.
    EvalSet = 0x8c,
    /// `agent# bundle\0 revision` → `EvalReportRecord`: how a bundle did, newest last. Written once.
    EvalReport = 0x8d,
    /// `agent# digest(32)` → `EvalBodyRecord`: the examples of a set, or the results of a report. Written once.
    EvalBody = 0x8e,
    /// `agent# hour(4) label\0 value` → how many live runs began with that label, 8 bytes.
    TaskMix = 0x8f,
    /// `agent# 0 hook` → `HookRecord`; `agent# 1 hook\0 state revision index(4)` → `DeliveryRecord`: what became of
    /// events on their way to it.
    Hook = 0x8a,
    /// `sequence` → `AuditRecord`: who did what, in a chain of hashes.
    Audit = 0x8b,
    /// `agent# bundle\0 kind(1) grain(1) begin_ms` → `SliceRecord`: what runs were like that ended in a span of time.
    SignalSlice = 0x98,
    /// `agent# release#` → `BaselineRecord`. Written once, at the switch.
    SignalBaseline = 0x99,
    /// `agent# release# index(4)` → `FiringRecord`: what fired in a release, oldest first.
    SignalFiring = 0x9a,
    /// `agent# signal(1)` → `MuteRecord`.
    SignalMute = 0x9b,
    /// `agent# drill#` → `DrillRecord`.
    Drill = 0xa4,
    /// `agent# release#` → `ReleaseSumRecord`: what a release came to. Written at its end.
    ReleaseSum = 0xa5,
}

/// What a row of the deadline index is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Timer {
    /// `run`: the soft end of the pin by its age.
    RunExpires = 1,
    /// `run`: the hard end of the pin by its age.
    RunHardEnd = 2,
    /// `bundle`: the drain deadline; the value is the cursor of the sweep over its open pins.
    DrainSoft = 3,
    /// `bundle`: drain deadline and grace.
    DrainHard = 4,
    /// `run\0 step#`: the end of a backoff.
    Backoff = 5,
    /// `run\0 step#`: schedule-to-start.
    StartBy = 6,
    /// `run\0 step#`: start-to-close.
    AttemptEnd = 7,
    /// `run`: an external run was not heard of.
    KeepAlive = 8,
    /// `run`: the end of its grace after a cancel.
    CancelBy = 9,
    /// `run`: finished long enough.
    Retention = 10,
    /// `bundle`: the sweep of a rollback's mark.
    RollbackSweep = 11,
    /// `request id`, agent 0: of administration.
    Dedupe = 12,
    /// Nothing, agent 0: old events.
    Events = 13,
    /// `key`: a memory version whose time to live may be over.
    MemoryTtl = 14,
    /// `run\0 step#`: the end of a wait.
    Wait = 15,
    /// `parent\0 step#`: the child that a step waits for is over; `WokenRecord` says how.
    ChildOver = 16,
    /// `run`: a delayed run is to be pinned and begins.
    StartDue = 17,
    /// `run`: it is over, and its open children are to end; the value is the cursor of the sweep.
    Children = 18,
    /// `run`: the runs of its session before it are over.
    SessionTurn = 19,
    /// `session`: its pin has grown old.
    Session = 20,
    /// Nothing: memory versions that were kept long enough.
    MemoryVersions = 34,
    /// `layer#`: the layer of a recycled bundle loses what no other layer sees; the value is the cursor of the sweep.
    LayerDrop = 54,
    /// `base layer# base revision scratch#`: the memory of runs that served no user and are over is dropped.
    Scratch = 42,
    /// Nothing, agent 0: old entries of the audit.
    Audit = 50,
    /// `bundle\0 source(1) name\0 seen`: a drift that only runs show, and that may not have shown for a day.
    DriftQuiet = 46,
}

impl Timer {
    /// Reads the number of a stored row.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        use Timer::{
            AttemptEnd, Audit, Backoff, CancelBy, ChildOver, Children, Dedupe, DrainHard,
            DrainSoft, DriftQuiet, Events, KeepAlive, LayerDrop, MemoryTtl, MemoryVersions,
            Retention, RollbackSweep, RunExpires, RunHardEnd, Scratch, Session, SessionTurn,
            StartBy, StartDue, Wait,
        };
        [
            RunExpires,
            RunHardEnd,
            DrainSoft,
            DrainHard,
            Backoff,
            StartBy,
            AttemptEnd,
            KeepAlive,
            CancelBy,
            Retention,
            RollbackSweep,
            Dedupe,
            Events,
            MemoryTtl,
            Wait,
            ChildOver,
            StartDue,
            Children,
            SessionTurn,
            Session,
            MemoryVersions,
            LayerDrop,
            Scratch,
            Audit,
            DriftQuiet,
        ]
        .into_iter()
        .find(|timer| *timer as u8 == number)
    }
}

/// Builds a key part by part.
#[derive(Debug, Clone)]
pub struct Key(RowKey);

/// Kind and agent.
const HEAD_BYTES: usize = 5;

impl Key {
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mut key = RowKey::new();
        key.push(kind as u8);
        Self(key)
    }

    /// A key of an agent's range.
    #[must_use]
    pub fn of(kind: Kind, agent: u32) -> Self {
        Self::new(kind).u32(agent)
    }

    /// Text that something follows.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        debug_assert!(!text.as_bytes().contains(&0), "ids are checked at the door");
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }

    /// Text at the end.
    #[must_use]
    pub fn last(mut self, text: &str) -> RowKey {
        self.0.extend_from_slice(text.as_bytes());
        self.0
    }

    #[must_use]
    pub fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    #[must_use]
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Bytes of a fixed length.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn build(self) -> RowKey {
        self.0
    }

    /// Everything that begins with this.
    #[must_use]
    pub fn range(self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }
}

/// Kinds whose rows are looked for by groups: those of a run, or the versions of a key of memory.
const GROUPED: [Kind; 9] = [
    Kind::Step,
    Kind::StepInput,
    Kind::StepOutput,
    Kind::Checkpoint,
    Kind::Signal,
    Kind::Woken,
    Kind::OpenBranch,
    Kind::Branch,
    Kind::Memory,
];

/// What a row has in common with all others of its group: kind, agent and the text behind them with its zero byte.
#[must_use]
pub fn group(row: &[u8]) -> Option<&[u8]> {
    let (head, text) = row.split_at_checked(HEAD_BYTES)?;
    if !GROUPED.iter().any(|kind| *kind as u8 == head[0]) {
        return None;
    }
    let end = text.iter().position(|byte| *byte == 0)?;
    row.get(..=HEAD_BYTES + end)
}

/// The group that all rows of a range are in, which is not empty.
#[must_use]
pub fn group_of(range: &KeyRange) -> Option<&[u8]> {
    let group = group(&range.start)?;
    let is_inside = range.end.starts_with(group) || range.end == KeyRange::prefix(group).end;
    is_inside.then_some(group)
}

/// Takes a key apart, in the order in which [`Key`] built it.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// Begins behind the kind.
    #[must_use]
    pub fn new(key: &'a [u8]) -> Self {
        Self(key.get(1..).unwrap_or_default())
    }

    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    /// Text up to its zero byte.
    pub fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let text = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// Text up to the end of the key.
    #[must_use]
    pub fn last(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_built() {
        let key = Key::of(Kind::Ready, 7).text("v1").u64(9).text("run").u32(3).build();
        let mut parts = Parts::new(&key);
        assert_eq!(key[0], Kind::Ready as u8);
        assert_eq!(parts.u32(), Some(7));
        assert_eq!(parts.text(), Some("v1"));
        assert_eq!(parts.u64(), Some(9));
        assert_eq!(parts.text(), Some("run"));
        assert_eq!(parts.u32(), Some(3));
        assert!(parts.rest().is_empty());
    }

    #[test]
    fn a_name_is_no_prefix_of_a_longer_one() {
        let range = Key::of(Kind::OpenPin, 1).text("v1").range();
        let other = Key::of(Kind::OpenPin, 1).text("v10").u64(0).last("r");
        assert!(other >= range.end || other < range.start);
    }

    #[test]
    fn a_range_has_a_group_when_all_of_its_rows_are_in_it() {
        let steps = || Key::of(Kind::Step, 256).text("run");
        let group = steps().build();
        assert_eq!(super::group(&steps().u32(0).build()), Some(&*group));
        assert_eq!(super::group(&Key::of(Kind::Run, 1).text("run").build()), None);
        assert_eq!(super::group(&Key::of(Kind::Step, 0).last("run")), None, "it is not finished");
        let of_all = steps().range();
        let since = of_all.clone().since(steps().u32(7).build());
        let before = since.clone().before(&steps().u32(9).build());
        for range in [of_all, since, before] {
            assert_eq!(group_of(&range), Some(&*group));
        }
        assert_eq!(group_of(&Key::of(Kind::Step, 256).range()), None);
        let beyond = Key::of(Kind::Step, 256).range().since(steps().u32(1).build());
        assert_eq!(group_of(&beyond), None, "of later runs too");
    }

    #[test]
    fn timers_keep_their_numbers() {
        for number in (1..=20).chain([34, 42, 46, 50, 54]) {
            assert_eq!(Timer::from_number(number).map(|t| t as u8), Some(number));
        }
        assert_eq!(Timer::from_number(21), None);
    }
}
