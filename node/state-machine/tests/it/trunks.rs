//! The step that a run's trunk is at lies in the run's row, and those before it while they are small. They are read as if they had
//! rows of their own.

use std::collections::BTreeSet;

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, FanOut, NextStep, RunRecord, StepRef, Taker, Token};
use pinrail_proto::v1;
use pinrail_state_machine::effect::StepId;
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::query::dispatch::{assignments, leased_steps};
use pinrail_state_machine::{FEATURE_LEVEL, completion_digest, invariants, query};
use prost::Message as _;

use crate::replica::{Replica, agent, create_agent, create_bundle, payload, switch};

const AGENT: &str = "support";
const RUN: &str = "run";
/// The last level at which every step had a row of its own from its beginning on.
const ROWS_OF_EACH: u32 = 8;
/// The last level at which every step that had ended had one.
const ROWS_OF_ENDED: u32 = 10;

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
    // Steps 1 and 2 have ended and 3, the join, waits: in the run's row. Steps 4 and 5 are of the branches.
    assert_eq!((replica.count(Kind::Step), steps(&replica, 10).len()), (2, 5));
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

/// Goes on with steps of inputs of so many bytes. After each: how many steps lie in rows of their own.
fn rows_after_each(replica: &mut Replica, steps_made: u32, bytes: usize) -> Vec<usize> {
    let first = number_of_trunk(replica);
    let go_on = (first..first + steps_made).map(|number| {
        let input = Some(payload(&"x".repeat(bytes)));
        complete(replica, number, Outcome::Next(NextStep { name: "main".to_owned(), input }));
        replica.count(Kind::Step)
    });
    go_on.collect()
}

fn number_of_trunk(replica: &Replica) -> u32 {
    leased_steps(replica.read(), None, 1).unwrap()[0].step.step
}

/// All steps so far are seen, whatever the pages.
fn expect_steps(replica: &Replica, count: u32) {
    for page_size in [1, 3, 4, 100] {
        let numbers: Vec<u32> = steps(replica, page_size).into_iter().map(|it| it.0).collect();
        assert_eq!(numbers, (1..=count).collect::<Vec<u32>>(), "in pages of {page_size}");
    }
    for number in 1..=count {
        let step = query::step(replica.read(), "", AGENT, RUN, number).unwrap().unwrap();
        assert_eq!((step.number, step.state() == v1::StepState::Leased), (number, number == count));
    }
}

#[test]
fn steps_that_have_ended_stay_with_their_run_while_they_are_small() {
    let mut replica = started(FEATURE_LEVEL);
    assert_eq!(rows_after_each(&mut replica, 9, 256), [0; 9]);
    expect_steps(&replica, 10);
    let rows = rows_after_each(&mut replica, 12, 1_000);
    assert!(
        rows.is_sorted() && rows[0] < rows[11],
        "they left together, and more than once: {rows:?}"
    );
    assert!(rows.iter().collect::<BTreeSet<_>>().len() > 2, "{rows:?}");
    expect_steps(&replica, 22);
    let before = replica.count(Kind::Step);
    let large = rows_after_each(&mut replica, 2, 5_000);
    assert_eq!(large[1], large[0] + 1, "it stays for none");
    assert!(large[0] > before);
    expect_steps(&replica, 24);
    complete(&mut replica, 24, Outcome::Done(payload("end")));
    assert_eq!(steps(&replica, 7).len(), 24);
}

#[test]
fn a_run_that_began_before_has_rows_of_all_its_steps() {
    let mut replica = started(ROWS_OF_ENDED);
    assert_eq!(rows_after_each(&mut replica, 2, 10), [1, 2]);
    replica.must(Command::SetFeatureLevel(log::SetFeatureLevel { level: FEATURE_LEVEL }));
    assert_eq!(rows_after_each(&mut replica, 2, 10), [3, 4]);
    expect_steps(&replica, 5);
}

#[test]
fn a_result_that_is_reported_again_is_known_of_the_step_in_its_runs_row() {
    let mut replica = started(FEATURE_LEVEL);
    let mut completion = log::CompleteStep {
        step: Some(StepRef { agent: 1, run_id: RUN.to_owned(), step: 1 }),
        token: Some(token_of(&replica, 1)),
        outcome: Some(Outcome::Next(next("a"))),
        lease_next: Some(taker()),
        ..log::CompleteStep::default()
    };
    let first = replica.must(Command::CompleteStep(completion.clone()));
    // The other time its leader says what it is.
    completion.digest = completion_digest(&mut completion);
    let again = Command::CompleteStep(completion);
    assert_eq!(replica.must(again.clone()), first);
    complete(&mut replica, 2, Outcome::Next(next("b")));
    let Answer::Step(later) = replica.must(again) else { panic!("no step") };
    assert_eq!((later.token, later.step), (None, 3), "the lease that came with it is over");
}

#[test]
fn a_run_id_that_is_used_again_has_nothing_of_the_steps_before() {
    let mut replica = started(FEATURE_LEVEL);
    complete(&mut replica, 1, Outcome::Next(next("a")));
    complete(&mut replica, 2, Outcome::Done(payload("end")));
    let score = log::ScoreRun {
        agent: agent(AGENT),
        run_id: RUN.to_owned(),
        score_permille: 900,
        source: v1::ScoreSource::Human.into(),
        ..log::ScoreRun::default()
    };
    replica.must(Command::ScoreRun(score));
    replica.check_promises();
    assert_eq!(steps(&replica, 10).len(), 2);
    replica.now_ms += 400 * 24 * 3_600_000;
    replica.sweep(1);
    assert_eq!(replica.count(Kind::Run), 0, "its time was over");
    replica.must(Command::StartRun(log::StartRun {
        agent: agent(AGENT),
        run_id: RUN.to_owned(),
        ..log::StartRun::default()
    }));
    let first = (1, v1::StepState::Ready, String::new(), String::new());
    assert_eq!(steps(&replica, 10), [first]);
    assert_eq!(query::step(replica.read(), "", AGENT, RUN, 2).unwrap(), None);
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
