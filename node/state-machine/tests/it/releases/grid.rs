//! The grid: every stage and state of a release, and every command in it.

use std::fmt::Write as _;
use std::path::Path;

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::v1::{self, DrillMode, DrillPart, Stage, Verdict};

use crate::replica::switch;

use super::world::{
    AGENT, SPAN_MS, World, abort, abort_drill, drill, drill_passes, extend, hold, promote, recycle,
    resume, rollback, start, turn,
};

type Build = fn() -> World;
type Ask = fn(&World) -> Command;

const SCENES: &[(&str, Build)] = &[
    ("no release", plain),
    ("smoke", smoke),
    ("smoke, past its time", || smoke().wait(SPAN_MS)),
    ("smoke, held by an operator", || smoke().with(hold())),
    ("evals", evals),
    ("evals, past its time", || evals().wait(SPAN_MS)),
    ("evals, failed and held", || held_by_failure(Verdict::Fail)),
    ("shadow", shadow),
    ("shadow, without data and held", || {
        let world = shadow().wait(SPAN_MS);
        let verdict = world.verdict(Verdict::InsufficientData);
        world.with(verdict)
    }),
    ("shadow, could not be judged and held", || {
        let world = shadow();
        let verdict = world.verdict(Verdict::Error);
        world.with(verdict)
    }),
    ("canary, first share", canary),
    ("canary, first share held long enough", || canary().wait(SPAN_MS)),
    ("canary, held by an operator", || canary().with(hold()).wait(SPAN_MS)),
    ("canary, last share", last_share),
    ("canary, last share held long enough", || last_share().wait(SPAN_MS)),
    ("waiting before the switch", || {
        let world = World::new(|policy| {
            policy.release.get_or_insert_default().hold_before = vec!["switch".to_owned()];
        });
        let world = world.with(start("v2")).passed().passed().passed().wait(SPAN_MS);
        let advance = world.advance();
        world.with(advance).wait(SPAN_MS).passed()
    }),
    ("quarantine", quarantine),
    ("quarantine, time over", || quarantine().wait(SPAN_MS)),
    ("quarantine with another release active", || quarantine().with(start("v3"))),
    ("recycle", recycling),
    ("quarantine, a drill is on a route of its own", || quarantine().with(drill(DrillMode::Route))),
    ("quarantine, a drill has turned the live route", || turned().wait(SPAN_MS)),
    ("recycled", || recycling().passed()),
    ("failed", || {
        let world = smoke();
        let verdict = world.verdict(Verdict::Fail);
        world.with(verdict)
    }),
    ("aborted", || smoke().with(abort())),
    ("rolled back out of the canary", || canary().with(rollback())),
    ("rolled back in quarantine", || quarantine().with(rollback())),
];

const ASKS: &[(&str, Ask)] = &[
    ("start v2", |_| start("v2")),
    ("start v3", |_| start("v3")),
    ("pass", |world| world.verdict(Verdict::Pass)),
    ("fail", |world| world.verdict(Verdict::Fail)),
    ("insufficient data", |world| world.verdict(Verdict::InsufficientData)),
    ("error", |world| world.verdict(Verdict::Error)),
    ("waits", |world| world.verdict(Verdict::Running)),
    ("skipped", |world| world.verdict(Verdict::Skipped)),
    ("pass of a later attempt", |world| match world.verdict(Verdict::Pass) {
        Command::RecordVerdict(mut it) => {
            it.attempt += 1;
            Command::RecordVerdict(it)
        }
        other => other,
    }),
    ("pass of another stage", |world| match world.verdict(Verdict::Pass) {
        Command::RecordVerdict(mut it) => {
            it.stage = it.stage % 6 + 1;
            Command::RecordVerdict(it)
        }
        other => other,
    }),
    ("advance", World::advance),
    ("hold", |_| hold()),
    ("resume", |_| resume()),
    ("promote", |_| promote(Stage::Unspecified)),
    ("promote to switch", |_| promote(Stage::Switch)),
    ("promote to recycle", |_| promote(Stage::Recycle)),
    ("abort", |_| abort()),
    ("switch v1", |_| switch(AGENT, "v1")),
    ("switch v2", |_| switch(AGENT, "v2")),
    ("switch v3", |_| switch(AGENT, "v3")),
    ("rollback", |_| rollback()),
    ("extend", |_| extend()),
    ("drill", |_| drill(DrillMode::Route)),
    ("drill on the live route", |_| drill(DrillMode::Live)),
    ("drill: prepared", |_| drill_passes(DrillPart::Prepare)),
    ("drill: turn", |_| turn(false)),
    ("drill: rolled back", |_| drill_passes(DrillPart::Rollback)),
    ("drill: turn back", |_| turn(true)),
    ("drill: abort", |_| abort_drill()),
    ("recycle v1", |_| recycle("v1")),
    ("recycle v2", |_| recycle("v2")),
];

fn plain() -> World {
    World::new(|_| {})
}

fn smoke() -> World {
    plain().with(start("v2"))
}

fn evals() -> World {
    smoke().passed()
}

fn shadow() -> World {
    evals().passed()
}

fn canary() -> World {
    shadow().passed()
}

fn last_share() -> World {
    let world = canary().wait(SPAN_MS);
    let advance = world.advance();
    world.with(advance)
}

fn quarantine() -> World {
    last_share().wait(SPAN_MS).passed()
}

fn turned() -> World {
    let world = quarantine().with(drill(DrillMode::Live));
    world.with(drill_passes(DrillPart::Prepare)).with(turn(false))
}

fn recycling() -> World {
    quarantine().wait(SPAN_MS).passed()
}

fn held_by_failure(verdict: Verdict) -> World {
    let world = World::new(|policy| {
        let hold = v1::OnGateFailure::Hold.into();
        policy.release.get_or_insert_default().on_gate_failure = hold;
    });
    let world = world.with(start("v2")).passed();
    let verdict = world.verdict(verdict);
    world.with(verdict)
}

#[test]
fn every_command_in_every_stage_has_its_verdict() {
    let mut is = String::new();
    for (name, build) in SCENES {
        let scene = build();
        scene.replica.check_promises();
        writeln!(is, "{name}: {}", scene.describe()).unwrap();
        for (command, ask) in ASKS {
            let mut fork = scene.clone();
            let applied = fork.replica.apply(ask(&scene));
            fork.replica.check_promises();
            writeln!(is, "    {command:<24} {}", fork.told(&applied)).unwrap();
        }
        is.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/releases.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &is).unwrap();
        return;
    }
    let was = std::fs::read_to_string(&path).unwrap();
    for (number, (was, is)) in was.lines().zip(is.lines()).enumerate() {
        assert_eq!(is, was, "line {}; UPDATE=1 writes the grid anew", number + 1);
    }
    assert_eq!(is.lines().count(), was.lines().count(), "the grid has another length");
}
