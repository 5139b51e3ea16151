//! What is measured of hooks. Labels are agent and hook, never a URL.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::book::Book;

/// Attempts that are over, by outcome: delivered, failed, dead.
pub(crate) const ATTEMPTS: &str = "pinrail_hook_attempts_total";
/// Events on their way to a hook, as far as the leader has taken them in.
pub(crate) const BACKLOG: &str = "pinrail_hook_backlog";
/// Age of the oldest of them, in seconds.
pub(crate) const OLDEST: &str = "pinrail_hook_oldest_seconds";
/// How long attempts took.
pub(crate) const SECONDS: &str = "pinrail_hook_seconds";

/// Says what each metric means, once.
pub(crate) fn describe() {
    metrics::describe_counter!(ATTEMPTS, "Attempts to deliver events to hooks, by outcome");
    metrics::describe_gauge!(BACKLOG, "Events on their way to a hook");
    metrics::describe_gauge!(OLDEST, "Age of the oldest event on its way to a hook");
    metrics::describe_histogram!(SECONDS, "Attempts to deliver events to hooks");
}

/// Counts an attempt.
pub(super) fn attempt(agent: &str, hook: &str, outcome: &'static str, seconds: f64) {
    let labels = [("agent", agent.to_owned()), ("hook", hook.to_owned())];
    metrics::histogram!(SECONDS, &labels).record(seconds);
    let labels =
        [("agent", agent.to_owned()), ("hook", hook.to_owned()), ("outcome", outcome.to_owned())];
    metrics::counter!(ATTEMPTS, &labels).increment(1);
}

/// Agent and hook.
type Labels = (String, String);

/// What was published last, so that what is not counted any more goes to zero.
static PUBLISHED: Mutex<BTreeMap<Labels, (f64, f64)>> = Mutex::new(BTreeMap::new());

/// Publishes what is on its way.
pub(super) fn publish(book: &Book, now_ms: u64) {
    let mut gauges: BTreeMap<Labels, (f64, f64)> = BTreeMap::new();
    for ((agent, hook), lane) in book.lanes() {
        let (count, oldest) = lane.backlog();
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let age_ms = oldest.map_or(0, |at| now_ms.saturating_sub(at));
        let age = f64::from(u32::try_from(age_ms / 1_000).unwrap_or(u32::MAX));
        // Agents of two namespaces may share a name.
        let sum = gauges.entry((book.agent_name(*agent).to_owned(), hook.clone())).or_default();
        *sum = (sum.0 + count, sum.1.max(age));
    }
    set(gauges);
}

/// This node leads no more: it has nothing to say.
pub(crate) fn forget() {
    set(BTreeMap::new());
}

fn set(gauges: BTreeMap<Labels, (f64, f64)>) {
    let mut published = PUBLISHED.lock();
    for labels in published.keys().filter(|labels| !gauges.contains_key(*labels)) {
        gauge(labels, (0.0, 0.0));
    }
    gauges.iter().for_each(|(labels, values)| gauge(labels, *values));
    *published = gauges;
}

fn gauge((agent, hook): &Labels, (count, age): (f64, f64)) {
    let labels = [("agent", agent.clone()), ("hook", hook.clone())];
    metrics::gauge!(BACKLOG, &labels).set(count);
    metrics::gauge!(OLDEST, &labels).set(age);
}
