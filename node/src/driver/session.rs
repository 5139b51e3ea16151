//! One connected worker: what it said of itself, the slots that it granted, the way back to it, and when it was last
//! heard of. A session outlives its stream for three heartbeats, so that a worker may come back to its leases.
//!
//! Knows neither the network nor the log: messages leave through a bounded channel; a worker that does not read
//! them is cut.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pinrail_proto::v1::work_response::Message;
use pinrail_proto::{time, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::drift::Tools;
use super::lease::{Token, WorkerKey};
use super::queues::{Profile, SessionId};

/// Slots of one worker; what it asks for beyond is not used.
pub(crate) const SLOTS: u32 = 4_096;
/// Messages for one worker that may wait beside one for each of its slots.
const OUTGOING: usize = 512;
/// A worker is gone after so many heartbeats that did not come.
pub(crate) const MISSED_HEARTBEATS: u32 = 3;

/// Why the server ended a worker's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// This node leads no more; nothing is known of a new leader here.
    NotLeader,
    /// The worker did not read what was sent to it.
    TooSlow,
    /// Another stream introduced itself with the same worker id.
    Replaced,
    /// No heartbeat came for three intervals.
    Silent,
}

/// What a worker said of itself and what was found about it.
#[derive(Debug, Clone)]
pub(crate) struct Introduction {
    pub(crate) agent: u32,
    pub(crate) namespace: String,
    pub(crate) agent_id: String,
    pub(crate) bundle_id: String,
    pub(crate) worker_id: String,
    pub(crate) code: String,
    pub(crate) verified: bool,
    pub(crate) profile: Arc<Profile>,
    pub(crate) slots: u32,
    pub(crate) version: String,
    /// Node whose address the worker connected to.
    pub(crate) node: String,
    pub(crate) lease: Duration,
    pub(crate) heartbeat: Duration,
}

impl Introduction {
    pub(crate) fn key(&self) -> WorkerKey {
        (self.agent, self.worker_id.clone())
    }
}

/// The receiving end that the stream's owner reads.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) messages: mpsc::Receiver<v1::WorkResponse>,
    pub(crate) end: Arc<OnceLock<SessionEnd>>,
}

/// A worker as the leader remembers it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) intro: Introduction,
    /// Slots that the worker granted and nothing was assigned to yet.
    credits: u32,
    /// Assignments on their way through the log.
    proposed: u32,
    pub(crate) draining: bool,
    pub(crate) tools: Tools,
    /// None: the stream is gone.
    out: Option<mpsc::Sender<v1::WorkResponse>>,
    end: Arc<OnceLock<SessionEnd>>,
    last_heard: Instant,
    connected_ms: u64,
    last_heard_ms: u64,
}

impl Session {
    pub(crate) fn open(
        (intro, tools): (Introduction, Tools),
        now: Instant,
        now_ms: u64,
    ) -> (Self, Outgoing) {
        let slots = usize::try_from(intro.slots).unwrap_or(0);
        let (out, messages) = mpsc::channel(OUTGOING + slots);
        let end = Arc::new(OnceLock::new());
        let session = Self {
            intro,
            credits: 0,
            proposed: 0,
            draining: false,
            tools,
            out: Some(out),
            end: Arc::clone(&end),
            last_heard: now,
            connected_ms: now_ms,
            last_heard_ms: now_ms,
        };
        (session, Outgoing { messages, end })
    }

    pub(crate) fn connected(&self) -> bool {
        self.out.is_some()
    }

    /// Steps that it can be given, with so many leases held.
    pub(crate) fn free(&self, held: u32) -> u32 {
        if self.draining || !self.connected() || self.tools.blocked_by().is_some() {
            return 0;
        }
        let busy = held.saturating_add(self.proposed);
        self.credits.min(self.intro.slots.saturating_sub(busy))
    }

    pub(crate) fn grant(&mut self, slots: u32) {
        self.credits = self.credits.saturating_add(slots).min(self.intro.slots);
    }

    /// A heartbeat that agrees with what is known here says how many slots are free: an account that drifted is
    /// put right.
    pub(crate) fn settle_credits(&mut self, free: u32) {
        if self.proposed == 0 {
            self.credits = free.min(self.intro.slots);
        }
    }

    /// A step is being assigned.
    pub(crate) fn propose(&mut self) {
        self.credits = self.credits.saturating_sub(1);
        self.proposed = self.proposed.saturating_add(1);
    }

    /// What became of it: the slot comes back unless the worker got the step.
    pub(crate) fn proposed(&mut self, taken: bool) {
        self.proposed = self.proposed.saturating_sub(1);
        if !taken {
            self.grant(1);
        }
    }

    pub(crate) fn heard(&mut self, now: Instant, now_ms: u64) {
        self.last_heard = now;
        self.last_heard_ms = now_ms;
    }

    /// A stall of the leader is not the worker's silence.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        self.last_heard += gap;
    }

    pub(crate) fn gone(&self, now: Instant) -> bool {
        now.duration_since(self.last_heard) > self.intro.heartbeat * MISSED_HEARTBEATS
    }

    /// Whether the worker's stream took the message. One that is full is cut: its worker does not read.
    pub(crate) fn send(&mut self, sequence: u64, message: Message) -> bool {
        let Some(out) = &self.out else { return false };
        match out.try_send(v1::WorkResponse { sequence, message: Some(message) }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(
                    agent = self.intro.agent_id,
                    bundle = self.intro.bundle_id,
                    worker = self.intro.worker_id,
                    "worker does not read its stream; it is cut"
                );
                self.cut(SessionEnd::TooSlow);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.disconnect();
                false
            }
        }
    }

    /// Ends the stream and says why.
    pub(crate) fn cut(&mut self, why: SessionEnd) {
        // The first reason stands.
        let _ = self.end.set(why);
        self.out = None;
    }

    /// The stream is gone.
    pub(crate) fn disconnect(&mut self) {
        self.out = None;
        self.credits = 0;
    }

    /// As the API shows it.
    pub(crate) fn describe(&self, held: u32, now: Instant) -> v1::Worker {
        let late = now.duration_since(self.last_heard) > self.intro.heartbeat * 2;
        let state = if self.gone(now) {
            v1::WorkerState::Gone
        } else if late || !self.connected() {
            v1::WorkerState::Stale
        } else if self.draining {
            v1::WorkerState::Draining
        } else if self.tools.blocked_by().is_some() {
            v1::WorkerState::Blocked
        } else {
            v1::WorkerState::Live
        };
        let intro = &self.intro;
        v1::Worker {
            worker_id: intro.worker_id.clone(),
            agent_id: intro.agent_id.clone(),
            bundle_id: intro.bundle_id.clone(),
            state: state.into(),
            slots: intro.slots,
            free_slots: self.free(held),
            held,
            code: intro.code.clone(),
            verified: intro.verified,
            steps: intro.profile.serves.iter().cloned().collect(),
            shadow_safe: intro.profile.shadow_safe,
            version: intro.version.clone(),
            connected_at: time::timestamp(self.connected_ms),
            last_heartbeat_at: time::timestamp(self.last_heard_ms),
            node: intro.node.clone(),
            tools: self.tools.described(),
            blocked_by: self.tools.blocked_by().unwrap_or_default().to_owned(),
        }
    }
}

/// Tells a worker that a lease of it is over and a result would be refused.
pub(crate) fn lease_lost(token: Token, run_id: &str, step: u32) -> Message {
    Message::Cancel(v1::CancelStep {
        token: Some(token.into()),
        run_id: run_id.to_owned(),
        step,
        reason: v1::EndReason::Unspecified.into(),
        lease_lost: true,
        grace: Some(time::duration(0)),
    })
}

/// Names a session in the leader's memory.
pub(crate) fn next_id(last: &mut SessionId) -> SessionId {
    *last += 1;
    *last
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn introduction(slots: u32) -> Introduction {
        Introduction {
            agent: 1,
            namespace: "default".into(),
            agent_id: "a".into(),
            bundle_id: "v1".into(),
            worker_id: "w".into(),
            code: String::new(),
            verified: false,
            profile: Arc::default(),
            slots,
            version: String::new(),
            node: "n".into(),
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credits_never_exceed_the_slots_that_are_free() {
        let (mut session, _out) =
            Session::open((introduction(4), Tools::default()), Instant::now(), 1);
        assert_eq!(session.free(0), 0, "nothing was granted");
        session.grant(9);
        assert_eq!(session.free(0), 4);
        assert_eq!(session.free(3), 1, "held steps fill slots");
        session.propose();
        assert_eq!(session.free(3), 0, "so do assignments on their way");
        session.proposed(false);
        assert_eq!(session.free(3), 1, "a refused assignment gives its slot back");
        session.draining = true;
        assert_eq!(session.free(0), 0, "a draining worker takes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_read_is_cut() {
        let (mut session, out) =
            Session::open((introduction(1), Tools::default()), Instant::now(), 1);
        let drain = || Message::Drain(v1::DrainNotice {});
        let taken = (0..OUTGOING + 10).take_while(|_| session.send(0, drain())).count();
        assert_eq!(taken, OUTGOING + 1);
        assert!(!session.connected());
        assert_eq!(out.end.get(), Some(&SessionEnd::TooSlow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_gone_after_three_heartbeats() {
        let now = Instant::now();
        let (session, _out) = Session::open((introduction(1), Tools::default()), now, 1);
        assert!(!session.gone(now + Duration::from_secs(30)));
        assert!(session.gone(now + Duration::from_secs(31)));
    }
}
