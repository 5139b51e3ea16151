//! A pin has one timer at a time: that of its hard end is set when the one of its soft end comes, whoever holds the run then.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::{self, Taker};
use pinrail_proto::v1;
use pinrail_state_machine::key::Kind;
use pinrail_state_machine::query::dispatch::next_deadlines;
use pinrail_state_machine::{FEATURE_LEVEL, query};

use crate::replica::{BEGIN_MS, Replica, agent, create_agent, create_bundle, switch};

const AGENT: &str = "support";
const RUN: &str = "run";
/// The last level at which a pin had both timers from the beginning.
const BOTH_TIMERS: u32 = 6;
/// Of the runs here; the policy's grace comes to it. An attempt may take longer than both.
const MAX_AGE_MS: u64 = 4_000;
const GRACE_MS: u64 = 5_000;

fn cluster(feature_level: u32, external: bool) -> Replica {
    let mut replica = Replica::formed_at(feature_level);
    for command in [create_agent(AGENT, external), create_bundle(AGENT, "v1"), switch(AGENT, "v1")]
    {
        replica.must(command);
    }
    replica
}

/// Starts a run that a worker holds, or that is executed elsewhere. Answers how many timers it has.
fn start(replica: &mut Replica, external: bool) -> usize {
    let before = replica.count(Kind::Deadline);
    let taker =
        Taker { worker_id: "w1".to_owned(), bundle_id: "v1".to_owned(), ..Taker::default() };
    replica.must(Command::StartRun(log::StartRun {
        agent: agent(AGENT),
        run_id: RUN.to_owned(),
        max_age_ms: MAX_AGE_MS,
        lease_first: (!external).then_some(taker),
        ..log::StartRun::default()
    }));
    replica.check_promises();
    replica.count(Kind::Deadline) - before
}

fn finish(replica: &mut Replica) {
    replica.must(Command::FinishRun(log::FinishRun {
        agent: agent(AGENT),
        run_id: RUN.to_owned(),
        outcome: v1::Outcome::Completed.into(),
        ..log::FinishRun::default()
    }));
}

fn run(replica: &Replica) -> v1::Run {
    query::run(replica.read(), "", AGENT, RUN).unwrap()
}

fn sweep_at(replica: &mut Replica, after_ms: u64) {
    replica.now_ms = BEGIN_MS + after_ms;
    replica.sweep(1);
    replica.check_promises();
}

fn next_ms(replica: &Replica) -> u64 {
    let next = next_deadlines(replica.read()).unwrap();
    next.iter().find(|(agent, _)| *agent == 1).unwrap().1 - BEGIN_MS
}

#[test]
fn the_hard_end_is_timed_from_the_soft_end_on_and_ends_a_run_that_is_still_held() {
    let mut replica = cluster(FEATURE_LEVEL, false);
    // The attempt's and the soft end's.
    assert_eq!(start(&mut replica, false), 2);
    assert_eq!(next_ms(&replica), MAX_AGE_MS);
    sweep_at(&mut replica, MAX_AGE_MS);
    assert_eq!(run(&replica).state(), v1::RunState::Cancelling);
    assert_eq!(next_ms(&replica), MAX_AGE_MS + GRACE_MS);
    sweep_at(&mut replica, MAX_AGE_MS + GRACE_MS);
    assert_eq!(run(&replica).state(), v1::RunState::Expired);
}

#[test]
fn a_run_that_is_executed_elsewhere_is_not_touched_at_its_soft_end_and_ends_at_its_hard_one() {
    let mut replica = cluster(FEATURE_LEVEL, true);
    // The soft end's and that of its silence, which is later than all else here.
    assert_eq!(start(&mut replica, true), 2);
    let before = run(&replica);
    sweep_at(&mut replica, MAX_AGE_MS);
    assert_eq!(run(&replica), before, "nobody sees a timer");
    assert_eq!(next_ms(&replica), MAX_AGE_MS + GRACE_MS);
    sweep_at(&mut replica, MAX_AGE_MS + GRACE_MS);
    assert_eq!(run(&replica).state(), v1::RunState::Expired);
}

#[test]
fn one_sweep_that_comes_late_ends_a_run_that_is_past_both() {
    for external in [false, true] {
        let mut replica = cluster(FEATURE_LEVEL, external);
        start(&mut replica, external);
        sweep_at(&mut replica, MAX_AGE_MS + GRACE_MS + 1);
        assert_eq!(run(&replica).state(), v1::RunState::Expired, "external: {external}");
    }
}

#[test]
fn no_timer_outlives_a_run_that_is_finished_before_or_behind_its_soft_end() {
    for swept_at in [None, Some(MAX_AGE_MS)] {
        let mut replica = cluster(FEATURE_LEVEL, true);
        let before = replica.count(Kind::Deadline);
        start(&mut replica, true);
        if let Some(after_ms) = swept_at {
            sweep_at(&mut replica, after_ms);
        }
        finish(&mut replica);
        replica.check_promises();
        assert_eq!(replica.count(Kind::Deadline), before + 1, "its retention's");
    }
}

#[test]
fn a_pin_from_before_the_level_keeps_both_timers_and_loses_both() {
    for swept_at in [None, Some(MAX_AGE_MS)] {
        let mut replica = cluster(BOTH_TIMERS, true);
        let before = replica.count(Kind::Deadline);
        assert_eq!(start(&mut replica, true), 3);
        replica.must(Command::SetFeatureLevel(log::SetFeatureLevel { level: FEATURE_LEVEL }));
        if let Some(after_ms) = swept_at {
            sweep_at(&mut replica, after_ms);
        }
        finish(&mut replica);
        replica.check_promises();
        assert_eq!(replica.count(Kind::Deadline), before + 1, "its retention's");
    }
}
