//! What a run was given and what it came to is read alike wherever it lies: in the run's row where it is small, or in its own.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome;
use pinrail_proto::log::{self, StepRef, Taker};
use pinrail_proto::v1;
use pinrail_state_machine::effect::StepId;
use pinrail_state_machine::key::Kind;
use pinrail_state_machine::query::dispatch::{assignments, leased_steps};
use pinrail_state_machine::{FEATURE_LEVEL, query};

use crate::replica::{Replica, agent, create_agent, create_bundle, payload, switch};

const AGENT: &str = "support";
/// The last level at which all of them had rows of their own.
const ROWS_OF_ALL: u32 = 11;
const SMALL: usize = 400;
const LARGE: usize = 600;

fn text(bytes: usize) -> v1::Payload {
    payload(&"x".repeat(bytes))
}

fn formed(feature_level: u32) -> Replica {
    let mut replica = Replica::formed_at(feature_level);
    replica.must(create_agent(AGENT, false));
    for bundle in ["v0", "v1"] {
        replica.must(create_bundle(AGENT, bundle));
        replica.must(switch(AGENT, bundle));
    }
    replica
}

fn start(replica: &mut Replica, run_id: &str, input: usize) {
    let taker =
        Taker { worker_id: "w1".to_owned(), bundle_id: "v1".to_owned(), ..Taker::default() };
    replica.must(Command::StartRun(log::StartRun {
        agent: agent(AGENT),
        run_id: run_id.to_owned(),
        input: Some(text(input)),
        lease_first: Some(taker),
        ..log::StartRun::default()
    }));
}

fn complete(replica: &mut Replica, run_id: &str, output: usize) {
    let leased = leased_steps(replica.read(), None, 100).unwrap();
    let lease = leased.iter().find(|it| it.step.run_id == run_id).unwrap();
    replica.must(Command::CompleteStep(log::CompleteStep {
        step: Some(StepRef { agent: 1, run_id: run_id.to_owned(), step: lease.step.step }),
        token: Some(lease.token),
        outcome: Some(Outcome::Done(text(output))),
        ..log::CompleteStep::default()
    }));
}

fn rows(replica: &Replica) -> (usize, usize) {
    (replica.count(Kind::RunInput), replica.count(Kind::RunOutput))
}

/// What everybody who asks is told.
fn expect(replica: &Replica, run_id: &str, input: usize, output: usize) {
    let (input, output) = (Some(text(input)), Some(text(output)));
    let run = query::run(replica.read(), "", AGENT, run_id).unwrap();
    assert_eq!((&run.input, &run.output), (&input, &output));
    let result = query::result(replica.read(), "", AGENT, run_id).unwrap();
    assert_eq!(result.output, output);
    assert_eq!(query::run_input(replica.read(), 1, run_id).unwrap(), input);
    assert_eq!(query::run_output(replica.read(), 1, run_id).unwrap(), output);
    let step = query::step(replica.read(), "", AGENT, run_id, 1).unwrap().unwrap();
    assert_eq!((step.input, step.output), (input, output));
}

#[test]
fn small_ones_lie_in_the_runs_row_and_large_ones_in_their_own() {
    let mut replica = formed(FEATURE_LEVEL);
    for (input, output, expected) in
        [(SMALL, SMALL, (0, 0)), (LARGE, SMALL, (1, 0)), (SMALL, LARGE, (1, 1)), (0, 0, (1, 1))]
    {
        let run_id = format!("run-{input}-{output}");
        start(&mut replica, &run_id, input);
        let id = StepId { agent: 1, run_id: run_id.clone(), step: 1 };
        let assigned = assignments(replica.read(), [(&id, None)]).unwrap().remove(0).unwrap();
        assert_eq!(assigned.input, Some(text(input)));
        complete(&mut replica, &run_id, output);
        assert_eq!(rows(&replica), expected);
        expect(&replica, &run_id, input, output);
    }
    replica.check_promises();
    replica.now_ms += 400 * 24 * 3_600_000;
    replica.sweep(1);
    assert_eq!((replica.count(Kind::Run), rows(&replica)), (0, (0, 0)), "their time was over");
}

#[test]
fn a_run_that_began_before_keeps_the_row_of_its_input() {
    let mut replica = formed(ROWS_OF_ALL);
    start(&mut replica, "run", SMALL);
    replica.must(Command::SetFeatureLevel(log::SetFeatureLevel { level: FEATURE_LEVEL }));
    complete(&mut replica, "run", SMALL);
    assert_eq!(rows(&replica), (1, 0));
    expect(&replica, "run", SMALL, SMALL);
}

#[test]
fn a_run_that_begins_anew_begins_with_its_input() {
    let mut replica = formed(FEATURE_LEVEL);
    start(&mut replica, "run", SMALL);
    replica.must(Command::Rollback(log::Rollback {
        agent: agent(AGENT),
        in_flight: v1::InFlight::Restart.into(),
        ..log::Rollback::default()
    }));
    replica.sweep(1);
    replica.check_promises();
    assert_eq!(query::run_input(replica.read(), 1, "run").unwrap(), Some(text(SMALL)));
}
