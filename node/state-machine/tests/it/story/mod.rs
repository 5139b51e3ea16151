//! Golden scripts: stories of commands with what they answered, what happened and what was counted beneath.
//!
//! A reader needs no Rust: a line that begins with `>` is a command or a question, the indented lines under it
//! are what came of it. `UPDATE=1 cargo test -p pinrail-state-machine` writes them anew; the difference is the
//! review. Times are those of the cluster, counted from the story's beginning; `@7` is a revision.
//!
//! After every command every promise of `invariants` is checked. At its end each story is applied once more by a
//! machine that never flushes, and both must have come to the same state hash.

mod bounds;
mod command;
mod drift;
mod drill;
mod evals;
mod line;
mod outside;
mod question;
mod release;
mod script;
mod show;
mod signal;
mod world;

use std::path::{Path, PathBuf};

use script::Script;
use world::World;

/// One test for each script, so that a failing story has a name.
macro_rules! stories {
    ($($name:ident)*) => {
        $(#[test] fn $name() { tell(stringify!($name)); })*
        const ALL: &[&str] = &[$(stringify!($name)),*];
    };
}

stories! {
    first_switch
    start_and_lease
    switch_with_open_runs
    switch_back_and_forth
    switch_back_takes_a_warning_back
    rollback_moves_the_route_once
    rollback_keep
    rollback_cancel
    rollback_restart
    rollback_is_ambiguous
    rollback_marks_speak_of_older_runs
    drain_cap_ends_the_runs
    set_drain
    bundle_is_immutable
    bundle_manifest_rules
    paused_agent
    request_id_repeat
    expected_revision
    usage_comes_at_once
    usage_comes_with_the_end
    external_runs_expect_revisions
    repeats_are_what_was_asked
    rollback_behind_an_abort
    delayed_start_in_a_busy_session
    timers_move_along
    recycled_bundles_have_no_sessions
    released_anew_behind_its_drain
    continued_runs_obey
    checkpoints_stay_behind
    failed_canary_is_a_rollback
    delayed_runs_of_a_session
    memory_through_switch_and_rollback
    memory_promote_and_discard
    memory_versions_are_dropped
    memory_with_a_completion
    memory_of_runs_that_serve_no_user
    costs
    environments
    eval_sets_and_reports
    namespace_quotas
    events
    external_runs
    fan_out_and_join
    children
    kinds_of_runs
    continue_and_lease
    continue_as_new
    delayed_starts
    paused_run
    schedule_to_close
    traces
    progress
    ranks
    repin
    sessions
    release_to_the_end
    release_fails
    release_holds
    canary_and_rollback
    signals_count_runs
    signals_in_canary
    signals_behind_the_switch
    retry_by_hand
    waits_and_signals
    waits_obey_ends_and_rollbacks
    names_and_limits
    drift_of_schemas
    drift_of_runs
    delete_an_agent
    gate_hooks
    hooks
    callbacks
    audit
    drill_on_its_own_route
    drill_on_the_live_route
    drill_in_time
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

fn tell(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let told = Script::parse(&text).told_by(&mut World::new());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &told).unwrap();
        return;
    }
    let differs = text.lines().zip(told.lines()).position(|(old, new)| old != new);
    let at = differs.unwrap_or_else(|| text.lines().count().min(told.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
    assert!(
        text == told,
        "{} line {}\n  is:     {}\n  was:    {}\nUPDATE=1 writes the scripts anew",
        path.display(),
        at + 1,
        line(&told),
        line(&text),
    );
}

#[test]
fn every_script_is_told() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut told: Vec<&str> = ALL.to_vec();
    told.sort_unstable();
    assert_eq!(files, told);
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let told = Script::parse("> init\n    something else\n").told_by(&mut World::new());
    assert!(told.starts_with("> init\n    done @1\n"), "{told}");
}
