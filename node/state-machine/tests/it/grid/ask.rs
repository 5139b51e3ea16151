//! Every command that is about a run, as it is asked in a scene.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome as Completion;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, NextStep};
use pinrail_proto::v1;
use pinrail_state_machine::outcome::Applied;

use crate::replica::{agent, payload, reason};

use super::scene::{RUN, Scene, failure, signal, wait};

pub(super) type Ask = fn(&Scene) -> Option<Command>;

/// Every command by its name. Commands of a lease are asked only where there was one.
pub(super) const ASKS: &[(&str, Ask)] = &[
    ("start again", |scene| Some(scene.start("input"))),
    ("start otherwise", |scene| Some(scene.start("other input"))),
    ("lease", |scene| worker_run(scene).map(|scene| scene.lease(0, ""))),
    ("lease too far", |scene| worker_run(scene).map(|scene| scene.lease(1, ""))),
    ("lease off bundle", |scene| worker_run(scene).map(|scene| scene.lease(0, "v3"))),
    ("complete, next", |scene| was_leased(scene).map(|scene| scene.complete(next()))),
    ("complete, wait", |scene| was_leased(scene).map(|scene| scene.complete(wait(Some(2_000))))),
    ("complete, done", |scene| was_leased(scene).map(|scene| scene.complete(done()))),
    ("complete, stale", complete_stale),
    ("fail", |scene| fail(scene, false)),
    ("fail for good", |scene| fail(scene, true)),
    ("checkpoint", checkpoint),
    ("put by the run", put),
    ("hand back", hand_back),
    ("expire", expire),
    ("retry", |scene| {
        Some(Command::RetryRun(log::RetryRun {
            agent: agent(scene.agent_id),
            run_id: RUN.to_owned(),
        }))
    }),
    ("signal", |scene| Some(signal(scene.agent_id))),
    ("cancel", |scene| {
        Some(Command::CancelRun(log::CancelRun {
            agent: agent(scene.agent_id),
            run_id: RUN.to_owned(),
        }))
    }),
    ("finish", |scene| {
        Some(Command::FinishRun(log::FinishRun {
            agent: agent(scene.agent_id),
            run_id: RUN.to_owned(),
            outcome: v1::Outcome::Completed.into(),
            output: Some(payload("answer")),
            ..log::FinishRun::default()
        }))
    }),
    ("keep", |scene| {
        Some(Command::KeepRun(log::KeepRun {
            agent: agent(scene.agent_id),
            run_id: RUN.to_owned(),
        }))
    }),
    ("tick", |_| Some(Command::Tick(log::Tick { agent: 1, max_items: 256 }))),
];

fn worker_run(scene: &Scene) -> Option<&Scene> {
    (scene.agent_id == "support").then_some(scene)
}

fn was_leased(scene: &Scene) -> Option<&Scene> {
    scene.token.is_some().then_some(scene)
}

fn next() -> Completion {
    Completion::Next(NextStep { name: "other".to_owned(), input: Some(payload("draft")) })
}

fn done() -> Completion {
    Completion::Done(payload("answer"))
}

/// With the token of the lease before, or with one that nobody was given.
fn complete_stale(scene: &Scene) -> Option<Command> {
    let mut before = was_leased(scene)?.clone();
    let (step, mut token) = scene.old_token.or(scene.token)?;
    if scene.old_token.is_none() {
        token.revision -= 1;
    }
    before.token = Some((step, token));
    Some(before.complete(done()))
}

fn fail(scene: &Scene, non_retryable: bool) -> Option<Command> {
    let (step, token) = was_leased(scene)?.newest();
    let failure = Some(failure(non_retryable));
    Some(Command::FailStep(log::FailStep { step, token, failure, usage: None, progress: None }))
}

fn checkpoint(scene: &Scene) -> Option<Command> {
    let (step, token) = was_leased(scene)?.newest();
    Some(Command::RecordCheckpoint(log::RecordCheckpoint {
        step,
        token,
        name: "search".to_owned(),
        value: Some(payload("hits")),
        order: 1,
        usage: None,
    }))
}

fn put(scene: &Scene) -> Option<Command> {
    let (step, token) = was_leased(scene)?.newest();
    let lease = Target::Lease(log::LeasedRun { step, token });
    Some(Command::PutMemory(log::PutMemory {
        agent: agent(scene.agent_id),
        target: Some(log::MemoryTarget { target: Some(lease) }),
        key: "user/7".to_owned(),
        value: Some(payload("likes tea")),
        ttl_ms: 0,
        expected_key_revision: None,
    }))
}

fn hand_back(scene: &Scene) -> Option<Command> {
    let (step, token) = was_leased(scene)?.newest();
    Some(Command::HandBackStep(log::HandBackStep { step, token, progress: None, usage: None }))
}

fn expire(scene: &Scene) -> Option<Command> {
    let (step, token) = was_leased(scene)?.newest();
    Some(Command::ExpireLease(log::ExpireLease { step, token, progress: None }))
}

/// The verdict in words, and where it left the run.
pub(super) fn told(applied: &Applied, after: &Scene) -> String {
    if let Some(reason) = reason(applied) {
        return reason.to_owned();
    }
    let already = match &applied.outcome.result {
        Some(Answer::StartRun(answer)) => answer.already,
        Some(Answer::Run(answer)) => answer.already,
        Some(_) => false,
        None => panic!("an outcome without a result"),
    };
    let word = if already { "already" } else { "ok" };
    format!("{word}: {}", after.describe())
}
