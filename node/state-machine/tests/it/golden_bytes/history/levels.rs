//! What changed with a feature level, from the level that switched it on.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::{self, Token};
use pinrail_proto::v1;

use super::{agent, asked, payload, plain, step, taker};

pub(super) fn traffic_with_request_ids() -> Vec<(&'static str, log::Command)> {
    let target = log::memory_target::Target::BundleId("v1".to_owned());
    let put = log::PutMemory {
        agent: agent(),
        target: Some(log::MemoryTarget { target: Some(target) }),
        key: "users/9".to_owned(),
        value: payload("Bea"),
        ..log::PutMemory::default()
    };
    vec![
        ("raise the level", plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 5 }))),
        ("put memory with a request id", asked(Command::PutMemory(put))),
    ]
}

/// The start of a run whose first step is handed out at once.
fn start(run_id: &str) -> log::Command {
    plain(Command::StartRun(log::StartRun {
        agent: agent(),
        run_id: run_id.to_owned(),
        lease_first: Some(taker("v9")),
        ..log::StartRun::default()
    }))
}

/// A run that goes on with a step on the same worker, and one whose first step was leased before.
pub(super) fn leases_that_stand(before: u64) -> Vec<(&'static str, log::Command)> {
    vec![
        ("start s, lease", start("s")),
        (
            "raise the level again",
            plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 6 })),
        ),
        ("start t, lease", start("t")),
        ("complete s, go on", go_on("s", 1, before + 1, "answer")),
        ("complete t, go on", go_on("t", 1, before + 3, "answer")),
        ("complete t, go on again", go_on("t", 2, before + 5, "check")),
    ]
}

/// A result that makes the next step, which the same worker gets.
fn go_on(run_id: &str, number: u32, revision: u64, name: &str) -> log::Command {
    // The cluster was recovered before.
    plain(Command::CompleteStep(log::CompleteStep {
        step: step(run_id, number),
        token: Some(Token { incarnation: 4, revision }),
        outcome: Some(log::complete_step::Outcome::Next(log::NextStep {
            name: name.to_owned(),
            input: payload("notes"),
        })),
        lease_next: Some(taker("v9")),
        ..log::CompleteStep::default()
    }))
}

/// The last result of a run.
fn done(run_id: &str, number: u32, revision: u64) -> log::Command {
    plain(Command::CompleteStep(log::CompleteStep {
        step: step(run_id, number),
        token: Some(Token { incarnation: 4, revision }),
        outcome: Some(log::complete_step::Outcome::Done(v1::Payload::default())),
        ..log::CompleteStep::default()
    }))
}

/// A run that is over before its pin ends, one that is not, and one from before whose two timers go.
pub(super) fn hard_ends_that_follow(before: u64) -> Vec<(&'static str, log::Command)> {
    vec![
        (
            "raise the level once more",
            plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 7 })),
        ),
        ("start u, lease", start("u")),
        ("start x, lease", start("x")),
        ("complete u", done("u", 1, before + 2)),
        ("complete s", done("s", 2, before - 2)),
    ]
}

/// Commands that change one agent and one bundle, in one entry.
pub(super) fn entries_that_write_once(before: u64) -> Vec<(&'static str, Vec<log::Command>)> {
    let level = plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 8 }));
    vec![
        ("raise the level to 8, start y, lease", vec![level, start("y")]),
        ("start z, lease, and complete x", vec![start("z"), done("x", 1, before - 2)]),
        ("complete y, start w, lease", vec![done("y", 1, before + 2), start("w")]),
    ]
}

/// A run whose open step has a row of its own, and one whose step lies in the run's; both end.
pub(super) fn trunks_that_lie_in_runs(before: u64) -> Vec<(&'static str, Vec<log::Command>)> {
    let level = plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 9 }));
    let go_on_w = go_on("w", 1, before, "answer");
    let go_on_v = |number, revision| go_on("v", number, revision, "check");
    vec![
        ("raise the level to 9, start v, lease", vec![level, start("v")]),
        ("complete w and v, go on", vec![go_on_w, go_on_v(1, before + 2)]),
        ("complete v, go on again", vec![go_on_v(2, before + 4)]),
        ("complete w and v", vec![done("w", 2, before + 3), done("v", 3, before + 5)]),
    ]
}

/// Runs that continue, for a worker that takes what the next one begins with, and for one that does not.
pub(super) fn continued_runs_that_stay(before: u64) -> Vec<(&'static str, Vec<log::Command>)> {
    let level = plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 10 }));
    vec![
        ("start c1 and c2, lease", vec![start("c1"), start("c2")]),
        ("complete c1, continue", vec![continued("c1", before + 1, &[])]),
        ("raise the level to 10, start c3, lease", vec![level, start("c3")]),
        ("complete c2, continue", vec![continued("c2", before + 2, &["plan"])]),
        ("complete c3, continue", vec![continued("c3", before + 5, &["check"])]),
        ("complete c2 again", vec![continued("c2", before + 2, &["plan"])]),
        ("complete c2+1", vec![done("c2+1", 1, before + 6)]),
    ]
}

/// A result that has the run go on as another one, for the same worker.
fn continued(run_id: &str, revision: u64, serves: &[&str]) -> log::Command {
    let serves = serves.iter().map(|name| (*name).to_owned()).collect();
    plain(Command::CompleteStep(log::CompleteStep {
        step: step(run_id, 1),
        token: Some(Token { incarnation: 4, revision }),
        outcome: Some(log::complete_step::Outcome::ContinueAsNew(log::ContinueRun {
            input: payload("state"),
            on_live_bundle: false,
        })),
        lease_next: Some(log::Taker { serves, ..taker("v9") }),
        ..log::CompleteStep::default()
    }))
}

/// A run that begins before the level, one that begins behind it and ends, and one whose steps become too large for its row.
pub(super) fn runs_that_hold_ended_steps(before: u64) -> Vec<(&'static str, Vec<log::Command>)> {
    let level = plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 11 }));
    let large = |number, revision| {
        let mut command = go_on("d3", number, revision, "check");
        if let Some(Command::CompleteStep(it)) = &mut command.kind
            && let Some(log::complete_step::Outcome::Next(next)) = &mut it.outcome
        {
            next.input = payload(&"large".repeat(500));
        }
        command
    };
    vec![
        ("start d1, lease", vec![start("d1")]),
        ("raise the level to 11, start d2 and d3, lease", vec![level, start("d2"), start("d3")]),
        (
            "complete d1 and d2, go on",
            vec![go_on("d1", 1, before + 1, "answer"), go_on("d2", 1, before + 3, "answer")],
        ),
        ("complete d3 with much, go on", vec![large(1, before + 4)]),
        ("complete d3 with much, go on again", vec![large(2, before + 7)]),
        ("complete d1 and d2", vec![done("d1", 2, before + 5), done("d2", 2, before + 6)]),
    ]
}

/// Small inputs and outputs, large ones, and those of a run that began before the level.
pub(super) fn runs_that_hold_payloads(before: u64) -> Vec<(&'static str, Vec<log::Command>)> {
    let level = plain(Command::SetFeatureLevel(log::SetFeatureLevel { level: 12 }));
    let given = |run_id, input: &str| {
        plain(Command::StartRun(log::StartRun {
            agent: agent(),
            run_id: String::from(run_id),
            input: payload(input),
            lease_first: Some(taker("v9")),
            ..log::StartRun::default()
        }))
    };
    let gives = |run_id, revision, output: &str| {
        plain(Command::CompleteStep(log::CompleteStep {
            step: step(run_id, 1),
            token: Some(Token { incarnation: 4, revision }),
            outcome: payload(output).map(log::complete_step::Outcome::Done),
            ..log::CompleteStep::default()
        }))
    };
    let large = "large".repeat(120);
    vec![
        ("start e1, lease", vec![given("e1", "small")]),
        (
            "raise the level to 12, start e2 and e3, lease",
            vec![level, given("e2", "small"), given("e3", &large)],
        ),
        (
            "complete e1, e2 and e3",
            vec![
                gives("e1", before + 1, "small"),
                gives("e2", before + 3, &large),
                gives("e3", before + 4, "small"),
            ],
        ),
    ]
}
