//! The loop of a worker: one stream at a time, the steps as tasks of their own, and everything that outlives a stream.
//!
//! ```text
//! no stream --open--> greeted --welcome--> pulling --lost--> no stream      (steps and outbox go on)
//! pulling --stop--> stopping: asks for nothing, waits for the steps, hands back what is left --> over
//! ```
//! Handlers run in tasks of their own, so heartbeats and answers never wait for one. The loop awaits nothing but its
//! next event. It must not know what steps do.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use pinrail_proto::v1::{self, work_request, work_response};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval};

use crate::client::Client;
use crate::error::Result;
use crate::retry::{Verdict, backoff, judge};
use crate::worker::bundle::BundleView;
use crate::worker::context::{CancelReason, Command, Signal, StepContext};
use crate::worker::execute::{Finished, Surroundings, at, context, execute};
use crate::worker::handler::Handlers;
use crate::worker::held::{Lease, Token, heartbeat, list};
use crate::worker::link::{Link, OpenError, open};
use crate::worker::outbox::{Outbox, Settled};
use crate::worker::outcome::StepError;
use crate::worker::slots::Slots;

/// Messages of steps that wait for the loop.
const COMMANDS: usize = 1_024;
/// Steps whose progress goes with one heartbeat: the others have the next one.
const PROGRESSES: usize = 64;
/// How long a full stream is left alone.
const CROWDED: Duration = Duration::from_millis(20);
/// After the grace of a shutdown: time for the last answers.
const FLUSH: Duration = Duration::from_secs(5);
/// Heartbeats when the welcome does not say.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A worker that was welcomed before gives up after so many refusals in a row.
const REFUSALS: u32 = 5;

/// Reason of a step that this worker has no handler for.
pub const STEP_NOT_SERVED: &str = "STEP_NOT_SERVED";

type Opening = BoxFuture<'static, std::result::Result<(Link, v1::Welcome), OpenError>>;

/// What the builder decided.
pub(crate) struct Plan {
    pub(crate) client: Client,
    pub(crate) hello: v1::WorkerHello,
    pub(crate) handlers: Handlers,
    pub(crate) shutdown_grace: Duration,
}

/// A step at work.
struct Running {
    tell: watch::Sender<Signal>,
    context: StepContext,
}

/// A worker at work.
pub(crate) struct Runtime {
    plan: Plan,
    /// Known from the first welcome on.
    bundle: Option<Arc<BundleView>>,
    commands: mpsc::Receiver<Command>,
    to_loop: mpsc::Sender<Command>,
    link: Option<Link>,
    opening: Option<Opening>,
    /// When to try again after a stream that could not be opened.
    open_at: Option<Instant>,
    failures: u32,
    refusals: u32,
    outbox: Outbox,
    /// Leases until the cluster said that they are over.
    held: BTreeMap<Token, Lease>,
    running: BTreeMap<Token, Running>,
    tasks: JoinSet<Finished>,
    slots: Slots,
    heartbeat: Interval,
    crowded_until: Option<Instant>,
    stop_at: Option<Instant>,
    draining: bool,
}

impl Runtime {
    pub(crate) fn new(plan: Plan) -> Runtime {
        let (to_loop, commands) = mpsc::channel(COMMANDS);
        let slots = Slots::new(plan.hello.slots);
        Runtime {
            plan,
            bundle: None,
            commands,
            to_loop,
            link: None,
            opening: None,
            open_at: Some(Instant::now()),
            failures: 0,
            refusals: 0,
            outbox: Outbox::default(),
            held: BTreeMap::new(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            slots,
            heartbeat: interval(HEARTBEAT),
            crowded_until: None,
            stop_at: None,
            draining: false,
        }
    }

    /// Works until `stop` is ready and nothing is held any more, or until the cluster refuses the worker.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        tokio::pin!(stop);
        loop {
            self.pump();
            if self.is_over(Instant::now()) {
                return Ok(());
            }
            let wake = self.wake_at();
            tokio::select! {
                opened = opened(&mut self.opening) => self.opened(opened)?,
                message = received(&mut self.link) => self.received(message),
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(finished) = done {
                        self.finished(finished);
                    }
                }
                _ = self.heartbeat.tick(), if self.link.is_some() => self.beat(),
                () = at(wake) => {}
                () = &mut stop, if self.stop_at.is_none() => self.stop(),
            }
        }
    }

    /// Sends what is due and asks for what fits; opens a stream when there is none.
    fn pump(&mut self) {
        let now = Instant::now();
        if self.link.is_none() && self.opening.is_none() && self.open_at.is_none_or(|at| at <= now)
        {
            self.open_at = None;
            self.opening = Some(open(self.plan.client.clone(), self.hello()).boxed());
        }
        if self.crowded_until.is_some_and(|until| until > now) {
            return;
        }
        self.crowded_until = None;
        while let Some((sequence, request)) = self.outbox.due(now) {
            if !self.send(request) {
                return;
            }
            self.outbox.mark_sent(sequence);
        }
        let credits = if self.takes_work() { self.slots.grant(self.held.len(), now) } else { 0 };
        if credits > 0 {
            let credit = work_request::Message::Credit(v1::Credit { slots: credits });
            if self.send(v1::WorkRequest { sequence: 0, message: Some(credit) }) {
                self.slots.granted(credits);
            }
        }
    }

    /// Whether the stream took the message.
    fn send(&mut self, request: v1::WorkRequest) -> bool {
        let Some(link) = &self.link else { return false };
        match link.outbound.try_send(request) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.crowded_until = Some(Instant::now() + CROWDED);
                false
            }
            Err(TrySendError::Closed(_)) => {
                self.lost("the stream was closed");
                false
            }
        }
    }

    fn takes_work(&self) -> bool {
        self.link.is_some() && self.stop_at.is_none() && !self.draining
    }

    fn hello(&self) -> v1::WorkerHello {
        let held = list(self.held.iter().map(|(token, lease)| (*token, lease)));
        v1::WorkerHello { held, ..self.plan.hello.clone() }
    }

    fn opened(
        &mut self,
        opened: std::result::Result<(Link, v1::Welcome), OpenError>,
    ) -> Result<()> {
        self.opening = None;
        match opened {
            Ok((link, welcome)) => return self.welcomed(link, welcome),
            Err(OpenError::Refused(error)) => {
                self.refusals += 1;
                if self.bundle.is_none() || self.refusals >= REFUSALS {
                    return Err(error);
                }
                tracing::warn!(%error, "the cluster refuses this worker; it tries again");
            }
            Err(OpenError::NotNow { error, .. } | OpenError::Failed(error)) => {
                tracing::debug!(%error, "no stream");
            }
        }
        let wait = self.plan.client.connection().jitter(backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.open_at = Some(Instant::now() + wait);
        Ok(())
    }

    fn welcomed(&mut self, link: Link, welcome: v1::Welcome) -> Result<()> {
        tracing::info!(
            endpoint = link.address,
            bundle = self.plan.hello.bundle_id,
            worker = self.plan.hello.worker_id,
            verified = welcome.verified,
            held = self.held.len(),
            "worker is connected"
        );
        if self.bundle.is_none() {
            let bundle = welcome.bundle.unwrap_or_default();
            self.bundle = Some(Arc::new(BundleView::new(bundle)?));
        }
        let every = welcome.heartbeat_interval.as_ref().and_then(pinrail_proto::time::millis);
        let every = every.filter(|ms| *ms > 0).map_or(HEARTBEAT, Duration::from_millis);
        // The first tick comes at once and tells the new stream what is held.
        self.heartbeat = interval(every);
        self.heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.link = Some(link);
        self.tell_progress_again();
        self.failures = 0;
        self.refusals = 0;
        self.slots.stream_opened();
        Ok(())
    }

    fn lost(&mut self, why: &str) {
        let Some(address) = self.unlink(why) else { return };
        self.plan.client.connection().failed(&address, why);
    }

    fn broken(&mut self, status: &tonic::Status) {
        let Some(address) = self.unlink(status.message()) else { return };
        let connection = self.plan.client.connection();
        match judge(status) {
            // A member that merely leads no more did nothing wrong.
            Verdict::NotDone { leader, unreachable: false, .. } => {
                connection.redirected(leader.as_deref());
            }
            Verdict::NotDone { .. } | Verdict::Refused(_) | Verdict::Unknown { .. } => {
                connection.failed(&address, status.message());
            }
        }
    }

    /// The stream is gone: everything that was not answered waits for the next one.
    fn unlink(&mut self, why: &str) -> Option<String> {
        let link = self.link.take()?;
        tracing::info!(endpoint = link.address, why, "worker lost its stream");
        self.outbox.stream_lost();
        self.crowded_until = None;
        self.open_at = Some(Instant::now());
        Some(link.address)
    }

    fn received(&mut self, message: std::result::Result<Option<v1::WorkResponse>, tonic::Status>) {
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return self.lost("the member ended it"),
            Err(status) => return self.broken(&status),
        };
        let (sequence, now) = (response.sequence, Instant::now());
        let settled = match response.message {
            Some(work_response::Message::Done(done)) => self.outbox.done(sequence, &done),
            Some(work_response::Message::Refused(refused)) => {
                self.outbox.refused(sequence, refused, now)
            }
            Some(work_response::Message::Unknown(_)) => self.outbox.unknown(sequence, now),
            Some(work_response::Message::Assignment(assignment)) => {
                return self.assigned(assignment);
            }
            Some(work_response::Message::Cancel(cancel)) => return self.cancel(&cancel),
            Some(work_response::Message::Drain(_)) => {
                tracing::info!("worker is drained: it takes no more work");
                self.draining = true;
                return;
            }
            // A second welcome, or a message of a later version.
            Some(work_response::Message::Welcome(_)) | None => return,
        };
        match settled {
            Settled::LeaseOver { token, next } => self.lease_over(token, next),
            Settled::Other | Settled::Again => {}
        }
    }

    /// `next`: the run goes on with a step that this worker asked for.
    fn lease_over(&mut self, token: Token, next: bool) {
        if let Some(lease) = self.held.remove(&token) {
            self.slots.over(&lease.run_id, next, Instant::now());
        }
    }

    fn assigned(&mut self, assignment: v1::Assignment) {
        let Some(token) = assignment.token.map(Token::from) else { return };
        if self.held.contains_key(&token) {
            return;
        }
        self.slots.assigned(&assignment.run_id);
        let lease = Lease { run_id: assignment.run_id.clone(), step: assignment.step };
        self.held.insert(token, lease);
        let crowded = self.running.len() >= self.slots.all() as usize;
        let foreign = assignment.bundle_id != self.plan.hello.bundle_id;
        if !self.takes_work() || crowded || foreign {
            return self.hand_back(token, &assignment);
        }
        let Some(handler) = self.plan.handlers.get(&assignment.name).cloned() else {
            return self.not_served(token, &assignment);
        };
        let Some(around) = self.surroundings() else { return };
        let (tell, signal) = watch::channel(Signal::Run);
        let now = Instant::now();
        let context = context(&around, &handler, &assignment, token, signal.clone(), now);
        self.running.insert(token, Running { tell, context: context.clone() });
        self.tasks.spawn(execute(handler, context, assignment.input, signal));
    }

    fn surroundings(&self) -> Option<Surroundings> {
        let hello = &self.plan.hello;
        Some(Surroundings {
            client: self.plan.client.clone(),
            namespace: hello.namespace.clone(),
            agent: hello.agent_id.clone(),
            worker_id: hello.worker_id.clone(),
            bundle: Arc::clone(self.bundle.as_ref()?),
            commands: self.to_loop.clone(),
        })
    }

    fn hand_back(&mut self, token: Token, assignment: &v1::Assignment) {
        let message = work_request::Message::HandBack(v1::HandBack {
            run_id: assignment.run_id.clone(),
            step: assignment.step,
            token: Some(token.into()),
            progress: None,
        });
        self.outbox.push(token, message, None);
    }

    fn not_served(&mut self, token: Token, assignment: &v1::Assignment) {
        let message = format!("this worker has no handler for step {:?}", assignment.name);
        let error = StepError::retry(message).with_reason(STEP_NOT_SERVED);
        let message = work_request::Message::Fail(v1::FailStep {
            run_id: assignment.run_id.clone(),
            step: assignment.step,
            token: Some(token.into()),
            failure: Some(error.into_failure()),
            ..v1::FailStep::default()
        });
        self.outbox.push(token, message, None);
    }

    fn cancel(&mut self, cancel: &v1::CancelStep) {
        let Some(token) = cancel.token.map(Token::from) else { return };
        if cancel.lease_lost {
            tracing::info!(run = cancel.run_id, step = cancel.step, "lease lost; step dropped");
            self.lease_over(token, false);
            self.outbox.drop_lease(token);
            if let Some(running) = self.running.remove(&token) {
                running.tell.send_replace(Signal::Drop);
            }
            return;
        }
        let grace = cancel.grace.as_ref().and_then(pinrail_proto::time::millis).unwrap_or(0);
        let until = Instant::now() + Duration::from_millis(grace);
        if let Some(running) = self.running.get(&token) {
            running.tell.send_replace(Signal::Stop { reason: reason(cancel.reason()), until });
        }
    }

    fn command(&mut self, command: Command) {
        let held = self.held.contains_key(&command.token);
        match command.reply {
            Some(reply) if held => self.outbox.push(command.token, command.message, Some(reply)),
            // Whoever waits may be gone already.
            Some(reply) => drop(reply.send(Err(StepError::stale()))),
            // What does not fit leaves a gap: only its moment counts.
            None if held => {
                self.send(v1::WorkRequest { sequence: 0, message: Some(command.message) });
            }
            None => {}
        }
    }

    fn finished(&mut self, finished: Finished) {
        self.running.remove(&finished.token);
        // What the step said before its end goes before it.
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
        if !self.held.contains_key(&finished.token) {
            return;
        }
        let Some(mut message) = finished.message else {
            self.lease_over(finished.token, false);
            return;
        };
        if let work_request::Message::Complete(complete) = &mut message {
            let goes_on = self.stop_at.is_none() && !self.draining;
            complete.lease_next = goes_on && self.serves_next(complete);
            if complete.lease_next {
                self.slots.asked(&complete.run_id);
            }
        }
        self.outbox.push(finished.token, message, None);
    }

    fn serves_next(&self, complete: &v1::CompleteStep) -> bool {
        match &complete.outcome {
            Some(v1::complete_step::Outcome::Next(next)) => {
                self.plan.handlers.get(&next.name).is_some()
            }
            Some(v1::complete_step::Outcome::All(all)) => {
                all.branches.first().is_some_and(|b| self.plan.handlers.get(&b.name).is_some())
            }
            // A wait is over only if its signal came already: no slot is kept for that.
            Some(
                v1::complete_step::Outcome::Wait(_)
                | v1::complete_step::Outcome::Child(_)
                | v1::complete_step::Outcome::ContinueAsNew(_)
                | v1::complete_step::Outcome::Done(_),
            )
            | None => false,
        }
    }

    fn beat(&mut self) {
        let free = if self.takes_work() { self.slots.free(self.held.len()) } else { 0 };
        let progress = self.progress();
        let beat = v1::Heartbeat { progress, ..heartbeat(&self.held, free) };
        let heartbeat = work_request::Message::Heartbeat(beat);
        // One that does not fit is made good by the next.
        if !self.send(v1::WorkRequest { sequence: 0, message: Some(heartbeat) }) {
            self.tell_progress_again();
        }
    }

    /// What steps say of how far they are, and have not said on this stream.
    fn progress(&self) -> Vec<v1::StepProgress> {
        let news = |(token, running): (&Token, &Running)| {
            let mut progress = running.context.inner().progress.lock();
            let value = progress.value.clone().filter(|_| !progress.told)?;
            progress.told = true;
            Some(v1::StepProgress { token: Some((*token).into()), value: Some(value) })
        };
        self.running.iter().filter_map(news).take(PROGRESSES).collect()
    }

    fn tell_progress_again(&self) {
        for running in self.running.values() {
            running.context.inner().progress.lock().told = false;
        }
    }

    /// Asks for no more work and tells the steps; they have the grace to end.
    fn stop(&mut self) {
        let until = Instant::now() + self.plan.shutdown_grace;
        tracing::info!(held = self.held.len(), "worker is stopping");
        self.stop_at = Some(until);
        for running in self.running.values() {
            running.tell.send_if_modified(|signal| {
                let tells = matches!(signal, Signal::Run);
                if tells {
                    *signal = Signal::Stop { reason: CancelReason::Shutdown, until };
                }
                tells
            });
        }
        self.beat();
    }

    fn is_over(&self, now: Instant) -> bool {
        let nothing_left =
            self.held.is_empty() && self.running.is_empty() && self.outbox.is_empty();
        match self.stop_at {
            Some(until) => nothing_left || now >= until + FLUSH,
            None => self.draining && nothing_left,
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let sends = self.link.is_some() && self.crowded_until.is_none();
        let outbox = self.outbox.next_due().filter(|_| sends);
        let open_at = self.open_at.filter(|_| self.link.is_none() && self.opening.is_none());
        let over_at = self.stop_at.map(|until| until + FLUSH);
        let kept = self.slots.next_due().filter(|_| self.takes_work());
        [outbox, open_at, over_at, kept, self.crowded_until].into_iter().flatten().min()
    }
}

async fn opened(
    opening: &mut Option<Opening>,
) -> std::result::Result<(Link, v1::Welcome), OpenError> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

async fn received(
    link: &mut Option<Link>,
) -> std::result::Result<Option<v1::WorkResponse>, tonic::Status> {
    match link {
        Some(link) => link.inbound.message().await,
        None => std::future::pending().await,
    }
}

fn reason(reason: v1::EndReason) -> CancelReason {
    match reason {
        v1::EndReason::Requested | v1::EndReason::Unspecified => CancelReason::Requested,
        v1::EndReason::MaxAge => CancelReason::MaxAge,
        v1::EndReason::DrainCap => CancelReason::DrainCap,
        v1::EndReason::Rollback => CancelReason::Rollback,
        v1::EndReason::KeepAlive => CancelReason::KeepAlive,
        v1::EndReason::Parent => CancelReason::Parent,
    }
}
