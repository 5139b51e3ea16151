//! Bugs that are planted on purpose. An engine that looks for bugs counts only if it finds these: `make mutants` builds with the
//! feature `mutants`, which nothing that ships has, and plants one at a time, by the variable [`VARIABLE`].
//!
//! Without the feature [`is_planted`] is false at compile time, and nothing of this is left in a binary.

/// Names the bug that a process is to have.
pub const VARIABLE: &str = "PINRAIL_MUTANT";

macro_rules! mutants {
    ($($(#[$about:meta])* $name:ident = $word:literal,)*) => {
        /// A bug, by what goes wrong with it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$about])* $name,)*
        }

        impl Mutant {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As the variable names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

mutants! {
    /// A write to the log is acknowledged before it was synced.
    AcknowledgesUnsynced = "acknowledges-unsynced",
    /// A vote is given before it was synced.
    VotesUnsynced = "votes-unsynced",
    /// A sync that failed is asked for once more, and believed.
    RetriesFailedSyncs = "retries-failed-syncs",
    /// Reads that ask for the latest are answered from what this member has.
    ReadsWithoutQuorum = "reads-without-quorum",
    /// The time of entries is the leader's own wall clock.
    CapsByLocalClock = "caps-by-local-clock",
    /// A new leader does not look for the deadlines that the last one knew.
    ForgetsDeadlines = "forgets-deadlines",
    /// Request ids get lost where a snapshot is installed.
    SnapshotLosesRequestIds = "snapshot-loses-request-ids",
    /// The order of what a command writes differs from member to member.
    UnorderedApply = "unordered-apply",
    /// Whoever holds any token of a step is heard.
    HearsStaleTokens = "hears-stale-tokens",
    /// The next attempt of a step is not given what the last one recorded.
    LosesCheckpoints = "loses-checkpoints",
    /// A worker of another bundle may get the lease.
    LeasesToOtherBundles = "leases-to-other-bundles",
    /// Some starts still follow the route from before the last change.
    StartsOnOldRoute = "starts-on-old-route",
    /// A start that is asked again is told the route of now.
    RetriedStartMoves = "retried-start-moves",
    /// Runs end when half of the time of a drain is over.
    DrainsEndEarly = "drains-end-early",
    /// Nobody wakes when the deadline of a drain comes.
    DrainsNeverEnd = "drains-never-end",
    /// Not every pin that ends is taken off the count.
    MiscountsPins = "miscounts-pins",
    /// What becomes of open runs is forgotten in a rollback.
    RollbackForgetsRuns = "rollback-forgets-runs",
    /// The bundle that is live again sees the memory of the one that it replaces.
    RollbackKeepsMemory = "rollback-keeps-memory",
    /// Writes to a frozen layer are seen above it.
    SeesLateWrites = "sees-late-writes",
    /// A write that expects a revision of its key is done whatever that is.
    IgnoresExpectedRevision = "ignores-expected-revision",
}

/// Whether this process has a bug.
#[cfg(feature = "mutants")]
#[expect(
    clippy::disallowed_methods,
    reason = "no configuration: a build that never ships reads it"
)]
#[must_use]
pub fn is_planted(mutant: Mutant) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var(VARIABLE).ok());
    planted.as_deref() == Some(mutant.name())
}

/// Whether this process has a bug: no.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is_planted(_: Mutant) -> bool {
    false
}
