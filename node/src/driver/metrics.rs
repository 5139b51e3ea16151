//! The names of what the driver measures, and the task that publishes what is counted at a moment. Labels are agent and
//! bundle, never a run. Only a leader publishes; what it published last is taken back when it leads no more.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use pinrail_proto::{id, v1};
use pinrail_state_machine::query;
use tokio::time::{Duration, Instant, sleep};

use super::Dispatch;
use super::state::{self, agent_name, ask};

/// Steps that ended, by outcome: completed, failed, handed_back, expired.
pub(crate) const STEPS: &str = "pinrail_steps_total";
/// Steps that wait for a worker.
pub(crate) const READY: &str = "pinrail_ready_steps";
/// Age of the step that waits longest, in seconds.
pub(crate) const OLDEST_READY: &str = "pinrail_oldest_ready_seconds";
/// Pins that are not over.
pub(crate) const OPEN_PINS: &str = "pinrail_open_pins";
/// Pins that are not over, of a bundle that no connected worker serves though workers execute its runs.
pub(crate) const STRANDED_PINS: &str = "pinrail_stranded_pins";
/// Connected workers.
pub(crate) const WORKERS: &str = "pinrail_workers";
/// Free slots of connected workers.
pub(crate) const FREE_SLOTS: &str = "pinrail_free_slots";
/// Leased steps of the whole cluster.
pub(crate) const LEASES: &str = "pinrail_leases";
/// 1 while a signal of a release has fired and was not clean since.
pub(crate) const SIGNAL_FIRING: &str = "pinrail_signal_firing";
/// Tools and models of a bundle that are not what it says, which nobody accepted: breaking ones.
pub(crate) const DRIFT_BREAKING: &str = "pinrail_drift_breaking";
/// The same: compatible ones.
pub(crate) const DRIFT_COMPATIBLE: &str = "pinrail_drift_compatible";
/// Connected workers that get no steps because of it.
pub(crate) const BLOCKED_WORKERS: &str = "pinrail_blocked_workers";
/// Runs that ended, by outcome.
pub(crate) const RUNS: &str = "pinrail_runs_total";

/// What a namespace uses of a quota.
pub(crate) const QUOTA_USED: &str = "pinrail_quota_used";
/// The quota.
pub(crate) const QUOTA_LIMIT: &str = "pinrail_quota_limit";
/// Drills that ended, by outcome: passed, failed, aborted.
pub(crate) const DRILLS: &str = "pinrail_drills_total";
/// How long each part of the last drill took, in seconds.
pub(crate) const DRILL_PART: &str = "pinrail_drill_part_seconds";

/// How often gauges are published.
const EVERY: Duration = Duration::from_secs(2);
/// Agents whose pins are published.
const AGENTS: u32 = 1_000;

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepOutcome {
    Completed,
    Failed,
    HandedBack,
    Expired,
}

impl StepOutcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::HandedBack => "handed_back",
            Self::Expired => "expired",
        }
    }
}

/// Says what each metric means, once.
pub fn describe() {
    metrics::describe_counter!(STEPS, "Steps that ended, by agent, bundle and outcome");
    metrics::describe_gauge!(READY, "Steps that wait for a worker");
    metrics::describe_gauge!(OLDEST_READY, "Age of the step that waits longest");
    metrics::describe_gauge!(OPEN_PINS, "Pins that are not over");
    metrics::describe_gauge!(STRANDED_PINS, "Open pins of a bundle without a worker");
    metrics::describe_gauge!(WORKERS, "Connected workers");
    metrics::describe_gauge!(FREE_SLOTS, "Free slots of connected workers");
    metrics::describe_gauge!(LEASES, "Leased steps");
    metrics::describe_gauge!(SIGNAL_FIRING, "Signals that fired and were not clean since");
    metrics::describe_gauge!(DRIFT_BREAKING, "Breaking drift of tools and models that is open");
    metrics::describe_gauge!(DRIFT_COMPATIBLE, "Compatible drift of tools that is open");
    metrics::describe_gauge!(BLOCKED_WORKERS, "Workers that get no steps because of drift");
    metrics::describe_counter!(RUNS, "Runs that ended, by agent, bundle and outcome");
    metrics::describe_gauge!(QUOTA_USED, "What a namespace uses of a quota");
    metrics::describe_gauge!(QUOTA_LIMIT, "The quota of a namespace");
    super::hooks::metrics::describe();
    metrics::describe_counter!(DRILLS, "Drills that ended, by agent and outcome");
    metrics::describe_gauge!(DRILL_PART, "How long each part of the last drill took");
}

/// Counts steps of a bundle that ended. Many at once, where they come so: to find a counter is dearer than to count.
pub(super) fn steps(agent: &str, bundle: &str, ended: impl IntoIterator<Item = StepOutcome>) {
    let mut counts = BTreeMap::<_, u64>::new();
    for outcome in ended {
        *counts.entry(outcome).or_default() += 1;
    }
    for (outcome, count) in counts {
        let labels = [
            ("agent", agent.to_owned()),
            ("bundle", bundle.to_owned()),
            ("outcome", outcome.name().to_owned()),
        ];
        metrics::counter!(STEPS, &labels).increment(count);
    }
}

/// Counts a drill that ended, and shows how long its parts took.
pub(super) fn drill(drill: &v1::Drill) {
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    let outcome = word(drill.state().as_str_name(), "DRILL_STATE_");
    let labels = [("agent", drill.agent_id.clone()), ("outcome", outcome)];
    metrics::counter!(DRILLS, &labels).increment(1);
    for time in &drill.parts {
        let part = word(time.part().as_str_name(), "DRILL_PART_");
        let labels = [("agent", drill.agent_id.clone()), ("part", part)];
        let took = time.took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
        metrics::gauge!(DRILL_PART, &labels).set(took.as_secs_f64());
    }
}

/// Counts runs that ended, by agent's number and id. A sweep ends hundreds at once: one look at the state for all.
pub(super) fn runs_closed(dispatch: &Dispatch, closed: &[(u32, &str)]) {
    let records = dispatch.inner.replica.read(|read| {
        let mut names = BTreeMap::new();
        let mut found = Vec::with_capacity(closed.len());
        for (agent, run_id) in closed {
            if !names.contains_key(agent) {
                names.insert(*agent, state::agent_name_in(read, *agent)?);
            }
            // A drill's own route is no agent that users know.
            let name = names.get(agent).cloned().flatten();
            let name = name.filter(|(_, name)| !id::is_drill_route(name));
            if let (Some((_, name)), Some(run)) = (name, query::run_record(read, *agent, run_id)?) {
                found.push((name, run));
            }
        }
        Ok(found)
    });
    for (agent, run) in records.unwrap_or_default() {
        let outcome = outcome(run.state());
        tracing::debug!(agent, bundle = run.bundle_id, run = run.run_id, outcome, "run ended");
        let labels = [("agent", agent), ("bundle", run.bundle_id), ("outcome", outcome.to_owned())];
        metrics::counter!(RUNS, &labels).increment(1);
    }
}

fn outcome(state: v1::RunState) -> &'static str {
    match state {
        v1::RunState::Completed => "completed",
        v1::RunState::Failed => "failed",
        v1::RunState::Cancelled => "cancelled",
        v1::RunState::Expired => "expired",
        v1::RunState::Continued => "continued",
        v1::RunState::Unspecified
        | v1::RunState::Scheduled
        | v1::RunState::Queued
        | v1::RunState::Running
        | v1::RunState::Waiting
        | v1::RunState::Paused
        | v1::RunState::Cancelling => "open",
    }
}

/// What a gauge is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Cluster,
    Bundle { agent: String, bundle: String },
    Quota { namespace: String, quota: &'static str },
}

/// One gauge: its name, and what it is about.
type Gauge = (&'static str, About);
type Gauges = BTreeMap<Gauge, f64>;

impl About {
    fn bundle(agent: &str, bundle: &str) -> Self {
        Self::Bundle { agent: agent.to_owned(), bundle: bundle.to_owned() }
    }

    fn labels(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Cluster => Vec::new(),
            Self::Bundle { agent, bundle } => {
                vec![("agent", agent.clone()), ("bundle", bundle.clone())]
            }
            Self::Quota { namespace, quota } => {
                vec![("namespace", namespace.clone()), ("quota", (*quota).to_owned())]
            }
        }
    }
}

/// What was published last, so that what is not counted any more goes to zero.
static PUBLISHED: Mutex<Gauges> = Mutex::new(Gauges::new());

/// Publishes until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch) {
    loop {
        publish(measure(&dispatch));
        publish_firing(firing(&dispatch));
        sleep(EVERY).await;
    }
}

/// This node leads no more: it has nothing to say.
pub(super) fn forget() {
    publish(Gauges::new());
    publish_firing(Firing::new());
}

fn publish(gauges: Gauges) {
    let mut published = PUBLISHED.lock();
    let over = published.keys().filter(|key| !gauges.contains_key(*key));
    let zero: Vec<_> = over.map(|key| (key.clone(), 0.0)).collect();
    for ((name, about), value) in zero.iter().map(|(k, v)| (k, v)).chain(&gauges) {
        metrics::gauge!(*name, &about.labels()).set(*value);
    }
    *published = gauges;
}

/// Signals that fired and were not clean since, by agent, bundle and name.
type Firing = BTreeSet<(String, String, String)>;

/// Those that were published last.
static FIRING: Mutex<Firing> = Mutex::new(Firing::new());

fn publish_firing(firing: Firing) {
    let mut published = FIRING.lock();
    for (agent, bundle, signal) in published.union(&firing) {
        let fires = firing.contains(&(agent.clone(), bundle.clone(), signal.clone()));
        let labels =
            [("agent", agent.clone()), ("bundle", bundle.clone()), ("signal", signal.clone())];
        metrics::gauge!(SIGNAL_FIRING, &labels).set(if fires { 1.0 } else { 0.0 });
    }
    *published = firing;
}

fn firing(dispatch: &Dispatch) -> Firing {
    let open = dispatch.inner.replica.read(query::open_firings).unwrap_or_default();
    let name = |(agent, bundle, signal): (String, String, v1::SignalKind)| {
        let signal = signal.as_str_name().trim_start_matches("SIGNAL_KIND_").to_lowercase();
        (agent, bundle, signal)
    };
    open.into_iter().map(name).collect()
}

fn measure(dispatch: &Dispatch) -> Gauges {
    let now = Instant::now();
    let mut gauges = Gauges::new();
    let mut numbers: BTreeMap<u32, String> = BTreeMap::new();
    let mut depths = Vec::new();
    // By the agent's number: agents of two namespaces may share a name, and pins of one are stranded whatever workers the other has.
    let mut worked = BTreeSet::new();
    dispatch.with_desk(|desk| {
        for (agent, bundle, depth, oldest) in desk.queues.depths() {
            depths.push((agent, bundle.to_owned(), depth, now.duration_since(oldest)));
        }
        for (session, held) in desk.sessions().filter(|(session, _)| session.connected()) {
            let it = &session.intro;
            let mut add = |name, value| {
                let key = (name, About::bundle(&it.agent_id, &it.bundle_id));
                *gauges.entry(key).or_default() += value;
            };
            add(WORKERS, 1.0);
            worked.insert((it.agent, it.bundle_id.clone()));
            add(FREE_SLOTS, f64::from(session.free(held)));
            if session.tools.blocked_by().is_some() {
                add(BLOCKED_WORKERS, 1.0);
            }
        }
        let leases = u32::try_from(desk.leases.len()).unwrap_or(u32::MAX);
        gauges.insert((LEASES, About::Cluster), f64::from(leases));
    });
    for (number, bundle, depth, age) in depths {
        let name = numbers.entry(number).or_insert_with(|| {
            agent_name(&dispatch.inner.replica, number).map(|(_, name)| name).unwrap_or_default()
        });
        // What waits on a drill's own route waits on purpose.
        if id::is_drill_route(name) {
            continue;
        }
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        // Agents of two namespaces may share a name.
        let about = About::bundle(name, &bundle);
        let oldest = gauges.entry((OLDEST_READY, about.clone())).or_default();
        *oldest = oldest.max(age.as_secs_f64());
        *gauges.entry((READY, about)).or_default() += f64::from(depth);
    }
    of_bundles(dispatch, &worked, &mut gauges);
    quotas(dispatch, &mut gauges);
    gauges
}

/// What the state counts of each bundle.
fn of_bundles(dispatch: &Dispatch, worked: &BTreeSet<(u32, String)>, gauges: &mut Gauges) {
    let pins = ask(&dispatch.inner.replica, |read| {
        let mut pins = Vec::new();
        for namespace in query::namespaces(read)? {
            let (agents, _) = query::agents(read, &namespace.namespace, AGENTS, "")?;
            for agent in agents {
                let runs = agent.policy.as_ref().and_then(|policy| policy.runs.as_ref());
                let by_workers =
                    runs.is_none_or(|runs| runs.execution() != v1::Execution::External);
                let number = query::agent_number(read, &namespace.namespace, &agent.agent_id)?;
                let (bundles, _) =
                    query::bundles(read, &namespace.namespace, &agent.agent_id, AGENTS, "")?;
                let of = |bundle: v1::Bundle| {
                    let open = bundle.open_pins.map_or(0, |open| open.total);
                    let drift = bundle.open_drifts.unwrap_or_default();
                    let about = About::bundle(&agent.agent_id, &bundle.bundle_id);
                    let may_strand = by_workers && !worked.contains(&(number, bundle.bundle_id));
                    (about, open, may_strand, drift)
                };
                pins.extend(bundles.into_iter().map(of));
            }
        }
        Ok(pins)
    });
    for (about, open, may_strand, drift) in pins.unwrap_or_default() {
        for (name, open) in [(DRIFT_BREAKING, drift.breaking), (DRIFT_COMPATIBLE, drift.compatible)]
        {
            if open > 0 {
                *gauges.entry((name, about.clone())).or_default() += f64::from(open);
            }
        }
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        if may_strand && open > 0 {
            *gauges.entry((STRANDED_PINS, about.clone())).or_default() += f64::from(open);
        }
        *gauges.entry((OPEN_PINS, about)).or_default() += f64::from(open);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; bytes are exact up to 8 PiB")]
fn quotas(dispatch: &Dispatch, gauges: &mut Gauges) {
    for it in ask(&dispatch.inner.replica, query::namespaces).unwrap_or_default() {
        let (used, limits) = (it.used.unwrap_or_default(), it.quotas.unwrap_or_default());
        let all = [
            ("open_runs", used.open_runs, limits.open_runs),
            ("agents", used.agents, limits.agents),
            ("memory_bytes", used.memory_bytes, limits.memory_bytes),
            ("bundles", used.bundles, limits.bundles),
        ];
        for (quota, used, limit) in all {
            let Some(limit) = limit else { continue };
            let about = About::Quota { namespace: it.namespace.clone(), quota };
            gauges.insert((QUOTA_USED, about.clone()), used.unwrap_or_default() as f64);
            gauges.insert((QUOTA_LIMIT, about), limit as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_no_more_is_published_as_zero() {
        let key = |bundle: &str| (READY, About::bundle("a", bundle));
        publish(Gauges::from([(key("v1"), 3.0), (key("v2"), 1.0)]));
        publish(Gauges::from([(key("v2"), 2.0)]));
        assert_eq!(*PUBLISHED.lock(), Gauges::from([(key("v2"), 2.0)]));
    }
}
