//! What a leader remembers while it leads: queues, leases, sessions, due times. All of it can be rebuilt from the state;
//! none of it decides anything. Synchronous: whoever holds the lock never waits.
//!
//! ```text
//!   effects of applied commands ──> Desk ──> matches (step, worker) ──> proposed ──> settled
//!   workers' credits, heartbeats ──┘   └───> messages to workers, leases that are over
//! ```
//! Who gets a step is in `assign`, what connected workers say in `workers`.

mod assign;
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use pinrail_proto::v1::work_response::Message;
use pinrail_proto::{time, v1};
use pinrail_state_machine::effect::{Effect, Rank, StepId};
use tokio::time::Instant;

use super::counts::Counts;
use super::gates::Gates;
use super::lease::{Lease, Leases, Token, WorkerKey};
use super::queues::{Queues, SessionId, Waiting};
use super::rings::Rings;
use super::session::{Session, SessionEnd, lease_lost};

pub(crate) use assign::Assigned;

/// Commands that a leader proposes at once.
pub(crate) const PROPOSALS: usize = 256;
/// An assignment is on its worker's stream within this time, or its lease ends.
const SENT_WITHIN: Duration = Duration::from_secs(2);

/// What effects ask of the leader's tasks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wake {
    pub(crate) assign: bool,
    pub(crate) sweep: bool,
    pub(crate) drift: bool,
}

/// The leader's memory.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) queues: Queues,
    pub(crate) leases: Leases,
    sessions: BTreeMap<SessionId, Session>,
    by_worker: BTreeMap<WorkerKey, SessionId>,
    last_session: SessionId,
    /// By agent: when the sweep has to look, in cluster time.
    pub(crate) due: BTreeMap<u32, u64>,
    gates: Gates,
    /// Assignments that are on their way through the log: they count as running before they are.
    proposed: Counts,
    pub(crate) rings: Rings,
    /// Effects up to this revision have been taken in.
    seen_revision: u64,
}

impl Desk {
    /// An empty desk. Sessions of different terms have different ids.
    pub(crate) fn for_term(term: u64) -> Self {
        Self { last_session: term << 32, rings: Rings::for_term(term), ..Self::default() }
    }

    /// Whether a session is one of this desk's, even if it is over.
    fn is_of_this_term(&self, session: SessionId) -> bool {
        session >> 32 == self.last_session >> 32
    }

    /// Takes in what a command did.
    pub(crate) fn effect(&mut self, effect: &Effect, now: Instant) -> Wake {
        let mut wake = Wake::default();
        match effect {
            Effect::StepReady { step, bundle_id, name, attempt, ready_revision, rank } => {
                self.queues.ready(Waiting {
                    step: step.clone(),
                    bundle_id: bundle_id.clone(),
                    name: name.clone(),
                    attempt: *attempt,
                    ready_revision: *ready_revision,
                    rank: rank.clone(),
                    since: now,
                });
                wake.assign = true;
            }
            Effect::StepWithdrawn { step, bundle_id: _ } => {
                self.queues.withdraw(step);
            }
            Effect::Leased { step, bundle_id, attempt: _, token, worker_id, lease_ms, rank } => {
                self.queues.withdraw(step);
                let (token, ttl) = (token.into(), Duration::from_millis(*lease_ms));
                if !self.leases.confirm(token, ttl, rank) {
                    self.leased(token, Lease::new(step, bundle_id, worker_id, rank, ttl, now));
                }
            }
            Effect::LeaseEnded { step: _, token, worker_id: _ } => {
                self.lease_ended(token.into());
                wake.assign = true;
            }
            Effect::CancelRequested { step, token, worker_id, reason, grace_ms } => {
                let message = Message::Cancel(v1::CancelStep {
                    token: Some(Token::from(token).into()),
                    run_id: step.run_id.clone(),
                    step: step.step,
                    reason: (*reason).into(),
                    lease_lost: false,
                    grace: Some(time::duration(*grace_ms)),
                });
                self.tell(&(step.agent, worker_id.clone()), message);
            }
            Effect::DeadlineSet { agent, due_ms } => {
                self.set_due(*agent, *due_ms);
                wake.sweep = true;
            }
            Effect::AgentChanged { agent } => {
                self.gates.changed(*agent);
                self.queues.reopen_all(*agent);
                wake.assign = true;
                wake.drift = true;
            }
            Effect::RunClosed { agent, run_id } => self.rings.closed(*agent, run_id, now),
        }
        wake
    }

    /// Effects of all commands up to `revision` have been taken in.
    pub(crate) fn seen(&mut self, revision: u64) {
        self.seen_revision = self.seen_revision.max(revision);
    }

    /// A lease that an effect told of, or that the state held when this leader began.
    fn leased(&mut self, token: Token, lease: Lease) {
        let worker = lease.worker();
        self.leases.insert(token, lease);
        self.refresh(&worker);
    }

    /// A lease that the state held when this leader began: an earlier leader may have sent its assignment, so it
    /// has one full ttl.
    pub(crate) fn inherited(&mut self, token: Token, lease: Lease) {
        self.leased(token, lease);
        self.leases.set_sent(token);
    }

    /// A lease is over. Its worker is told unless its own report ended it.
    fn lease_ended(&mut self, token: Token) {
        let Some(lease) = self.leases.remove(token) else { return };
        self.queues.reopen(lease.step.agent, &lease.rank.key);
        let worker = lease.worker();
        if !lease.ending {
            self.tell(&worker, lease_lost(token, &lease.step.run_id, lease.step.step));
        }
        self.refresh(&worker);
    }

    /// A worker's own report ended a lease, before its effect came. What the step's turn was decided by.
    pub(crate) fn reported(&mut self, token: Token) -> Option<Rank> {
        let lease = self.leases.remove(token)?;
        self.queues.reopen(lease.step.agent, &lease.rank.key);
        self.refresh(&lease.worker());
        Some(lease.rank)
    }

    pub(crate) fn set_due(&mut self, agent: u32, due_ms: u64) {
        let due = self.due.entry(agent).or_insert(due_ms);
        *due = (*due).min(due_ms);
    }

    /// Puts a message on a worker's stream.
    pub(crate) fn answer(&mut self, id: SessionId, sequence: u64, message: Message) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let sent = session.send(sequence, message);
        if !sent {
            let worker = session.intro.key();
            self.refresh(&worker);
        }
        sent
    }

    fn tell(&mut self, worker: &WorkerKey, message: Message) {
        if let Some(id) = self.by_worker.get(worker).copied() {
            self.answer(id, 0, message);
        }
    }

    /// A step has something to say to those who watch its run.
    pub(crate) fn emit(&mut self, it: v1::Emit, now: Instant) {
        let Some(lease) = it.token.as_ref().map(Token::from).and_then(|of| self.leases.get(of))
        else {
            return;
        };
        let StepId { agent, run_id, step } = lease.step.clone();
        self.rings.emit(agent, &run_id, step, it, now);
    }

    /// Ends leases whose assignment never left and sessions that are silent, and says which leases are over.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<(Token, Lease)> {
        for token in self.leases.never_sent(now, SENT_WITHIN) {
            self.leases.end_at(token, now);
        }
        let silent = self.sessions.iter().filter(|(_, session)| session.gone(now));
        for id in silent.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id, SessionEnd::Silent);
        }
        self.leases.due(now, PROPOSALS)
    }

    /// The leader itself stood still: nobody pays for that.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        self.leases.extend_all(gap);
        for session in self.sessions.values_mut() {
            session.forgive(gap);
        }
    }

    /// Before everything is read from the state again: sessions and their slots stay.
    pub(crate) fn forget_state(&mut self) -> Leases {
        self.queues.clear_ready();
        self.gates.forget();
        self.due.clear();
        std::mem::take(&mut self.leases)
    }

    /// After everything was read again: deadlines that ran before go on running.
    pub(crate) fn remember(&mut self, before: &Leases) {
        self.leases.keep_deadlines(before);
        for worker in self.by_worker.keys().cloned().collect::<Vec<_>>() {
            self.refresh(&worker);
        }
    }

    /// When queues that were held back by the clock should be looked at again, at the latest after `most`.
    pub(crate) fn look_again_in(&self, now: Instant, most: Duration) -> Duration {
        self.gates.look_again_in(now, most)
    }

    /// Tells the queues how many slots of a worker are free now.
    fn refresh(&mut self, worker: &WorkerKey) {
        let Some(id) = self.by_worker.get(worker) else { return };
        let Some(session) = self.sessions.get(id) else { return };
        let free = session.free(self.leases.held_count(worker));
        let intro = &session.intro;
        self.queues.set_free(intro.agent, &intro.bundle_id, *id, free, &intro.profile);
    }
}

#[cfg(test)]
mod tests;
