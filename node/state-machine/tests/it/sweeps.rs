//! Sweeps at their limits: many pins in bounded batches, ends that meet, what was late acting as if it had not been.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, LayerRecord, StepRef, Taker, Token};
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::{Machine, query, txn};
use prost::Message as _;

use crate::replica::{
    Replica, agent, batch, create_agent, create_bundle, payload, policy, reason, switch,
};

const AGENT: &str = "support";

fn cluster(bundles: &[&str]) -> Replica {
    on(Replica::formed(), bundles)
}

fn on(mut replica: Replica, bundles: &[&str]) -> Replica {
    replica.must(create_agent(AGENT, false));
    for bundle_id in bundles {
        replica.must(create_bundle(AGENT, bundle_id));
    }
    replica.must(switch(AGENT, bundles[0]));
    replica
}

fn update(replica: &mut Replica, change: impl FnOnce(&mut v1::Policy)) {
    let mut policy = policy(false);
    change(&mut policy);
    let agent = agent(AGENT);
    replica.must(Command::UpdateAgent(Box::new(log::UpdateAgent { agent, policy: Some(policy) })));
}

fn start(run_id: &str) -> log::StartRun {
    log::StartRun {
        agent: agent(AGENT),
        run_id: run_id.to_owned(),
        input: Some(payload("input")),
        ..log::StartRun::default()
    }
}

fn lease(replica: &mut Replica, run_id: &str, bundle_id: &str) -> Token {
    let step = Some(StepRef { agent: 1, run_id: run_id.to_owned(), step: 1 });
    let taker = Some(Taker {
        worker_id: "w1".to_owned(),
        bundle_id: bundle_id.to_owned(),
        ..Taker::default()
    });
    match replica.must(Command::LeaseStep(log::LeaseStep { step, attempt: 1, taker })) {
        Answer::Step(answer) => answer.token.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn rollback(from: &str, in_flight: v1::InFlight) -> Command {
    Command::Rollback(log::Rollback {
        agent: agent(AGENT),
        from_bundle_id: from.to_owned(),
        in_flight: in_flight.into(),
        from_inferred: false,
    })
}

fn open_pins(replica: &Replica, bundle_id: &str) -> u64 {
    let bundle = query::bundle(replica.read(), "", AGENT, bundle_id).unwrap();
    bundle.open_pins.unwrap_or_default().total
}

#[test]
fn ten_thousand_pins_end_in_bounded_batches_while_new_runs_start() {
    const PINS: usize = 10_000;
    let mut replica = cluster(&["v1", "v2"]);
    update(&mut replica, |policy| policy.runs.as_mut().unwrap().max_open = Some(20_000));
    for number in 0..PINS {
        replica.must(Command::StartRun(start(&format!("old-{number:05}"))));
    }
    for number in 0..3 {
        lease(&mut replica, &format!("old-{number:05}"), "v1");
    }

    let rows_of = |replica: &Replica, command: Command| {
        let command = log::Command { header: None, kind: Some(command) };
        let entry = batch(replica.now_ms, vec![command.encode_to_vec().into()]);
        let mut machine = Machine::open(&replica.store).unwrap();
        machine.apply_batch(&entry).unwrap();
        machine.finish().writes.len()
    };
    let rows = rows_of(&replica, switch(AGENT, "v2"));
    assert!(rows < 24, "a switch wrote {rows} rows");
    replica.must(switch(AGENT, "v2"));

    // The leased steps' own limit is not what is asked for here.
    replica.now_ms += 20_000;
    let tick = Command::Tick(log::Tick { agent: 1, max_items: 256 });
    let mut ticks = 0;
    loop {
        let rows = rows_of(&replica, tick.clone());
        assert!(rows < 256 * 12, "a tick wrote {rows} rows");
        let Answer::Tick(answer) = replica.must(tick.clone()) else { panic!() };
        assert!(answer.items <= 256);
        ticks += 1;
        // Between two batches the route is the new bundle's, and it takes runs.
        if ticks % 10 == 0 {
            replica.must(Command::StartRun(start(&format!("new-{ticks}"))));
        }
        if !answer.more {
            break;
        }
        assert!(ticks < 60, "{} pins are left after {ticks} ticks", open_pins(&replica, "v1"));
    }
    assert_eq!(open_pins(&replica, "v1"), 0);
    assert_eq!(open_pins(&replica, "v2"), u64::try_from(ticks / 10).unwrap());
    replica.check_promises();
}

#[test]
fn the_holder_is_told_once_and_has_the_grace() {
    let mut replica = cluster(&["v1", "v2"]);
    replica.must(Command::StartRun(start("run")));
    replica.must(switch(AGENT, "v2"));
    replica.now_ms += 10_000;
    let token = lease(&mut replica, "run", "v1");
    replica.now_ms += 10_000;
    let tick = Command::Tick(log::Tick { agent: 1, max_items: 256 });
    let told = replica.apply(tick.clone()).effects;
    let grace = told.iter().find_map(|effect| match effect {
        Effect::CancelRequested { token: of, grace_ms, reason, .. } if *of == token => {
            Some((*grace_ms, *reason))
        }
        _ => None,
    });
    assert_eq!(grace, Some((5_000, v1::EndReason::DrainCap)));
    assert_eq!(replica.apply(tick.clone()).effects, []);
    // Its attempt could go on for two more seconds, its pin for five.
    replica.now_ms += 1_999;
    replica.must(Command::CompleteStep(log::CompleteStep {
        step: Some(StepRef { agent: 1, run_id: "run".to_owned(), step: 1 }),
        token: Some(token),
        outcome: Some(log::complete_step::Outcome::Done(payload("answer"))),
        ..log::CompleteStep::default()
    }));
    let result = query::result(replica.read(), "", AGENT, "run").unwrap();
    assert_eq!(result.state(), v1::RunState::Completed);
    replica.check_promises();
}

#[test]
fn a_pin_with_a_longer_grace_than_its_drain_ends_with_the_drain() {
    let mut replica = cluster(&["v1", "v2"]);
    update(&mut replica, |policy| {
        policy.switch.as_mut().unwrap().grace = Some(duration(600_000));
        policy.steps.as_mut().unwrap().start_to_close = Some(duration(600_000));
    });
    // Its own end is just before the drain's.
    let short = log::StartRun { max_age_ms: 19_000, ..start("run") };
    replica.must(Command::StartRun(short));
    lease(&mut replica, "run", "v1");
    update(&mut replica, |policy| {
        policy.switch.as_mut().unwrap().grace = Some(duration(5_000));
        policy.steps.as_mut().unwrap().start_to_close = Some(duration(600_000));
    });
    replica.must(switch(AGENT, "v2"));
    replica.now_ms += 25_000;
    replica.sweep(1);
    assert_eq!(open_pins(&replica, "v1"), 0);
    replica.check_promises();
}

#[test]
fn a_restart_goes_where_every_rollback_since_would_have_sent_it() {
    for (last, bundle_id, state) in [
        (v1::InFlight::Restart, "v1", v1::RunState::Queued),
        (v1::InFlight::Keep, "v2", v1::RunState::Queued),
        (v1::InFlight::Cancel, "v3", v1::RunState::Cancelled),
    ] {
        let mut replica = cluster(&["v1", "v2", "v3"]);
        replica.must(switch(AGENT, "v2"));
        replica.must(switch(AGENT, "v3"));
        replica.must(Command::StartRun(start("run")));
        replica.must(rollback("v3", v1::InFlight::Restart));
        // No sweep comes by before the bundle that it would restart on is rolled back too.
        replica.must(switch(AGENT, "v1"));
        replica.must(switch(AGENT, "v2"));
        replica.must(rollback("v2", last));
        replica.sweep(1);
        let run = query::run(replica.read(), "", AGENT, "run").unwrap();
        assert_eq!((run.pin.clone().unwrap().bundle_id.as_str(), run.state()), (bundle_id, state));
        replica.check_promises();
    }
}

/// Found by the simulation: whether the run began anew depended on whether anything had touched it since the switch back.
#[test]
fn a_restart_begins_a_run_anew_whose_end_a_switch_back_took_away() {
    for (level, bundle_id, state) in
        [(1, "v1", v1::RunState::Cancelled), (2, "v2", v1::RunState::Queued)]
    {
        let mut replica = on(Replica::formed_at(level), &["v1", "v2"]);
        replica.must(Command::StartRun(start("run")));
        replica.must(switch(AGENT, "v2"));
        replica.now_ms += 10_000;
        lease(&mut replica, "run", "v1");
        replica.now_ms += 10_000;
        replica.sweep(1);
        let now = query::run(replica.read(), "", AGENT, "run").unwrap().state();
        assert_eq!(now, v1::RunState::Cancelling);
        replica.must(switch(AGENT, "v1"));
        replica.must(rollback("v1", v1::InFlight::Restart));
        replica.sweep(1);
        let run = query::run(replica.read(), "", AGENT, "run").unwrap();
        assert_eq!((run.pin.clone().unwrap().bundle_id.as_str(), run.state()), (bundle_id, state));
        replica.check_promises();
    }
}

#[test]
fn a_restart_begins_with_the_step_that_the_start_named() {
    let mut replica = cluster(&["v1", "v2"]);
    replica.must(switch(AGENT, "v2"));
    for (run_id, entry) in [("named", "other"), ("plain", "")] {
        replica.must(Command::StartRun(log::StartRun { entry: entry.to_owned(), ..start(run_id) }));
    }
    replica.must(rollback("v2", v1::InFlight::Restart));
    replica.sweep(1);
    let step = |run_id| query::run(replica.read(), "", AGENT, run_id).unwrap().current_step;
    assert_eq!((step("named").as_str(), step("plain").as_str()), ("other", "main"));
}

fn put(bundle_id: &str, value: &str, ttl_ms: u64) -> Command {
    let target = log::memory_target::Target::BundleId(bundle_id.to_owned());
    Command::PutMemory(log::PutMemory {
        agent: agent(AGENT),
        target: Some(log::MemoryTarget { target: Some(target) }),
        key: "key".to_owned(),
        value: Some(payload(value)),
        ttl_ms,
        expected_key_revision: None,
    })
}

#[test]
fn versions_of_two_layers_that_end_in_one_sweep_end_both() {
    let mut replica = cluster(&["v1", "v2"]);
    replica.must(put("v1", "one", 1_000));
    replica.must(switch(AGENT, "v2"));
    replica.must(put("v2", "two", 1_000));
    replica.now_ms += 1_000;
    replica.sweep(1);
    replica.now_ms += 1;
    replica.sweep(1);
    let revision = query::position(replica.read()).unwrap().revision;
    for bundle_id in ["v1", "v2"] {
        let scope = v1::MemoryScope { scope: Some(Scope::BundleId(bundle_id.to_owned())) };
        let get = |at| query::memory_get(replica.read(), "", AGENT, Some(&scope), "key", at);
        assert!(!get(0).unwrap().found, "{bundle_id}");
        // A read as of a revision knows no clock: it needs the deletion.
        assert!(!get(revision).unwrap().found, "{bundle_id} as of {revision}");
    }
    replica.check_promises();
}

#[test]
fn only_writes_behind_a_freeze_to_a_layer_that_is_not_live_are_late() {
    let mut replica = cluster(&["v1", "v2"]);
    let late = |replica: &Replica| {
        let row = Key::of(Kind::Layer, 1).u32(1).build();
        txn::get::<LayerRecord>(replica.read(), &row).unwrap().unwrap().late_writes
    };
    replica.must(put("v1", "in time", 0));
    replica.must(switch(AGENT, "v2"));
    replica.must(put("v1", "late", 0));
    assert_eq!(late(&replica), 1);
    replica.must(rollback("v2", v1::InFlight::Keep));
    replica.must(put("v1", "live again", 0));
    assert_eq!(late(&replica), 1);
}

#[test]
fn an_attempt_past_start_to_close_is_stale_before_any_sweep() {
    let mut replica = cluster(&["v1"]);
    replica.must(Command::StartRun(start("run")));
    let token = lease(&mut replica, "run", "v1");
    let hand_back = Command::HandBackStep(log::HandBackStep {
        step: Some(StepRef { agent: 1, run_id: "run".to_owned(), step: 1 }),
        token: Some(token),
        progress: None,
        usage: None,
    });
    replica.now_ms += 12_000;
    assert_eq!(reason(&replica.apply(hand_back)), Some("LEASE_STALE"));
    replica.sweep(1);
    let steps = query::steps(replica.read(), "", AGENT, "run", 0, "").unwrap().0;
    assert_eq!(steps[0].failure.clone().unwrap().reason, "START_TO_CLOSE");
    assert_eq!(steps[0].state(), v1::StepState::Backoff);
}
