//! The search for an order of the calls must reject each of these, and accept what only looks strange.

use pinrail_chaos_tests::check::{Promise, Verdict, judge};
use pinrail_chaos_tests::history::{Answer, Call, Entry, Outcome, Scope, Version, VersionFinal};

use crate::story::{self, Story, get, put, read, start};

const LAYER: u64 = 3;
/// When the story is over, in microseconds.
const LATER_US: u64 = 20_000_000;

/// A call on the live bundle after the story, from one moment to another.
fn call(story: &mut Story, from: u64, to: u64, call: Call, outcome: Outcome) {
    story.push(call, outcome);
    let entry: &mut Entry = story.evidence.history.last_mut().expect("it was just pushed");
    (entry.invoked_us, entry.returned_us) = (LATER_US + from, LATER_US + to);
}

fn wrote(story: &mut Story, from: u64, to: u64, value: &str, revision: u64, key_revision: u64) {
    let answer = Answer::Wrote { key_revision, layer: LAYER };
    call(story, from, to, put("k", value), Outcome::Ok { revision, answer });
    is_there(story, value, key_revision);
}

fn is_there(story: &mut Story, value: &str, revision: u64) {
    let (key, value, run_id) = ("k".to_owned(), Some(value.to_owned()), String::new());
    let version = VersionFinal { key, revision, layer: LAYER, value, run_id };
    story.final_of().versions.push(version);
}

fn saw(story: &mut Story, from: u64, to: u64, value: &str, revision: u64, at: u64) {
    let answer = read(value, at, LAYER);
    call(story, from, to, get("", "k"), Outcome::Ok { revision, answer });
}

fn nobody_knows(story: &mut Story, from: u64, to: u64, what: Call) {
    call(story, from, to, what, Outcome::Unknown { why: "no answer".to_owned() });
}

fn swaps(story: &mut Story, from: u64, to: u64, value: &str, expected: u64, revision: u64) {
    let (scope, key) = (Scope::Bundle(String::new()), "k".to_owned());
    let (value_of, expected) = (Some(value.to_owned()), Some(expected));
    let swap = Call::PutMemory { scope, key, value: value_of, expected };
    let answer = Answer::Wrote { key_revision: revision, layer: LAYER };
    call(story, from, to, swap, Outcome::Ok { revision, answer });
    is_there(story, value, revision);
}

fn verdict(tell: impl FnOnce(&mut Story)) -> Verdict {
    let mut story = story::good();
    tell(&mut story);
    judge(&story.evidence)
}

/// No order explains what is said of it.
fn rejected(what: &str, tell: impl FnOnce(&mut Story)) -> Verdict {
    let verdict = verdict(tell);
    let is_it = |it: &pinrail_chaos_tests::check::Violation| {
        it.promise == Promise::P2 && it.what.contains("no order of its") && it.what.contains(what)
    };
    assert!(verdict.violations.iter().any(is_it), "{what}: {:#?}", verdict.violations);
    verdict
}

fn accepted(tell: impl FnOnce(&mut Story)) {
    let verdict = verdict(tell);
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.harness, Vec::<String>::new());
    assert_eq!(verdict.undecided, 0);
    assert!(verdict.decided > 5, "only {} registers", verdict.decided);
}

#[test]
fn a_stale_read_is_rejected_though_all_revisions_agree_with_it() {
    // `p` was acknowledged before `q` was asked for, and the server numbers them the other way round.
    let verdict = rejected("memory key k of layer 3", |story| {
        wrote(story, 0, 10, "p", 41, 42);
        wrote(story, 20, 30, "q", 42, 41);
        saw(story, 40, 50, "p", 43, 42);
    });
    let only = verdict.violations.iter().all(|it| it.what.contains("no order of its"));
    assert!(only, "nothing else sees it: {:#?}", verdict.violations);
}

#[test]
fn a_lost_update_is_rejected() {
    rejected("memory key k of layer 3", |story| {
        wrote(story, 0, 10, "p", 41, 41);
        wrote(story, 20, 30, "q", 42, 42);
        saw(story, 40, 50, "p", 42, 41);
        saw(story, 60, 70, "p", 42, 41);
    });
}

#[test]
fn two_swaps_from_one_version_are_rejected() {
    rejected("memory key k of layer 3", |story| {
        wrote(story, 0, 10, "p", 41, 41);
        swaps(story, 20, 50, "q", 41, 42);
        swaps(story, 20, 50, "r", 41, 43);
    });
}

#[test]
fn a_read_that_goes_back_is_rejected() {
    // Either of two writes at the same time may win, but not the one and then the other one.
    rejected("memory key k of layer 3", |story| {
        wrote(story, 0, 100, "p", 41, 41);
        wrote(story, 0, 100, "q", 42, 42);
        saw(story, 110, 120, "q", 43, 42);
        saw(story, 130, 140, "p", 43, 41);
    });
}

#[test]
fn what_shines_through_from_a_frozen_layer_does_not_change() {
    rejected("memory key n of layer 2", |story| {
        for (at, value, revision) in [(0, "m", 18), (20, "later", 36)] {
            let version = Some(Version { value: value.to_owned(), revision, layer: 1 });
            let answer = Answer::Read { version, layer: 2 };
            call(story, at, at + 10, get("v2", "n"), Outcome::Ok { revision: 37, answer });
        }
    });
}

#[test]
fn a_write_that_is_gone_in_the_end_is_rejected() {
    rejected("memory key k of layer 3", |story| {
        wrote(story, 0, 10, "p", 41, 41);
        wrote(story, 20, 30, "q", 42, 42);
        story.final_of().versions.retain(|version| version.revision != 42);
    });
}

#[test]
fn a_start_that_is_not_found_later_is_rejected() {
    rejected("the pin of a", |story| {
        let (reason, message) = ("RUN_NOT_FOUND".to_owned(), String::new());
        let gone = Outcome::Rejected { reason, message };
        call(story, 0, 10, Call::LookupPin { run_id: "a".into() }, gone);
    });
}

#[test]
fn a_run_that_is_started_anew_twice_is_rejected() {
    rejected("the pin of b", |story| {
        let answer = Answer::Started { pin: story::pin("v2", 2, 2, 22), already: false };
        call(story, 0, 10, start("b"), Outcome::Ok { revision: 44, answer });
    });
}

#[test]
fn writes_at_the_same_time_may_take_effect_in_any_order() {
    accepted(|story| {
        wrote(story, 0, 100, "p", 42, 42);
        wrote(story, 0, 100, "q", 41, 41);
        saw(story, 10, 20, "q", 41, 41);
        saw(story, 110, 120, "p", 42, 42);
    });
}

#[test]
fn a_write_of_unknown_fate_may_show_late() {
    accepted(|story| {
        wrote(story, 0, 10, "p", 41, 41);
        nobody_knows(story, 20, 30, put("k", "q"));
        saw(story, 40, 50, "p", 42, 41);
        is_there(story, "q", 43);
        saw(story, 60, 70, "q", 44, 43);
    });
}

#[test]
fn a_write_of_unknown_fate_may_never_happen() {
    accepted(|story| {
        wrote(story, 0, 10, "p", 41, 41);
        nobody_knows(story, 20, 30, put("k", "q"));
        saw(story, 40, 50, "p", 42, 41);
    });
}

#[test]
fn a_swap_goes_on_from_what_shines_through() {
    accepted(|story| {
        let version = Some(Version { value: "x".to_owned(), revision: 14, layer: 1 });
        let answer = Answer::Read { version, layer: LAYER };
        call(story, 0, 10, get("", "k"), Outcome::Ok { revision: 40, answer });
        swaps(story, 20, 30, "q", 14, 41);
        saw(story, 40, 50, "q", 42, 41);
    });
}
