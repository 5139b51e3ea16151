//! Every limit by name. `docs/LIMITS.md` lists them with their reasons.

/// Namespace, agent, bundle, step, prompt, model, index, tool and worker names.
pub const NAME_BYTES: usize = 63;
/// Run ids, session keys, worker ids, request ids.
pub const ID_BYTES: usize = 256;
/// One input, result, checkpoint or memory value.
pub const PAYLOAD_BYTES: usize = 2 << 20;
/// One encoded command.
pub const COMMAND_BYTES: usize = 5 << 20;
/// One request of the API.
pub const API_MESSAGE_BYTES: usize = 6 << 20;
/// One answer of the API: a run with its input and output, and steps with theirs.
pub const API_ANSWER_BYTES: usize = 16 << 20;
/// One message to a worker: a step's input, and the checkpoints of the attempts before this one.
pub const ASSIGNMENT_BYTES: usize = 74 << 20;
/// One message between peers.
pub const PEER_MESSAGE_BYTES: usize = 16 << 20;
/// Inputs, results and checkpoints of one open run together.
pub const RUN_STORED_BYTES: u64 = 64 << 20;
/// Steps of a run.
pub const RUN_STEPS: u32 = 10_000;
/// The least urgent of a run's priorities; 1 is the most urgent one.
pub const LAST_PRIORITY: u32 = 5;
/// The priority of a run whose start does not say.
pub const DEFAULT_PRIORITY: u32 = 3;
/// What a step says of how far it is.
pub const PROGRESS_BYTES: usize = 16 << 10;
/// One chunk that a step emits.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Chunks of a run that are kept for its watchers, and their bytes; older ones are dropped.
pub const CHUNKS: usize = 1_000;
/// See [`CHUNKS`].
pub const CHUNKS_BYTES: usize = 256 << 10;
/// Longest delay of a start.
pub const DELAY_MS: u64 = 365 * 24 * 3_600_000;
/// Children of a run that are not over.
pub const OPEN_CHILDREN: usize = 1_000;
/// Branches of one fan-out.
pub const FAN_OUT: usize = 1_000;
/// Checkpoints of a step.
pub const STEP_CHECKPOINTS: u32 = 10_000;
/// Signals of a run that no step has waited for yet.
pub const PENDING_SIGNALS: u32 = 1_000;
/// Labels of a run, bundle or agent.
pub const LABELS: usize = 64;
pub const LABEL_KEY_BYTES: usize = 63;
pub const LABEL_VALUE_BYTES: usize = 256;
/// A bundle's manifest, encoded.
pub const MANIFEST_BYTES: usize = 1 << 20;
/// An agent's policy, encoded and complete.
pub const POLICY_BYTES: usize = 512 << 10;
/// Cases of the smoke gate.
pub const SMOKE_CASES: usize = 100;
/// JSON Schema of a smoke case.
pub const SMOKE_SCHEMA_BYTES: usize = 64 << 10;
/// A compiled regular expression of a smoke case.
pub const SMOKE_REGEX_BYTES: usize = 1 << 20;
/// Texts that the output of a smoke case must hold.
pub const SMOKE_CONTAINS: usize = 100;
/// JSON pointers that shadow leaves out of a comparison.
pub const SHADOW_IGNORED: usize = 100;
pub const CANARY_STEPS: usize = 20;
/// Values of one label that always go to the candidate.
pub const CANARY_INCLUDED: usize = 100;
/// Hooks of an agent.
pub const HOOKS: usize = 100;
/// Patterns of event types of one hook.
pub const HOOK_EVENTS: usize = 100;
pub const MEMORY_KEY_BYTES: usize = 1 << 10;
pub const MEMORY_KEY_SEGMENTS: usize = 16;
pub const NAMESPACES: usize = 1_000;
pub const AGENTS_PER_NAMESPACE: u64 = 10_000;
/// Use of a namespace's quota that is warned of, in percent; and use below which coming near again is another warning.
pub const QUOTA_NEAR_PERCENT: u64 = 80;
/// See [`QUOTA_NEAR_PERCENT`].
pub const QUOTA_FAR_PERCENT: u64 = 70;
/// Bundles of an agent that are not recycled.
pub const BUNDLES_PER_AGENT: u64 = 100;
/// Open runs of the whole cluster.
pub const OPEN_RUNS: u64 = 2_000_000;
/// Request ids that are remembered, of administration and of traffic each, and for how long. More traffic than that has its oldest ones
/// forgotten earlier.
pub const DEDUPE_ROWS: u64 = 1_000_000;
pub const DEDUPE_MS: u64 = 3_600_000;
/// Longest page of a list; the default is a tenth.
pub const PAGE: u32 = 1_000;
pub const PAGE_DEFAULT: u32 = 100;
/// Bytes of values behind which a page of memory ends.
pub const PAGE_BYTES: usize = 2 << 20;
/// Bytes of outputs that one page of branches holds.
pub const BRANCH_PAGE_BYTES: usize = 4 << 20;
/// Bytes of steps behind which a page of them ends; a single one may have more.
pub const STEP_PAGE_BYTES: usize = 4 << 20;
/// Runs that one page of `run list` looks at; a page may be short because of it.
pub const RUNS_EXAMINED: usize = 2_000;
/// Rows of costs of an agent: bundles, kinds, steps and models that are told apart. What comes beyond is summed up by
/// bundle and kind alone.
pub const COST_ROWS: u64 = 10_000;
/// Watchers of one node.
pub const WATCHERS: usize = 10_000;
/// Failure message and other free text.
pub const TEXT_BYTES: usize = 4 << 10;
pub const ENDPOINT_BYTES: usize = 1 << 10;
/// Longest life of a pin.
pub const MAX_AGE_MS: u64 = 30 * 24 * 3_600_000;
/// Work that one `Tick` may do.
pub const TICK_ITEMS: u32 = 256;
/// Events are kept for so long, and at most so many.
pub const EVENTS_MS: u64 = 7 * 24 * 3_600_000;
pub const EVENTS: u64 = 10_000_000;
/// Commands and bytes that one log entry packs.
pub const BATCH_COMMANDS: usize = 256;
pub const BATCH_BYTES: usize = 1 << 20;
/// Audit entries are kept for so long, and at most so many.
pub const AUDIT_MS: u64 = 400 * 24 * 3_600_000;
pub const AUDIT_ENTRIES: u64 = 1_000_000;
/// A delivery to a hook is tried for so long, from its event on.
pub const HOOK_RETRY_MS: u64 = 24 * 3_600_000;
/// Deliveries of a hook that are tried again; with more of them its new events wait in the stream.
pub const HOOK_PENDING: usize = 1_000;
/// Deliveries of a hook that are kept after they were given up, and after they were made.
pub const HOOK_DEAD: u64 = 1_000;
pub const HOOK_DELIVERED: u64 = 100;
/// Results of deliveries that one command records.
pub const HOOK_RESULTS: usize = 256;
/// Hooks that gate the switch have so long to let it pass.
pub const SWITCH_GATE_MS: u64 = 3_600_000;
/// Why a delivery failed.
pub const HOOK_ERROR_BYTES: usize = 512;
/// A result that goes along with the end of a run.
pub const CALLBACK_RESULT_BYTES: usize = 64 << 10;
/// A rollback without `from` within this time of an earlier one is refused.
pub const ROLLBACK_AMBIGUOUS_MS: u64 = 15 * 60_000;
/// Keys that one `PromoteMemory` or `DiscardMemory` works off, and bytes of values that one promotes.
pub const MEMORY_BATCH_KEYS: usize = 256;
pub const MEMORY_BATCH_BYTES: usize = 3 << 20;
/// Keys that one page of a memory list or diff, or of a watch, looks at.
pub const MEMORY_EXAMINED: usize = 10_000;
/// Keys of conflicts that a promotion names.
pub const MEMORY_CONFLICTS: usize = 100;
/// Memory writes that a completion carries; together they are no larger than one payload.
pub const COMPLETION_WRITES: usize = 100;
/// How long the memory of a run that served no user can still be looked at when the run is over, if that is kept so long.
pub const SCRATCH_KEEP_MS: u64 = 15 * 60_000;
/// Versions of eval sets of an agent.
pub const EVAL_SETS: u64 = 1_000;
/// Examples of an eval set, and results of a report.
pub const EVAL_EXAMPLES: usize = 10_000;
/// Examples of a set, or results of a report, encoded.
pub const EVAL_BODY_BYTES: usize = 4 << 20;
/// Metrics of an eval set or a report.
pub const EVAL_METRICS: usize = 32;
pub const EVAL_METRIC_BYTES: usize = 128;
/// Categories of an eval set, and values of the label that are told apart in an hour of production.
pub const EVAL_CATEGORIES: usize = 64;
/// Texts that an example's output must hold.
pub const EVAL_CONTAINS: usize = 100;
/// What a result says of itself.
pub const EVAL_MESSAGE_BYTES: usize = 1 << 10;
/// Reports of a bundle that are kept; the oldest goes.
pub const EVAL_REPORTS_PER_BUNDLE: usize = 20;
/// What two versions of an eval set must share to be compared: thousandths of the smaller one, and examples.
pub const EVAL_COMMON_PERMILLE: u32 = 800;
pub const EVAL_COMMON_MIN: u32 = 10;
/// How long the labels of production are counted for: a little more than the longest window of a policy.
pub const TASK_MIX_HOURS: u64 = 31 * 24;
/// Keys that a rollback counts as hidden at most.
pub const HIDDEN_KEYS: u64 = 10_000;
/// Releases of an agent that are remembered.
pub const RELEASES_KEPT: u32 = 200;
/// All of the traffic, in basis points.
pub const WHOLE_BP: u32 = 10_000;
/// Drills of an agent that are remembered.
pub const DRILLS_KEPT: u32 = 100;
/// Longest time of an optional stage in a release that is started with `--fast`.
pub const FAST_STAGE_MS: u64 = 10_000;
/// Reason and evidence of one verdict.
pub const EVIDENCE_BYTES: usize = 64 << 10;
/// Open runs of a candidate that one look at its signals examines, and how many of them for what they cost so far.
pub const PINS_EXAMINED: usize = 10_000;
pub const COSTS_EXAMINED: usize = 1_000;
/// Firings of a release that are remembered, the newest ones.
pub const FIRINGS_KEPT: u32 = 200;
/// Longest time that a signal is muted.
pub const MUTE_MS: u64 = MAX_AGE_MS;

/// Tools and models of a bundle that are known not to be what it says, and how many of them runs may report.
pub const DRIFTS_PER_BUNDLE: u32 = 256;
pub const DRIFTS_OF_RUNS: u32 = 128;
/// Differences of one of them that are kept.
pub const DRIFT_CHANGES: usize = 32;
/// What only runs show is over when none has shown it for so long.
pub const DRIFT_QUIET_MS: u64 = 24 * 3_600_000;
/// Tools that a worker says it sees, and both schemas of one of them.
pub const TOOLS_SEEN: usize = 1_000;
pub const TOOL_SCHEMA_BYTES: usize = 256 << 10;

const _: () =
    assert!(2 * PAYLOAD_BYTES < COMMAND_BYTES, "a step's output and the next input fit a command");
const _: () = assert!(
    RUN_STORED_BYTES as usize + 2 * PAYLOAD_BYTES + STEP_CHECKPOINTS as usize * 2 * ID_BYTES
        < ASSIGNMENT_BYTES,
    "a step with all that it recorded, and what ended its wait, reaches its worker"
);
const _: () = assert!(
    STEP_PAGE_BYTES + 4 * PAYLOAD_BYTES < API_ANSWER_BYTES,
    "a run and a page of its steps fit an answer, however large the first one is"
);
const _: () = assert!(COMMAND_BYTES < API_MESSAGE_BYTES, "whatever fits a command fits the API");
const _: () =
    assert!(COMMAND_BYTES + BATCH_BYTES < PEER_MESSAGE_BYTES, "an entry fits a peer message");
const _: () = assert!(
    PAGE_BYTES + MEMORY_BATCH_BYTES + MEMORY_BATCH_KEYS * MEMORY_KEY_BYTES < API_MESSAGE_BYTES,
    "a page of memory and one whole revision fit an answer"
);
const _: () = assert!(
    BRANCH_PAGE_BYTES + PAYLOAD_BYTES / 2 < API_MESSAGE_BYTES,
    "a page of branches fits an answer"
);
const _: () = assert!(EVAL_BODY_BYTES < COMMAND_BYTES, "a set or a report fits a command");
const _: () = assert!(
    QUOTA_FAR_PERCENT < QUOTA_NEAR_PERCENT && QUOTA_NEAR_PERCENT <= 100,
    "one use is never both"
);
const _: () = assert!(MANIFEST_BYTES < COMMAND_BYTES, "a manifest fits a command");
const _: () =
    assert!(PAGE_BYTES + POLICY_BYTES < API_MESSAGE_BYTES, "a page of agents fits an answer");
