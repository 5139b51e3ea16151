//! The connected workers: they introduce themselves, grant slots, say what they hold, and go.

use std::collections::BTreeSet;
use std::time::Duration;

use pinrail_proto::v1;
use pinrail_proto::v1::work_response::Message;
use pinrail_state_machine::query::KnownSchemas;
use tokio::time::Instant;

use crate::driver::drift::Tools;
use crate::driver::lease::{Lease, Leases, Token};
use crate::driver::queues::SessionId;
use crate::driver::session::{Introduction, Outgoing, Session, SessionEnd, lease_lost, next_id};

use super::{Desk, SENT_WITHIN};

impl Desk {
    /// A worker introduced itself. `held` is what it says that it still holds.
    pub(crate) fn open(
        &mut self,
        (intro, tools): (Introduction, Tools),
        held: &[v1::HeldStep],
        now: Instant,
        now_ms: u64,
    ) -> (SessionId, Outgoing) {
        let worker = intro.key();
        if let Some(before) = self.by_worker.remove(&worker) {
            self.close(before, SessionEnd::Replaced);
        }
        let id = next_id(&mut self.last_session);
        let (session, outgoing) = Session::open((intro, tools), now, now_ms);
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
        if !beat.tools.is_empty() {
            session.tools.told(&beat.tools);
        }
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

    /// The stream is gone; the worker may come back to its leases.
    pub(crate) fn disconnected(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.disconnect();
        let worker = session.intro.key();
        self.refresh(&worker);
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

    /// Whether a worker gets no steps, and why, as far as is known now.
    pub(crate) fn judge_tools(&mut self, id: SessionId, known: &KnownSchemas) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.tools.judge(known) {
            let worker = session.intro.key();
            self.refresh(&worker);
        }
    }

    pub(crate) fn tools(&self) -> impl Iterator<Item = (SessionId, &Introduction, &Tools)> {
        let all = self.sessions.iter().map(|(id, it)| (*id, &it.intro, &it.tools));
        all.filter(|(_, _, tools)| tools.any())
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

    /// Ends all sessions.
    pub(crate) fn close_all(&mut self, why: &SessionEnd) {
        for session in self.sessions.values_mut() {
            session.cut(why.clone());
        }
        self.sessions.clear();
        self.by_worker.clear();
    }

    pub(super) fn close(&mut self, id: SessionId, why: SessionEnd) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        session.cut(why);
        let intro = &session.intro;
        self.queues.set_free(intro.agent, &intro.bundle_id, id, 0, &intro.profile);
        if self.by_worker.get(&intro.key()) == Some(&id) {
            self.by_worker.remove(&intro.key());
        }
    }
}
