//! One step on one child: what the child asks for is done through the step's context, until it says how the step ended.
//!
//! A child keeps its own count of names: the second checkpoint `search` of a step is `search#2`. It looks into the
//! step's `checkpoints` before it does something again, and need not ask for what it finds there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pinrail_proto::{json, reason, v1};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use crate::worker::{CancelReason, Next, StepContext, StepError, StepResult};

use super::child::Child;
use super::pool::Pool;
use super::protocol::{Fail, FromChild, Outcome, Retry, Step};

/// Reason of an attempt whose program could not be started or ended in the middle.
const PROGRAM_ENDED: &str = "PROGRAM_ENDED";
/// Reason of an attempt whose program broke the protocol.
const PROTOCOL: &str = "PROTOCOL";
/// Answers on their way to a child; it waits for each.
const ANSWERS: usize = 64;

/// Serves a step on an idle child, which is kept when it answered in order.
pub(super) async fn serve(pool: &Pool, context: StepContext, input: Value) -> StepResult<Next> {
    let started = pool.take().await;
    let mut child = started.map_err(|error| StepError::retry(error).with_reason(PROGRAM_ENDED))?;
    child.stamp(format!(
        "run={} step={} attempt={} bundle={}",
        context.run_id(),
        context.step_name(),
        context.attempt(),
        context.bundle().id()
    ));
    // Dropped while it works, at the end of a cancelled step's grace say, the child goes with it.
    let outcome = Session::new(context).run(&mut child, input).await?;
    pool.keep(child);
    outcome.into_next()
}

struct Session {
    context: StepContext,
    /// Tools that were begun, by name: where their output goes.
    begun: BTreeMap<String, oneshot::Sender<(u64, Value)>>,
    answers: mpsc::Sender<Value>,
    answered: mpsc::Receiver<Value>,
    tasks: JoinSet<()>,
}

impl Session {
    fn new(context: StepContext) -> Self {
        let (answers, answered) = mpsc::channel(ANSWERS);
        Self { context, begun: BTreeMap::new(), answers, answered, tasks: JoinSet::new() }
    }

    async fn run(mut self, child: &mut Child, input: Value) -> StepResult<Outcome> {
        if child.send(&step(&self.context, input)).await.is_err() {
            return Err(ended(child).await);
        }
        let (mut line, mut told) = (Vec::new(), false);
        let context = self.context.clone();
        loop {
            let sent = tokio::select! {
                message = child.next(&mut line) => match message {
                    Ok(Some(FromChild::Outcome(outcome))) => return Ok(*outcome),
                    Ok(Some(message)) => { self.take(message); Ok(()) }
                    Ok(None) => return Err(ended(child).await),
                    // Whoever wrote it is told, and may go on; a line without an end leaves nothing to go on with.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        let error = StepError::fatal(PROTOCOL, error);
                        child.send(&json!({ "error": told_as(&error) })).await
                    }
                    Err(error) => return Err(StepError::retry(error).with_reason(PROTOCOL)),
                },
                Some(answer) = self.answered.recv() => child.send(&answer).await,
                reason = context.cancelled(), if !told => {
                    told = true;
                    child.send(&json!({ "type": "cancel", "reason": word(reason) })).await
                }
            };
            if sent.is_err() {
                return Err(ended(child).await);
            }
        }
    }

    /// Does what a message asks for. Places of checkpoints are taken at once, in the order of the messages.
    fn take(&mut self, message: FromChild) {
        let context = self.context.clone();
        match message {
            FromChild::Checkpoint { id, name, value } => self.checkpoint(id, &name, value),
            FromChild::MemoryGet { id, key } => self.answer(id, async move {
                let entry = context.memory().get_entry::<Value>(key.join()).await?;
                let (value, revision) =
                    entry.map_or((Value::Null, 0), |entry| (entry.value, entry.revision));
                Ok(json!({ "value": value, "revision": revision }))
            }),
            FromChild::MemoryPut { id, key, value, expected_revision } => {
                self.answer(id, async move {
                    let (memory, key) = (context.memory(), key.join());
                    let revision = match expected_revision {
                        Some(expected) => memory.put_if(key, &value, expected).await?,
                        None => memory.put(key, &value).await?,
                    };
                    Ok(json!({ "ok": true, "revision": revision }))
                });
            }
            FromChild::MemoryDelete { id, key } => self.answer(id, async move {
                let revision = context.memory().delete(key.join()).await?;
                Ok(json!({ "ok": true, "revision": revision }))
            }),
            FromChild::MemoryList { id, path } => self.answer(id, async move {
                let entries = context.memory().list::<Value>(&path).await?;
                let shown = |entry: &crate::worker::Entry<Value>| {
                    json!({ "key": entry.key, "value": entry.value, "revision": entry.revision })
                };
                Ok(json!({ "entries": entries.iter().map(shown).collect::<Vec<_>>() }))
            }),
            FromChild::ToolBegin { id, name, input } => self.begin(id, name, input),
            FromChild::ToolEnd { id, name, output } => match self.begun.remove(&name) {
                // It answers both, here and there, when the call is recorded.
                Some(call) => drop(call.send((id, output))),
                None => self.answer(id, async move {
                    Err(StepError::fatal(PROTOCOL, format!("tool {name:?} was not begun")))
                }),
            },
            FromChild::Usage(usage) => context.report(crate::worker::Usage {
                model: usage.model,
                served_model: usage.served_model,
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cost_micros: usage.cost_micros,
            }),
            FromChild::Hello(_) | FromChild::Outcome(_) => {}
        }
    }

    /// Answers the message `id` with what `work` comes to.
    fn answer(&mut self, id: u64, work: impl Future<Output = StepResult<Value>> + Send + 'static) {
        let answers = self.answers.clone();
        self.tasks.spawn(async move {
            let answer = match work.await {
                Ok(mut answer) => {
                    answer["id"] = id.into();
                    answer
                }
                Err(error) => json!({ "id": id, "error": told_as(&error) }),
            };
            // The session may be over.
            let _ = answers.send(answer).await;
        });
    }

    fn checkpoint(&mut self, id: u64, name: &str, value: Value) {
        let place = {
            let mut journal = self.context.inner().journal.lock();
            journal.skip_replayed(name);
            journal.ask(name)
        };
        let context = self.context.clone();
        self.answer(id, async move {
            let place = place?;
            if let Some(recorded) = &place.recorded {
                return Ok(json!({ "ok": true, "value": json::payload(recorded) }));
            }
            context.record(place, crate::payload::encode(&value)?).await?;
            Ok(json!({ "ok": true }))
        });
    }

    fn begin(&mut self, id: u64, name: String, input: Value) {
        self.context.inner().journal.lock().skip_replayed(&format!("tool:{name}"));
        let (end, ended) = oneshot::channel();
        self.begun.insert(name.clone(), end);
        let (context, answers) = (self.context.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let answer = call(&context, &answers, id, &name, input, ended).await;
            let _ = answers.send(answer).await;
        });
    }
}

/// A tool call, which the child makes: answers what it may do, waits for its output, and gives the last answer.
async fn call(
    context: &StepContext,
    answers: &mpsc::Sender<Value>,
    id: u64,
    name: &str,
    input: Value,
    ended: oneshot::Receiver<(u64, Value)>,
) -> Value {
    let last = Arc::new(Mutex::new(id));
    let called = Arc::new(AtomicBool::new(false));
    let (last_id, was_called, go) = (Arc::clone(&last), Arc::clone(&called), answers.clone());
    let made = context.tool(name).call(input, |_, key| async move {
        was_called.store(true, Ordering::Relaxed);
        let _ = go.send(json!({ "id": id, "do": "call", "key": key })).await;
        let never = || StepError::retry("the program did not end the call");
        let (end, output) = ended.await.map_err(|_| never())?;
        *last_id.lock() = end;
        Ok::<Value, StepError>(output)
    });
    let made = made.await;
    let (id, called) = (*last.lock(), called.load(Ordering::Relaxed));
    match made {
        Ok(_) if called => json!({ "id": id, "ok": true }),
        Ok(output) => json!({ "id": id, "do": "replay", "output": output }),
        Err(error) if error.reason() == reason::TOOL_SUPPRESSED.name => {
            json!({ "id": id, "do": "suppress" })
        }
        Err(error) => json!({ "id": id, "error": told_as(&error) }),
    }
}

async fn ended(child: &mut Child) -> StepError {
    StepError::retry(child.obituary().await).with_reason(PROGRAM_ENDED)
}

fn told_as(error: &StepError) -> Value {
    json!({ "reason": error.reason(), "message": error.to_string() })
}

fn word(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Requested => "requested",
        CancelReason::MaxAge => "max_age",
        CancelReason::DrainCap => "drain_cap",
        CancelReason::Rollback => "rollback",
        CancelReason::KeepAlive => "keep_alive",
        CancelReason::Shutdown => "shutdown",
    }
}

fn step(context: &StepContext, input: Value) -> Step {
    let inner = context.inner();
    let mut bundle = json::of(context.bundle().manifest());
    bundle["id"] = context.bundle().id().into();
    let recorded = inner.journal.lock().recorded_by_name();
    let recorded = recorded.into_iter().filter(|(name, _)| !name.starts_with("tool:"));
    let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Step {
        r#type: "step",
        agent_id: inner.agent.clone(),
        run_id: inner.run_id.clone(),
        step: inner.name.clone(),
        number: inner.step,
        attempt: inner.attempt,
        kind: inner.kind.as_str_name().trim_start_matches("RUN_KIND_").to_lowercase(),
        side_effects: if inner.suppress { "suppress" } else { "allow" },
        labels: inner.labels.clone(),
        remaining_ms: inner.deadline.map(|at| millis(at.saturating_duration_since(Instant::now()))),
        input,
        woken: inner.woken.as_ref().map(woken),
        bundle,
        checkpoints: recorded.map(|(name, value)| (name, json::payload(&value))).collect(),
    }
}

fn woken(woken: &v1::Woken) -> Value {
    if woken.signal.is_empty() {
        return json!({ "timed_out": true });
    }
    json!({ "signal": woken.signal, "value": woken.value.as_ref().map(json::payload) })
}

impl Outcome {
    fn into_next(self) -> StepResult<Next> {
        let Self { next, done, wait, sleep, fail, input, timeout, then } = self;
        let then = move || {
            then.ok_or_else(|| {
                StepError::fatal(PROTOCOL, "a wait says with `then` what comes then")
            })
        };
        match (next, done, wait, sleep, fail) {
            (Some(name), None, None, None, None) => Ok(Next::step(name, input)),
            (None, Some(output), None, None, None) => Ok(Next::done(output)),
            (None, None, Some(signal), None, None) => {
                let wait = Next::wait(signal);
                let wait = match timeout {
                    Some(limit) => wait.timeout(span(&limit)?),
                    None => wait,
                };
                Ok(wait.then(then()?, input))
            }
            (None, None, None, Some(time), None) => {
                Ok(Next::sleep(span(&time)?).then(then()?, input))
            }
            (None, None, None, None, Some(fail)) => Err(fail.into_error()?),
            _ => {
                let message = "an outcome is one of next, done, wait, sleep and fail";
                Err(StepError::fatal(PROTOCOL, message))
            }
        }
    }
}

impl Fail {
    fn into_error(self) -> StepResult<StepError> {
        let reason = if self.reason.is_empty() { crate::worker::STEP_ERROR } else { &self.reason };
        Ok(match (self.retry, &self.after) {
            (Retry::Never, _) => StepError::fatal(reason, self.message),
            (Retry::Auto, None) => StepError::retry(self.message).with_reason(reason),
            (Retry::Auto, Some(after)) => {
                StepError::retry_after(span(after)?, self.message).with_reason(reason)
            }
        })
    }
}

fn span(text: &str) -> StepResult<Duration> {
    humantime::parse_duration(text)
        .map_err(|error| StepError::fatal(PROTOCOL, format!("{text:?}: {error}")))
}
