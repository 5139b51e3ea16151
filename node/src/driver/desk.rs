//! What a leader remembers while it leads: queues, leases, sessions, due times. All of it can be rebuilt from the state;
//! none of it decides anything. Synchronous: whoever holds the lock never waits.
//!
//! ```text
//!   effects of applied commands ──> Desk ──> matches (step, worker) ──> proposed ──> settled
//!   workers' credits, heartbeats ──┘   └───> messages to workers, leases that are over
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pinrail_proto::v1::work_response::Message;
use pinrail_proto::{time, v1};
use pinrail_state_machine::effect::{Effect, Rank, StepId};
use tokio::time::Instant;

use super::lease::{Lease, Leases, Token, WorkerKey};
use super::pace::Pace;
use super::proposed::Proposed;
use super::queues::{Match, Queues, SessionId, Waiting};
use super::rings::Rings;
use super::session::{Introduction, Outgoing, Session, SessionEnd, lease_lost, next_id};

/// Commands that a leader proposes at once.
pub(crate) const PROPOSALS: usize = 256;
/// A queue whose step was refused for the agent's sake (paused, full) is left alone for so long.
const BLOCKED: Duration = Duration::from_millis(250);
/// Queues that a pace holds back are looked at no sooner: what became due meanwhile goes out together.
const LEAST_WAIT: Duration = Duration::from_millis(10);
/// An assignment is on its worker's stream within this time, or its lease ends.
const SENT_WITHIN: Duration = Duration::from_secs(2);

/// Whether an agent lets steps of a bundle out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) paused: bool,
    /// Leased steps of the agent at once.
    pub(crate) max_running: u64,
    /// Of one key; 0: no limit.
    pub(crate) max_running_per_key: u64,
    /// Steps handed out in a second; 0: no limit.
    pub(crate) max_per_second: u64,
}

/// What became of a proposed assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assigned {
    Leased(Token),
    /// The step is not to be had any more.
    Gone,
    /// Not now: the agent is paused or has as many running steps as it may.
    NotNow,
    /// It was not decided; the step waits as before.
    Undecided,
}

/// What effects ask of the leader's tasks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wake {
    pub(crate) assign: bool,
    pub(crate) sweep: bool,
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
    gates: BTreeMap<(u32, String), Gate>,
    blocked: BTreeMap<(u32, String), Instant>,
    /// Assignments that are on their way.
    proposed: Proposed,
    paces: BTreeMap<u32, Pace>,
    pub(crate) rings: Rings,
    /// Effects up to this revision have been taken in.
    seen_revision: u64,
}

impl Desk {
    /// An empty desk. Sessions of different terms have different ids.
    pub(crate) fn for_term(term: u64) -> Self {
        Self { last_session: term << 32, rings: Rings::for_term(term), ..Self::default() }
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
                let ttl = Duration::from_millis(*lease_ms);
                self.leased(token.into(), Lease::new(step, bundle_id, worker_id, rank, ttl, now));
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
                self.gates.retain(|(of, _), _| of != agent);
                self.blocked.retain(|(of, _), _| of != agent);
                self.queues.reopen_all(*agent);
                wake.assign = true;
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

    /// A worker's own report ended a lease, before its effect came.
    pub(crate) fn reported(&mut self, token: Token) {
        let Some(lease) = self.leases.remove(token) else { return };
        self.queues.reopen(lease.step.agent, &lease.rank.key);
        self.refresh(&lease.worker());
    }

    pub(crate) fn set_due(&mut self, agent: u32, due_ms: u64) {
        let due = self.due.entry(agent).or_insert(due_ms);
        *due = (*due).min(due_ms);
    }

    // Assignments.

    /// Takes steps that workers can have, and counts them as on their way. `load` reads an agent's gate.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        mut load: impl FnMut(u32, &str) -> Option<Gate>,
    ) -> Vec<Match> {
        self.blocked.retain(|_, until| *until > now);
        let mut taken = Vec::new();
        while taken.len() < PROPOSALS {
            let Some(next) = self.take_one(now, &mut load) else { break };
            self.proposed.add(&next.waiting);
            if let Some(session) = self.sessions.get_mut(&next.session) {
                session.propose();
            }
            taken.push(next);
        }
        taken
    }

    fn take_one(
        &mut self,
        now: Instant,
        load: &mut impl FnMut(u32, &str) -> Option<Gate>,
    ) -> Option<Match> {
        let Self { queues, leases, gates, blocked, proposed, paces, .. } = self;
        let allowed = |agent: u32, bundle: &str| {
            let key = (agent, bundle.to_owned());
            if blocked.contains_key(&key) {
                return None;
            }
            let gate = gates.get(&key).copied().or_else(|| load(agent, bundle))?;
            gates.insert(key, gate);
            let fits = leases.running(agent) + proposed.of_agent(agent) < gate.max_running;
            let in_time = gate.max_per_second == 0
                || paces.entry(agent).or_insert_with(|| Pace::new(now)).has_room(now);
            (!gate.paused && fits && in_time).then_some(gate)
        };
        let room = |gate: &Gate, agent: u32, key: &str| {
            let running = || leases.running_of(agent, key) + proposed.of_key(agent, key);
            gate.max_running_per_key == 0 || running() < gate.max_running_per_key
        };
        let (next, gate) = queues.take(allowed, room)?;
        if gate.max_per_second > 0
            && let Some(pace) = paces.get_mut(&next.waiting.step.agent)
        {
            pace.step(now, gate.max_per_second);
        }
        Some(next)
    }

    /// When queues that were held back by the clock should be looked at again, at the latest after `most`.
    pub(crate) fn look_again_in(&self, now: Instant, most: Duration) -> Duration {
        let waits = self.paces.values().filter_map(|pace| pace.wait(now));
        waits.min().map_or(most, |wait| wait.clamp(LEAST_WAIT, most))
    }

    /// Whether a worker may go on with the next step of the run whose step it holds by this token. Not when a more urgent
    /// step waits, and not past the agent's steps in a second.
    pub(crate) fn may_go_on(&self, intro: &Introduction, token: Token) -> bool {
        let Some(lease) = self.leases.get(token) else { return false };
        let gate = self.gates.get(&(intro.agent, intro.bundle_id.clone()));
        let best = self.queues.best_priority(intro.agent, &intro.bundle_id, &intro.profile);
        gate.is_none_or(|gate| gate.max_per_second == 0)
            && best.is_none_or(|best| best >= lease.rank.priority)
    }

    /// Takes in what became of an assignment. True: the assignment is to be sent.
    pub(crate) fn settle(&mut self, taken: Match, became: Assigned, now: Instant) -> bool {
        let agent = taken.waiting.step.agent;
        self.proposed.remove(&taken.waiting);
        if !matches!(became, Assigned::Leased(_)) {
            self.queues.reopen(agent, &taken.waiting.rank.key);
        }
        let send = match became {
            Assigned::Leased(token) => {
                self.granted(taken.session, token, &taken.waiting.step, &taken.waiting.rank, now)
            }
            Assigned::Gone => false,
            Assigned::NotNow => {
                let key = (agent, taken.waiting.bundle_id.clone());
                self.gates.remove(&key);
                self.blocked.insert(key, now + BLOCKED);
                self.queues.ready(taken.waiting);
                false
            }
            Assigned::Undecided => {
                self.queues.ready(taken.waiting);
                false
            }
        };
        if let Some(session) = self.sessions.get_mut(&taken.session) {
            session.proposed(send);
            let worker = session.intro.key();
            self.refresh(&worker);
        }
        send
    }

    /// The state gave a step to the worker of a session. The lease is remembered before its effect comes; false when
    /// it is over already.
    pub(crate) fn granted(
        &mut self,
        session: SessionId,
        token: Token,
        step: &StepId,
        rank: &Rank,
        now: Instant,
    ) -> bool {
        self.queues.withdraw(step);
        let Some(session) = self.sessions.get(&session) else { return false };
        if token.revision <= self.seen_revision {
            return self.leases.get(token).is_some();
        }
        let Introduction { bundle_id, worker_id, lease, .. } = session.intro.clone();
        self.leased(token, Lease::new(step, &bundle_id, &worker_id, rank, lease, now));
        true
    }

    /// Puts an assignment on its worker's stream.
    pub(crate) fn send_assignment(&mut self, session: SessionId, assignment: v1::Assignment) {
        let Some(token) = assignment.token.as_ref().map(Token::from) else { return };
        if self.answer(session, 0, Message::Assignment(assignment)) {
            self.leases.set_sent(token);
        }
    }

    // Sessions.

    /// A worker introduced itself. `held` is what it says that it still holds.
    pub(crate) fn open(
        &mut self,
        intro: Introduction,
        held: &[v1::HeldStep],
        now: Instant,
        now_ms: u64,
    ) -> (SessionId, Outgoing) {
        let worker = intro.key();
        if let Some(before) = self.by_worker.remove(&worker) {
            self.close(before, SessionEnd::Replaced);
        }
        let id = next_id(&mut self.last_session);
        let (session, outgoing) = Session::open(intro, now, now_ms);
        self.sessions.insert(id, session);
        self.by_worker.insert(worker.clone(), id);
        self.reconcile(id, held, now, Duration::ZERO);
        self.refresh(&worker);
        (id, outgoing)
    }

    pub(crate) fn credit(&mut self, session: SessionId, slots: u32) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        session.grant(slots);
        let worker = session.intro.key();
        self.refresh(&worker);
    }

    /// A worker is alive: what it holds has a full ttl again, and what it lacks ends.
    pub(crate) fn heartbeat(
        &mut self,
        id: SessionId,
        beat: &v1::Heartbeat,
        now: Instant,
        now_ms: u64,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.heard(now, now_ms);
        beat.progress.iter().for_each(|progress| self.leases.set_progress(progress));
        let worker = session.intro.key();
        if beat.held_digest == self.leases.digest(&worker) {
            session.settle_credits(beat.free_slots);
            for token in self.leases.held(&worker) {
                self.leases.touch(token, now);
            }
        } else if beat.held.is_empty() && beat.held_digest != Leases::empty_digest() {
            // More than a list's worth is held, and something changed while the heartbeat was under way.
            for token in self.leases.held(&worker) {
                self.leases.touch(token, now);
            }
        } else {
            self.reconcile(id, &beat.held, now, SENT_WITHIN);
        }
        self.refresh(&worker);
    }

    /// Compares what a worker holds with what it should: a lease that it lacks `grace` after it was given ends; a
    /// token that the state does not know is taken from it.
    fn reconcile(&mut self, id: SessionId, held: &[v1::HeldStep], now: Instant, grace: Duration) {
        let Some(worker) = self.sessions.get(&id).map(|session| session.intro.key()) else {
            return;
        };
        let mut listed = BTreeSet::new();
        for step in held {
            let Some(token) = step.token.as_ref().map(Token::from) else { continue };
            listed.insert(token);
            if self.leases.get(token).is_some_and(|lease| lease.worker() == worker) {
                self.leases.set_sent(token);
                self.leases.touch(token, now);
            } else if token.revision <= self.seen_revision {
                self.answer(id, 0, lease_lost(token, &step.run_id, step.step));
            }
        }
        for token in self.leases.held(&worker) {
            let lacks = |lease: &Lease| !lease.ending && lease.since + grace <= now;
            if !listed.contains(&token) && self.leases.get(token).is_some_and(lacks) {
                self.leases.end_at(token, now);
            }
        }
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

    /// The stream is gone; the worker may come back to its leases.
    pub(crate) fn disconnected(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.disconnect();
        let worker = session.intro.key();
        self.refresh(&worker);
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

    /// Tells a worker to take no more. None when there is no such worker.
    pub(crate) fn drain(
        &mut self,
        namespace: &str,
        agent_id: &str,
        worker_id: &str,
        now: Instant,
    ) -> Option<v1::Worker> {
        let (id, worker) = self.sessions.iter().find_map(|(id, session)| {
            let it = &session.intro;
            let same = it.namespace == namespace && it.agent_id == agent_id;
            (same && it.worker_id == worker_id).then(|| (*id, it.key()))
        })?;
        self.sessions.get_mut(&id)?.draining = true;
        self.answer(id, 0, Message::Drain(v1::DrainNotice {}));
        self.refresh(&worker);
        let held = self.leases.held_count(&worker);
        Some(self.sessions.get(&id)?.describe(held, now))
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&Session, u32)> {
        self.sessions.values().map(|session| {
            let held = self.leases.held_count(&session.intro.key());
            (session, held)
        })
    }

    pub(crate) fn intro(&self, id: SessionId) -> Option<&Introduction> {
        self.sessions.get(&id).map(|session| &session.intro)
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
        self.gates.clear();
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

    /// Ends all sessions.
    pub(crate) fn close_all(&mut self, why: &SessionEnd) {
        for session in self.sessions.values_mut() {
            session.cut(why.clone());
        }
        self.sessions.clear();
        self.by_worker.clear();
    }

    fn close(&mut self, id: SessionId, why: SessionEnd) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        session.cut(why);
        let intro = &session.intro;
        self.queues.set_free(intro.agent, &intro.bundle_id, id, 0, &intro.profile);
        if self.by_worker.get(&intro.key()) == Some(&id) {
            self.by_worker.remove(&intro.key());
        }
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
