//! The grid: what every command about a run comes to in every state that a run and its step can be in. Its
//! verdicts are `tests/golden/grid.txt`, one section a state; `UPDATE=1` writes it anew, and the difference is the
//! review. No sweep has run where a state says "unswept": what is over must be refused all the same.

mod ask;
mod scene;

use std::fmt::Write as _;
use std::path::Path;

use ask::ASKS;
use scene::{SCENES, Scene};

#[test]
fn every_command_in_every_state_has_its_verdict() {
    let mut is = String::new();
    for (name, build) in SCENES {
        let scene = build();
        scene.replica.check_promises();
        writeln!(is, "{name}: {}", scene.describe()).unwrap();
        for (command, ask) in ASKS {
            let Some(verdict) = verdict(&scene, *ask) else { continue };
            writeln!(is, "    {command:<18} {verdict}").unwrap();
        }
        is.push('\n');
    }
    expect_golden(&is);
}

/// Asks on a fork of the scene, so that each verdict stands for itself. `None`: the command makes no sense there.
fn verdict(scene: &Scene, ask: ask::Ask) -> Option<String> {
    let mut fork = scene.clone();
    let command = ask(&fork)?;
    let applied = fork.replica.apply(command);
    fork.replica.check_promises();
    Some(ask::told(&applied, &fork))
}

fn expect_golden(is: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/grid.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, is).unwrap();
        return;
    }
    let was = std::fs::read_to_string(&path).unwrap();
    let mut section = "";
    for (was, is) in was.lines().zip(is.lines()) {
        if !is.starts_with(' ') {
            section = is;
        }
        assert_eq!(is, was, "in {section:?}; UPDATE=1 writes the grid anew");
    }
    assert_eq!(is.lines().count(), was.lines().count(), "the grid has another length");
}
