//! Hooks: events of the replicated stream, sent to the hooks of their agent's policy by the node that leads.
//!
//! ```text
//!   stream ──read──> book ──deal──> lane (one a hook) ──> post ──> receiver
//!                      ^              │ results and cursors
//!                      └── RecordDeliveries <┘  in batches, through the log
//! ```
//! At least once: a cursor in the replicated state passes an event only together with its result, so another leader goes
//! on where this one's last batch stopped. One task owns the book; each attempt is a task of its own, so a receiver that
//! is slow holds up nobody else, and what a hook may have in memory is bounded ([`lane`]).
//!
//! It must not know how an event came about, nor what a receiver does with it.

mod ask;
mod book;
mod gate;
mod lane;
mod message;
pub(super) mod metrics;
mod post;
mod sign;

use std::collections::BTreeSet;
use std::pin::Pin;

use parking_lot::Mutex;
use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::v1::DeliveryState;
use pinrail_state_machine::query;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::dispatch::encode;
use super::{Dispatch, PROPOSE_TIMEOUT};
use crate::raft::{ProposeError, ReadError};

use book::{Book, LaneId};
use lane::{Delivery, Outcome};
use message::Message;
use post::Post;

pub use ask::{TestError, Tested};
pub(super) use gate::{GateAnswer, GateAsk};

/// Rows that one look at the stream takes.
const PAGE: usize = 1_000;
/// Pages in a row; then others have their turn.
const PAGES: usize = 4;
/// The stream is looked at no more often than this, so that a busy cluster costs few looks.
const LOOK: Duration = Duration::from_millis(20);
/// Batches are recorded no more often than this.
const RECORD: Duration = Duration::from_millis(50);
/// How often a cursor is recorded that moved without a result, and gauges are published.
const IDLE: Duration = Duration::from_secs(5);
/// After the state could not be read, or nothing could be recorded.
const RETRY: Duration = Duration::from_millis(200);
/// Longest sleep.
const LONGEST: Duration = Duration::from_secs(1);

/// What the rest of the driver has of this part.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Agents whose hooks may have changed.
    changed: Mutex<BTreeSet<u32>>,
    /// All agents may have: effects were lost.
    reload: Mutex<bool>,
    wake: Notify,
    post: Post,
}

impl Hooks {
    /// Policy, or deliveries by hand, of an agent changed.
    pub(super) fn changed(&self, agent: u32) {
        self.changed.lock().insert(agent);
        self.wake.notify_one();
    }

    /// What changed is not known.
    pub(super) fn changed_somewhere(&self) {
        *self.reload.lock() = true;
        self.wake.notify_one();
    }
}

/// An attempt that is over.
type Landed = (LaneId, Delivery, Outcome, Duration);

/// A batch on its way through the log.
type Recording = Pin<Box<dyn Future<Output = (Vec<log::RecordDeliveries>, bool)> + Send>>;

/// Sends until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch) {
    dispatch.inner.hooks.changed_somewhere();
    Sending {
        cluster: String::new(),
        book: Book::default(),
        flights: JoinSet::new(),
        recording: None,
        looked: Instant::now(),
        record_at: Instant::now(),
        idle_at: Instant::now() + IDLE,
        dispatch,
    }
    .run()
    .await;
}

struct Sending {
    dispatch: Dispatch,
    cluster: String,
    book: Book,
    flights: JoinSet<Landed>,
    recording: Option<Recording>,
    /// When the stream was looked at last.
    looked: Instant,
    /// When the next batch may be recorded.
    record_at: Instant,
    /// When cursors are recorded that moved without a result.
    idle_at: Instant,
}

impl Sending {
    async fn run(mut self) {
        loop {
            let more = match self.catch_up() {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(%error, "events for hooks cannot be read");
                    sleep(RETRY).await;
                    continue;
                }
            };
            self.take_off();
            self.record();
            if more {
                tokio::task::yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    /// Takes in changed policies and the stream. True: there is more to read.
    fn catch_up(&mut self) -> Result<bool, ReadError> {
        self.refresh()?;
        if self.looked.elapsed() < LOOK {
            return Ok(false);
        }
        let replica = &self.dispatch.inner.replica;
        for _ in 0..PAGES {
            let revision = replica.applied().borrow().revision;
            let Some(from) = self.book.read_from().filter(|from| *from < revision) else {
                self.looked = Instant::now();
                return Ok(false);
            };
            let (heads, upto) = replica.read(|read| query::event_heads(read, from, PAGE))?;
            self.book.deal(&heads, from, upto);
        }
        Ok(true)
    }

    fn refresh(&mut self) -> Result<(), ReadError> {
        let hooks = &self.dispatch.inner.hooks;
        let replica = &self.dispatch.inner.replica;
        let mut changed = std::mem::take(&mut *hooks.changed.lock());
        if std::mem::take(&mut *hooks.reload.lock()) {
            changed.extend(self.book.agents());
            let mut from = Some(0);
            while let Some(next) = from {
                let agent = replica.read(|read| query::next_hooked_agent(read, next));
                let agent = agent.inspect_err(|_| hooks.changed_somewhere())?;
                changed.extend(agent);
                from = agent.and_then(|agent| agent.checked_add(1));
            }
            self.cluster = replica.read(query::cluster)?.cluster;
        }
        for agent in changed {
            let hooked = replica.read(|read| query::hooked(read, agent));
            self.book.refresh(agent, hooked.inspect_err(|_| hooks.changed_somewhere())?);
        }
        Ok(())
    }

    /// Begins the attempts that are due.
    fn take_off(&mut self) {
        let now_ms = self.dispatch.inner.replica.cluster_time_ms();
        while let Some((id, delivery)) = self.book.next(now_ms) {
            let Some(lane) = self.book.lane(&id) else { continue };
            let (url, secret) = (lane.hook.url.clone(), lane.hook.secret.clone());
            let (dispatch, cluster) = (self.dispatch.clone(), self.cluster.clone());
            self.flights.spawn(async move {
                let began = Instant::now();
                let outcome = attempt(&dispatch, &cluster, &url, &secret, &delivery).await;
                (id, delivery, outcome, began.elapsed())
            });
        }
    }

    fn land(&mut self, (id, delivery, outcome, took): Landed) {
        let now_ms = self.dispatch.inner.replica.cluster_time_ms();
        if let Outcome::Failed { status, error, .. } = &outcome {
            let (agent, hook, attempt) = (id.0, &id.1, delivery.attempts + 1);
            tracing::debug!(agent, hook, attempt, status, error, "a hook did not take an event");
        }
        let Some(lane) = self.book.lane(&id) else { return };
        let Some(state) = lane.landed(delivery.place, outcome, now_ms) else { return };
        let word = match state {
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
            DeliveryState::Pending | DeliveryState::Unspecified => "failed",
        };
        metrics::attempt(self.book.agent_name(id.0), &id.1, word, took.as_secs_f64());
    }

    /// Begins to record what is to be, unless a batch is on its way.
    fn record(&mut self) {
        let now = Instant::now();
        let is_idle = now >= self.idle_at;
        if is_idle {
            self.idle_at = now + IDLE;
            metrics::publish(&self.book, self.dispatch.inner.replica.cluster_time_ms());
        }
        if self.recording.is_some() || now < self.record_at {
            return;
        }
        let batch = self.book.take_batch(is_idle);
        if batch.is_empty() {
            return;
        }
        self.record_at = now + RECORD;
        let replica = self.dispatch.inner.replica.clone();
        self.recording = Some(Box::pin(async move {
            let commands = batch.iter().cloned().map(|it| encode(Kind::RecordDeliveries(it)));
            let proposed = replica.propose_here(commands.collect(), PROPOSE_TIMEOUT).await;
            if let Err(error) = &proposed {
                tracing::debug!(%error, "results of hooks were not recorded");
                if !matches!(error, ProposeError::Unknown { .. }) {
                    sleep(RETRY).await;
                }
            }
            (batch, proposed.is_ok())
        }));
    }

    /// Waits for whatever is next, and takes it in.
    async fn wait(&mut self) {
        let replica = self.dispatch.inner.replica.clone();
        let mut applied = replica.applied();
        let until = self.wake_at();
        let watches = !self.book.is_empty();
        let next_look = self.looked + LOOK;
        let seen = self.book.read_from();
        let grown = async {
            // The stream has grown behind what every hook that takes events has seen.
            let behind = |revision: u64| seen.is_some_and(|seen| revision > seen);
            let grown = applied.wait_for(|at| behind(at.revision)).await.is_ok();
            if grown { sleep_until(next_look).await } else { std::future::pending().await }
        };
        let recording = async {
            match &mut self.recording {
                Some(recording) => recording.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            landed = self.flights.join_next(), if !self.flights.is_empty() => {
                // An attempt that panicked ends the process, as every panic does.
                if let Some(Ok(landed)) = landed {
                    self.land(landed);
                }
            }
            (batch, done) = recording => {
                self.recording = None;
                self.book.recorded(&batch, done);
            }
            () = grown, if watches => {}
            () = self.dispatch.inner.hooks.wake.notified() => {}
            () = sleep_until(until) => {}
        }
        while let Some(Ok(landed)) = self.flights.try_join_next() {
            self.land(landed);
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let mut at = (now + LONGEST).min(self.idle_at);
        if let Some(due_ms) = self.book.next_due_ms() {
            let now_ms = self.dispatch.inner.replica.cluster_time_ms();
            at = at.min(now + Duration::from_millis(due_ms.saturating_sub(now_ms)));
        }
        if self.book.has_results() && self.recording.is_none() {
            at = at.min(self.record_at);
        }
        at
    }
}

/// Sends one event once.
async fn attempt(
    dispatch: &Dispatch,
    cluster: &str,
    url: &str,
    secret: &str,
    delivery: &Delivery,
) -> Outcome {
    let replica = &dispatch.inner.replica;
    let (event, result) = match replica.read(|read| query::event_at(read, delivery.place)) {
        Ok(Some(found)) => found,
        Ok(None) => return Outcome::Gone,
        Err(error) => return failed(0, error.to_string(), None),
    };
    let message = message::of_event(cluster, &event, result.as_ref());
    match dispatch.post(url, secret, &message).await {
        Ok(answer) => judge(&answer),
        Err(error) => failed(0, error.to_string(), None),
    }
}

fn judge(answer: &post::Answer) -> Outcome {
    match answer.status {
        200..300 => Outcome::Delivered { status: answer.status },
        status @ 300..400 => {
            failed(status, "redirects are not followed".to_owned(), answer.again_ms)
        }
        status => {
            let body = String::from_utf8_lossy(&answer.body).trim().to_owned();
            failed(status, body, answer.again_ms)
        }
    }
}

fn failed(status: u16, error: String, again_ms: Option<u64>) -> Outcome {
    Outcome::Failed { status, error, again_ms }
}

impl Dispatch {
    async fn post(
        &self,
        url: &str,
        secret: &str,
        message: &Message,
    ) -> Result<post::Answer, post::PostError> {
        let wall_ms = self.inner.replica.env().clock.wall_ms();
        self.inner.hooks.post.send(url, secret, message, wall_ms).await
    }
}
