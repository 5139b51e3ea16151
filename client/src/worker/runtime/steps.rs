//! The steps that a worker holds: taken, told to stop, reported, and how far they are.

use std::sync::Arc;

use pinrail_proto::v1::{self, work_request};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::worker::context::{CancelReason, Command, Signal};
use crate::worker::execute::{Finished, Surroundings, context, execute};
use crate::worker::held::{Lease, Token, heartbeat};
use crate::worker::outbox::Follows;
use crate::worker::outcome::StepError;

use super::{Running, Runtime};

/// Steps whose progress goes with one heartbeat: the others have the next one.
const PROGRESSES: usize = 64;

/// Reason of a step that this worker has no handler for.
pub const STEP_NOT_SERVED: &str = "STEP_NOT_SERVED";

impl Runtime {
    /// `next`: what comes of what this worker asked for with the completion.
    pub(super) fn lease_over(&mut self, token: Token, next: &Follows) {
        let Some(lease) = self.held.remove(&token) else { return };
        let next = match next {
            Follows::Nothing => None,
            Follows::Step => Some(&*lease.run_id),
            Follows::Run(next) => Some(&**next),
        };
        self.slots.over(&lease.run_id, next, Instant::now());
    }

    pub(super) fn assigned(&mut self, assignment: v1::Assignment) {
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
            tools: self.plan.tools.clone(),
            usage_at_once: self.usage_at_once,
            commands: self.to_loop.clone(),
        })
    }

    fn hand_back(&mut self, token: Token, assignment: &v1::Assignment) {
        let message = work_request::Message::HandBack(v1::HandBack {
            run_id: assignment.run_id.clone(),
            step: assignment.step,
            token: Some(token.into()),
            progress: None,
            usage: None,
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

    pub(super) fn cancel(&mut self, cancel: &v1::CancelStep) {
        let Some(token) = cancel.token.map(Token::from) else { return };
        if cancel.lease_lost {
            tracing::info!(run = cancel.run_id, step = cancel.step, "lease lost; step dropped");
            self.lease_over(token, &Follows::Nothing);
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

    pub(super) fn command(&mut self, command: Command) {
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

    pub(super) fn finished(&mut self, finished: Finished) {
        self.running.remove(&finished.token);
        // What the step said before its end goes before it.
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
        if !self.held.contains_key(&finished.token) {
            return;
        }
        let Some(mut message) = finished.message else {
            self.lease_over(finished.token, &Follows::Nothing);
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
            // The cluster knows what the next run begins with, and what this worker has handlers for.
            Some(v1::complete_step::Outcome::ContinueAsNew(_)) => true,
            // A wait is over only if its signal came already: no slot is kept for that.
            Some(
                v1::complete_step::Outcome::Wait(_)
                | v1::complete_step::Outcome::Child(_)
                | v1::complete_step::Outcome::Done(_),
            )
            | None => false,
        }
    }

    pub(super) fn beat(&mut self) {
        let free = if self.takes_work() { self.slots.free(self.held.len()) } else { 0 };
        let progress = self.progress();
        let version = self.plan.tools.version();
        let tools = match &self.bundle {
            Some(bundle) if version != self.told_tools => self.plan.tools.full(bundle),
            Some(_) | None => Vec::new(),
        };
        let beat = v1::Heartbeat { progress, tools, ..heartbeat(&self.held, free) };
        let heartbeat = work_request::Message::Heartbeat(beat);
        // One that does not fit is made good by the next.
        if self.send(v1::WorkRequest { sequence: 0, message: Some(heartbeat) }) {
            self.told_tools = version;
        } else {
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

    pub(super) fn tell_progress_again(&self) {
        for running in self.running.values() {
            running.context.inner().progress.lock().told = false;
        }
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
