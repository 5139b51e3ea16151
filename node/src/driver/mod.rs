//! The leader's work: who gets which step, which leases are over, what is due. Runs on every node and works on the one
//! that leads; [`Dispatch`] is its face.
//!
//! It only proposes; apply decides. Whatever it remembers ([`desk`]) can be rebuilt from the state, so a lost leader
//! costs time and nothing else. It must not know how anything is stored, nor the transport that workers come by.
//!
//! ```text
//!   lead      starts and stops everything below with the leadership; rebuilds the desk; takes effects in
//!   dispatch  ready steps to free slots: LeaseStep, many at once
//!   start     free slots to runs that are about to start: added to their StartRun
//!   report    what a worker reports, in its order: CompleteStep, FailStep, RecordCheckpoint, HandBackStep, memory
//!   expiry    leases that nobody keeps alive: ExpireLease
//!   sweep     what is due by cluster time: Tick
//!   drift     what workers see of their tools: ReportDrift, ClearDrift; who gets no steps for it
//!   release   what releases wait for: RecordVerdict, AdvanceCanary
//!   hooks     events to the hooks of their agents: RecordDeliveries
//!   drill     drills, part by part, and when the next one is due: RecordDrill, ScheduleDrill
//! ```
//! Locking: the desk's lock is held for bookkeeping only and never across an await.

mod counts;
mod desk;
mod dispatch;
mod drift;
pub(crate) mod drill;
pub(crate) mod evals;
mod expect;
mod expiry;
mod gates;
mod hello;
mod hooks;
mod lead;
mod lease;
mod metrics;
mod pace;
mod propose;
mod queues;
mod release;
mod report;
mod rings;
mod session;
mod start;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pinrail_proto::log::{self, Rejection};
use pinrail_proto::v1;
use pinrail_state_machine::query;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::raft::{PeerInfo, ReadError, Replica};

use desk::Desk;
use queues::SessionId;
use session::Outgoing;

pub(crate) use drift::digests as tool_digests;
pub use hooks::{TestError, Tested};
pub use metrics::describe as describe_metrics;
pub(crate) use release::shadow::pairs;
pub(crate) use rings::Emitted;
pub use session::SessionEnd;

/// How long a proposal of the driver may take before its outcome counts as unknown.
pub(crate) const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Reports of one worker that wait for the log, beside one for each of its slots; then its stream is not read.
const INBOX: usize = 256;

/// The face of the driver. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch {
    inner: Arc<Inner>,
}

struct Inner {
    replica: Replica,
    /// None: this node does not lead.
    desk: Mutex<Option<Desk>>,
    /// A step or a slot may have become free.
    assign: Notify,
    /// Something may be due earlier than thought.
    sweep: Notify,
    hooks: hooks::Hooks,
    /// A worker sees its tools otherwise, or somebody decided about that.
    drift: Notify,
    /// The node ends.
    stop: CancellationToken,
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").field("leads", &self.leads()).finish_non_exhaustive()
    }
}

/// Workers of a bundle that are connected and get steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    pub workers: u64,
    pub slots: u64,
    pub free: u64,
}

/// Why a worker was not let in.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<PeerInfo> },
    #[error("{}", .0.message)]
    Refused(Rejection),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a worker was not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<PeerInfo> },
    #[error("no live worker has this id")]
    NotFound,
}

/// A worker's stream, seen from the server: requests go in, answers come out. Dropping it is the stream's end.
#[derive(Debug)]
pub struct WorkerStream {
    dispatch: Dispatch,
    id: SessionId,
    outgoing: Outgoing,
    inbox: Inbox,
}

/// The half of a worker's stream that takes what the worker says.
#[derive(Debug, Clone)]
pub struct Inbox {
    dispatch: Dispatch,
    id: SessionId,
    reports: mpsc::Sender<v1::WorkRequest>,
}

impl Dispatch {
    /// Begins to follow the leadership of this node, until [`Self::close`].
    #[must_use]
    pub fn start(replica: Replica) -> Self {
        let dispatch = Self {
            inner: Arc::new(Inner {
                replica,
                desk: Mutex::new(None),
                assign: Notify::new(),
                sweep: Notify::new(),
                hooks: hooks::Hooks::default(),
                drift: Notify::new(),
                stop: CancellationToken::new(),
            }),
        };
        dispatch.inner.replica.set_adder(start::adder(Arc::downgrade(&dispatch.inner)));
        tokio::spawn(lead::run(dispatch.clone()));
        dispatch
    }

    /// Whether this node does the leader's work now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.inner.desk.lock().is_some()
    }

    /// Connected workers of an agent, of one bundle when it is not empty. None: this node does not lead and does not know.
    #[must_use]
    pub fn workers(&self, namespace: &str, agent: &str, bundle: &str) -> Option<Vec<v1::Worker>> {
        let now = Instant::now();
        self.with_desk(|desk| {
            desk.sessions()
                .filter(|(session, _)| {
                    let it = &session.intro;
                    it.namespace == namespace
                        && (agent.is_empty() || it.agent_id == agent)
                        && (bundle.is_empty() || it.bundle_id == bundle)
                })
                .map(|(session, held)| session.describe(held, now))
                .collect()
        })
    }

    /// Tells a worker to take no more work.
    ///
    /// # Errors
    /// When this node does not lead, or no connected worker has this id.
    pub fn drain_worker(
        &self,
        namespace: &str,
        agent: &str,
        worker: &str,
    ) -> Result<v1::Worker, DrainError> {
        let now = Instant::now();
        self.with_desk(|desk| desk.drain(namespace, agent, worker, now))
            .ok_or_else(|| DrainError::NotLeader { leader: self.leader() })?
            .ok_or(DrainError::NotFound)
    }

    /// Slots of the connected workers of a bundle. None: this node does not lead and does not know.
    #[must_use]
    pub fn slots(&self, agent: u32, bundle: &str) -> Option<Slots> {
        self.with_desk(|desk| {
            let mut sum = Slots::default();
            for (session, held) in desk.sessions() {
                let it = &session.intro;
                let serves = session.connected() && session.tools.blocked_by().is_none();
                if it.agent == agent && it.bundle_id == bundle && serves {
                    sum.workers += 1;
                    sum.slots += u64::from(it.slots);
                    sum.free += u64::from(session.free(held));
                }
            }
            sum
        })
    }

    /// What the live workers of a bundle can do together. None: this node does not lead and does not know.
    #[must_use]
    pub(crate) fn capacity(
        &self,
        namespace: &str,
        agent: &str,
        bundle: &str,
    ) -> Option<log::Capacity> {
        let workers = self.workers(namespace, agent, bundle)?;
        let live: Vec<_> =
            workers.iter().filter(|worker| worker.state() == v1::WorkerState::Live).collect();
        Some(log::Capacity {
            workers: live.len() as u64,
            free_slots: live.iter().map(|worker| u64::from(worker.free_slots)).sum(),
            steps: Vec::new(),
            any: live.iter().any(|worker| worker.steps.is_empty()),
        })
    }

    /// Lets a worker in: checks what it says of itself and remembers it. The first answer is its welcome.
    ///
    /// # Errors
    /// When this node does not lead, or the worker cannot serve the bundle.
    pub fn open(
        &self,
        hello: &v1::WorkerHello,
        node: &str,
    ) -> Result<(v1::Welcome, WorkerStream), OpenError> {
        let not_leader = || OpenError::NotLeader { leader: self.leader() };
        if !self.leads() {
            return Err(not_leader());
        }
        let (intro, tools, welcome) = hello::check(&self.inner.replica, hello, node)?;
        let now_ms = self.inner.replica.cluster_time_ms();
        let (agent, bundle) = (intro.agent_id.clone(), intro.bundle_id.clone());
        let (id, outgoing) = self
            .with_desk(|desk| {
                desk.open((intro.clone(), tools), &hello.held, Instant::now(), now_ms)
            })
            .ok_or_else(not_leader)?;
        tracing::info!(
            agent,
            bundle,
            worker = hello.worker_id,
            slots = hello.slots,
            verified = welcome.verified,
            held = hello.held.len(),
            "worker connected"
        );
        let slots = usize::try_from(intro.slots).unwrap_or(0);
        let (reports, inbox) = mpsc::channel(INBOX + slots);
        tokio::spawn(report::run(self.clone(), id, intro, inbox));
        let inbox = Inbox { dispatch: self.clone(), id, reports };
        self.inner.assign.notify_one();
        Ok((welcome, WorkerStream { dispatch: self.clone(), id, outgoing, inbox }))
    }

    /// The revision of this node's state, if the agent exists; an empty name asks for none.
    ///
    /// # Errors
    /// `AGENT_NOT_FOUND`, or why the state could not be read.
    pub fn check_agent(&self, namespace: &str, agent: &str) -> Result<u64, ReadError> {
        state::ask(&self.inner.replica, |read| {
            if !agent.is_empty() {
                query::agent_number(read, namespace, agent)?;
            }
            Ok(query::position(read)?.revision)
        })
    }

    /// What steps of a run emitted behind a place, and what tells of more. None: this node does not lead and does not know.
    pub(crate) fn chunks(
        &self,
        agent: u32,
        run_id: &str,
        after: v1::ChunkPlace,
    ) -> Option<Emitted> {
        self.with_desk(|desk| desk.rings.read(agent, run_id, after))
    }

    /// What tells of chunks of a run. None: this node does not lead and does not know.
    pub(crate) fn chunk_signal(&self, agent: u32, run_id: &str) -> Option<Arc<Notify>> {
        self.with_desk(|desk| desk.rings.signal(agent, run_id))
    }

    /// Ends the leader's work and all worker streams, so that workers look for another node. For good.
    pub fn close(&self) {
        self.inner.stop.cancel();
        self.with_desk(|desk| desk.close_all(&SessionEnd::NotLeader));
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<PeerInfo> {
        self.inner.replica.leadership().borrow().leader.clone()
    }

    fn with_desk<T>(&self, f: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        self.inner.desk.lock().as_mut().map(f)
    }
}

impl WorkerStream {
    /// The half that takes what the worker says.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// The next message for the worker. None: the stream is over, [`WorkerStream::end`] says why.
    pub async fn next(&mut self) -> Option<v1::WorkResponse> {
        self.outgoing.messages.recv().await
    }

    /// Why the server ended the stream.
    #[must_use]
    pub fn end(&self) -> Option<SessionEnd> {
        self.outgoing.end.get().cloned()
    }
}

impl Drop for WorkerStream {
    fn drop(&mut self) {
        self.dispatch.with_desk(|desk| desk.disconnected(self.id));
    }
}

impl Inbox {
    /// Takes in what the worker said. Waits while too many of its reports wait for the log. False: the session is over.
    pub async fn receive(&self, request: v1::WorkRequest) -> bool {
        use v1::work_request::Message;
        let now = Instant::now();
        match &request.message {
            Some(Message::Credit(credit)) => {
                let slots = credit.slots;
                let known = self.dispatch.with_desk(|desk| desk.credit(self.id, slots));
                self.dispatch.inner.assign.notify_one();
                known.is_some()
            }
            Some(Message::Heartbeat(beat)) => {
                let now_ms = self.dispatch.inner.replica.cluster_time_ms();
                let known =
                    self.dispatch.with_desk(|desk| desk.heartbeat(self.id, beat, now, now_ms));
                self.dispatch.inner.assign.notify_one();
                if !beat.tools.is_empty() {
                    self.dispatch.inner.drift.notify_one();
                }
                known.is_some()
            }
            Some(
                Message::Complete(_)
                | Message::Fail(_)
                | Message::Checkpoint(_)
                | Message::HandBack(_)
                | Message::MemoryPut(_),
            ) => self.reports.send(request).await.is_ok(),
            Some(Message::Emit(_)) => {
                let Some(Message::Emit(it)) = request.message else { return true };
                self.dispatch.with_desk(|desk| desk.emit(it, now)).is_some()
            }
            // A second introduction, or a message of a later version: its worker waits for no answer that we could give.
            Some(Message::Hello(_)) | None => true,
        }
    }

    /// The worker says nothing more: its stream is over.
    pub fn close(&self) {
        self.dispatch.with_desk(|desk| desk.disconnected(self.id));
    }
}
