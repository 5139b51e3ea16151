//! What is asked for in the middle of a step is done through the step's context, on however many connections it comes.
//!
//! A program keeps its own count of names: the second checkpoint `search` of a step is `search#2`. It looks into the
//! step's `checkpoints` before it does something again, and need not ask for what it finds there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pinrail_proto::{json, reason};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::worker::{StepContext, StepError, StepResult, ToolsSeen};

use super::outcome::PROTOCOL;
use super::peer::Peer;
use super::protocol::{FromChild, Outcome, Tools};
use super::step;

/// Answers on their way to one connection; it waits for each.
const ANSWERS: usize = 64;

/// To the connection that asked.
type Answers = mpsc::Sender<Value>;

/// One step, for whoever works on it.
pub(super) struct Session {
    context: StepContext,
    begun: Begun,
    /// They go with the session: nobody waits for them any more.
    tasks: Mutex<JoinSet<()>>,
}

/// Tool calls that are being made.
type Begun = Arc<Mutex<Vec<Call>>>;

struct Call {
    name: String,
    key: String,
    end: oneshot::Sender<End>,
}

/// What a call came to, and who is to hear that it is recorded.
struct End {
    id: u64,
    output: Value,
    answers: Answers,
}

impl Session {
    pub(super) fn new(context: StepContext) -> Self {
        Self { context, begun: Begun::default(), tasks: Mutex::default() }
    }

    /// Answers a connection until it says how the step ended; `None` when it was closed before. An error is a line
    /// without an end, behind which nothing can be understood.
    pub(super) async fn talk(&self, peer: &mut Peer) -> io::Result<Option<Outcome>> {
        let (answers, mut answered) = mpsc::channel(ANSWERS);
        let mut told = false;
        loop {
            let sent = tokio::select! {
                message = peer.next() => match message {
                    Ok(Some(FromChild::Outcome(outcome))) => return Ok(Some(*outcome)),
                    Ok(Some(message)) => { self.take(message, &answers); Ok(()) }
                    Ok(None) => return Ok(None),
                    // Whoever wrote it is told, and may go on.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        let error = StepError::fatal(PROTOCOL, error);
                        peer.send(&json!({ "error": told_as(&error) })).await
                    }
                    Err(error) => return Err(error),
                },
                Some(answer) = answered.recv() => peer.send(&answer).await,
                reason = self.context.cancelled(), if !told => {
                    told = true;
                    peer.send(&step::cancel(&self.context, reason)).await
                }
            };
            if sent.is_err() {
                return Ok(None);
            }
        }
    }

    /// Does what a message asks for. Places of checkpoints are taken at once, in the order of the messages.
    fn take(&self, message: FromChild, answers: &Answers) {
        let context = self.context.clone();
        match message {
            FromChild::Checkpoint { id, name, value } => self.checkpoint(answers, id, &name, value),
            FromChild::CheckpointGet { id, name } => {
                let recorded = context.inner().journal.lock().recorded_by_name();
                let value = recorded.iter().find(|(known, _)| *known == name);
                let value = value.map(|(_, value)| json::payload(value));
                let answer = json!({ "found": value.is_some(), "value": value });
                self.answer(answers, id, async move { Ok(answer) });
            }
            FromChild::MemoryGet { id, key } => self.answer(answers, id, async move {
                let entry = context.memory().get_entry::<Value>(key.join()).await?;
                let (value, revision) =
                    entry.map_or((Value::Null, 0), |entry| (entry.value, entry.revision));
                Ok(json!({ "value": value, "revision": revision }))
            }),
            FromChild::MemoryPut { id, key, value, expected_revision } => {
                self.answer(answers, id, async move {
                    let (memory, key) = (context.memory(), key.join());
                    let revision = match expected_revision {
                        Some(expected) => memory.put_if(key, &value, expected).await?,
                        None => memory.put(key, &value).await?,
                    };
                    Ok(json!({ "ok": true, "revision": revision }))
                });
            }
            FromChild::MemoryDelete { id, key } => self.answer(answers, id, async move {
                let revision = context.memory().delete(key.join()).await?;
                Ok(json!({ "ok": true, "revision": revision }))
            }),
            FromChild::MemoryList { id, path } => self.answer(answers, id, async move {
                let entries = context.memory().list::<Value>(&path).await?;
                let shown = |entry: &crate::worker::Entry<Value>| {
                    json!({ "key": entry.key, "value": entry.value, "revision": entry.revision })
                };
                Ok(json!({ "entries": entries.iter().map(shown).collect::<Vec<_>>() }))
            }),
            FromChild::ToolBegin { id, name, input } => self.begin(answers, id, name, input),
            FromChild::ToolEnd { id, name, key, output } => {
                let answers = answers.clone();
                match self.begun(&name, key.as_deref()) {
                    // It answers both, here and there, when the call is recorded.
                    Some(call) => drop(call.end.send(End { id, output, answers })),
                    None => self.answer(&answers, id, async move {
                        Err(StepError::fatal(PROTOCOL, format!("tool {name:?} was not begun")))
                    }),
                }
            }
            FromChild::StartRun { id, agent, input } => {
                let place = context.start_place(&agent);
                self.answer(answers, id, async move {
                    let input = crate::payload::encode(&input)?;
                    let run_id = context.start_at(place?, &agent, input).await?;
                    Ok(json!({ "ok": true, "run_id": run_id }))
                });
            }
            FromChild::Tools { id, tools } => {
                say_tools(context.tools_seen(), tools);
                self.acknowledge(answers, id);
            }
            FromChild::Usage(usage) => {
                context.report(crate::worker::Usage {
                    model: usage.model,
                    served_model: usage.served_model,
                    input_tokens: usage.input_tokens,
                    output_tokens: usage.output_tokens,
                    cost_micros: usage.cost_micros,
                });
                self.acknowledge(answers, usage.id);
            }
            FromChild::Emit(emit) => {
                context.emit(emit.text.map_or(emit.value, Value::String));
                self.acknowledge(answers, emit.id);
            }
            FromChild::Progress { id, value } => match (context.progress(value), id) {
                (Ok(()), id) => self.acknowledge(answers, id),
                (Err(error), Some(id)) => self.answer(answers, id, async { Err(error) }),
                (Err(_), None) => {}
            },
            FromChild::Hello(_) | FromChild::Outcome(_) => {}
        }
    }

    /// Answers the message `id` with what `work` comes to.
    fn answer(
        &self,
        answers: &Answers,
        id: u64,
        work: impl Future<Output = StepResult<Value>> + Send + 'static,
    ) {
        let answers = answers.clone();
        self.spawn(async move {
            let answer = match work.await {
                Ok(mut answer) => {
                    answer["id"] = id.into();
                    answer
                }
                Err(error) => json!({ "id": id, "error": told_as(&error) }),
            };
            // Whoever asked may be gone.
            let _ = answers.send(answer).await;
        });
    }

    /// Answers a message that needs no answer, if it has an id.
    fn acknowledge(&self, answers: &Answers, id: Option<u64>) {
        if let Some(id) = id {
            self.answer(answers, id, async { Ok(json!({ "ok": true })) });
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work.instrument(self.context.inner().span.clone()));
    }

    fn checkpoint(&self, answers: &Answers, id: u64, name: &str, value: Value) {
        let place = {
            let mut journal = self.context.inner().journal.lock();
            journal.skip_replayed(name);
            journal.ask(name)
        };
        let context = self.context.clone();
        self.answer(answers, id, async move {
            let place = place?;
            if let Some(recorded) = &place.recorded {
                return Ok(json!({ "ok": true, "value": json::payload(recorded) }));
            }
            context.record(place, crate::payload::encode(&value)?).await?;
            Ok(json!({ "ok": true }))
        });
    }

    fn begin(&self, answers: &Answers, id: u64, name: String, input: Value) {
        self.context.inner().journal.lock().skip_replayed(&format!("tool:{name}"));
        let asked = Asked { id, answers: answers.clone(), begun: Arc::clone(&self.begun) };
        let context = self.context.clone();
        self.spawn(async move { call(&context, asked, name, input).await });
    }

    /// The call that ends: the one of this key, or the last of this name that was begun.
    fn begun(&self, name: &str, key: Option<&str>) -> Option<Call> {
        let mut begun = self.begun.lock();
        let is_it = |call: &Call| call.name == name && key.is_none_or(|key| call.key == key);
        let at = begun.iter().rposition(is_it)?;
        Some(begun.remove(at))
    }
}

/// Passes on what a program sees of its tools.
pub(super) fn say_tools(seen: &ToolsSeen, tools: Tools) {
    for (name, schemas) in tools {
        match schemas {
            Some(schemas) => seen.set(name, &schemas.input, schemas.output.as_ref()),
            None => seen.absent(name),
        }
    }
}

/// Who began a call.
struct Asked {
    id: u64,
    answers: Answers,
    begun: Begun,
}

/// A tool call, which the program makes: answers what it may do, waits for its output, and gives the last answer to
/// whoever brought it.
async fn call(context: &StepContext, asked: Asked, name: String, input: Value) {
    let Asked { id, answers, begun } = asked;
    let last = Arc::new(Mutex::new((id, answers.clone())));
    let called = Arc::new(AtomicBool::new(false));
    let (ends, was_called, tool) = (Arc::clone(&last), Arc::clone(&called), name.clone());
    let made = context.tool(&name).call(input, |_, key| async move {
        was_called.store(true, Ordering::Relaxed);
        let (end, ended) = oneshot::channel();
        begun.lock().push(Call { name: tool, key: key.clone(), end });
        let _ = answers.send(json!({ "id": id, "do": "call", "key": key })).await;
        let never = || StepError::retry("the program did not end the call");
        let end = ended.await.map_err(|_| never())?;
        *ends.lock() = (end.id, end.answers);
        Ok::<Value, StepError>(end.output)
    });
    let made = made.await;
    let called = called.load(Ordering::Relaxed);
    let (id, answers) = last.lock().clone();
    let answer = match made {
        Ok(_) if called => json!({ "id": id, "ok": true }),
        Ok(output) => json!({ "id": id, "do": "replay", "output": output }),
        Err(error) if error.reason() == reason::TOOL_SUPPRESSED.name => {
            json!({ "id": id, "do": "suppress" })
        }
        Err(error) => json!({ "id": id, "error": told_as(&error) }),
    };
    let _ = answers.send(answer).await;
}

fn told_as(error: &StepError) -> Value {
    let retry = if error.is_retryable() { "auto" } else { "never" };
    json!({ "reason": error.reason(), "message": error.to_string(), "retry": retry })
}
