//! Who gets which step: what is taken together with a free slot, and what became of it.

use pinrail_proto::v1;
use pinrail_proto::v1::work_response::Message;
use pinrail_state_machine::effect::{Rank, StepId};
use tokio::time::Instant;

use crate::driver::gates::Gate;
use crate::driver::lease::{Lease, Token};
use crate::driver::queues::{Match, SessionId, Waiting};
use crate::driver::session::Introduction;

use super::{Desk, PROPOSALS};

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

impl Desk {
    /// Takes steps that workers can have, and counts them as on their way. `load` reads an agent's gate.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        mut load: impl FnMut(u32, &str) -> Option<Gate>,
    ) -> Vec<Match> {
        self.gates.tidy(now);
        let mut taken = Vec::new();
        while taken.len() < PROPOSALS {
            let Some(next) = self.take_one(now, &mut load) else { break };
            self.on_its_way(&next);
            taken.push(next);
        }
        taken
    }

    fn take_one(
        &mut self,
        now: Instant,
        load: &mut impl FnMut(u32, &str) -> Option<Gate>,
    ) -> Option<Match> {
        let Self { queues, leases, gates, proposed, .. } = self;
        let allowed = |agent: u32, bundle: &str| {
            let running = leases.running(agent) + proposed.of_agent(agent);
            gates.open(agent, bundle, running, now, load)
        };
        let room = |gate: &Gate, agent: u32, key: &str| {
            gate.has_room(|| leases.running_of(agent, key) + proposed.of_key(agent, key))
        };
        let (next, gate) = queues.take(allowed, room)?;
        gates.step(next.waiting.step.agent, &gate, now);
        Some(next)
    }

    /// Takes a free worker for a step that does not wait yet: one of a run that is about to start. None when no worker
    /// could have it at once, or when one that could has a step waiting that is as urgent.
    pub(crate) fn reserve(
        &mut self,
        coming: Waiting,
        now: Instant,
        mut load: impl FnMut(u32, &str) -> Option<Gate>,
    ) -> Option<Match> {
        let Self { queues, leases, gates, proposed, .. } = self;
        let (agent, key) = (coming.step.agent, &coming.rank.key);
        let session = queues.idle(&coming)?;
        let worker = self.sessions.get(&session)?.intro.key();
        let running = leases.running(agent) + proposed.of_agent(agent);
        let gate = gates.open(agent, &coming.bundle_id, running, now, &mut load)?;
        if !gate.has_room(|| leases.running_of(agent, key) + proposed.of_key(agent, key)) {
            return None;
        }
        gates.step(agent, &gate, now);
        let taken = Match { waiting: coming, session };
        self.on_its_way(&taken);
        self.refresh(&worker);
        Some(taken)
    }

    /// A step counts as running, and its worker's slot as taken, before the state says so.
    fn on_its_way(&mut self, taken: &Match) {
        self.proposed.add(taken.waiting.step.agent, &taken.waiting.rank.key);
        if let Some(session) = self.sessions.get_mut(&taken.session) {
            session.propose();
        }
    }

    /// Whether a worker may go on with the next step of the run whose step it holds by this token. Not when a more urgent
    /// step waits or the worker is blocked, and not past the agent's steps in a second.
    pub(crate) fn may_go_on(&self, intro: &Introduction, token: Token) -> bool {
        let Some(lease) = self.leases.get(token) else { return false };
        let session = self.by_worker.get(&intro.key()).and_then(|id| self.sessions.get(id));
        if session.is_some_and(|session| session.tools.blocked_by().is_some()) {
            return false;
        }
        let best = self.queues.best_priority(intro.agent, &intro.bundle_id, &intro.profile);
        !self.gates.is_paced(intro.agent, &intro.bundle_id)
            && best.is_none_or(|best| best >= lease.rank.priority)
    }

    /// Takes in what became of an assignment. True: the assignment is to be sent.
    pub(crate) fn settle(&mut self, taken: Match, became: Assigned, now: Instant) -> bool {
        if !self.is_of_this_term(taken.session) {
            return false;
        }
        let agent = taken.waiting.step.agent;
        self.proposed.remove(agent, &taken.waiting.rank.key);
        if !matches!(became, Assigned::Leased(_)) {
            self.queues.reopen(agent, &taken.waiting.rank.key);
        }
        let send = match became {
            Assigned::Leased(token) => {
                self.granted(taken.session, token, &taken.waiting.step, &taken.waiting.rank, now)
            }
            Assigned::Gone => false,
            Assigned::NotNow => {
                self.gates.block(agent, &taken.waiting.bundle_id, now);
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
        let intro = &session.intro;
        let lease = Lease::new(step, &intro.bundle_id, &intro.worker_id, rank, intro.lease, now);
        self.leased(token, lease);
        true
    }

    /// Puts an assignment on its worker's stream.
    pub(crate) fn send_assignment(&mut self, session: SessionId, assignment: v1::Assignment) {
        let Some(token) = assignment.token.as_ref().map(Token::from) else { return };
        if self.answer(session, 0, Message::Assignment(Box::new(assignment))) {
            self.leases.set_sent(token);
        }
    }
}
