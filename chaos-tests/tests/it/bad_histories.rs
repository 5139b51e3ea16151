//! The judge must reject each of these: one promise is broken in each, and nothing else.

use pinrail_chaos_tests::check::{Promise, Violation, judge};
use pinrail_chaos_tests::history::{
    Answer, Call, Fault, FaultKind, InFlight, Outcome, Scope, VersionFinal, WorkerEvent,
};

use crate::story::{self, AGENT, Story, began, completed, line, pin, put, start};

fn find(promise: Promise, word: &str, change: impl FnOnce(&mut Story)) {
    let mut story = story::good();
    change(&mut story);
    let verdict = judge(&story.evidence);
    let found = verdict.violations.iter().any(|it| it.promise == promise && it.what.contains(word));
    assert!(found, "{promise} with {word:?} was not found; instead: {:#?}", verdict.violations);
}

fn answer(story: &mut Story, which: impl Fn(&Call) -> bool, change: impl FnOnce(&mut Answer)) {
    match &mut story.entry(which).outcome {
        Outcome::Ok { answer, .. } => change(answer),
        other => panic!("the story's call has no answer: {other:?}"),
    }
}

fn is_start(run: &str) -> impl Fn(&Call) -> bool {
    move |call| matches!(call, Call::StartRun { run_id, .. } if run_id == run)
}

#[test]
fn the_good_story_passes() {
    let verdict = judge(&story::good().evidence);
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.harness, Vec::<String>::new());
    assert!(verdict.compared > 60, "only {} comparisons", verdict.compared);
}

#[test]
fn p1_step_executed_by_code_of_another_bundle() {
    find(Promise::P1, "executed by", |story| story.evidence.worker_log[0].code = "code-v2".into());
}

#[test]
fn p1_step_assigned_under_another_bundle() {
    find(Promise::P1, "was assigned as", |story| {
        story.evidence.worker_log[0].event = began("v2", &[]);
    });
}

#[test]
fn p1_lease_from_before_a_restart_is_obeyed() {
    find(Promise::P1, "was restarted", |story| {
        let run = story.run("b");
        run.restarts = 1;
        run.pin = pin("v1", 1, 3, 25);
    });
}

#[test]
fn p1_worker_executed_a_run_that_is_nowhere() {
    find(Promise::P1, "nobody knows", |story| {
        story.evidence.worker_log.push(line("ghost", 28, "code-v2", began("v2", &[])));
    });
}

#[test]
fn p2_acknowledged_run_is_lost() {
    find(Promise::P2, "is lost", |story| story.final_of().runs.retain(|run| run.run_id != "b"));
}

#[test]
fn p2_acknowledged_pin_changed() {
    find(Promise::P2, "was acknowledged with", |story| story.run("b").pin.layer = 1);
}

#[test]
fn p2_retried_start_got_another_pin() {
    find(Promise::P2, "two pins", |story| {
        let other = pin("v2", 2, 2, 23);
        story.ok(start("b"), 36, Answer::Started { pin: other, already: true });
    });
}

#[test]
fn p2_acknowledged_pin_is_not_found_later() {
    find(Promise::P2, "did not find", |story| {
        let (reason, message) = ("RUN_NOT_FOUND".to_owned(), String::new());
        let gone = Outcome::Rejected { reason, message };
        story.push(Call::LookupPin { run_id: "a".into() }, gone);
    });
}

#[test]
fn p2_acknowledged_memory_write_is_lost() {
    find(Promise::P2, "was acknowledged at revision 24", |story| {
        story.final_of().versions.retain(|version| version.revision != 24);
    });
}

#[test]
fn p2_acknowledged_worker_memory_write_is_lost() {
    find(Promise::P2, "w1: n", |story| {
        story.final_of().versions.retain(|version| version.key != "n");
    });
}

#[test]
fn p2_memory_holds_what_nobody_wrote() {
    find(Promise::P2, "nobody wrote", |story| {
        story.final_of().versions.push(VersionFinal {
            key: "k".into(),
            revision: 33,
            layer: 1,
            value: Some("z".into()),
            run_id: String::new(),
        });
    });
}

#[test]
fn p2_acknowledged_finish_is_overwritten() {
    find(Promise::P2, "was finished with", |story| story.run("e").output = "other".into());
}

#[test]
fn p2_two_finishes_win() {
    find(Promise::P2, "was finished twice", |story| {
        let finish = Call::FinishRun { run_id: "e".into(), output: "again".into() };
        story.ok(finish, 37, Answer::Ended { state: "completed".into(), already: false });
    });
}

#[test]
fn p2_acknowledged_route_change_is_lost() {
    find(Promise::P2, "in the end it is", |story| {
        story.final_of().epoch = 3;
        story.final_of().live_bundle_id = "v1".into();
    });
}

#[test]
fn p2_step_result_is_recorded_twice() {
    find(Promise::P2, "recorded 2 times", |story| {
        let log = &mut story.evidence.worker_log;
        log.push(line("a", 17, "code-v1", began("v1", &["found"])));
        log.push(line("a", 17, "code-v1", completed("a/1/17", 19)));
    });
}

#[test]
fn p2_acknowledged_step_result_is_lost() {
    find(Promise::P2, "result of step 1 of a was acknowledged", |story| {
        story.run("a").steps[0].state = "ready".into();
    });
}

#[test]
fn p2_another_result_was_recorded_than_acknowledged() {
    find(Promise::P2, "is not what was recorded", |story| {
        story.run("a").output = "by a/1/9".into()
    });
}

#[test]
fn p2_run_that_continues_another_is_lost() {
    find(Promise::P2, "was continued to \"d+1\", which is lost", |story| {
        story.final_of().runs.retain(|run| run.run_id != "d+1");
    });
}

#[test]
fn p2_continued_run_names_no_other() {
    find(Promise::P2, "was continued to \"\", which is lost", |story| {
        story.run("d").continued_to.clear();
    });
}

#[test]
fn p2_continued_run_moved_though_nobody_asked_for_it() {
    find(Promise::P2, "d was continued at revision 38", on_v2_until_it_is_continued);
}

/// The run's first pin is to a bundle that lost its traffic, the one of the run that continues it to the live one.
fn on_v2_until_it_is_continued(story: &mut Story) {
    story.run("d").pin = pin("v2", 2, 2, 36);
    let answer = Answer::Started { pin: pin("v2", 2, 2, 36), already: false };
    story.entry(is_start("d")).outcome = Outcome::Ok { revision: 36, answer };
    story.evidence.worker_log.retain(|line| line.run_id != "d");
}

#[test]
fn p2_run_continues_what_nobody_continued() {
    find(Promise::P2, "0 runs were continued to d+1", |story| {
        story.run("d").continued_to.clear();
    });
}

#[test]
fn p2_two_runs_are_continued_as_one() {
    find(Promise::P2, "2 runs were continued to d+1", |story| {
        story.run("a").continued_to = "d+1".into();
    });
}

#[test]
fn p2_run_that_was_continued_did_not_end_so() {
    find(Promise::P2, "d is completed and was continued", |story| {
        story.run("d").state = "completed".into();
    });
}

#[test]
fn p2_continued_run_got_a_pin_of_its_own() {
    find(Promise::P2, "d was continued at revision 38", |story| {
        story.run("d+1").pin.expires_at_ms += 1;
        story.run("d+1").pin.bundle_id = "v2".into();
    });
}

#[test]
fn p2_what_a_run_was_continued_with_is_lost() {
    find(Promise::P2, "result d/1/37 of step 1 of d is not", |story| {
        story.run("d+1").steps[0].input = "by d/1/9".into();
    });
}

#[test]
fn a_run_may_be_continued_on_the_bundle_that_is_live() {
    let mut story = story::good();
    on_v2_until_it_is_continued(&mut story);
    story.run("d+1").steps[0].input = "{\"by\":\"d/1/37\",\"moves\":true}".into();
    let verdict = judge(&story.evidence);
    let of_continued = |it: &&Violation| it.what.contains("continued");
    assert_eq!(verdict.violations.iter().filter(of_continued).count(), 0, "{verdict:#?}");
}

#[test]
fn p2_acknowledged_checkpoint_is_not_given_back() {
    find(Promise::P2, "checkpoint found", |story| {
        story.evidence.worker_log.push(line("a", 17, "code-v1", began("v1", &[])));
    });
}

#[test]
fn p2_stale_token_is_obeyed() {
    find(Promise::P2, "was obeyed at revision 19", |story| {
        story.evidence.worker_log.push(line("a", 17, "code-v1", began("v1", &["found"])));
    });
}

#[test]
fn p2_linearizable_read_is_older_than_an_acknowledged_write() {
    find(Promise::P2, "had been acknowledged before", |story| {
        story.ok(story::get("v2", "k"), 24, story::read("y", 24, 2));
    });
}

#[test]
fn p3_start_after_the_acknowledged_switch_lands_on_the_previous_bundle() {
    find(Promise::P3, "the switch to epoch 2", |story| {
        let old = pin("v1", 1, 1, 22);
        answer(story, is_start("b"), |answer| {
            *answer = Answer::Started { pin: old.clone(), already: false };
        });
        story.run("b").pin = old;
    });
}

#[test]
fn p3_route_read_after_the_switch_names_the_previous_bundle() {
    find(Promise::P3, "resolve route", |story| {
        let old = Answer::Route { bundle_id: "v1".into(), epoch: 3, changed_revision: 0 };
        story.ok(Call::ResolveRoute { local: false }, 36, old);
    });
}

#[test]
fn p3_pin_names_another_bundle_than_its_epoch_made_live() {
    find(Promise::P3, "which made v2 live", |story| {
        answer(story, is_start("b"), |answer| {
            if let Answer::Started { pin, .. } = answer {
                pin.bundle_id = "v1".into();
            }
        });
    });
}

#[test]
fn p3_one_epoch_stands_for_two_route_changes() {
    find(Promise::P3, "acknowledged twice", |story| {
        let answer = story::moved("v3", "v2", 4, 11_000);
        story.ok(Call::Switch { bundle_id: "v2".into() }, 36, answer);
    });
}

#[test]
fn p4_drain_ends_after_its_bound() {
    find(Promise::P4, "had to be over", |story| story.run("c").ended_at_ms = 13_500);
}

#[test]
fn p4_stuck_run_is_never_ended() {
    find(Promise::P4, "was open until", |story| {
        let run = story.run("c");
        (run.ended_at_ms, run.state, run.end_reason) = (0, "running".into(), String::new());
    });
}

#[test]
fn p4_drain_cap_ends_a_run_early() {
    find(Promise::P4, "and not after", |story| story.run("c").ended_at_ms = 9_999);
}

#[test]
fn p4_drain_bound_is_not_deadline_and_grace() {
    find(Promise::P4, "do not make", |story| {
        let to_v2 = |call: &Call| matches!(call, Call::Switch { bundle_id } if bundle_id == "v2");
        answer(story, to_v2, |answer| {
            if let Answer::Moved { drained_by_ms, .. } = answer {
                *drained_by_ms = 99_000;
            }
        });
    });
}

#[test]
fn p4_max_age_ends_a_run_early() {
    find(Promise::P4, "before its end", |story| {
        story.run("c").end_reason = "max_age".into();
    });
}

#[test]
fn p4_cluster_time_jumps_ahead() {
    find(Promise::P4, "jumped ahead", |story| {
        for revision in 36..44 {
            story.drain("v1", revision, 0, 12_000);
        }
        story.drain("v1", 44, 0, 14_000);
    });
}

#[test]
fn p5_drain_count_is_one_too_high() {
    find(Promise::P5, "says 2 open pins", |story| {
        story.drain("v1", 36, 2, 5_000);
    });
}

#[test]
fn p5_drain_is_called_over_with_an_open_pin() {
    find(Promise::P5, "called over", |story| {
        story.drain("v1", 36, 0, 5_000);
    });
}

#[test]
fn p7_rollback_takes_longer_than_a_second() {
    find(Promise::P7, "took 1500 ms", |story| {
        let entry = story.entry(|call| matches!(call, Call::Rollback { .. }));
        entry.invoked_us = entry.returned_us - 1_500_000;
    });
}

#[test]
fn p7_start_after_the_acknowledged_rollback_lands_on_the_bad_bundle() {
    find(Promise::P7, "the rollback to epoch 3", |story| {
        let bad = pin("v2", 2, 2, 32);
        answer(story, is_start("c"), |answer| {
            *answer = Answer::Started { pin: bad.clone(), already: false };
        });
        story.run("c").pin = bad;
    });
}

fn rollback_says(story: &mut Story, wanted: InFlight) {
    let is_rollback = |call: &Call| matches!(call, Call::Rollback { .. });
    let Call::Rollback { in_flight, .. } = &mut story.entry(is_rollback).call else {
        panic!("it was asked for");
    };
    *in_flight = wanted;
}

#[test]
fn p7_run_completes_after_a_rollback_that_cancels_it() {
    find(Promise::P7, "said Cancel", |story| {
        rollback_says(story, InFlight::Cancel);
        story.run("b").revision = 33;
    });
}

#[test]
fn p7_run_goes_on_after_a_rollback_that_restarts_it() {
    find(Promise::P7, "said Restart", |story| {
        rollback_says(story, InFlight::Restart);
        story.run("b").revision = 33;
    });
}

#[test]
fn p7_slow_rollback_during_a_fault_is_no_finding() {
    let mut story = story::good();
    let entry = story.entry(|call| matches!(call, Call::Rollback { .. }));
    entry.invoked_us = entry.returned_us - 1_500_000;
    let (from, to) = (entry.invoked_us, entry.returned_us);
    story.evidence.faults.push(Fault {
        kind: FaultKind::PauseFollower,
        nodes: vec![1],
        injected_us: from,
        effective_us: Some(from),
        healed_us: to,
    });
    // The entry now overlaps others, whose acknowledgements are no longer before it: that is allowed.
    let verdict = judge(&story.evidence);
    assert!(verdict.violations.iter().all(|it| it.promise != Promise::P7), "{verdict:#?}");
}

#[test]
fn p8_rolled_back_write_is_still_seen() {
    find(Promise::P8, "the layer shows", |story| {
        story.ok(put("q", "1"), 36, Answer::Wrote { key_revision: 36, layer: 3 });
        story.final_of().versions.push(VersionFinal {
            key: "q".into(),
            revision: 36,
            layer: 3,
            value: Some("1".into()),
            run_id: String::new(),
        });
        story.ok(story::get("v1", "k"), 37, story::read("y", 24, 2));
    });
}

#[test]
fn p8_new_layer_does_not_see_its_base() {
    find(Promise::P8, "saw None", |story| {
        let nothing = Answer::Read { version: None, layer: 3 };
        story.ok(story::get("v3", "k"), 36, nothing);
    });
}

#[test]
fn p8_late_write_to_a_frozen_base_is_seen_above_it() {
    find(Promise::P8, "the layer shows", |story| {
        let late = Call::PutMemory {
            scope: Scope::Bundle("v1".into()),
            key: "k".into(),
            value: Some("late".into()),
            expected: None,
        };
        story.ok(late, 36, Answer::Wrote { key_revision: 36, layer: 1 });
        story.final_of().versions.push(VersionFinal {
            key: "k".into(),
            revision: 36,
            layer: 1,
            value: Some("late".into()),
            run_id: String::new(),
        });
        story.ok(story::get("v3", "k"), 37, story::read("late", 36, 1));
    });
}

#[test]
fn p8_run_writes_outside_its_layer() {
    find(Promise::P8, "is pinned to layer", |story| story.final_of().versions[1].layer = 2);
}

#[test]
fn p8_read_as_of_a_revision_sees_a_later_version() {
    find(Promise::P8, "the layer shows", |story| {
        let as_of = Call::GetMemory {
            scope: Scope::Bundle("v2".into()),
            key: "k".into(),
            at_revision: 20,
            local: false,
        };
        story.ok(as_of, 36, story::read("y", 24, 2));
    });
}

#[test]
fn p8_conditional_write_ignores_its_condition() {
    find(Promise::P8, "on condition", |story| {
        let write = Call::PutMemory {
            scope: Scope::Bundle("v2".into()),
            key: "k".into(),
            value: Some("w".into()),
            expected: Some(14),
        };
        story.ok(write, 36, Answer::Wrote { key_revision: 36, layer: 2 });
        story.final_of().versions.push(VersionFinal {
            key: "k".into(),
            revision: 36,
            layer: 2,
            value: Some("w".into()),
            run_id: String::new(),
        });
    });
}

#[test]
fn p8_rollback_opens_another_layer_than_the_old_one() {
    find(Promise::P8, "our layer 0", |story| {
        let other = pin("v1", 7, 3, 32);
        answer(story, is_start("c"), |answer| {
            *answer = Answer::Started { pin: other.clone(), already: false };
        });
        story.run("c").pin = other;
    });
}

#[test]
fn rollback_to_another_bundle_than_the_one_before_is_found() {
    find(Promise::P3, "a rollback went", |story| {
        let answer = story::moved("v3", "v2", 5, 12_000);
        story.ok(
            Call::Rollback { from_bundle_id: "v3".into(), in_flight: InFlight::Keep },
            36,
            answer,
        );
    });
}

#[test]
fn fault_without_effect_is_the_harness_failing() {
    let mut story = story::good();
    story.evidence.faults.push(Fault {
        kind: FaultKind::KillLeader,
        nodes: vec![0],
        injected_us: 1,
        effective_us: None,
        healed_us: 2,
    });
    let verdict = judge(&story.evidence);
    assert!(verdict.violations.is_empty() && !verdict.passed(), "{verdict:#?}");
}

#[test]
fn write_of_unknown_fate_may_or_may_not_be_there() {
    for happened in [false, true] {
        let mut story = story::good();
        story.push(put("u", "1"), Outcome::Unknown { why: "timeout".into() });
        if happened {
            story.final_of().versions.push(VersionFinal {
                key: "u".into(),
                revision: 36,
                layer: 1,
                value: Some("1".into()),
                run_id: String::new(),
            });
        }
        assert_eq!(judge(&story.evidence).violations, [], "happened: {happened}");
    }
    // Another agent's evidence is not mixed in.
    assert_eq!(story::good().final_of().agent, AGENT);
    let refused = WorkerEvent::Refused { call: "complete".into(), reason: "LEASE_STALE".into() };
    let mut story = story::good();
    story.evidence.worker_log.push(line("a", 11, "code-v1", refused));
    assert_eq!(judge(&story.evidence).violations, []);
}
