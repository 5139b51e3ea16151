//! What a handler is given: who it works for, and the only ways to effects that a retry does not repeat.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pinrail_proto::limits;
use pinrail_proto::v1::work_request::Message;
use pinrail_proto::v1::{self, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant};
use tracing::Span;

use crate::client::Client;
use crate::payload;
use crate::trace;
use crate::worker::bundle::BundleView;
use crate::worker::held::Token;
use crate::worker::journal::{Journal, Place};
use crate::worker::memory::StepMemory;
use crate::worker::outbox::Reply;
use crate::worker::outcome::{StepError, StepResult, Wait};
use crate::worker::seen::ToolsSeen;
use crate::worker::tool::ToolCall;
use crate::worker::usage::UsageSum;

/// Why a step is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Somebody cancelled the run.
    Requested,
    /// The run reached the end of its pin.
    MaxAge,
    /// Its bundle reached its drain deadline.
    DrainCap,
    /// Its bundle was rolled back.
    Rollback,
    /// Nothing was heard of the run for too long.
    KeepAlive,
    /// The run that it is a child of ended.
    Parent,
    /// The worker is shutting down; the step may go on elsewhere.
    Shutdown,
}

/// What one handler of a model says that it used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The bundle's name of the model: `default`, `judge`.
    pub model: String,
    /// What the provider says really served; empty if it did not say.
    pub served_model: String,
    /// Tokens of the question.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Millionths of the cluster's currency.
    pub cost_micros: u64,
}

/// What the worker's loop does for a step.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) token: Token,
    pub(crate) message: Message,
    /// Nobody waits for an answer to what a step emits.
    pub(crate) reply: Option<Reply>,
}

/// What the loop tells a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Run,
    Stop { reason: CancelReason, until: Instant },
    Drop,
}

/// How far a step is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) value: Option<Payload>,
    /// A heartbeat of the present stream had it.
    pub(crate) told: bool,
}

/// One attempt of one step. Cheap to clone.
#[derive(Clone)]
pub struct StepContext {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) agent: String,
    pub(crate) run_id: String,
    pub(crate) step: u32,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) kind: v1::RunKind,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) session: String,
    pub(crate) trace_parent: String,
    /// Of this attempt.
    pub(crate) span: Span,
    pub(crate) token: Token,
    pub(crate) bundle: Arc<BundleView>,
    pub(crate) tools: ToolsSeen,
    pub(crate) deadline: Option<Instant>,
    pub(crate) suppress: bool,
    pub(crate) woken: Option<v1::Woken>,
    pub(crate) join: Option<v1::Join>,
    pub(crate) last_progress: Option<Payload>,
    pub(crate) progress: Mutex<Progress>,
    /// How many chunks were emitted.
    pub(crate) emitted: AtomicU64,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) usage: Mutex<UsageSum>,
    /// Whether the cluster counts usage before the attempt ends.
    pub(crate) usage_at_once: bool,
    /// Memory writes that the completion carries, by key.
    pub(crate) on_complete: Mutex<BTreeMap<String, v1::CompletionWrite>>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) signal: watch::Receiver<Signal>,
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("run_id", &self.inner.run_id)
            .field("step", &self.inner.step)
            .field("name", &self.inner.name)
            .field("attempt", &self.inner.attempt)
            .finish_non_exhaustive()
    }
}

impl StepContext {
    pub(crate) fn new(inner: Inner) -> StepContext {
        StepContext { inner: Arc::new(inner) }
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.inner.agent
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// The run.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.inner.run_id
    }

    /// The step's number in its run, from 1 on or as the cluster counts.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.inner.step
    }

    /// The step's name.
    #[must_use]
    pub fn step_name(&self) -> &str {
        &self.inner.name
    }

    /// The attempt, the first being 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// Live runs serve users; smoke, eval, shadow and drill runs do not.
    #[must_use]
    pub fn kind(&self) -> v1::RunKind {
        self.inner.kind
    }

    /// Labels of the run.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.inner.labels
    }

    /// The session that the run belongs to: a conversation, say. `None`: none.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        Some(self.inner.session.as_str()).filter(|session| !session.is_empty())
    }

    /// The bundle that the run is pinned to.
    #[must_use]
    pub fn bundle(&self) -> &BundleView {
        &self.inner.bundle
    }

    /// When this attempt is given up, if it has an end.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.deadline
    }

    /// Time until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.inner.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// What ended the wait that this step was behind, the same in every attempt; `None` when it was behind none. A signal
    /// without a value is `null`.
    ///
    /// # Errors
    /// When the signal's value is not what `T` takes: another attempt would not help.
    pub fn woken<T: DeserializeOwned>(&self) -> StepResult<Option<Wait<T>>> {
        let Some(woken) = self.inner.woken.as_ref().filter(|woken| woken.child.is_none()) else {
            return Ok(None);
        };
        if woken.signal.is_empty() {
            return Ok(Some(Wait::TimedOut));
        }
        let value = payload::decode(woken.value.as_ref())
            .map_err(|error| StepError::fatal("INVALID_SIGNAL", error))?;
        Ok(Some(Wait::Signal(value)))
    }

    /// The output of the child that this step waited for.
    ///
    /// # Errors
    /// `NO_CHILD` when it waited for none; the child's own reason when it failed, or its state (`CANCELLED`, `EXPIRED`) when it
    /// ended otherwise. Another attempt would be told the same, so these fail the run, unless the handler does something else;
    /// [`Self::child_end`] has the whole story.
    pub fn child<T: DeserializeOwned>(&self) -> StepResult<T> {
        let Some(end) = self.child_end() else {
            return Err(StepError::fatal("NO_CHILD", "the step waited for no child"));
        };
        if let Some(failure) = &end.failure {
            let message = format!("child {}: {}", end.run_id, failure.message);
            return Err(StepError::fatal(failure.reason.clone(), message));
        }
        if end.state() != v1::RunState::Completed {
            let state = end.state().as_str_name().trim_start_matches("RUN_STATE_");
            return Err(StepError::fatal(state, format!("child {} did not complete", end.run_id)));
        }
        payload::decode(end.output.as_ref())
            .map_err(|error| StepError::fatal("INVALID_CHILD_OUTPUT", error))
    }

    /// How the child ended that this step waited for; `None` when it waited for none.
    #[must_use]
    pub fn child_end(&self) -> Option<&v1::ChildEnd> {
        self.inner.woken.as_ref()?.child.as_ref()
    }

    /// A key for an outside effect: the same in every attempt of this step, another one for every other name or step.
    #[must_use]
    pub fn idempotency_key(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        let step = self.inner.step.to_string();
        for part in [&self.inner.namespace, &self.inner.agent, &self.inner.run_id, &step, name] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hex::encode(&hash.finalize()[..16])
    }

    /// Does something once: what it gave is recorded, and a later attempt gets the record instead.
    ///
    /// A name used again in one step gets `#2`, `#3` …. The values come back in the order of the questions.
    ///
    /// # Errors
    /// What `make` gives; `CHECKPOINT_MISMATCH`, not retried, when the record says that another name was asked here.
    pub async fn checkpoint<T, E, F, Fut>(&self, name: &str, make: F) -> StepResult<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<StepError>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let place = self.ask(name)?;
        let span = trace::checkpoint(self, &place.name);
        span.record("pinrail.replayed", place.recorded.is_some());
        trace::under(span, async {
            if let Some(recorded) = &place.recorded {
                return Ok(payload::decode(Some(recorded))?);
            }
            let value = make().await.map_err(Into::into)?;
            let value = payload::encode(&value)?;
            self.record(place, value.clone()).await?;
            // Decoded on the first attempt too: it must not see more than a later one would.
            Ok(payload::decode(Some(&value))?)
        })
        .await
    }

    /// A tool of the bundle.
    pub fn tool(&self, name: &str) -> ToolCall {
        ToolCall::new(self.clone(), name)
    }

    /// The worker's word on which tools the program really sees; what a step learns of them it may say here.
    #[must_use]
    pub fn tools_seen(&self) -> &ToolsSeen {
        &self.inner.tools
    }

    /// The agent's memory, in the layer that the run is pinned to.
    #[must_use]
    pub fn memory(&self) -> StepMemory {
        StepMemory::new(self.clone())
    }

    /// Adds to what this attempt used. Inside a checkpoint it is on that one's span too.
    pub fn report(&self, usage: Usage) {
        let usage = v1::ModelUsage {
            model: usage.model,
            served_model: usage.served_model,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost_micros: usage.cost_micros,
            calls: 1,
        };
        let span = Span::current();
        // The attempt's own span gets the sum at its end.
        if span.id() != self.inner.span.id() {
            trace::used(&span, [&usage]);
        }
        self.inner.usage.lock().add_model(usage);
    }

    /// The W3C `traceparent` for calls that this step makes, so that what is called is part of the run's trace: of the
    /// present span with feature `otel`, else of the span that the run was started under. `None`: the run is in no trace.
    #[must_use]
    pub fn trace_parent(&self) -> Option<String> {
        let inside = trace::parent(&Span::current()).or_else(|| trace::parent(&self.inner.span));
        let outside = Some(&self.inner.trace_parent).filter(|parent| !parent.is_empty());
        inside.map(|parent| parent.to_string()).or_else(|| outside.cloned())
    }

    /// Says something to those who watch the run: a token of a model's answer, say. A string reaches them as it is, anything else
    /// as JSON. Nothing is recorded, and nothing waits for it: what a broken stream or a slow watcher loses is told to them as
    /// a gap. At most 64 KiB; more is left out.
    pub fn emit(&self, value: impl Serialize) {
        let Ok(value) = payload::encode(&value) else { return };
        let sequence = self.inner.emitted.fetch_add(1, Ordering::Relaxed) + 1;
        if value.data.len() > limits::CHUNK_BYTES {
            tracing::warn!(bytes = value.data.len(), "a chunk that is too large is left out");
            return;
        }
        let message = Message::Emit(v1::Emit {
            token: Some(self.inner.token.into()),
            sequence,
            value: Some(value),
            attempt: self.inner.attempt,
        });
        let command = Command { token: self.inner.token, message, reply: None };
        // A loop that cannot take it leaves a gap.
        let _ = self.inner.commands.try_send(command);
    }

    /// Says how far the step is: goes with the next heartbeat, and to the next attempt. The last word counts. At most 16 KiB; more
    /// is left out.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn progress(&self, value: impl Serialize) -> StepResult<()> {
        let value = payload::encode(&value)?;
        if value.data.len() > limits::PROGRESS_BYTES {
            tracing::warn!(bytes = value.data.len(), "a progress that is too large is left out");
            return Ok(());
        }
        *self.inner.progress.lock() = Progress { value: Some(value), told: false };
        Ok(())
    }

    /// How far an earlier attempt said that it came; `None` when none did.
    ///
    /// # Errors
    /// When it is not what `T` takes: another attempt would not help.
    pub fn last_progress<T: DeserializeOwned>(&self) -> StepResult<Option<T>> {
        let Some(last) = &self.inner.last_progress else { return Ok(None) };
        let value = payload::decode(Some(last));
        Ok(Some(value.map_err(|error| StepError::fatal("INVALID_PROGRESS", error))?))
    }

    /// Waits until the step is asked to stop. After a grace the step is dropped where it waits.
    pub async fn cancelled(&self) -> CancelReason {
        let mut signal = self.inner.signal.clone();
        loop {
            if let Signal::Stop { reason, .. } = *signal.borrow_and_update() {
                return reason;
            }
            if signal.changed().await.is_err() {
                // The worker is gone; nobody will ask any more.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn ask(&self, name: &str) -> StepResult<Place> {
        self.inner.journal.lock().ask(name)
    }

    pub(crate) async fn record(&self, place: Place, value: Payload) -> StepResult<()> {
        let checkpoint =
            v1::Checkpoint { name: place.name, value: Some(value), order: place.order };
        let room = self.room().await?;
        // Only now: whoever waits for room may be dropped there, and then it was not told.
        let usage = self.inner.tell_usage_at_once();
        let message = Message::Checkpoint(v1::RecordCheckpoint {
            run_id: self.inner.run_id.clone(),
            step: self.inner.step,
            token: Some(self.inner.token.into()),
            checkpoint: Some(checkpoint),
            usage: usage.clone(),
        });
        let recorded = self.send_in(room, message).await;
        if let (Err(_), Some(usage)) = (&recorded, &usage) {
            self.inner.usage.lock().take_back(usage);
        }
        recorded.map(drop)
    }

    /// Hands a message to the worker's loop and waits for the cluster's answer.
    pub(crate) async fn send(&self, message: Message) -> StepResult<u64> {
        let room = self.room().await?;
        self.send_in(room, message).await
    }

    async fn room(&self) -> StepResult<mpsc::Permit<'_, Command>> {
        // Without its loop the worker holds no lease any more.
        self.inner.commands.reserve().await.map_err(|_| StepError::stale())
    }

    async fn send_in(&self, room: mpsc::Permit<'_, Command>, message: Message) -> StepResult<u64> {
        let (reply, answer) = oneshot::channel();
        room.send(Command { token: self.inner.token, message, reply: Some(reply) });
        answer.await.map_err(|_| StepError::stale())?
    }
}

impl Inner {
    /// What the attempt used and has not told of, if the cluster wants to know before the attempt ends.
    pub(crate) fn tell_usage_at_once(&self) -> Option<v1::Usage> {
        let usage = self.usage_at_once.then(|| self.usage.lock().tell());
        usage.filter(|usage| *usage != v1::Usage::default())
    }
}
