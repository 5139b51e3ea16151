//! The steps of one bundle that wait, and its workers with free slots.
//!
//! Steps of one key and one task are a flow. Flows take turns by start-time fair queueing (Goyal, Vin and Cheng 1996) with
//! unit cost: the head of a flow is tagged with the queue's virtual time when the flow begins to wait, and each step
//! behind it with one more; the lowest tag is next, and among equal ones the oldest. So flows with one step leave in the
//! order in which they came, and a flood of one key costs each other key one turn at most. Priorities come before tags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::SessionId;

/// Who a worker is to the queues.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Profile {
    pub(crate) worker_id: String,
    /// Names of the steps that it has handlers for. Empty: all.
    pub(crate) serves: BTreeSet<String>,
    /// Every effect goes through what can be suppressed: it may have steps of shadow runs.
    pub(crate) shadow_safe: bool,
}

impl Profile {
    fn takes(&self, task: &Task) -> bool {
        let has_handler = self.serves.is_empty() || self.serves.contains(&task.name);
        has_handler && (self.shadow_safe || !task.shadow)
    }
}

/// What a worker must be able to do to have a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Task {
    pub(super) name: String,
    /// Of a shadow run: for workers that are shadow-safe.
    pub(super) shadow: bool,
}

/// How many of some workers serve a name, and how many serve all.
#[derive(Debug, Default)]
struct Served {
    names: BTreeMap<String, u32>,
    all: u32,
}

impl Served {
    fn count(&mut self, profile: &Profile, change: impl Fn(u32) -> u32) {
        if profile.serves.is_empty() {
            self.all = change(self.all);
        }
        for name in &profile.serves {
            let count = self.names.entry(name.clone()).or_default();
            *count = change(*count);
            if *count == 0 {
                self.names.remove(name);
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all > 0 || self.names.contains_key(name)
    }
}

/// Where a step stands in its flow: priority, revision, run, step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: u32,
    pub(super) ready_revision: u64,
    pub(super) run_id: String,
    pub(super) step: u32,
}

/// The rest of what is to be known of a waiting step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) attempt: u32,
    pub(super) since: Instant,
    pub(super) prefers: String,
}

/// Steps of one key and one task.
#[derive(Debug, Default)]
struct Flow {
    steps: BTreeMap<Place, Ticket>,
    /// Of its head.
    tag: u64,
}

/// Where a flow stands among those of its task: priority, tag, revision, key.
type Head = (u32, u64, u64, String);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By task and key. No flow is empty.
    flows: BTreeMap<Task, BTreeMap<String, Flow>>,
    /// Of flows that may go on, by task. No set is empty.
    heads: BTreeMap<Task, BTreeSet<Head>>,
    /// Keys whose flows may not go on.
    shut: BTreeSet<String>,
    /// The tag that was served last.
    virtual_time: u64,
    /// How many steps wait since when.
    ages: BTreeMap<Instant, usize>,
    waiting: usize,
    /// Workers with free slots.
    free: BTreeMap<SessionId, (u32, Arc<Profile>)>,
    /// The same, ordered by slots, and by their ids.
    order: BTreeSet<(u32, SessionId)>,
    by_worker: BTreeMap<String, SessionId>,
    /// What they serve, and what those do that are shadow-safe.
    served: Served,
    served_safe: Served,
}

impl Queue {
    /// Free slots of a worker, as far as it was said here.
    pub(super) fn slots(&self, session: SessionId) -> u32 {
        self.free.get(&session).map_or(0, |(slots, _)| *slots)
    }

    pub(super) fn set_free(&mut self, session: SessionId, slots: u32, profile: &Arc<Profile>) {
        if let Some((before, known)) = self.free.remove(&session) {
            self.order.remove(&(before, session));
            self.by_worker.remove(&known.worker_id);
            self.count(&known, |count| count - 1);
        }
        if slots > 0 {
            self.free.insert(session, (slots, Arc::clone(profile)));
            self.order.insert((slots, session));
            self.by_worker.insert(profile.worker_id.clone(), session);
            self.count(profile, |count| count + 1);
        }
    }

    /// One slot of a worker is taken.
    pub(super) fn use_slot(&mut self, session: SessionId) {
        if let Some((slots, profile)) = self.free.get(&session).cloned() {
            self.set_free(session, slots - 1, &profile);
        }
    }

    fn count(&mut self, profile: &Profile, change: impl Fn(u32) -> u32) {
        self.served.count(profile, &change);
        if profile.shadow_safe {
            self.served_safe.count(profile, &change);
        }
    }

    pub(super) fn insert(&mut self, task: &Task, key: &str, place: Place, ticket: Ticket) {
        self.unlist(task, key);
        *self.ages.entry(ticket.since).or_default() += 1;
        self.waiting += 1;
        let flows = self.flows.entry(task.clone()).or_default();
        let fresh = Flow { tag: self.virtual_time, ..Flow::default() };
        flows.entry(key.to_owned()).or_insert(fresh).steps.insert(place, ticket);
        self.list(task, key);
    }

    pub(super) fn remove(&mut self, task: &Task, key: &str, place: &Place) {
        self.unlist(task, key);
        let gone = self.flow(task, key).and_then(|flow| flow.steps.remove(place));
        self.forget_age(gone.as_ref());
        self.list(task, key);
    }

    /// Takes the head of a flow, which has had its turn.
    pub(super) fn pop(&mut self, task: &Task, key: &str) -> Option<(Place, Ticket)> {
        self.unlist(task, key);
        let flow = self.flow(task, key)?;
        let first = flow.steps.pop_first();
        let tag = flow.tag;
        flow.tag += 1;
        self.virtual_time = self.virtual_time.max(tag);
        self.forget_age(first.as_ref().map(|(_, ticket)| ticket));
        self.list(task, key);
        first
    }

    fn forget_age(&mut self, gone: Option<&Ticket>) {
        let Some(gone) = gone else { return };
        self.waiting -= 1;
        if let Some(count) = self.ages.get_mut(&gone.since) {
            *count -= 1;
            if *count == 0 {
                self.ages.remove(&gone.since);
            }
        }
    }

    fn flow(&mut self, task: &Task, key: &str) -> Option<&mut Flow> {
        self.flows.get_mut(task)?.get_mut(key)
    }

    fn head(&self, task: &Task, key: &str) -> Option<Head> {
        let flow = self.flows.get(task)?.get(key)?;
        let (place, _) = flow.steps.first_key_value()?;
        Some((place.priority, flow.tag, place.ready_revision, key.to_owned()))
    }

    /// Takes a flow out of the order, before something about it changes.
    fn unlist(&mut self, task: &Task, key: &str) {
        let Some(head) = self.head(task, key) else { return };
        if let Some(heads) = self.heads.get_mut(task) {
            heads.remove(&head);
            if heads.is_empty() {
                self.heads.remove(task);
            }
        }
    }

    /// Puts a flow where it belongs now. One that is empty is gone.
    fn list(&mut self, task: &Task, key: &str) {
        match self.head(task, key) {
            Some(head) if !self.shut.contains(key) => {
                self.heads.entry(task.clone()).or_default().insert(head);
            }
            Some(_) => {}
            None => {
                if let Some(flows) = self.flows.get_mut(task) {
                    flows.remove(key);
                    if flows.is_empty() {
                        self.flows.remove(task);
                    }
                }
            }
        }
    }

    /// Holds the flows of a key back, or lets them go on.
    pub(super) fn set_shut(&mut self, key: &str, shut: bool) {
        let tasks: Vec<Task> = self.flows.keys().cloned().collect();
        for task in &tasks {
            self.unlist(task, key);
        }
        if shut {
            self.shut.insert(key.to_owned());
        } else {
            self.shut.remove(key);
        }
        for task in &tasks {
            self.list(task, key);
        }
    }

    fn serves(&self, task: &Task) -> bool {
        let workers = if task.shadow { &self.served_safe } else { &self.served };
        workers.has(&task.name)
    }

    pub(super) fn matchable(&self) -> bool {
        self.heads.keys().any(|task| self.serves(task))
    }

    /// Task and key of the flow whose turn it is, of those that a free worker serves.
    pub(super) fn next_flow(&self) -> Option<(Task, String)> {
        let served = self.heads.iter().filter(|(task, _)| self.serves(task));
        let first = served.filter_map(|(task, heads)| Some((heads.first()?, task)));
        first.min().map(|(head, task)| (task.clone(), head.3.clone()))
    }

    /// The best priority that waits and that a worker of this profile could have.
    pub(super) fn best_priority(&self, profile: &Profile) -> Option<u32> {
        let takes = self.heads.iter().filter(|(task, _)| profile.takes(task));
        takes.filter_map(|(_, heads)| heads.first()).map(|head| head.0).min()
    }

    /// Whom the head of a flow goes to: the worker that it prefers if that is free, else the one with the most free slots.
    pub(super) fn worker(&self, task: &Task, key: &str) -> Option<SessionId> {
        let takes = |session: &SessionId| {
            self.free.get(session).is_some_and(|(_, profile)| profile.takes(task))
        };
        let (_, head) = self.flows.get(task)?.get(key)?.steps.first_key_value()?;
        let preferred = self.by_worker.get(&head.prefers).copied().filter(takes);
        preferred.or_else(|| self.order.iter().rev().map(|(_, session)| *session).find(takes))
    }

    /// The worker with the most free slots that can have a task, for a step that is not here yet. None when a step waits
    /// that it could have and that is as urgent.
    pub(super) fn idle(&self, task: &Task, priority: u32) -> Option<SessionId> {
        let free = |(_, session): &(u32, SessionId)| self.free.get_key_value(session);
        let mut workers = self.order.iter().rev().filter_map(free);
        let (session, (_, profile)) = workers.find(|(_, (_, profile))| profile.takes(task))?;
        self.best_priority(profile).is_none_or(|best| best > priority).then_some(*session)
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.free.is_empty()
    }

    /// How many steps wait, and since when the oldest does.
    pub(super) fn depth(&self) -> Option<(usize, Instant)> {
        let (oldest, _) = self.ages.first_key_value()?;
        Some((self.waiting, *oldest))
    }

    pub(super) fn clear(&mut self) {
        self.flows.clear();
        self.heads.clear();
        self.ages.clear();
        self.waiting = 0;
        self.shut.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.free.is_empty()
    }
}
