//! Random stories of releases: whatever comes in whatever order, every promise holds, and two replicas agree.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::{self};
use pinrail_proto::v1::{self, DrillMode, Stage, Verdict};
use pinrail_state_machine::store::MemoryStore;
use pinrail_state_machine::{Machine, query};
use proptest::prelude::*;

use crate::replica::{agent, batch, payload, switch};

use super::world::{
    AGENT, World, abort, abort_drill, drill, extend, hold, promote, recycle, resume, rollback,
    start,
};

/// One thing that somebody does; numbers stand for one of few bundles, stages or runs.
#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Start(u8),
    Verdict(u8),
    Advance,
    Hold,
    Resume,
    Promote { to: u8, force: bool },
    Abort,
    Switch { bundle: u8, force: bool },
    Rollback { from: u8 },
    Extend,
    Recycle(u8),
    Run { run: u8, session: u8 },
    Cancel(u8),
    Put { bundle: u8, key: u8 },
    Sweep,
    Drill(bool),
    DrillPart(bool),
    Turn(bool),
    AbortDrill,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..25_000_u64).prop_map(Op::Wait),
        3 => (1..=3_u8).prop_map(Op::Start),
        8 => (0..4_u8).prop_map(Op::Verdict),
        4 => Just(Op::Advance),
        1 => Just(Op::Hold),
        2 => Just(Op::Resume),
        2 => (0..=8_u8, any::<bool>()).prop_map(|(to, force)| Op::Promote { to, force }),
        1 => Just(Op::Abort),
        2 => (1..=3_u8, any::<bool>()).prop_map(|(bundle, force)| Op::Switch { bundle, force }),
        2 => (0..=3_u8).prop_map(|from| Op::Rollback { from }),
        1 => Just(Op::Extend),
        1 => (1..=3_u8).prop_map(Op::Recycle),
        6 => (0..20_u8, 0..4_u8).prop_map(|(run, session)| Op::Run { run, session }),
        2 => (0..20_u8).prop_map(Op::Cancel),
        3 => (1..=3_u8, 0..3_u8).prop_map(|(bundle, key)| Op::Put { bundle, key }),
        3 => Just(Op::Sweep),
        2 => any::<bool>().prop_map(Op::Drill),
        4 => prop::bool::weighted(0.9).prop_map(Op::DrillPart),
        2 => any::<bool>().prop_map(Op::Turn),
        1 => Just(Op::AbortDrill),
    ]
}

fn bundle(number: u8) -> String {
    format!("v{number}")
}

fn command(world: &World, op: &Op) -> Option<Command> {
    Some(match op {
        Op::Wait(_) | Op::Sweep => return None,
        Op::Start(number) => start(&bundle(*number)),
        Op::Verdict(number) => world.verdict(match number {
            0 | 1 => Verdict::Pass,
            2 => Verdict::InsufficientData,
            _ => Verdict::Fail,
        }),
        Op::Advance => world.advance(),
        Op::Hold => hold(),
        Op::Resume => resume(),
        Op::Promote { to, force } => {
            let to = Stage::try_from(i32::from(*to)).unwrap_or_default();
            match promote(to) {
                Command::PromoteRelease(mut it) => {
                    it.force = *force;
                    Command::PromoteRelease(it)
                }
                other => other,
            }
        }
        Op::Abort => abort(),
        Op::Drill(live) => drill(if *live { DrillMode::Live } else { DrillMode::Route }),
        Op::DrillPart(pass) => present_part(world, *pass)?,
        Op::Turn(back) => match present_part(world, true)? {
            Command::RecordDrill(it) => {
                Command::TurnRoute(log::TurnRoute { agent: 1, drill: it.drill, back: *back })
            }
            other => other,
        },
        Op::AbortDrill => abort_drill(),
        Op::Switch { bundle: number, force } => match switch(AGENT, &bundle(*number)) {
            Command::Switch(mut it) => {
                it.force = *force;
                Command::Switch(it)
            }
            other => other,
        },
        Op::Rollback { from } => match rollback() {
            Command::Rollback(mut it) if *from != 0 => {
                it.from_bundle_id = bundle(*from);
                Command::Rollback(it)
            }
            other => other,
        },
        Op::Extend => extend(),
        Op::Recycle(number) => recycle(&bundle(*number)),
        Op::Run { run, session } => Command::StartRun(log::StartRun {
            agent: agent(AGENT),
            run_id: format!("run-{run}"),
            input: Some(payload("input")),
            session: if *session == 0 { String::new() } else { format!("s{session}") },
            ..log::StartRun::default()
        }),
        Op::Cancel(run) => {
            Command::CancelRun(log::CancelRun { agent: agent(AGENT), run_id: format!("run-{run}") })
        }
        Op::Put { bundle: number, key } => Command::PutMemory(log::PutMemory {
            agent: agent(AGENT),
            target: Some(log::MemoryTarget { target: Some(Target::BundleId(bundle(*number))) }),
            key: format!("k{key}"),
            value: Some(payload("value")),
            ..log::PutMemory::default()
        }),
    })
}

/// The part of the newest drill that is under way.
fn present_part(world: &World, pass: bool) -> Option<Command> {
    let drill = query::drill(world.replica.read(), "", AGENT, "", world.replica.now_ms).ok()?;
    let part = drill.parts.last()?;
    Some(Command::RecordDrill(log::RecordDrill {
        agent: 1,
        drill: drill.drill_id.trim_start_matches('d').parse().ok()?,
        part: part.part,
        verdict: if pass { Verdict::Pass } else { Verdict::Fail }.into(),
        ..log::RecordDrill::default()
    }))
}

fn play(world: &mut World, op: &Op) {
    match (op, command(world, op)) {
        (Op::Wait(ms), _) => world.replica.now_ms += ms,
        (Op::Sweep, _) => world.replica.sweep(1),
        (_, Some(command)) => {
            world.replica.apply(command);
        }
        (_, None) => {}
    }
}

/// The drain that an abort began went on, and ended the runs of the next canary as they began.
#[test]
fn a_bundle_that_is_released_again_after_an_abort_is_not_drained_any_more() {
    let passed = [Op::Verdict(0), Op::Verdict(0), Op::Wait(0), Op::Verdict(0)];
    let again = [Op::Start(2), Op::Verdict(0), Op::Wait(14_510), Op::Verdict(0)];
    let canary = [Op::Wait(3_676), Op::Verdict(0), Op::Wait(1_814), Op::Sweep];
    let mut world = World::new(|_| {});
    let begins = [Op::Start(2), Op::Switch { bundle: 1, force: false }];
    let run =
        [Op::Abort].into_iter().chain(again).chain(canary).chain([Op::Run { run: 2, session: 0 }]);
    for op in begins.into_iter().chain(passed).chain(run) {
        play(&mut world, &op);
        world.replica.check_promises();
    }
    let run = query::run(world.replica.read(), "", AGENT, "run-2").unwrap();
    assert_eq!(run.kind(), v1::RunKind::Canary, "the story leads to a canary");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn releases_keep_every_promise(ops in prop::collection::vec(op(), 1..120), holds in any::<bool>()) {
        let mut world = World::new(|policy| {
            if holds {
                let hold = v1::OnGateFailure::Hold.into();
                policy.release.get_or_insert_default().on_gate_failure = hold;
            }
        });
        for op in &ops {
            play(&mut world, op);
            world.replica.check_promises();
        }
        // Another replica that applies the same log in one go comes to the same state.
        let store = MemoryStore::default();
        let mut machine = Machine::open(&store).unwrap();
        for (stamp_ms, command) in &world.replica.log {
            machine.apply_batch(&batch(*stamp_ms, vec![command.clone()])).unwrap();
        }
        let hash = machine.finish().cluster.state_hash;
        let mine = Machine::open(&world.replica.store).unwrap().finish().cluster.state_hash;
        prop_assert_eq!(hash, mine);
    }
}
