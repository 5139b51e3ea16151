//! The worker's stream: one at a time, to one node after the other. Steps go on while it is down; what was not
//! answered is asked again with the same token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pinrail_proto::v1::work_request::Message as Ask;
use pinrail_proto::v1::work_response::Message as Tell;
use pinrail_proto::v1::{self, worker_service_client::WorkerServiceClient};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use xxhash_rust::xxh3::Xxh3;

use super::Config;
use super::journal::Journal;
use super::step::{Answer, Execution, Request, Work};
use crate::api;
use crate::history::WorkerEvent;

/// Requests that wait to be sent.
const QUEUE: usize = 1_024;
const GREETING: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_millis(250);

pub(super) struct Link {
    config: Config,
    journal: Arc<Journal>,
    held: BTreeMap<u64, Held>,
    /// Steps under way.
    executions: JoinSet<Result<()>>,
    by_task: BTreeMap<Id, u64>,
    pending: BTreeMap<u64, Pending>,
    sequence: u64,
    requests: mpsc::Sender<Request>,
    asked: mpsc::Receiver<Request>,
}

struct Held {
    assignment: v1::Assignment,
    task: tokio::task::AbortHandle,
    /// Does not hear that its lease is lost.
    deaf: bool,
    /// Its slot is for the run's next step, which was asked for. If that does not come, the next heartbeat says that the slot is free.
    stays: bool,
}

struct Pending {
    token: u64,
    ask: Ask,
    answer: Option<oneshot::Sender<Answer>>,
    /// To be sent again at the next beat.
    again: bool,
}

/// Why a stream ended.
enum Ended {
    Lost,
    /// This worker will never be accepted.
    Refused(String),
}

impl Link {
    pub(super) fn new(config: Config, journal: Arc<Journal>) -> Self {
        let (requests, asked) = mpsc::channel(QUEUE);
        Self {
            config,
            journal,
            held: BTreeMap::new(),
            executions: JoinSet::new(),
            by_task: BTreeMap::new(),
            pending: BTreeMap::new(),
            sequence: 0,
            requests,
            asked,
        }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        let mut turn = 0;
        loop {
            let count = self.config.endpoints.len();
            let endpoint = self.config.endpoints.get(turn % count.max(1)).cloned();
            let endpoint = endpoint.context("a worker needs an endpoint")?;
            turn += 1;
            match self.connect(&endpoint).await {
                Ok(Ended::Lost) => {}
                Ok(Ended::Refused(why)) => bail!("refused for good: {why}"),
                Err(error) => eprintln!("{endpoint}: {error:#}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// One stream, from greeting to end.
    async fn connect(&mut self, endpoint: &str) -> Result<Ended> {
        let mut client = WorkerServiceClient::new(api::channel(endpoint)?);
        let (out, outbox) = mpsc::channel(QUEUE);
        out.send(self.hello()).await?;
        let stream = timeout(GREETING, client.work(ReceiverStream::new(outbox)));
        let mut inbox = match stream.await.context("no greeting in time")? {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Self::refusal(&status),
        };
        match timeout(GREETING, inbox.message()).await.context("no welcome in time")? {
            Ok(Some(v1::WorkResponse { message: Some(Tell::Welcome(_)), .. })) => {}
            Ok(Some(v1::WorkResponse { message: Some(Tell::Refused(refused)), .. })) => {
                return Ok(Ended::Refused(format!("{}: {}", refused.reason, refused.message)));
            }
            Ok(other) => bail!("no welcome but {other:?}"),
            Err(status) => return Self::refusal(&status),
        }
        self.resume(&out).await?;
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                // In one order, so that a seed of the simulation has one trace.
                biased;
                told = inbox.message() => match told {
                    Ok(Some(told)) => self.told(told, &out).await?,
                    Ok(None) => return Ok(Ended::Lost),
                    Err(status) => return Self::refusal(&status),
                },
                Some(request) = self.asked.recv() => self.ask(request, &out).await?,
                Some(ended) = self.executions.join_next_with_id() => {
                    let id = match ended {
                        Ok((id, done)) => { done?; id }
                        Err(aborted) => aborted.id(),
                    };
                    self.ended(id, &out).await?;
                }
                _ = beat.tick() => self.beat(&out).await?,
            }
        }
    }

    /// A refusal that another node would repeat ends the worker; anything else is a lost stream.
    fn refusal(status: &tonic::Status) -> Result<Ended> {
        match api::reason(status).as_deref() {
            Some("BUNDLE_MISMATCH" | "BUNDLE_NOT_FOUND" | "AGENT_NOT_FOUND") => {
                Ok(Ended::Refused(api::describe(status)))
            }
            _ => bail!("{}", api::describe(status)),
        }
    }

    fn hello(&self) -> v1::WorkRequest {
        let hello = v1::WorkerHello {
            agent_id: self.config.agent.clone(),
            bundle_id: self.config.bundle.clone(),
            worker_id: self.config.worker_id.clone(),
            code: self.config.code.clone(),
            steps: vec!["main".to_owned(), "more".to_owned()],
            slots: self.config.slots,
            version: "chaos".to_owned(),
            held: self.held_steps(),
            ..v1::WorkerHello::default()
        };
        v1::WorkRequest { sequence: 0, message: Some(Ask::Hello(hello)) }
    }

    fn held_steps(&self) -> Vec<v1::HeldStep> {
        let held = self.held.values().map(|held| v1::HeldStep {
            token: held.assignment.token,
            run_id: held.assignment.run_id.clone(),
            step: held.assignment.step,
        });
        held.collect()
    }

    fn free_slots(&self) -> u32 {
        self.config.slots.saturating_sub(u32::try_from(self.held.len()).unwrap_or(u32::MAX))
    }

    /// After a greeting: grants what is free and asks again whatever was not answered.
    async fn resume(&mut self, out: &mpsc::Sender<v1::WorkRequest>) -> Result<()> {
        let credit = Ask::Credit(v1::Credit { slots: self.free_slots() });
        out.send(v1::WorkRequest { sequence: 0, message: Some(credit) }).await?;
        for (sequence, pending) in &mut self.pending {
            pending.again = false;
            let message = Some(pending.ask.clone());
            out.send(v1::WorkRequest { sequence: *sequence, message }).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, request: Request, out: &mpsc::Sender<v1::WorkRequest>) -> Result<()> {
        self.sequence += 1;
        let sequence = self.sequence;
        let Request { token, ask, answer } = request;
        let message = Some(ask.clone());
        // Kept before it is sent: a stream that breaks here asks again.
        self.pending.insert(sequence, Pending { token, ask, answer: Some(answer), again: false });
        out.send(v1::WorkRequest { sequence, message }).await?;
        Ok(())
    }

    async fn told(
        &mut self,
        told: v1::WorkResponse,
        out: &mpsc::Sender<v1::WorkRequest>,
    ) -> Result<()> {
        match told.message {
            Some(Tell::Assignment(assignment)) => self.begin(*assignment),
            Some(Tell::Done(done)) => {
                let v1::Done { revision, closed, .. } = done;
                self.answer(told.sequence, Answer::Done { revision, closed });
            }
            Some(Tell::Refused(refused)) => {
                self.answer(told.sequence, Answer::Refused { reason: refused.reason });
            }
            Some(Tell::Unknown(_)) => {
                if let Some(pending) = self.pending.get_mut(&told.sequence) {
                    pending.again = true;
                }
            }
            Some(Tell::Cancel(cancel)) => self.cancel(&cancel, out).await?,
            Some(Tell::Drain(_) | Tell::Welcome(_)) | None => {}
        }
        Ok(())
    }

    fn begin(&mut self, assignment: v1::Assignment) {
        let Some(token) = assignment.token else { return };
        let execution = Execution {
            assignment: assignment.clone(),
            journal: Arc::clone(&self.journal),
            requests: self.requests.clone(),
        };
        if self.held.contains_key(&token.revision) {
            return; // Told twice, after a reconnection.
        }
        let deaf = Work::of(&assignment).deaf;
        let task = self.executions.spawn(execution.run());
        self.by_task.insert(task.id(), token.revision);
        self.held.insert(token.revision, Held { assignment, task, deaf, stays: false });
    }

    fn answer(&mut self, sequence: u64, answer: Answer) {
        let Some(mut pending) = self.pending.remove(&sequence) else { return };
        if let (Ask::Complete(complete), Answer::Done { .. }) = (&pending.ask, &answer)
            && let Some(held) = self.held.get_mut(&pending.token)
        {
            held.stays = complete.lease_next;
        }
        if let Some(waiting) = pending.answer.take() {
            // The step may have been dropped meanwhile.
            let _ = waiting.send(answer);
        }
    }

    /// A lost lease ends the step. A mere wish does not: the stuck must be ended by the server.
    async fn cancel(
        &mut self,
        cancel: &v1::CancelStep,
        out: &mpsc::Sender<v1::WorkRequest>,
    ) -> Result<()> {
        let token = cancel.token.unwrap_or_default().revision;
        let Some(held) = self.held.get(&token) else { return Ok(()) };
        let event = WorkerEvent::Cancelled { lease_lost: cancel.lease_lost };
        self.journal.note(&held.assignment, event)?;
        if cancel.lease_lost {
            let (id, deaf) = (held.task.id(), held.deaf);
            if deaf {
                // The slot is free; the step goes on and will be refused.
                self.hand_slot_back(token, out).await?;
            } else {
                held.task.abort();
                self.ended(id, out).await?;
            }
        }
        Ok(())
    }

    /// Gives the slot of an ended step back.
    async fn ended(&mut self, task: Id, out: &mpsc::Sender<v1::WorkRequest>) -> Result<()> {
        let Some(token) = self.by_task.remove(&task) else { return Ok(()) };
        self.pending.retain(|_, pending| pending.token != token);
        self.hand_slot_back(token, out).await
    }

    async fn hand_slot_back(
        &mut self,
        token: u64,
        out: &mpsc::Sender<v1::WorkRequest>,
    ) -> Result<()> {
        if self.held.remove(&token).is_some_and(|held| !held.stays) {
            let credit = Ask::Credit(v1::Credit { slots: 1 });
            out.send(v1::WorkRequest { sequence: 0, message: Some(credit) }).await?;
        }
        Ok(())
    }

    async fn beat(&mut self, out: &mpsc::Sender<v1::WorkRequest>) -> Result<()> {
        let mut digest = Xxh3::new();
        for held in self.held.values() {
            let token = held.assignment.token.unwrap_or_default();
            digest.update(&token.incarnation.to_be_bytes());
            digest.update(&token.revision.to_be_bytes());
        }
        let beat = Ask::Heartbeat(v1::Heartbeat {
            tools: Vec::new(),
            held_digest: digest.digest(),
            held: self.held_steps(),
            free_slots: self.free_slots(),
            progress: Vec::new(),
        });
        out.send(v1::WorkRequest { sequence: 0, message: Some(beat) }).await?;
        let again = self.pending.iter_mut().filter(|(_, pending)| pending.again);
        for (sequence, pending) in again {
            pending.again = false;
            let message = Some(pending.ask.clone());
            out.send(v1::WorkRequest { sequence: *sequence, message }).await?;
        }
        Ok(())
    }
}
