//! The step that a run's trunk is at lies in the run's row while it is open, and is read as if it had a row of its own.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome;
use pinrail_proto::log::{self, FanOut, NextStep, RunRecord, StepRef, Taker, Token};
use pinrail_proto::v1;
use pinrail_state_machine::effect::StepId;
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::query::dispatch::{assignments, leased_steps};
use pinrail_state_machine::{FEATURE_LEVEL, invariants, query};
use prost::Message as _;

use crate::replica::{Replica, agent, create_agent, create_bundle, payload, switch};

const AGENT: &str = "support";
const RUN: &str = "run";
/// The last level at which every step had a row of its own from its beginning on.
const ROWS_OF_EACH: u32 = 8;

fn taker() -> Taker {
    Taker { worker_id: "w1".to_owned(), bundle_id: "v1".to_owned(), ..Taker::default() }
}

/// A run whose first step a worker has.
fn started(feature_level: u32) -> Replica {
    let mut replica = Replica::formed_at(feature_level);
    replica.must(create_agent(AGENT, false));
    for bundle in ["v0", "v1"] {
        replica.must(create_bundle(AGENT, bundle));
        replica.must(switch(AGENT, bundle));
    }
    replica.must(Command::StartRun(log::StartRun {
        agent: agent(AGENT),
        run_id: RUN.to_owned(),
        input: Some(payload("begin")),
        lease_first: Some(taker()),
        ..log::StartRun::default()
    }));
    replica
}

fn next(name: &str) -> NextStep {
    NextStep { name: name.to_owned(), input: Some(payload(&format!("for {name}"))) }
}

fn token_of(replica: &Replica, number: u32) -> Token {
    let leased = leased_steps(replica.read(), None, 100).unwrap();
    leased.iter().find(|it| it.step.step == number).unwrap().token
}

/// Completes a step that is leased; its worker goes on.
fn complete(replica: &mut Replica, number: u32, outcome: Outcome) {
    replica.now_ms += 1;
    let token = token_of(replica, number);
    replica.must(Command::CompleteStep(log::CompleteStep {
        step: Some(StepRef { agent: 1, run_id: RUN.to_owned(), step: number }),
        token: Some(token),
        outcome: Some(outcome),
        lease_next: Some(taker()),
        ..log::CompleteStep::default()
    }));
    replica.check_promises();
}

fn text(payload: Option<&v1::Payload>) -> String {
    payload.map(|it| String::from_utf8(it.data.to_vec()).unwrap()).unwrap_or_default()
}

/// What the run's steps are, read page by page.
fn steps(replica: &Replica, page_size: u32) -> Vec<(u32, v1::StepState, String, String)> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (page, following) =
            query::steps(replica.read(), "", AGENT, RUN, page_size, &token).unwrap();
        assert!(page.len() <= page_size as usize);
        all.extend(page.iter().map(|step| {
            let (input, output) = (text(step.input.as_ref()), text(step.output.as_ref()));
            (step.number, step.state(), input, output)
        }));
        if following.is_empty() {
            return all;
        }
        token = following;
    }
}

/// What a worker is given to execute a step.
fn input_of(replica: &Replica, step: u32) -> String {
    let id = StepId { agent: 1, run_id: RUN.to_owned(), step };
    let assigned = assignments(replica.read(), [(&id, None)]).unwrap().remove(0).unwrap();
    text(assigned.input.as_ref())
}

#[test]
fn a_trunk_that_was_opened_with_a_row_of_its_own_keeps_it_until_it_is_over() {
    let mut replica = started(ROWS_OF_EACH);
    complete(&mut replica, 1, Outcome::Next(next("a")));
    assert_eq!((replica.count(Kind::Step), replica.count(Kind::StepInput)), (2, 1));
    replica.must(Command::SetFeatureLevel(log::SetFeatureLevel { level: FEATURE_LEVEL }));
    assert_eq!(input_of(&replica, 2), "for a");
    complete(&mut replica, 2, Outcome::Next(next("b")));
    assert_eq!((replica.count(Kind::Step), replica.count(Kind::StepInput)), (2, 1));
    assert_eq!(input_of(&replica, 3), "for b");
    complete(&mut replica, 3, Outcome::Done(payload("end")));
    assert_eq!((replica.count(Kind::Step), replica.count(Kind::StepInput)), (3, 1));
    let row = |number, input: &str, output: &str| {
        (number, v1::StepState::Completed, input.to_owned(), output.to_owned())
    };
    let expected = [row(1, "begin", "for a"), row(2, "for a", "for b"), row(3, "for b", "end")];
    assert_eq!(steps(&replica, 10), expected);
}

#[test]
fn a_run_that_is_fanned_out_shows_its_trunk_among_its_branches() {
    let mut replica = started(FEATURE_LEVEL);
    complete(&mut replica, 1, Outcome::Next(next("a")));
    let branches = vec![next("left"), next("right")];
    let fan_out = FanOut { branches, join: "join".to_owned(), settle: false };
    complete(&mut replica, 2, Outcome::All(fan_out));
    // Steps 1 and 2 are closed, 4 and 5 of the branches, and 3, the join, waits in the run's row.
    assert_eq!((replica.count(Kind::Step), steps(&replica, 10).len()), (4, 5));
    let numbers = |page_size| -> Vec<u32> {
        steps(&replica, page_size).into_iter().map(|(number, ..)| number).collect()
    };
    for page_size in 1..=6 {
        assert_eq!(numbers(page_size), [1, 2, 3, 4, 5], "in pages of {page_size}");
    }
    let join = query::step(replica.read(), "", AGENT, RUN, 3).unwrap().unwrap();
    assert_eq!((join.state(), join.branches_open), (v1::StepState::Waiting, 2));
    assert_eq!(query::step(replica.read(), "", AGENT, RUN, 6).unwrap(), None);
    complete(&mut replica, 4, Outcome::Next(next("further")));
    assert_eq!(input_of(&replica, 6), "for further");
    let join = query::step(replica.read(), "", AGENT, RUN, 3).unwrap().unwrap();
    assert_eq!(join.branches_open, 2, "the run was written and the step in its row stays");
}

#[test]
fn a_run_that_begins_anew_has_forgotten_the_step_in_its_row() {
    let mut replica = started(FEATURE_LEVEL);
    complete(&mut replica, 1, Outcome::Next(next("a")));
    complete(&mut replica, 2, Outcome::Next(next("b")));
    replica.must(Command::Rollback(log::Rollback {
        agent: agent(AGENT),
        in_flight: v1::InFlight::Restart.into(),
        ..log::Rollback::default()
    }));
    replica.sweep(1);
    replica.check_promises();
    assert_eq!((replica.count(Kind::Step), replica.count(Kind::OpenPin)), (0, 1));
    let first = (1, v1::StepState::Ready, "begin".to_owned(), String::new());
    assert_eq!(steps(&replica, 10), [first]);
    assert_eq!(query::step(replica.read(), "", AGENT, RUN, 3).unwrap(), None);
}

#[test]
fn a_step_that_lies_in_two_rows_is_found() {
    let mut replica = started(FEATURE_LEVEL);
    let run = Key::of(Kind::Run, 1).last(RUN);
    let row = replica.read().get(&run).unwrap().unwrap();
    let open = RunRecord::decode(row).unwrap().open_step.unwrap();
    let key = Key::of(Kind::Step, 1).text(RUN).u32(open.number).build();
    replica.store.write([(key, Some(open.encode_to_vec().into()))]);
    let found = invariants::check(replica.read()).unwrap();
    assert!(found.iter().any(|it| it.detail.contains("does not belong in its run's row")));
}
