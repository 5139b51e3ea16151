//! The rows of a lease stand while a run goes from a step to the next, and its timer never keeps an attempt from its end.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, NextStep, StepRef, Taker, Token};
use pinrail_proto::v1;
use pinrail_state_machine::key::Kind;
use pinrail_state_machine::query::dispatch::{leased_steps, next_deadlines};
use pinrail_state_machine::{FEATURE_LEVEL, query};

use crate::replica::{BEGIN_MS, Replica, agent, create_agent, create_bundle, payload, switch};

const AGENT: &str = "support";
const RUN: &str = "run";
/// The last level at which each step's lease had rows of its own.
const ROWS_OF_EACH: u32 = 5;
/// Of the policy: how long an attempt may take.
const ATTEMPT_MS: u64 = 12_000;

/// A run whose first step a worker has.
fn leased(feature_level: u32) -> (Replica, Token) {
    let mut replica = Replica::formed_at(feature_level);
    for command in [create_agent(AGENT, false), create_bundle(AGENT, "v1"), switch(AGENT, "v1")] {
        replica.must(command);
    }
    let start = log::StartRun {
        agent: agent(AGENT),
        run_id: RUN.to_owned(),
        lease_first: Some(taker()),
        ..log::StartRun::default()
    };
    match replica.must(Command::StartRun(start)) {
        Answer::StartRun(answer) => (replica, answer.token.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn taker() -> Taker {
    Taker { worker_id: "w1".to_owned(), bundle_id: "v1".to_owned(), ..Taker::default() }
}

fn complete(number: u32, token: Token, outcome: Outcome) -> Command {
    Command::CompleteStep(log::CompleteStep {
        step: Some(StepRef { agent: 1, run_id: RUN.to_owned(), step: number }),
        token: Some(token),
        outcome: Some(outcome),
        lease_next: Some(taker()),
        ..log::CompleteStep::default()
    })
}

/// Goes on with the next step, which the same worker gets.
fn go_on(replica: &mut Replica, number: u32, token: Token) -> Token {
    let next = NextStep { name: "next".to_owned(), input: Some(payload("input")) };
    match replica.must(complete(number, token, Outcome::Next(next))) {
        Answer::Step(answer) => answer.token.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The kind of each row that differs.
fn changed(before: &Replica, after: &Replica) -> Vec<u8> {
    let rows = |replica: &Replica| -> BTreeMap<_, _> {
        replica.store.rows().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let (before, after) = (rows(before), rows(after));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).map(|key| key[0]).collect()
}

/// The step's state, and why its last attempt failed.
fn state(replica: &Replica, number: u32) -> (v1::StepState, Option<String>) {
    let steps = query::steps(replica.read(), "", AGENT, RUN, 0, "").unwrap().0;
    let step = steps.iter().find(|step| step.number == number).unwrap();
    (step.state(), step.failure.as_ref().map(|failure| failure.reason.clone()))
}

#[test]
fn a_run_that_goes_on_writes_its_own_row_and_nothing_else() {
    let (mut replica, token) = leased(FEATURE_LEVEL);
    let before = replica.clone();
    replica.now_ms += 1;
    go_on(&mut replica, 1, token);
    let kinds = [Kind::Cluster, Kind::Run].map(|kind| kind as u8);
    assert_eq!(changed(&before, &replica), kinds);
    replica.check_promises();
}

#[test]
fn a_new_leader_finds_the_lease_of_the_step_that_is_under_way() {
    let (mut replica, token) = leased(FEATURE_LEVEL);
    let token = go_on(&mut replica, 1, token);
    let found = leased_steps(replica.read(), None, 10).unwrap();
    let found: Vec<_> = found.iter().map(|it| (it.step.step, it.token)).collect();
    assert_eq!(found, [(2, token)]);
}

#[test]
fn a_timer_that_comes_early_is_set_anew_and_the_attempt_ends_in_time() {
    let (mut replica, token) = leased(FEATURE_LEVEL);
    replica.now_ms += ATTEMPT_MS / 2;
    go_on(&mut replica, 1, token);
    let next = |replica: &Replica| next_deadlines(replica.read()).unwrap().last().copied();
    let revision = |replica: &Replica| query::run(replica.read(), "", AGENT, RUN).unwrap().revision;
    assert_eq!(next(&replica), Some((1, BEGIN_MS + ATTEMPT_MS)), "of the first attempt");
    let before = revision(&replica);
    replica.now_ms = BEGIN_MS + ATTEMPT_MS;
    replica.sweep(1);
    assert_eq!(state(&replica, 2), (v1::StepState::Leased, None));
    assert_eq!(next(&replica), Some((1, BEGIN_MS + ATTEMPT_MS / 2 + ATTEMPT_MS)));
    assert_eq!(revision(&replica), before, "nobody sees a timer");
    replica.check_promises();
    replica.now_ms = BEGIN_MS + ATTEMPT_MS / 2 + ATTEMPT_MS;
    replica.sweep(1);
    let failed = (v1::StepState::Backoff, Some("START_TO_CLOSE".to_owned()));
    assert_eq!(state(&replica, 2), failed);
    replica.check_promises();
}

#[test]
fn nothing_of_a_lease_outlives_its_run() {
    let (mut replica, token) = leased(FEATURE_LEVEL);
    let token = go_on(&mut replica, 1, token);
    replica.must(complete(2, token, Outcome::Done(payload("output"))));
    assert_eq!(replica.count(Kind::Leased), 0);
    replica.check_promises();
}

#[test]
fn a_lease_from_before_the_level_ends_as_it_began() {
    let (mut replica, token) = leased(ROWS_OF_EACH);
    replica.must(Command::SetFeatureLevel(log::SetFeatureLevel { level: FEATURE_LEVEL }));
    replica.check_promises();
    let token = go_on(&mut replica, 1, token);
    replica.check_promises();
    assert_eq!(replica.count(Kind::Leased), 1);
    replica.must(complete(2, token, Outcome::Done(payload("output"))));
    assert_eq!(replica.count(Kind::Leased), 0);
    replica.check_promises();
}
