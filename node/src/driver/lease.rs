//! The leases that are out, and when each is over unless its worker is heard of. Leader memory only: apply judges
//! a lease by its token and never by these deadlines. Pure bookkeeping: instants come in as arguments.
//!
//! A lease is known by its token. `of_worker`, `deadlines` and `unsent` are views of `leases` and always agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pinrail_proto::{limits, log, v1};
use pinrail_state_machine::effect::{Rank, StepId};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::counts::Counts;

/// A lease's token, in the order in which the digest of a heartbeat wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) revision: u64,
    pub(crate) incarnation: u64,
}

impl From<&log::Token> for Token {
    fn from(token: &log::Token) -> Self {
        Self { revision: token.revision, incarnation: token.incarnation }
    }
}

impl From<&v1::StepToken> for Token {
    fn from(token: &v1::StepToken) -> Self {
        Self { revision: token.revision, incarnation: token.incarnation }
    }
}

impl From<Token> for log::Token {
    fn from(token: Token) -> Self {
        Self { incarnation: token.incarnation, revision: token.revision }
    }
}

impl From<Token> for v1::StepToken {
    fn from(token: Token) -> Self {
        Self { incarnation: token.incarnation, revision: token.revision }
    }
}

/// A worker by its agent's number and its id.
pub(crate) type WorkerKey = (u32, String);

/// A worker's right to one attempt of a step, as the leader remembers it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) step: StepId,
    pub(crate) bundle_id: String,
    pub(crate) worker_id: String,
    /// The default until the effect of its command tells.
    pub(crate) rank: Rank,
    /// How long it lasts after each sign of life.
    pub(crate) ttl: Duration,
    pub(crate) deadline: Instant,
    /// When this leader learned of it.
    pub(crate) since: Instant,
    /// The assignment was put on the worker's stream, or an earlier leader may have done so.
    pub(crate) sent: bool,
    /// What its worker said last of how far the step is.
    pub(crate) progress: Option<v1::Payload>,
    /// A report that ends it is on its way through the log: its end is no news to the worker.
    pub(crate) ending: bool,
}

impl Lease {
    pub(crate) fn new(
        step: &StepId,
        bundle_id: &str,
        worker_id: &str,
        rank: &Rank,
        ttl: Duration,
        now: Instant,
    ) -> Self {
        Self {
            step: step.clone(),
            bundle_id: bundle_id.to_owned(),
            worker_id: worker_id.to_owned(),
            rank: rank.clone(),
            ttl,
            deadline: now + ttl,
            since: now,
            sent: false,
            progress: None,
            ending: false,
        }
    }

    pub(crate) fn worker(&self) -> WorkerKey {
        (self.step.agent, self.worker_id.clone())
    }
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<Token, Lease>,
    of_worker: BTreeMap<WorkerKey, BTreeSet<Token>>,
    running: Counts,
    deadlines: BTreeSet<(Instant, Token)>,
    unsent: BTreeSet<Token>,
}

impl Leases {
    /// The effect of a lease came: if it is known already, only ttl and rank are news. False: it is not known.
    pub(crate) fn confirm(&mut self, token: Token, ttl: Duration, rank: &Rank) -> bool {
        let Some(known) = self.leases.get_mut(&token) else { return false };
        let (agent, deadline) = (known.step.agent, known.deadline.max(known.since + ttl));
        let is_later = deadline != known.deadline;
        known.ttl = ttl;
        if known.rank != *rank {
            let before = std::mem::replace(&mut known.rank, rank.clone());
            self.running.remove(agent, &before.key);
            self.running.add(agent, &rank.key);
        }
        if is_later {
            self.set_deadline(token, deadline);
        }
        true
    }

    /// Takes a lease in.
    pub(crate) fn insert(&mut self, token: Token, lease: Lease) {
        if self.confirm(token, lease.ttl, &lease.rank) {
            return;
        }
        self.running.add(lease.step.agent, &lease.rank.key);
        self.deadlines.insert((lease.deadline, token));
        self.of_worker.entry(lease.worker()).or_default().insert(token);
        if !lease.sent {
            self.unsent.insert(token);
        }
        self.leases.insert(token, lease);
    }

    /// A lease is over.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Lease> {
        let lease = self.leases.remove(&token)?;
        self.deadlines.remove(&(lease.deadline, token));
        self.unsent.remove(&token);
        let worker = lease.worker();
        if let Some(tokens) = self.of_worker.get_mut(&worker) {
            tokens.remove(&token);
            if tokens.is_empty() {
                self.of_worker.remove(&worker);
            }
        }
        self.running.remove(lease.step.agent, &lease.rank.key);
        Some(lease)
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Lease> {
        self.leases.get(&token)
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Leased steps of an agent.
    pub(crate) fn running(&self, agent: u32) -> u64 {
        self.running.of_agent(agent)
    }

    /// Leased steps of one key.
    pub(crate) fn running_of(&self, agent: u32, key: &str) -> u64 {
        self.running.of_key(agent, key)
    }

    /// What a worker holds, in ascending order of revision.
    pub(crate) fn held(&self, worker: &WorkerKey) -> Vec<Token> {
        self.of_worker
            .get(worker)
            .map(|tokens| tokens.iter().copied().collect())
            .unwrap_or_default()
    }

    pub(crate) fn held_count(&self, worker: &WorkerKey) -> u32 {
        let count = self.of_worker.get(worker).map_or(0, BTreeSet::len);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The digest that a heartbeat of a worker carries when it holds what is known here.
    pub(crate) fn digest(&self, worker: &WorkerKey) -> u64 {
        let mut hash = Xxh3::new();
        for token in self.held(worker) {
            hash.update(&token.incarnation.to_be_bytes());
            hash.update(&token.revision.to_be_bytes());
        }
        hash.digest()
    }

    /// The digest of a worker that holds nothing.
    pub(crate) fn empty_digest() -> u64 {
        Xxh3::new().digest()
    }

    pub(crate) fn set_sent(&mut self, token: Token) {
        self.unsent.remove(&token);
        if let Some(lease) = self.leases.get_mut(&token) {
            lease.sent = true;
        }
    }

    pub(crate) fn set_ending(&mut self, token: Token, ending: bool) {
        if let Some(lease) = self.leases.get_mut(&token) {
            lease.ending = ending;
        }
    }

    /// How far a held step is. More than a progress may have is left out: the worker's library keeps to the limit.
    pub(crate) fn set_progress(&mut self, progress: &v1::StepProgress) {
        let size = progress.value.as_ref().map_or(0, |value| value.data.len());
        let Some(token) = progress.token.as_ref().map(Token::from) else { return };
        if size <= limits::PROGRESS_BYTES
            && let Some(lease) = self.leases.get_mut(&token)
        {
            lease.progress.clone_from(&progress.value);
        }
    }

    /// The worker was heard of: the lease has a full ttl again.
    pub(crate) fn touch(&mut self, token: Token, now: Instant) {
        if let Some(ttl) = self.leases.get(&token).map(|lease| lease.ttl) {
            self.set_deadline(token, now + ttl);
        }
    }

    /// Ends a lease at the next look.
    pub(crate) fn end_at(&mut self, token: Token, at: Instant) {
        self.set_deadline(token, at);
    }

    /// After a stall of the leader's own: no worker pays for it.
    pub(crate) fn extend_all(&mut self, gap: Duration) {
        self.deadlines.clear();
        for (token, lease) in &mut self.leases {
            lease.deadline += gap;
            lease.since += gap;
            self.deadlines.insert((lease.deadline, *token));
        }
    }

    /// Takes over the deadlines of leases that were known before.
    pub(crate) fn keep_deadlines(&mut self, before: &Self) {
        let tokens: Vec<Token> = self.leases.keys().copied().collect();
        for token in tokens {
            let Some(known) = before.leases.get(&token) else { continue };
            self.set_deadline(token, known.deadline);
            if let Some(lease) = self.leases.get_mut(&token) {
                (lease.since, lease.ending) = (known.since, known.ending);
                lease.progress.clone_from(&known.progress);
            }
        }
    }

    /// Leases that are over at `now`, the earliest first.
    pub(crate) fn due(&self, now: Instant, limit: usize) -> Vec<(Token, Lease)> {
        self.deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .take(limit)
            .filter_map(|(_, token)| Some((*token, self.leases.get(token)?.clone())))
            .collect()
    }

    /// Leases whose assignment was not sent within `grace`: their worker cannot know of them.
    pub(crate) fn never_sent(&self, now: Instant, grace: Duration) -> Vec<Token> {
        let late = |token: &Token| self.leases.get(token).is_some_and(|l| l.since + grace <= now);
        self.unsent.iter().copied().filter(late).collect()
    }

    fn set_deadline(&mut self, token: Token, deadline: Instant) {
        if let Some(lease) = self.leases.get_mut(&token) {
            self.deadlines.remove(&(lease.deadline, token));
            lease.deadline = deadline;
            self.deadlines.insert((deadline, token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn token(revision: u64) -> Token {
        Token { revision, incarnation: 7 }
    }

    fn lease(worker: &str, run: &str, now: Instant) -> Lease {
        Lease {
            step: StepId { agent: 1, run_id: run.into(), step: 1 },
            bundle_id: "v1".into(),
            worker_id: worker.into(),
            rank: Rank::default(),
            ttl: TTL,
            deadline: now + TTL,
            since: now,
            sent: false,
            progress: None,
            ending: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_due_when_its_worker_was_not_heard_of_for_a_ttl() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.insert(token(1), lease("w", "a", now));
        leases.insert(token(2), lease("w", "b", now));
        assert!(leases.due(now + TTL - Duration::from_millis(1), 9).is_empty());
        leases.touch(token(2), now + Duration::from_secs(10));
        let due = leases.due(now + TTL, 9);
        assert_eq!(due.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [token(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_the_leader_costs_no_lease() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.insert(token(1), lease("w", "a", now));
        leases.extend_all(Duration::from_secs(60));
        assert!(leases.due(now + TTL + Duration::from_secs(59), 9).is_empty());
        assert_eq!(leases.due(now + TTL + Duration::from_secs(60), 9).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_assignment_that_never_left_is_found() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let grace = Duration::from_secs(2);
        leases.insert(token(1), lease("w", "a", now));
        leases.insert(token(2), lease("w", "b", now));
        leases.set_sent(token(2));
        assert!(leases.never_sent(now, grace).is_empty());
        assert_eq!(leases.never_sent(now + grace, grace), [token(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_digest_is_over_the_tokens_in_order() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let worker = (1, "w".to_owned());
        assert_eq!(leases.digest(&worker), xxhash_rust::xxh3::xxh3_64(&[]));
        for revision in [5, 3] {
            leases.insert(token(revision), lease("w", "a", now));
        }
        let mut bytes = Vec::new();
        for revision in [3_u64, 5] {
            bytes.extend(7_u64.to_be_bytes());
            bytes.extend(revision.to_be_bytes());
        }
        assert_eq!(leases.digest(&worker), xxhash_rust::xxh3::xxh3_64(&bytes));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_lease_leaves_nothing_behind() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.insert(token(1), lease("w", "a", now));
        leases.end_at(token(1), now);
        assert_eq!(leases.running(1), 1);
        assert!(leases.remove(token(1)).is_some());
        assert!(leases.remove(token(1)).is_none());
        assert_eq!(leases.running(1), 0);
        assert!(leases.due(now + TTL, 9).is_empty());
        assert!(leases.of_worker.is_empty() && leases.unsent.is_empty());
        assert!(leases.running.is_empty());
    }
}
