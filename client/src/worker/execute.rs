//! One attempt from its assignment to its end: runs the handler until it returns, is dropped, or has no more time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use pinrail_proto::v1::work_request::Message;
use pinrail_proto::{time, v1};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};
use tracing::{Instrument as _, Span};

use crate::client::Client;
use crate::trace;
use crate::worker::bundle::BundleView;
use crate::worker::context::{CancelReason, Command, Inner, Signal, StepContext};
use crate::worker::handler::{Handler, Outcome};
use crate::worker::held::Token;
use crate::worker::join;
use crate::worker::journal::Journal;
use crate::worker::outcome::{STEP_ERROR, StepError, StepResult};
use crate::worker::seen::ToolsSeen;
use crate::worker::usage::UsageSum;

/// Reason of an attempt that took longer than it may.
pub const START_TO_CLOSE: &str = "START_TO_CLOSE";
/// Reason of an attempt that did not stop within its grace.
pub const CANCELLED: &str = "CANCELLED";

/// What all steps of one worker share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) agent: String,
    pub(crate) worker_id: String,
    pub(crate) bundle: Arc<BundleView>,
    pub(crate) tools: ToolsSeen,
    /// Whether the cluster counts usage before an attempt ends.
    pub(crate) usage_at_once: bool,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum End {
    Returned(StepResult<Outcome>),
    /// Its grace was over.
    CutOff,
    OutOfTime,
    /// The lease is gone; nobody wants to know.
    Dropped,
}

/// An attempt that is over, and what to tell.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) token: Token,
    /// Nothing to tell when the lease is gone.
    pub(crate) message: Option<Message>,
}

/// Makes the context of an assignment.
pub(crate) fn context(
    around: &Surroundings,
    handler: &Handler,
    assignment: &v1::Assignment,
    token: Token,
    signal: watch::Receiver<Signal>,
    now: Instant,
) -> StepContext {
    let local = handler.options.start_to_close.map(|limit| now + limit);
    let deadline = [deadline(assignment, now), local].into_iter().flatten().min();
    StepContext::new(Inner {
        client: around.client.clone(),
        namespace: around.namespace.clone(),
        agent: around.agent.clone(),
        run_id: assignment.run_id.clone(),
        step: assignment.step,
        name: assignment.name.clone(),
        attempt: assignment.attempt,
        kind: assignment.kind(),
        labels: assignment.labels.clone(),
        session: assignment.session.clone(),
        trace_parent: assignment.trace_parent.clone(),
        span: trace::step(assignment, &around.agent, &around.worker_id),
        token,
        bundle: Arc::clone(&around.bundle),
        tools: around.tools.clone(),
        deadline,
        suppress: assignment.suppress_side_effects,
        woken: assignment.woken.clone(),
        join: assignment.join,
        last_progress: assignment.last_progress.clone(),
        progress: Mutex::default(),
        emitted: AtomicU64::new(0),
        journal: Mutex::new(Journal::new(assignment.checkpoints.clone())),
        usage: Mutex::new(UsageSum::default()),
        usage_at_once: around.usage_at_once,
        on_complete: Mutex::default(),
        commands: around.commands.clone(),
        signal,
    })
}

/// The cluster's deadline on our clock: what is left of it by the cluster's own time.
fn deadline(assignment: &v1::Assignment, now: Instant) -> Option<Instant> {
    let at = time::timestamp_millis(assignment.deadline.as_ref());
    let cluster_now = time::timestamp_millis(assignment.cluster_time.as_ref());
    (at != 0 && cluster_now != 0)
        .then(|| now + Duration::from_millis(at.saturating_sub(cluster_now)))
}

/// Runs an attempt to its end.
pub(crate) async fn execute(
    handler: Handler,
    context: StepContext,
    input: Option<v1::Payload>,
    signal: watch::Receiver<Signal>,
) -> Finished {
    let span = context.inner().span.clone();
    let end = until_the_end(work(&handler, &context, input), &context, signal.clone());
    let end = end.instrument(span.clone()).await;
    let stopped = match *signal.borrow() {
        Signal::Stop { reason, .. } => Some(reason),
        Signal::Run | Signal::Drop => None,
    };
    let token = context.inner().token;
    let message = message(end, &context, &handler, stopped);
    say_end(&span, message.as_ref());
    trace::used(&span, &context.inner().usage.lock().all().models);
    Finished { token, message }
}

fn work(
    handler: &Handler,
    context: &StepContext,
    input: Option<v1::Payload>,
) -> BoxFuture<'static, StepResult<Outcome>> {
    let Some(join) = context.inner().join else { return (handler.run)(context.clone(), input) };
    let (run, context) = (Arc::clone(&handler.run), context.clone());
    async move {
        let input = join::input(&context, join).await?;
        run(context, Some(input)).await
    }
    .boxed()
}

async fn until_the_end(
    mut work: BoxFuture<'static, StepResult<Outcome>>,
    context: &StepContext,
    mut signal: watch::Receiver<Signal>,
) -> End {
    loop {
        let present = *signal.borrow_and_update();
        let cut_off = match present {
            Signal::Drop => return End::Dropped,
            Signal::Stop { until, .. } => Some(until),
            Signal::Run => None,
        };
        tokio::select! {
            biased;
            changed = signal.changed() => if changed.is_err() { return End::Dropped },
            result = &mut work => return End::Returned(result),
            () = at(cut_off) => return End::CutOff,
            () = at(context.deadline()) => return End::OutOfTime,
        }
    }
}

/// Never, when there is no moment.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn message(
    end: End,
    context: &StepContext,
    handler: &Handler,
    stopped: Option<CancelReason>,
) -> Option<Message> {
    let error = match end {
        End::Dropped => return None,
        End::Returned(Ok(outcome)) => return Some(complete(context, outcome)),
        End::Returned(Err(error)) => error,
        End::OutOfTime => StepError::retry("the attempt took too long").with_reason(START_TO_CLOSE),
        End::CutOff => StepError::fatal(CANCELLED, "it did not stop within its grace"),
    };
    if error.is_stale() {
        return None;
    }
    // A step that stops because its worker does costs no attempt.
    let for_shutdown = error.is_retryable() || error.reason() == CANCELLED;
    if stopped == Some(CancelReason::Shutdown) && for_shutdown {
        return Some(hand_back(context));
    }
    Some(fail(context, handler, error))
}

/// How the attempt ended, on its span.
fn say_end(span: &Span, message: Option<&Message>) {
    let outcome = match message {
        Some(Message::Complete(_)) => "completed",
        Some(Message::Fail(it)) => {
            let reason = it.failure.as_ref().map_or(STEP_ERROR, |failure| &failure.reason);
            trace::failed(span, reason);
            "failed"
        }
        Some(Message::HandBack(_)) => "handed_back",
        Some(_) | None => "lease_lost",
    };
    span.record("pinrail.step.outcome", outcome);
}

fn complete(context: &StepContext, outcome: Outcome) -> Message {
    let inner = context.inner();
    Message::Complete(v1::CompleteStep {
        run_id: inner.run_id.clone(),
        step: inner.step,
        token: Some(inner.token.into()),
        outcome: Some(outcome),
        usage: Some(inner.usage.lock().tell()),
        // The loop decides that: it knows whether the worker goes on.
        lease_next: false,
        memory: std::mem::take(&mut *inner.on_complete.lock()).into_values().collect(),
    })
}

fn fail(context: &StepContext, handler: &Handler, error: StepError) -> Message {
    let inner = context.inner();
    let last = handler.options.max_attempts.is_some_and(|most| inner.attempt >= most);
    let mut failure = error.into_failure();
    failure.non_retryable |= last;
    Message::Fail(v1::FailStep {
        run_id: inner.run_id.clone(),
        step: inner.step,
        token: Some(inner.token.into()),
        failure: Some(failure),
        usage: Some(inner.usage.lock().tell()),
        progress: inner.progress.lock().value.clone(),
    })
}

fn hand_back(context: &StepContext) -> Message {
    let inner = context.inner();
    Message::HandBack(v1::HandBack {
        run_id: inner.run_id.clone(),
        step: inner.step,
        token: Some(inner.token.into()),
        progress: inner.progress.lock().value.clone(),
        usage: inner.tell_usage_at_once(),
    })
}
