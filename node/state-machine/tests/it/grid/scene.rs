//! States that a run can be in, each built by the commands that lead there.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome as Completion;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, NextStep, StepRef, Taker, Token};
use pinrail_proto::v1;
use pinrail_state_machine::query;

use crate::replica::{Replica, agent, create_agent, create_bundle, payload, switch};

/// The run that every scene is about.
pub(super) const RUN: &str = "run";

#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) replica: Replica,
    pub(super) agent_id: &'static str,
    /// The entry step that the run's start names.
    entry: &'static str,
    /// The newest token that a worker was given, and the one before.
    pub(super) token: Option<(u32, Token)>,
    pub(super) old_token: Option<(u32, Token)>,
}

type Build = fn() -> Scene;

/// Every scene by its name.
pub(super) const SCENES: &[(&str, Build)] = &[
    ("no run", no_run),
    ("ready", ready),
    ("ready, agent paused", || ready().with(pause(""))),
    ("ready, bundle paused", || ready().with(pause("v2"))),
    ("ready past schedule-to-start, unswept", || hasty().wait(10_000)),
    ("ready past the soft end, unswept", || ready().wait(60_000)),
    ("leased", leased),
    ("leased past start-to-close, unswept", || leased().wait(12_000)),
    ("leased past the soft end, unswept", || leased_late(60_000)),
    ("leased past the soft end, told", || leased_late(60_000).swept()),
    ("leased past the hard end, unswept", || leased_late(65_000)),
    ("leased past the drain deadline, unswept", || draining().wait(8_000)),
    ("leased past the end of the drain, unswept", || draining().wait(8_000 + 5_000)),
    ("leased, cancelling", cancelling),
    ("leased, cancelling past its grace, unswept", || cancelling().wait(5_000)),
    ("leased again after a lost lease", || leased().expired().leased()),
    ("second step ready", || leased().completed("other")),
    ("second step leased", || leased().completed("other").leased()),
    ("backing off", || leased().failed(false)),
    ("backing off past its end, unswept", || leased().failed(false).wait(1_000)),
    ("waiting for a signal", || leased().waiting(Some(2_000))),
    ("waiting past its timeout, unswept", || leased().waiting(Some(2_000)).wait(2_000)),
    ("waiting past its timeout, swept", || leased().waiting(Some(2_000)).wait(2_000).swept()),
    ("waiting past the soft end, unswept", || leased().waiting(None).wait(60_000)),
    ("waiting, rolled back with cancel, unswept", || {
        leased().waiting(None).rolled_back(v1::InFlight::Cancel)
    }),
    ("waiting, rolled back with restart, unswept", || {
        leased().waiting(None).rolled_back(v1::InFlight::Restart)
    }),
    ("waiting, cancelled", || leased().waiting(None).with(cancel())),
    ("woken by a signal", || leased().waiting(None).signalled()),
    ("leased with an early signal", || leased().signalled()),
    ("paused with a dead step", dead),
    ("dead past the soft end, unswept", || dead().wait(60_000)),
    ("dead, rolled back with restart, unswept", || dead().rolled_back(v1::InFlight::Restart)),
    ("dead, retried", || dead().with(retry())),
    ("leased, rolled back with cancel, unswept", || leased().rolled_back(v1::InFlight::Cancel)),
    ("leased, rolled back with restart, unswept", || leased().rolled_back(v1::InFlight::Restart)),
    ("restarted", || leased().rolled_back(v1::InFlight::Restart).swept()),
    ("held from a restart", held),
    ("completed", || leased().done()),
    ("failed", || leased().failed(true)),
    ("cancelled", || ready().with(cancel())),
    ("expired", || ready().wait(60_000).swept()),
    ("external, running", external),
    ("external past the soft end, unswept", || kept().wait(4_000)),
    ("external past the hard end, unswept", || kept().wait(9_000)),
    ("external past its keep-alive, unswept", || external().wait(15_000)),
    ("external, completed", || external().with(finish())),
    ("external, rolled back with cancel, unswept", || external().rolled_back(v1::InFlight::Cancel)),
];

/// An agent whose live bundle is `v2`, with `v1` to return to.
fn no_run_of(agent_id: &'static str, external: bool) -> Scene {
    let mut replica = Replica::formed();
    replica.must(create_agent(agent_id, external));
    for bundle_id in ["v1", "v2", "v3"] {
        replica.must(create_bundle(agent_id, bundle_id));
    }
    replica.must(switch(agent_id, "v1"));
    replica.must(switch(agent_id, "v2"));
    Scene { replica, agent_id, entry: "", token: None, old_token: None }
}

fn no_run() -> Scene {
    no_run_of("support", false)
}

fn ready() -> Scene {
    no_run().started()
}

fn hasty() -> Scene {
    no_run().entry("hasty").started()
}

fn leased() -> Scene {
    ready().leased()
}

/// Leased a moment before its pin ends.
fn leased_late(at_ms: u64) -> Scene {
    ready().wait(55_000).leased().wait(at_ms - 55_000)
}

/// Leased 12 s before the drain deadline, of which 4 s are gone.
fn draining() -> Scene {
    ready().with(switch("support", "v3")).wait(12_000).leased()
}

fn cancelling() -> Scene {
    leased().with(cancel())
}

fn dead() -> Scene {
    no_run().entry("patient").started().leased().failed(true)
}

fn held() -> Scene {
    let mut scene = leased();
    let (step, token) = scene.newest();
    let tool = v1::ToolUsage {
        tool: "pay".to_owned(),
        calls: 1,
        side_effects: "destructive".to_owned(),
        ..v1::ToolUsage::default()
    };
    scene.replica.must(Command::FailStep(log::FailStep {
        step,
        token,
        failure: Some(failure(false)),
        usage: Some(v1::Usage { models: Vec::new(), tools: vec![tool] }),
        progress: None,
    }));
    scene.rolled_back(v1::InFlight::Restart).swept()
}

fn external() -> Scene {
    no_run_of("fleet", true).started()
}

/// An external run that was heard of until four seconds before its end.
fn kept() -> Scene {
    let mut scene = external();
    for _ in 0..4 {
        scene = scene.wait(14_000);
        let keep =
            Command::KeepRun(log::KeepRun { agent: agent(scene.agent_id), run_id: RUN.to_owned() });
        scene = scene.with(keep);
    }
    scene
}

fn pause(bundle_id: &str) -> Command {
    let bundle_id = bundle_id.to_owned();
    Command::PauseAgent(log::PauseAgent { agent: agent("support"), bundle_id, reject: false })
}

fn cancel() -> Command {
    Command::CancelRun(log::CancelRun { agent: agent("support"), run_id: RUN.to_owned() })
}

fn retry() -> Command {
    Command::RetryRun(log::RetryRun { agent: agent("support"), run_id: RUN.to_owned() })
}

fn finish() -> Command {
    Command::FinishRun(log::FinishRun {
        agent: agent("fleet"),
        run_id: RUN.to_owned(),
        outcome: v1::Outcome::Completed.into(),
        ..log::FinishRun::default()
    })
}

pub(super) fn signal(agent_id: &str) -> Command {
    Command::SignalRun(log::SignalRun {
        agent: agent(agent_id),
        run_id: RUN.to_owned(),
        name: "approved".to_owned(),
        value: Some(payload("yes")),
    })
}

pub(super) fn wait(timeout_ms: Option<u64>) -> Completion {
    let then = NextStep { name: "other".to_owned(), input: Some(payload("draft")) };
    Completion::Wait(log::WaitStep { signal: "approved".to_owned(), timeout_ms, then: Some(then) })
}

pub(super) fn failure(non_retryable: bool) -> v1::Failure {
    v1::Failure { reason: "OOPS".to_owned(), non_retryable, ..v1::Failure::default() }
}

impl Scene {
    pub(super) fn start(&self, input: &str) -> Command {
        Command::StartRun(log::StartRun {
            agent: agent(self.agent_id),
            run_id: RUN.to_owned(),
            input: Some(payload(input)),
            entry: self.entry.to_owned(),
            ..log::StartRun::default()
        })
    }

    fn entry(self, entry: &'static str) -> Self {
        Self { entry, ..self }
    }

    fn started(self) -> Self {
        let start = self.start("input");
        self.with(start)
    }

    fn with(mut self, command: Command) -> Self {
        self.replica.must(command);
        self
    }

    fn wait(mut self, ms: u64) -> Self {
        self.replica.now_ms += ms;
        self
    }

    fn swept(mut self) -> Self {
        self.replica.sweep(1);
        self
    }

    fn leased(mut self) -> Self {
        let answer = self.replica.must(self.lease(0, ""));
        let Answer::Step(answer) = answer else { panic!("{answer:?}") };
        self.old_token = self.token.take();
        self.token = answer.token.map(|token| (answer.step, token));
        self
    }

    fn expired(self) -> Self {
        let (step, token) = self.newest();
        self.with(Command::ExpireLease(log::ExpireLease { step, token, progress: None }))
    }

    fn failed(self, non_retryable: bool) -> Self {
        let (step, token) = self.newest();
        let failure = Some(failure(non_retryable));
        self.with(Command::FailStep(log::FailStep {
            step,
            token,
            failure,
            usage: None,
            progress: None,
        }))
    }

    fn completed(self, next: &str) -> Self {
        let command = self.complete(Completion::Next(NextStep {
            name: next.to_owned(),
            input: Some(payload("draft")),
        }));
        self.with(command)
    }

    fn waiting(self, timeout_ms: Option<u64>) -> Self {
        let command = self.complete(wait(timeout_ms));
        self.with(command)
    }

    fn signalled(self) -> Self {
        let command = signal(self.agent_id);
        self.with(command)
    }

    fn done(self) -> Self {
        let command = self.complete(Completion::Done(payload("answer")));
        self.with(command)
    }

    fn rolled_back(self, in_flight: v1::InFlight) -> Self {
        let rollback = Command::Rollback(log::Rollback {
            agent: agent(self.agent_id),
            from_bundle_id: "v2".to_owned(),
            in_flight: in_flight.into(),
            from_inferred: false,
        });
        self.with(rollback)
    }

    /// A lease of the open step, in an attempt too far or on another bundle than the pin's (empty: the pin's).
    pub(super) fn lease(&self, too_far: u32, bundle_id: &str) -> Command {
        let read = self.replica.read();
        let steps = query::steps(read, "", self.agent_id, RUN, 0, "").unwrap_or_default().0;
        let open = steps.last().cloned().unwrap_or_default();
        let pinned = query::pin(read, "", self.agent_id, RUN).unwrap_or_default().bundle_id;
        let bundle_id = if bundle_id.is_empty() { pinned } else { bundle_id.to_owned() };
        Command::LeaseStep(log::LeaseStep {
            step: Some(StepRef { agent: 1, run_id: RUN.to_owned(), step: open.number }),
            attempt: open.attempt + 1 + too_far,
            taker: Some(Taker { worker_id: "w1".to_owned(), bundle_id, ..Taker::default() }),
        })
    }

    pub(super) fn complete(&self, outcome: Completion) -> Command {
        let (step, token) = self.newest();
        Command::CompleteStep(log::CompleteStep {
            step,
            token,
            outcome: Some(outcome),
            ..log::CompleteStep::default()
        })
    }

    /// The step and the token of the newest lease.
    pub(super) fn newest(&self) -> (Option<StepRef>, Option<Token>) {
        let (step, token) = self.token.unwrap_or_default();
        (Some(StepRef { agent: 1, run_id: RUN.to_owned(), step }), Some(token))
    }

    /// States of the run and its step, as queries show them.
    pub(super) fn describe(&self) -> String {
        let read = self.replica.read();
        let Ok(run) = query::run(read, "", self.agent_id, RUN) else { return "gone".to_owned() };
        let pin = run.pin.clone().unwrap_or_default();
        let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
        let mut text =
            format!("{} on {}", word(run.state().as_str_name(), "RUN_STATE_"), pin.bundle_id);
        if run.end_reason() != v1::EndReason::Unspecified {
            text.push_str(" for ");
            text.push_str(&word(run.end_reason().as_str_name(), "END_REASON_"));
        }
        let steps = query::steps(read, "", self.agent_id, RUN, 0, "").unwrap().0;
        if let Some(step) = steps.last() {
            let state = word(step.state().as_str_name(), "STEP_STATE_");
            let number = step.number;
            text.push_str(&format!(", step {number} {state} after {} attempts", step.attempt));
        }
        text
    }
}
