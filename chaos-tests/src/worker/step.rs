//! The execution of one step, as its input describes it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use pinrail_proto::v1::{self, work_request::Message as Ask};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::journal::Journal;
use crate::api::convert;
use crate::history::WorkerEvent;

/// Input of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Steps that follow this one.
    pub left: u32,
    pub sleep_ms: u64,
    /// Records a checkpoint before it sleeps.
    pub checkpoint: bool,
    /// Memory key that each step writes.
    pub note: Option<String>,
    /// Never ends, and does not listen when it is asked to.
    pub stuck: bool,
    /// Goes on when its lease is lost, and reports all the same: it must be refused.
    pub deaf: bool,
    /// Asks for the run's next step with each completion, so that its slot stays with the run.
    pub stays: bool,
    /// How often the run is continued as new, with one step more.
    pub again: u32,
    /// On the bundle that is live then, not on its own.
    pub moves: bool,
    /// The completion that handed this on.
    pub by: String,
}

impl Work {
    /// What an assignment's input says; something else is the least work.
    pub(super) fn of(assignment: &v1::Assignment) -> Self {
        let input = assignment.input.as_ref().map(|input| input.data.clone()).unwrap_or_default();
        serde_json::from_slice(&input).unwrap_or_default()
    }
}

/// A request of a step to the server, and where the answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) token: u64,
    pub(super) ask: Ask,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the server made of it. An unknown fate is asked again until it is known.
#[derive(Debug)]
pub(super) enum Answer {
    Done { revision: u64, closed: bool },
    Refused { reason: String },
}

/// Executes an assignment.
pub(super) struct Execution {
    pub(super) assignment: v1::Assignment,
    pub(super) journal: Arc<Journal>,
    pub(super) requests: mpsc::Sender<Request>,
}

impl Execution {
    /// Ends when the step's fate is settled: completed, or refused. The link drops it when the lease is lost.
    pub(super) async fn run(self) -> Result<()> {
        let it = &self.assignment;
        let checkpoints = it.checkpoints.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        let known = checkpoints.iter().any(|name| name == "found");
        let bundle_id = it.bundle_id.clone();
        self.journal.note(it, WorkerEvent::Began { bundle_id, checkpoints })?;
        let work = Work::of(it);
        if work.checkpoint && !known && !self.checkpoint().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(work.sleep_ms)).await;
        if let Some(key) = &work.note
            && !self.remember(key).await?
        {
            return Ok(());
        }
        if work.stuck {
            std::future::pending::<()>().await;
        }
        self.complete(work).await
    }

    async fn checkpoint(&self) -> Result<bool> {
        let it = &self.assignment;
        let value = Some(convert::payload("\"checkpointed\""));
        let checkpoint = v1::Checkpoint { name: "found".to_owned(), value, order: 0 };
        let ask = Ask::Checkpoint(v1::RecordCheckpoint {
            run_id: it.run_id.clone(),
            step: it.step,
            token: it.token,
            checkpoint: Some(checkpoint),
            usage: None,
        });
        self.ask("checkpoint", ask, |revision, _| WorkerEvent::CheckpointAcked {
            name: "found".to_owned(),
            revision,
        })
        .await
    }

    async fn remember(&self, key: &str) -> Result<bool> {
        let it = &self.assignment;
        let value = format!("\"{}\"", self.mark());
        let (asked_key, asked_value) = (key.to_owned(), value.clone());
        self.journal.note(it, WorkerEvent::MemoryAsked { key: asked_key, value: asked_value })?;
        let ask = Ask::MemoryPut(v1::WorkerMemoryPut {
            run_id: it.run_id.clone(),
            step: it.step,
            token: it.token,
            key: key.to_owned(),
            value: Some(convert::payload(&value)),
            ..v1::WorkerMemoryPut::default()
        });
        self.ask("memory", ask, |revision, _| WorkerEvent::MemoryAcked {
            key: key.to_owned(),
            value,
            revision,
        })
        .await
    }

    async fn complete(&self, work: Work) -> Result<()> {
        use v1::complete_step::Outcome;
        let it = &self.assignment;
        let mark = self.mark();
        let handed_on = |left, again| {
            let next = Work { left, again, by: mark.clone(), ..work.clone() };
            serde_json::to_string(&next).map(|next| Some(convert::payload(&next)))
        };
        let outcome = match (work.left, work.again) {
            (0, 0) => {
                Outcome::Done(convert::payload(&serde_json::json!({ "by": mark }).to_string()))
            }
            (0, again) => Outcome::ContinueAsNew(v1::ContinueRun {
                input: handed_on(1, again - 1)?,
                on_live_bundle: work.moves,
            }),
            (left, again) => Outcome::Next(v1::NextStep {
                name: "more".to_owned(),
                input: handed_on(left - 1, again)?,
            }),
        };
        let ask = Ask::Complete(v1::CompleteStep {
            run_id: it.run_id.clone(),
            step: it.step,
            token: it.token,
            outcome: Some(outcome),
            usage: None,
            memory: Vec::new(),
            lease_next: work.stays && (work.left > 0 || work.again > 0),
        });
        self.ask("complete", ask, |revision, closed| WorkerEvent::Completed {
            mark,
            revision,
            closed,
        })
        .await?;
        Ok(())
    }

    /// Asks, writes down the answer, and says whether it was a yes.
    async fn ask(
        &self,
        call: &str,
        ask: Ask,
        done: impl FnOnce(u64, bool) -> WorkerEvent,
    ) -> Result<bool> {
        let (answer, answered) = oneshot::channel();
        let token = self.assignment.token.map_or(0, |token| token.revision);
        self.requests.send(Request { token, ask, answer }).await?;
        match answered.await? {
            Answer::Done { revision, closed } => {
                self.journal.note(&self.assignment, done(revision, closed))?;
                Ok(true)
            }
            Answer::Refused { reason } => {
                let call = call.to_owned();
                self.journal.note(&self.assignment, WorkerEvent::Refused { call, reason })?;
                Ok(false)
            }
        }
    }

    /// Names this attempt.
    fn mark(&self) -> String {
        let it = &self.assignment;
        format!("{}/{}/{}", it.run_id, it.step, it.token.map_or(0, |token| token.revision))
    }
}
