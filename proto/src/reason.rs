//! The reasons of refusals: stable names that scripts match on, with their gRPC code, exit code and what to do next.

/// One reason. `ALL` is the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    pub name: &'static str,
    /// A gRPC status code.
    pub code: i32,
    /// Exit code of the command line.
    pub exit: i32,
    /// What it means and what to do, for `pinrail explain`.
    pub help: &'static str,
}

/// The gRPC status codes that reasons use.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNAVAILABLE: i32 = 14;
}

macro_rules! reasons {
    ($($name:ident $code:ident $exit:literal $help:literal)*) => {
        $(pub const $name: Reason = Reason { name: stringify!($name), code: code::$code, exit: $exit, help: $help };)*
        /// Every reason.
        pub const ALL: &[Reason] = &[$($name),*];
    };
}

reasons! {
    NAMESPACE_NOT_FOUND NOT_FOUND 1 "No namespace has this name. `pinrail namespace list` shows those that exist."
    AGENT_NOT_FOUND NOT_FOUND 1 "No agent has this name in the namespace. `pinrail agent list` shows those that exist."
    BUNDLE_NOT_FOUND NOT_FOUND 1 "The agent has no bundle with this id. `pinrail bundle list AGENT` shows those that exist."
    EVAL_SET_NOT_FOUND NOT_FOUND 1 "The agent has no eval set with this name and version. `pinrail eval set list AGENT` shows those that exist."
    EVAL_REPORT_NOT_FOUND NOT_FOUND 1 "The bundle has no such eval report. `pinrail eval list AGENT` shows those that are kept; `pinrail eval submit AGENT BUNDLE -f FILE` adds one."
    SESSION_NOT_FOUND NOT_FOUND 1 "The session holds no pin: none of its runs started lately, or somebody ended it."
    RUN_NOT_FOUND NOT_FOUND 1 "No run has this id, or it was removed after its retention. Give the agent too when the id was not made by our libraries."
    WORKER_NOT_FOUND NOT_FOUND 1 "No live worker has this id. `pinrail worker list AGENT` shows those that are connected."
    MEMBER_NOT_FOUND NOT_FOUND 1 "The cluster has no member with this name. `pinrail cluster members` shows them."
    HOOK_NOT_FOUND NOT_FOUND 1 "The agent's policy has no hook with this name. `pinrail hook list AGENT` shows those that it has."
    EVENT_NOT_FOUND NOT_FOUND 1 "No event of the agent with this revision and index is kept; the message names the oldest revision that is."
    NAMESPACE_EXISTS ALREADY_EXISTS 7 "A namespace has this name already."
    NAMESPACE_NOT_EMPTY FAILED_PRECONDITION 9 "The namespace still has agents. Delete them first."
    AGENT_EXISTS ALREADY_EXISTS 7 "The agent exists with another policy. `pinrail agent update` or `agent apply` changes it."
    AGENT_HAS_OPEN_RUNS FAILED_PRECONDITION 9 "The agent still has open runs, or keeps finished ones or memory; the message says which. Cancel open runs; finished ones go after their retention."
    BUNDLE_CONFLICT ALREADY_EXISTS 7 "A bundle is immutable: this id stands for other content. Take a new id."
    PART_CONFLICT ALREADY_EXISTS 7 "An earlier bundle of the agent has the same index or tool version with other content. Raise the version."
    EVAL_SET_CONFLICT ALREADY_EXISTS 7 "An eval set is immutable: this version stands for other examples or metrics. Raise the version; both are compared on the examples that they share."
    RUN_EXISTS ALREADY_EXISTS 7 "A run with this id was started with another input. Take a new id."
    REQUEST_ID_REUSED ALREADY_EXISTS 7 "The request id was used for another request within the last hour."
    DEDUPE_EXPIRED ABORTED 7 "The request id is older than what is remembered; whether it was done is to be read, not asked again."
    REVISION_MISMATCH ABORTED 7 "The object changed since it was read. Read it again and decide anew."
    ROUTE_CHANGED ABORTED 7 "The route changed since it was read. `pinrail status AGENT` shows it."
    MODEL_NOT_PINNED INVALID_ARGUMENT 2 "A model must name one fixed snapshot; floating aliases such as `latest` are refused. See docs/FILES.md."
    INVALID_MANIFEST INVALID_ARGUMENT 2 "The bundle's manifest breaks a rule; the message names it. See docs/FILES.md."
    INVALID_POLICY INVALID_ARGUMENT 2 "A value of the policy is out of its range; the message names it. See docs/FILES.md."
    INVALID_EVAL_SET INVALID_ARGUMENT 2 "The eval set breaks a rule; the message names it. See docs/EVALS.md."
    INVALID_EVAL_REPORT INVALID_ARGUMENT 2 "The report breaks a rule, or the file is truncated, altered or of no known shape; the message says where. Nothing was stored. See docs/EVALS.md."
    INVALID_ID INVALID_ARGUMENT 2 "A name or id breaks the grammar; the message says how. See docs/LIMITS.md."
    INVALID_REQUEST INVALID_ARGUMENT 2 "A field of the request is missing or out of its range; the message names it."
    LIMIT_EXCEEDED INVALID_ARGUMENT 1 "Something is larger than its limit; the message names both. See docs/LIMITS.md."
    QUOTA_EXCEEDED RESOURCE_EXHAUSTED 6 "A quota is used up; the message names it. The policy raises an agent's, `pinrail namespace update` a namespace's."
    OVERLOADED RESOURCE_EXHAUSTED 6 "Too much is waiting. Nothing was written; try again after the given time."
    MEMORY_CONFLICT ABORTED 7 "The bundle got another version of a key since the two came apart; the message names such keys. `--on-conflict skip|overwrite` decides."
    MEMORY_IN_USE FAILED_PRECONDITION 9 "The layer is live, or runs are open that write to it: what it holds is not discarded."
    LEASE_STALE ABORTED 1 "The lease is not current any more: it expired, was ended, or the step is done. The result was dropped."
    RUN_CLOSED FAILED_PRECONDITION 9 "The run is over."
    RUN_NOT_EXTERNAL FAILED_PRECONDITION 9 "Only external runs are finished or kept alive from outside; workers end the others."
    RUN_NOT_PAUSED FAILED_PRECONDITION 9 "Only a paused run is retried: one whose step used up its attempts, or one that was held from a restart."
    SESSION_BUSY FAILED_PRECONDITION 9 "Another run of the session is open, and the policy lets none beside it (`sessions.overlap`)."
    NOT_REPINNABLE FAILED_PRECONDITION 9 "The run did not declare itself repinnable, or the other bundle lacks a step of it."
    RUN_PAUSED FAILED_PRECONDITION 9 "The run is paused. `pinrail run resume RUN` goes on."
    RUN_NOT_BEGUN FAILED_PRECONDITION 9 "A delayed run has no pin before it is due: `pinrail run show RUN` says when."
    PIN_EXPIRED FAILED_PRECONDITION 9 "The pin's end is past: nothing is accepted for this run any more."
    AGENT_PAUSED FAILED_PRECONDITION 9 "The agent is paused. `pinrail agent resume AGENT` goes on."
    CHECKPOINT_MISMATCH FAILED_PRECONDITION 1 "The step asked for another checkpoint than it recorded: it is not deterministic."
    BUNDLE_MISMATCH FAILED_PRECONDITION 9 "The worker was built from other code than the bundle names, or serves another bundle."
    STEP_NOT_READY FAILED_PRECONDITION 1 "The step is not waiting for a worker in this attempt."
    STEP_LIMIT FAILED_PRECONDITION 1 "The run has as many steps as a run may have."
    NO_LIVE_BUNDLE FAILED_PRECONDITION 9 "No bundle is live. `pinrail switch AGENT BUNDLE` puts the first one live."
    NOTHING_TO_ROLL_BACK FAILED_PRECONDITION 9 "There is no bundle to return to."
    ROLLBACK_AMBIGUOUS FAILED_PRECONDITION 9 "A rollback, or the abort of a release, was done a moment ago. Name the bundle to leave with `--from`."
    BUNDLE_REJECTED FAILED_PRECONDITION 9 "The bundle was rolled back. `--force --reason` makes it live all the same."
    BUNDLE_HAS_TRAFFIC FAILED_PRECONDITION 9 "The bundle has traffic; only one without it drains."
    BUNDLE_IS_STANDBY FAILED_PRECONDITION 9 "The bundle is kept to return to: `pinrail rollback` or `pinrail switch` makes it live again, at once."
    RELEASE_NOT_FOUND NOT_FOUND 1 "The agent has no release with this id, or none at all. `pinrail release list AGENT` shows those that are remembered."
    RELEASE_ACTIVE FAILED_PRECONDITION 9 "Another release of the agent is active. Wait for it, abort it, or switch with `--force --reason`, which aborts it."
    RELEASE_NOT_ACTIVE FAILED_PRECONDITION 9 "No release of the agent is active. `pinrail release list AGENT` shows how the last ones ended."
    EVALS_NOT_COMPARABLE FAILED_PRECONDITION 3 "The candidate and the live bundle were measured on versions of the eval set that share too few examples. Measure the live bundle on the same version."
    GATE_NOT_PASSED FAILED_PRECONDITION 3 "A required stage was not passed. `pinrail release status AGENT` shows what was seen; `--force --reason` goes past it, audited."
    DRIFT_NOT_OPEN FAILED_PRECONDITION 9 "Nothing of this name has drifted, or it is not seen any more. `pinrail tool drift AGENT --all` shows what is known."
    SIGNAL_NOT_FIRING FAILED_PRECONDITION 9 "The signal has not fired, or was clean again since. `pinrail signal show AGENT` shows how each stands."
    SIGNAL_STALE ABORTED 7 "The release is not in this phase any more, or the signal fired already: the report was dropped."
    DRILL_NOT_FOUND NOT_FOUND 1 "The agent has no drill with this id, or none at all. `pinrail drill list AGENT` shows those that are remembered."
    DRILL_ACTIVE FAILED_PRECONDITION 9 "Another drill of the agent is under way. Wait for it, or end it: `pinrail drill abort AGENT`."
    DRILL_NOT_ACTIVE FAILED_PRECONDITION 9 "No drill of the agent is under way. `pinrail drill list AGENT` shows how the last ones ended."
    DRILL_STALE ABORTED 7 "The drill is at another part, or over: what was found was dropped."
    GATE_STALE ABORTED 7 "The release is not at this stage and attempt any more, or not for long enough: the verdict was dropped."
    NO_WORKERS FAILED_PRECONDITION 9 "No live worker serves the bundle. Start some, or override with `--force --reason`."
    STEPS_MISSING FAILED_PRECONDITION 9 "The bundle's live workers do not serve every step that it declares. Start those that do, or override with `--force --reason`."
    STANDBY_RECYCLED FAILED_PRECONDITION 9 "The bundle to return to was recycled. `pinrail switch AGENT BUNDLE` makes it live again, with a new memory layer."
    RECYCLE_BLOCKED FAILED_PRECONDITION 9 "Something still needs the bundle; the message lists what."
    DRAIN_NOT_OVER FAILED_PRECONDITION 9 "The bundle still has open pins."
    QUORUM_WOULD_BE_LOST FAILED_PRECONDITION 9 "Without this member the others could not carry on."
    MEMBERSHIP_BUSY FAILED_PRECONDITION 9 "Another change of members is under way. Try again when it is over."
    ALREADY_A_MEMBER ALREADY_EXISTS 7 "A member has this name or address already."
    NOT_BOOTSTRAPPED UNAVAILABLE 6 "The cluster has not formed yet: a majority of its members has to meet."
    TOOL_SUPPRESSED FAILED_PRECONDITION 1 "The run serves no user: a tool with side effects was not called."
    NO_LEADER UNAVAILABLE 6 "No leader is known. Nothing was written; it is safe to try again."
    NO_QUORUM UNAVAILABLE 6 "Fewer than a majority of the members answer. Nothing was written. Reads work with `--local`."
    OUTCOME_UNKNOWN DEADLINE_EXCEEDED 12 "Whether the write was done is not known. Asking again with the same request id is safe."
    PERMISSION_DENIED PERMISSION_DENIED 8 "The caller may not do this."
    STALE_READ FAILED_PRECONDITION 6 "The node has not applied the asked revision within the timeout."
    COMPACTED OUT_OF_RANGE 1 "Events that old are not kept; the message names the oldest."
}

/// Looks a reason up by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Reason> {
    ALL.iter().find(|reason| reason.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    #[test]
    fn reasons_are_unique_and_helpful() {
        for (i, reason) in super::ALL.iter().enumerate() {
            assert!(super::ALL.iter().skip(i + 1).all(|other| other.name != reason.name));
            assert!(reason.help.ends_with('.'), "{}", reason.name);
        }
    }
}
