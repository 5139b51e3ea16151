//! The replicated state machine of Pinrail: bundles, agents, runs pinned to bundles, steps, memory, routes.
//!
//! Pure and synchronous. It knows nothing of Raft, RocksDB, the network, clocks or threads: bytes of a log entry
//! go in, writes and answers come out ([`Machine`]). Reads are functions over a [`store::Read`] ([`query`]).
//!
//! ```text
//!   log entry ──> Machine::apply_batch ──> Applied { outcome, effects }    one for each command
//!                     │                        └─ effects: only a leader acts on them
//!                     └─ finish ──> writes, in key order
//! ```

mod agent;
mod apply;
mod audit;
mod bundle;
mod cluster;
mod dedupe;
mod drift;
mod drill;
pub mod effect;
mod eval;
mod event;
mod front;
mod hook;
pub mod invariants;
pub mod key;
mod memory;
pub mod mutant;
mod namespace;
mod nearest;
pub mod outcome;
mod overlay;
pub mod query;
pub mod records;
mod release;
mod route;
mod row_key;
mod run;
mod shared;
mod signal;
mod step;
pub mod store;
mod tick;
pub mod txn;

pub use apply::{Machine, Written};
pub use step::completion_digest;

/// The highest feature level that this binary can apply. Replicated behaviour changes only through a command
/// that raises the level once every member supports it.
pub const FEATURE_LEVEL: u32 = level::USAGE_COMES_AT_ONCE;

/// What the levels stand for. The first one is what there was at the beginning.
pub(crate) mod level {
    /// A rollback with `restart` begins a run anew whose end a switch back took away, whether or not anything has touched the run
    /// in between.
    pub(crate) const EXACT_RESTARTS: u32 = 2;
    /// Records of an agent and a bundle that a command did not change are not written again.
    pub(crate) const UNCHANGED_ROWS_STAY: u32 = 3;
    /// A candidate that gets a share of the traffic has no drain any more from a release of it before.
    pub(crate) const CANARIES_END_DRAINS: u32 = 4;
    /// Request ids of traffic make room for later ones, and never have administration refused.
    pub(crate) const TRAFFIC_IDS_MAKE_ROOM: u32 = 5;
    /// The rows of a trunk's lease stand while it goes from a step to the next.
    pub(crate) const LEASES_STAND: u32 = 6;
    /// A pin has one timer at a time: that of its hard end is set when the one of its soft end comes.
    pub(crate) const HARD_ENDS_FOLLOW: u32 = 7;
    /// What the commands of a log entry make of an agent's and a bundle's record is written once, behind the last of them; and a
    /// run that begins leaves nothing in the index of states it only went through.
    pub(crate) const ENTRIES_WRITE_ONCE: u32 = 8;
    /// The open step of a trunk lies in its run's row, and the input of a step is the result of the step that made it: two rows of
    /// each step less.
    pub(crate) const TRUNKS_LIE_IN_RUNS: u32 = 9;
    /// The first step of a run that continues another may go to the worker that completed that one's last step, in one command.
    pub(crate) const CONTINUED_RUNS_STAY: u32 = 10;
    /// Steps of a trunk that have ended lie in the row of a run that begins from here on, while they are small.
    pub(crate) const RUNS_HOLD_ENDED_STEPS: u32 = 11;
    /// Small inputs and outputs of runs lie in their runs' rows.
    pub(crate) const RUNS_HOLD_PAYLOADS: u32 = 12;
    /// What an attempt used counts with each checkpoint and when its lease is handed back, and not only when it ends.
    pub(crate) const USAGE_COMES_AT_ONCE: u32 = 13;
    /// A rollback without a bundle's name is ambiguous behind the abort of a release, too.
    pub(crate) const ABORTS_MAKE_ROLLBACKS_AMBIGUOUS: u32 = 13;
    /// A repeat under its request id is the same whatever span it is made under, and whatever workers there are meanwhile.
    pub(crate) const REPEATS_ARE_WHAT_WAS_ASKED: u32 = 13;
    /// A delayed run whose session is busy when it is due fails, where its agent's policy says so; it is not asked again for ever.
    pub(crate) const BUSY_SESSIONS_FAIL_DELAYED_RUNS: u32 = 13;
    /// Delayed runs of a session that begin in one sweep have their turns in the order in which they were due.
    pub(crate) const SESSIONS_KEEP_THEIR_ORDER: u32 = 13;
    /// A timer of a step is obeyed also where the run moves to another bundle in the same moment.
    pub(crate) const TIMERS_MOVE_ALONG: u32 = 13;
    /// A bundle that is recycled, or released again, has no session any more; and one that is released again has no drain that is
    /// over.
    pub(crate) const NEW_RELEASES_BEGIN_ANEW: u32 = 13;
    /// A run that continues another is paused, moved and signalled as that one was, and takes its place in a canary by its own name.
    pub(crate) const CONTINUED_RUNS_OBEY: u32 = 13;
    /// What a step recorded stays with the code that recorded it: where a run moves in the middle of a step, that begins anew; and a
    /// run that waits for a person is not moved.
    pub(crate) const CHECKPOINTS_STAY_BEHIND: u32 = 13;
    /// A gate that fails in a canary is a rollback in full: with what becomes of open runs.
    pub(crate) const FAILED_CANARIES_ARE_ROLLED_BACK: u32 = 13;
    /// The end of a run that is executed elsewhere, and word that it is alive, may say which revision of the run they expect.
    pub(crate) const EXTERNAL_RUNS_HAVE_EXPECTED_REVISIONS: u32 = 13;
}
