//! Which step waits for which bundle's workers, and who has a free slot. Pure bookkeeping: no I/O, no clock.
//!
//! One queue for each (agent, bundle), so that a bundle without workers never blocks another one. Steps leave a
//! queue in the order of the revision that made them ready. Agents take turns, and so do the bundles of an agent;
//! within a bundle the worker with the most free slots is next.
//!
//! Knows nothing of leases, sessions or the state. Every map is ordered, so that the simulation repeats itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use pinrail_state_machine::effect::StepId;
use tokio::time::Instant;

/// Names a connected worker for as long as its session lives.
pub(crate) type SessionId = u64;

/// Names of the steps that a worker has handlers for. Empty: all.
pub(crate) type Serves = Arc<BTreeSet<String>>;

/// A step that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) step: StepId,
    pub(crate) bundle_id: String,
    /// What it is called: only workers that serve steps of this name can have it.
    pub(crate) name: String,
    /// The attempt to start.
    pub(crate) attempt: u32,
    /// Its place in the queue.
    pub(crate) ready_revision: u64,
    /// When this leader learned of it.
    pub(crate) since: Instant,
}

/// A step and the worker that is to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) waiting: Waiting,
    pub(crate) session: SessionId,
}

/// Revision, run, step.
type Place = (u64, String, u32);
type BundleKey = (u32, String);

#[derive(Debug, Default)]
struct Queue {
    /// By name of the step; the innermost value is the attempt and since when it waits. No line is empty.
    ready: BTreeMap<String, BTreeMap<Place, (u32, Instant)>>,
    /// Workers with free slots.
    free: BTreeMap<SessionId, (u32, Serves)>,
    /// The same, ordered by slots.
    order: BTreeSet<(u32, SessionId)>,
    /// How many of them serve a name, and how many serve all.
    served: BTreeMap<String, u32>,
    serve_all: u32,
}

impl Queue {
    fn set_free(&mut self, session: SessionId, slots: u32, serves: &Serves) {
        if let Some((before, served)) = self.free.remove(&session) {
            self.order.remove(&(before, session));
            self.count(&served, |count| count - 1);
        }
        if slots > 0 {
            self.free.insert(session, (slots, Arc::clone(serves)));
            self.order.insert((slots, session));
            self.count(serves, |count| count + 1);
        }
    }

    fn count(&mut self, serves: &Serves, change: impl Fn(u32) -> u32) {
        if serves.is_empty() {
            self.serve_all = change(self.serve_all);
        }
        for name in serves.iter() {
            let count = self.served.entry(name.clone()).or_default();
            *count = change(*count);
            if *count == 0 {
                self.served.remove(name);
            }
        }
    }

    fn serves(&self, name: &str) -> bool {
        self.serve_all > 0 || self.served.contains_key(name)
    }

    fn matchable(&self) -> bool {
        self.ready.keys().any(|name| self.serves(name))
    }

    /// The line whose first step is oldest, of those that a free worker serves.
    fn next_line(&self) -> Option<String> {
        let served = self.ready.iter().filter(|(name, _)| self.serves(name));
        let first = served.filter_map(|(name, line)| Some((&line.first_key_value()?.0.0, name)));
        first.min().map(|(_, name)| name.clone())
    }

    /// The worker with the most free slots, of those that serve this name.
    fn worker(&self, name: &str) -> Option<SessionId> {
        let serves = |session: &SessionId| {
            self.free.get(session).is_some_and(|(_, of)| of.is_empty() || of.contains(name))
        };
        self.order.iter().rev().map(|(_, session)| *session).find(serves)
    }

    fn pop(&mut self, name: &str) -> Option<(Place, (u32, Instant))> {
        let line = self.ready.get_mut(name)?;
        let first = line.pop_first();
        if line.is_empty() {
            self.ready.remove(name);
        }
        first
    }

    fn remove(&mut self, name: &str, place: &Place) {
        if let Some(line) = self.ready.get_mut(name) {
            line.remove(place);
            if line.is_empty() {
                self.ready.remove(name);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.free.is_empty()
    }
}

/// Where a waiting step is.
#[derive(Debug)]
struct Where {
    bundle_id: String,
    name: String,
    ready_revision: u64,
}

/// All queues of a leader.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<BundleKey, Queue>,
    places: BTreeMap<StepId, Where>,
    /// Queues with a step and a free worker that serves it.
    matchable: BTreeSet<BundleKey>,
    /// The agent that was served last, and of each agent the bundle.
    last_agent: u32,
    last_bundle: BTreeMap<u32, String>,
}

impl Queues {
    /// A step waits. One that is waiting already moves to where it is said to be now.
    pub(crate) fn ready(&mut self, waiting: Waiting) {
        self.withdraw(&waiting.step);
        let Waiting { step, bundle_id, name, attempt, ready_revision, since } = waiting;
        let key = (step.agent, bundle_id.clone());
        let queue = self.queues.entry(key.clone()).or_default();
        let place = (ready_revision, step.run_id.clone(), step.step);
        queue.ready.entry(name.clone()).or_default().insert(place, (attempt, since));
        if queue.serves(&name) {
            self.matchable.insert(key);
        }
        self.places.insert(step, Where { bundle_id, name, ready_revision });
    }

    /// A step waits no longer. False when it did not.
    pub(crate) fn withdraw(&mut self, step: &StepId) -> bool {
        let Some(place) = self.places.remove(step) else { return false };
        let key = (step.agent, place.bundle_id);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.remove(&place.name, &(place.ready_revision, step.run_id.clone(), step.step));
        }
        self.tidy(&key);
        true
    }

    /// A worker has so many free slots now; 0 takes it out.
    pub(crate) fn set_free(
        &mut self,
        agent: u32,
        bundle_id: &str,
        session: SessionId,
        slots: u32,
        serves: &Serves,
    ) {
        let key = (agent, bundle_id.to_owned());
        self.queues.entry(key.clone()).or_default().set_free(session, slots, serves);
        self.tidy(&key);
    }

    /// Takes the next step that a worker can have, of a queue that `allowed` lets through.
    pub(crate) fn take(&mut self, mut allowed: impl FnMut(u32, &str) -> bool) -> Option<Match> {
        let mut refused: BTreeSet<BundleKey> = BTreeSet::new();
        loop {
            let key = self.next_queue(&refused)?;
            if allowed(key.0, &key.1) {
                return self.take_from(&key);
            }
            refused.insert(key);
        }
    }

    /// How many steps wait, for each agent and bundle that has some, and since when the oldest does.
    pub(crate) fn depths(&self) -> impl Iterator<Item = (u32, &str, usize, Instant)> {
        self.queues.iter().filter_map(|((agent, bundle), queue)| {
            let heads = queue.ready.values().filter_map(BTreeMap::first_key_value);
            let oldest = heads.map(|(_, (_, since))| *since).min()?;
            let depth = queue.ready.values().map(BTreeMap::len).sum();
            Some((*agent, bundle.as_str(), depth, oldest))
        })
    }

    /// Forgets which steps wait; free slots stay.
    pub(crate) fn clear_ready(&mut self) {
        self.places.clear();
        self.matchable.clear();
        self.queues.retain(|_, queue| {
            queue.ready.clear();
            !queue.is_empty()
        });
    }

    /// The queue whose turn it is: the next agent behind the last one, of it the next bundle.
    fn next_queue(&self, refused: &BTreeSet<BundleKey>) -> Option<BundleKey> {
        let behind = (self.last_agent.saturating_add(1), String::new());
        let later = self.matchable.range(behind.clone()..);
        let earlier = self.matchable.range(..behind);
        let agent = later.chain(earlier).find(|key| !refused.contains(*key))?.0;
        let first = (agent, String::new());
        let last = self.last_bundle.get(&agent).map_or_else(String::new, Clone::clone);
        let behind = (agent, last);
        let of_agent = |key: &&BundleKey| !refused.contains(*key);
        let of = |from: Bound<BundleKey>| {
            let range = self.matchable.range((from, Bound::Unbounded));
            range.take_while(|key| key.0 == agent).find(of_agent)
        };
        of(Bound::Excluded(behind)).or_else(|| of(Bound::Included(first))).cloned()
    }

    fn take_from(&mut self, key: &BundleKey) -> Option<Match> {
        let queue = self.queues.get_mut(key)?;
        let name = queue.next_line()?;
        let session = queue.worker(&name)?;
        let ((ready_revision, run_id, step), (attempt, since)) = queue.pop(&name)?;
        let (slots, serves) = queue.free.get(&session).cloned()?;
        queue.set_free(session, slots - 1, &serves);
        let (agent, bundle_id) = key.clone();
        self.last_agent = agent;
        self.last_bundle.insert(agent, bundle_id.clone());
        let step = StepId { agent, run_id, step };
        self.places.remove(&step);
        self.tidy(key);
        let waiting = Waiting { step, bundle_id, name, attempt, ready_revision, since };
        Some(Match { waiting, session })
    }

    fn tidy(&mut self, key: &BundleKey) {
        let Some(queue) = self.queues.get(key) else { return };
        if queue.matchable() {
            self.matchable.insert(key.clone());
        } else {
            self.matchable.remove(key);
            if queue.is_empty() {
                self.queues.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(agent: u32, bundle: &str, run: &str, revision: u64) -> Waiting {
        Waiting {
            step: StepId { agent, run_id: run.into(), step: 1 },
            bundle_id: bundle.into(),
            name: "main".into(),
            attempt: 1,
            ready_revision: revision,
            since: Instant::now(),
        }
    }

    fn free(queues: &mut Queues, agent: u32, bundle: &str, session: SessionId, slots: u32) {
        queues.set_free(agent, bundle, session, slots, &Serves::default());
    }

    fn drain(queues: &mut Queues) -> Vec<(u32, String, SessionId)> {
        std::iter::from_fn(|| queues.take(|_, _| true))
            .map(|m| (m.waiting.step.agent, m.waiting.step.run_id, m.session))
            .collect()
    }

    #[test]
    fn steps_leave_in_the_order_in_which_they_became_ready() {
        let mut queues = Queues::default();
        for (run, revision) in [("c", 3), ("a", 9), ("b", 1)] {
            queues.ready(waiting(1, "v1", run, revision));
        }
        free(&mut queues, 1, "v1", 7, 3);
        let runs: Vec<_> = drain(&mut queues).into_iter().map(|(_, run, _)| run).collect();
        assert_eq!(runs, ["b", "c", "a"]);
    }

    #[test]
    fn a_bundle_without_workers_blocks_no_other() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "old", 1));
        queues.ready(waiting(1, "v2", "new", 2));
        free(&mut queues, 1, "v2", 7, 5);
        assert_eq!(drain(&mut queues), [(1, "new".to_owned(), 7)]);
        free(&mut queues, 1, "v1", 8, 1);
        assert_eq!(drain(&mut queues), [(1, "old".to_owned(), 8)]);
    }

    #[test]
    fn a_step_goes_only_to_a_worker_of_its_bundle() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "r", 1));
        free(&mut queues, 1, "v2", 7, 5);
        free(&mut queues, 2, "v1", 8, 5);
        assert_eq!(drain(&mut queues), []);
    }

    #[test]
    fn agents_take_turns_however_much_one_of_them_has() {
        let mut queues = Queues::default();
        for i in 0..100 {
            queues.ready(waiting(1, "v1", &format!("a{i:03}"), i));
        }
        queues.ready(waiting(2, "v1", "b", 200));
        queues.ready(waiting(3, "v1", "c", 201));
        for agent in 1..=3 {
            free(&mut queues, agent, "v1", u64::from(agent), 50);
        }
        let first: Vec<u32> =
            (0..3).filter_map(|_| queues.take(|_, _| true)).map(|m| m.waiting.step.agent).collect();
        assert_eq!(first, [1, 2, 3]);
    }

    #[test]
    fn bundles_of_an_agent_take_turns() {
        let mut queues = Queues::default();
        for i in 0..4 {
            queues.ready(waiting(1, "v1", &format!("a{i}"), i));
            queues.ready(waiting(1, "v2", &format!("b{i}"), 10 + i));
        }
        free(&mut queues, 1, "v1", 1, 9);
        free(&mut queues, 1, "v2", 2, 9);
        let order: String = drain(&mut queues).iter().map(|(_, run, _)| &run[..1]).collect();
        assert_eq!(order, "abababab");
    }

    #[test]
    fn the_worker_with_most_free_slots_is_next_and_none_gets_more_than_it_has() {
        let mut queues = Queues::default();
        for i in 0..9 {
            queues.ready(waiting(1, "v1", &format!("r{i}"), i));
        }
        free(&mut queues, 1, "v1", 1, 1);
        free(&mut queues, 1, "v1", 2, 4);
        let taken = drain(&mut queues);
        assert_eq!(taken.iter().filter(|(_, _, session)| *session == 1).count(), 1);
        assert_eq!(taken.iter().filter(|(_, _, session)| *session == 2).count(), 4);
        assert_eq!(taken[0].2, 2);
        assert_eq!(queues.depths().map(|(_, _, depth, _)| depth).sum::<usize>(), 4);
    }

    #[test]
    fn a_step_goes_only_to_a_worker_that_serves_its_name() {
        let mut queues = Queues::default();
        let named = |name: &str, run: &str, revision| Waiting {
            name: name.into(),
            ..waiting(1, "v1", run, revision)
        };
        let serves = |name: &str| Arc::new(BTreeSet::from([name.to_owned()]));
        queues.ready(named("plan", "a", 1));
        queues.ready(named("answer", "b", 2));
        queues.ready(named("plan", "c", 3));
        queues.set_free(1, "v1", 7, 9, &serves("answer"));
        assert_eq!(drain(&mut queues), [(1, "b".to_owned(), 7)]);
        queues.set_free(1, "v1", 8, 2, &serves("plan"));
        assert_eq!(drain(&mut queues), [(1, "a".to_owned(), 8), (1, "c".to_owned(), 8)]);
        queues.ready(named("other", "d", 4));
        assert_eq!(drain(&mut queues), [], "nobody serves it");
        free(&mut queues, 1, "v1", 9, 1);
        assert_eq!(drain(&mut queues), [(1, "d".to_owned(), 9)], "who names no steps serves all");
    }

    #[test]
    fn a_withdrawn_step_is_not_handed_out() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "r", 1));
        free(&mut queues, 1, "v1", 1, 1);
        let step = StepId { agent: 1, run_id: "r".into(), step: 1 };
        assert!(queues.withdraw(&step));
        assert!(!queues.withdraw(&step));
        assert_eq!(drain(&mut queues), []);
    }

    #[test]
    fn a_step_that_is_ready_again_waits_once() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "r", 1));
        queues.ready(Waiting { attempt: 2, ..waiting(1, "v1", "r", 5) });
        free(&mut queues, 1, "v1", 1, 3);
        let taken = queues.take(|_, _| true).expect("it waits");
        assert_eq!((taken.waiting.attempt, taken.waiting.ready_revision), (2, 5));
        assert_eq!(queues.take(|_, _| true), None);
    }

    #[test]
    fn a_refused_queue_keeps_its_steps_and_others_go_on() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "paused", 1));
        queues.ready(waiting(1, "v2", "a", 2));
        queues.ready(waiting(2, "v1", "b", 3));
        free(&mut queues, 1, "v1", 1, 1);
        free(&mut queues, 1, "v2", 2, 1);
        free(&mut queues, 2, "v1", 3, 1);
        let not_paused = |agent: u32, bundle: &str| (agent, bundle) != (1, "v1");
        let runs: Vec<_> =
            std::iter::from_fn(|| queues.take(not_paused)).map(|m| m.waiting.step.run_id).collect();
        assert_eq!(runs, ["a", "b"]);
        assert_eq!(drain(&mut queues).len(), 1);
    }

    #[test]
    fn forgetting_the_steps_keeps_the_slots() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "r", 1));
        free(&mut queues, 1, "v1", 1, 1);
        queues.clear_ready();
        assert_eq!(drain(&mut queues), []);
        queues.ready(waiting(1, "v1", "s", 2));
        assert_eq!(drain(&mut queues).len(), 1);
    }

    #[test]
    fn nothing_is_left_of_queues_that_are_over() {
        let mut queues = Queues::default();
        queues.ready(waiting(1, "v1", "r", 1));
        free(&mut queues, 1, "v1", 1, 1);
        drain(&mut queues);
        assert!(
            queues.queues.is_empty() && queues.matchable.is_empty() && queues.places.is_empty()
        );
    }
}
