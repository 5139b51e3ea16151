//! Which step waits for which bundle's workers, and who has a free slot. Pure bookkeeping: no I/O, no clock.
//!
//! One queue for each (agent, bundle), so that a bundle without workers never blocks another one. Agents take turns, and
//! so do the bundles of an agent; what is next within a bundle its [`queue::Queue`] says. A key whose steps run as many
//! as they may is shut until one of them is over.
//!
//! Knows nothing of leases, sessions or the state. Every map is ordered, so that the simulation repeats itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use pinrail_state_machine::effect::{Rank, StepId};
use tokio::time::Instant;

mod queue;

pub(crate) use queue::Profile;
use queue::{Place, Queue, Task, Ticket};

/// Names a connected worker for as long as its session lives.
pub(crate) type SessionId = u64;

/// A step that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) step: StepId,
    pub(crate) bundle_id: String,
    /// What it is called: only workers that serve steps of this name can have it.
    pub(crate) name: String,
    /// The attempt to start.
    pub(crate) attempt: u32,
    /// Its place among steps of the same rank.
    pub(crate) ready_revision: u64,
    pub(crate) rank: Rank,
    /// When this leader learned of it.
    pub(crate) since: Instant,
}

impl Waiting {
    fn place(&self) -> Place {
        Place {
            priority: self.rank.priority,
            ready_revision: self.ready_revision,
            run_id: self.step.run_id.clone(),
            step: self.step.step,
        }
    }
}

/// A step and the worker that is to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) waiting: Waiting,
    pub(crate) session: SessionId,
}

type BundleKey = (u32, String);

/// Where a waiting step is.
#[derive(Debug)]
struct Where {
    bundle_id: String,
    task: Task,
    key: String,
    place: Place,
}

/// All queues of a leader.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<BundleKey, Queue>,
    places: BTreeMap<StepId, Where>,
    /// Queues with a step and a free worker that serves it.
    matchable: BTreeSet<BundleKey>,
    /// Queues with a free worker.
    idle: BTreeSet<BundleKey>,
    /// By agent: keys that are held back, and in which bundles.
    shut: BTreeMap<u32, BTreeMap<String, BTreeSet<String>>>,
    /// The agent that was served last, and of each agent the bundle.
    last_agent: u32,
    last_bundle: BTreeMap<u32, String>,
}

impl Queues {
    /// A step waits. One that is waiting already moves to where it is said to be now.
    pub(crate) fn ready(&mut self, waiting: Waiting) {
        self.withdraw(&waiting.step);
        let place = waiting.place();
        let Waiting { step, bundle_id, name, attempt, ready_revision: _, rank, since } = waiting;
        let bundle = (step.agent, bundle_id.clone());
        let ticket = Ticket { attempt, since, prefers: rank.prefers };
        let queue = self.queues.entry(bundle.clone()).or_default();
        let task = Task { name, shadow: rank.shadow };
        queue.insert(&task, &rank.key, place.clone(), ticket);
        self.tidy(&bundle);
        self.places.insert(step, Where { bundle_id, task, key: rank.key, place });
    }

    /// A step waits no longer. False when it did not.
    pub(crate) fn withdraw(&mut self, step: &StepId) -> bool {
        let Some(it) = self.places.remove(step) else { return false };
        let bundle = (step.agent, it.bundle_id);
        if let Some(queue) = self.queues.get_mut(&bundle) {
            queue.remove(&it.task, &it.key, &it.place);
        }
        self.tidy(&bundle);
        true
    }

    /// A worker has so many free slots now; 0 takes it out. One that goes from a step to the next has as many as before.
    pub(crate) fn set_free(
        &mut self,
        agent: u32,
        bundle_id: &str,
        session: SessionId,
        slots: u32,
        profile: &Arc<Profile>,
    ) {
        let bundle = (agent, bundle_id.to_owned());
        if self.queues.get(&bundle).map_or(0, |queue| queue.slots(session)) == slots {
            return;
        }
        self.queues.entry(bundle.clone()).or_default().set_free(session, slots, profile);
        self.tidy(&bundle);
    }

    /// Whether any worker has a free slot.
    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// The worker that a step would go to which does not wait yet. None when a step waits for it that is as urgent.
    pub(crate) fn idle(&self, coming: &Waiting) -> Option<SessionId> {
        let bundle = (coming.step.agent, coming.bundle_id.clone());
        let task = Task { name: coming.name.clone(), shadow: coming.rank.shadow };
        self.queues.get(&bundle)?.idle(&task, coming.rank.priority)
    }

    /// Takes the next step that a worker can have, of a bundle that `allowed` lets through by a
    /// gate, and of a key that has `room` by it.
    pub(crate) fn take<G>(
        &mut self,
        mut allowed: impl FnMut(u32, &str) -> Option<G>,
        mut room: impl FnMut(&G, u32, &str) -> bool,
    ) -> Option<(Match, G)> {
        let mut refused: BTreeSet<BundleKey> = BTreeSet::new();
        loop {
            let bundle = self.next_queue(&refused)?;
            let Some(gate) = allowed(bundle.0, &bundle.1) else {
                refused.insert(bundle);
                continue;
            };
            let (task, key) = self.queues.get(&bundle)?.next_flow()?;
            if room(&gate, bundle.0, &key) {
                return Some((self.take_from(&bundle, &task, &key)?, gate));
            }
            self.shut(&bundle, &key);
        }
    }

    /// Steps of this key wait until there is room for one of them.
    fn shut(&mut self, bundle: &BundleKey, key: &str) {
        if let Some(queue) = self.queues.get_mut(bundle) {
            queue.set_shut(key, true);
        }
        let bundles = self.shut.entry(bundle.0).or_default().entry(key.to_owned()).or_default();
        bundles.insert(bundle.1.clone());
        self.tidy(bundle);
    }

    /// There may be room for steps of this key again.
    pub(crate) fn reopen(&mut self, agent: u32, key: &str) {
        let Some(keys) = self.shut.get_mut(&agent) else { return };
        let Some(bundles) = keys.remove(key) else { return };
        if keys.is_empty() {
            self.shut.remove(&agent);
        }
        for bundle_id in bundles {
            let bundle = (agent, bundle_id);
            if let Some(queue) = self.queues.get_mut(&bundle) {
                queue.set_shut(key, false);
            }
            self.tidy(&bundle);
        }
    }

    /// The limits of an agent have changed: there may be room for every key.
    pub(crate) fn reopen_all(&mut self, agent: u32) {
        let keys = self.shut.get(&agent).map(|keys| keys.keys().cloned().collect::<Vec<_>>());
        for key in keys.unwrap_or_default() {
            self.reopen(agent, &key);
        }
    }

    /// The best priority that waits and that a worker of this profile could have.
    pub(crate) fn best_priority(
        &self,
        agent: u32,
        bundle_id: &str,
        profile: &Profile,
    ) -> Option<u32> {
        self.queues.get(&(agent, bundle_id.to_owned()))?.best_priority(profile)
    }

    /// How many steps wait, for each agent and bundle that has some, and since when the oldest does.
    pub(crate) fn depths(&self) -> impl Iterator<Item = (u32, &str, usize, Instant)> {
        self.queues.iter().filter_map(|((agent, bundle), queue)| {
            let (depth, oldest) = queue.depth()?;
            Some((*agent, bundle.as_str(), depth, oldest))
        })
    }

    /// Forgets which steps wait; free slots stay.
    pub(crate) fn clear_ready(&mut self) {
        self.places.clear();
        self.matchable.clear();
        self.shut.clear();
        self.queues.retain(|_, queue| {
            queue.clear();
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

    fn take_from(&mut self, bundle: &BundleKey, task: &Task, key: &str) -> Option<Match> {
        let queue = self.queues.get_mut(bundle)?;
        let session = queue.worker(task, key)?;
        let (place, ticket) = queue.pop(task, key)?;
        queue.use_slot(session);
        let (agent, bundle_id) = bundle.clone();
        self.last_agent = agent;
        self.last_bundle.insert(agent, bundle_id.clone());
        let step = StepId { agent, run_id: place.run_id, step: place.step };
        self.places.remove(&step);
        self.tidy(bundle);
        let rank = Rank {
            priority: place.priority,
            key: key.to_owned(),
            prefers: ticket.prefers,
            shadow: task.shadow,
        };
        let waiting = Waiting {
            step,
            bundle_id,
            name: task.name.clone(),
            attempt: ticket.attempt,
            ready_revision: place.ready_revision,
            rank,
            since: ticket.since,
        };
        Some(Match { waiting, session })
    }

    fn tidy(&mut self, key: &BundleKey) {
        let Some(queue) = self.queues.get(key) else { return };
        if queue.has_idle() {
            self.idle.insert(key.clone());
        } else {
            self.idle.remove(key);
        }
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
mod tests;
