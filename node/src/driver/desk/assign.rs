//! Who gets which step: what is taken together with a free slot, and what became of it.

use std::time::Duration;

use pinrail_proto::v1;
use pinrail_proto::v1::work_response::Message;
use pinrail_state_machine::effect::{Rank, StepId};
use tokio::time::Instant;

use crate::driver::lease::{Lease, Token};
use crate::driver::pace::Pace;
use crate::driver::queues::{Match, SessionId};
use crate::driver::session::Introduction;

use super::{Desk, PROPOSALS};

/// A queue whose step was refused for the agent's sake (paused, full) is left alone for so long.
pub(super) const BLOCKED: Duration = Duration::from_millis(250);
/// Queues that a pace holds back are looked at no sooner: what became due meanwhile goes out together.
const LEAST_WAIT: Duration = Duration::from_millis(10);

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

impl Desk {
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

}
