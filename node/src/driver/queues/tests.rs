//! Whose turn it is, told as what becomes ready and who is free.

use super::*;

fn waiting(agent: u32, bundle: &str, run: &str, revision: u64) -> Waiting {
    Waiting {
        step: StepId { agent, run_id: run.into(), step: 1 },
        bundle_id: bundle.into(),
        name: "main".into(),
        attempt: 1,
        ready_revision: revision,
        rank: Rank { priority: 3, key: run.into(), prefers: String::new(), shadow: false },
        since: Instant::now(),
    }
}

fn free(queues: &mut Queues, agent: u32, bundle: &str, session: SessionId, slots: u32) {
    queues.set_free(agent, bundle, session, slots, &Arc::new(Profile::default()));
}

fn take_any(queues: &mut Queues) -> Option<Match> {
    queues.take(|_, _| Some(()), |(), _, _| true).map(|(next, ())| next)
}

fn drain(queues: &mut Queues) -> Vec<(u32, String, SessionId)> {
    std::iter::from_fn(|| take_any(queues))
        .map(|m| (m.waiting.step.agent, m.waiting.step.run_id, m.session))
        .collect()
}

#[test]
fn steps_leave_in_the_order_in_which_they_became_ready() {
    let mut queues = Queues::default();
    for (run, revision) in [("c", 3), ("a", 9), ("b", 1)] {
        queues.ready(waiting(1, "v1", run, revision));
    }
    free(&mut queues, 1, "v1", 7, 3);
    let runs: Vec<_> = drain(&mut queues).into_iter().map(|(_, run, _)| run).collect();
    assert_eq!(runs, ["b", "c", "a"]);
}

#[test]
fn a_bundle_without_workers_blocks_no_other() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "old", 1));
    queues.ready(waiting(1, "v2", "new", 2));
    free(&mut queues, 1, "v2", 7, 5);
    assert_eq!(drain(&mut queues), [(1, "new".to_owned(), 7)]);
    free(&mut queues, 1, "v1", 8, 1);
    assert_eq!(drain(&mut queues), [(1, "old".to_owned(), 8)]);
}

#[test]
fn a_step_goes_only_to_a_worker_of_its_bundle() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "r", 1));
    free(&mut queues, 1, "v2", 7, 5);
    free(&mut queues, 2, "v1", 8, 5);
    assert_eq!(drain(&mut queues), []);
}

#[test]
fn agents_take_turns_however_much_one_of_them_has() {
    let mut queues = Queues::default();
    for i in 0..100 {
        queues.ready(waiting(1, "v1", &format!("a{i:03}"), i));
    }
    queues.ready(waiting(2, "v1", "b", 200));
    queues.ready(waiting(3, "v1", "c", 201));
    for agent in 1..=3 {
        free(&mut queues, agent, "v1", u64::from(agent), 50);
    }
    let first: Vec<u32> =
        (0..3).filter_map(|_| take_any(&mut queues)).map(|m| m.waiting.step.agent).collect();
    assert_eq!(first, [1, 2, 3]);
}

#[test]
fn bundles_of_an_agent_take_turns() {
    let mut queues = Queues::default();
    for i in 0..4 {
        queues.ready(waiting(1, "v1", &format!("a{i}"), i));
        queues.ready(waiting(1, "v2", &format!("b{i}"), 10 + i));
    }
    free(&mut queues, 1, "v1", 1, 9);
    free(&mut queues, 1, "v2", 2, 9);
    let order: String = drain(&mut queues).iter().map(|(_, run, _)| &run[..1]).collect();
    assert_eq!(order, "abababab");
}

#[test]
fn the_worker_with_most_free_slots_is_next_and_none_gets_more_than_it_has() {
    let mut queues = Queues::default();
    for i in 0..9 {
        queues.ready(waiting(1, "v1", &format!("r{i}"), i));
    }
    free(&mut queues, 1, "v1", 1, 1);
    free(&mut queues, 1, "v1", 2, 4);
    let taken = drain(&mut queues);
    assert_eq!(taken.iter().filter(|(_, _, session)| *session == 1).count(), 1);
    assert_eq!(taken.iter().filter(|(_, _, session)| *session == 2).count(), 4);
    assert_eq!(taken[0].2, 2);
    assert_eq!(queues.depths().map(|(_, _, depth, _)| depth).sum::<usize>(), 4);
}

#[test]
fn a_step_goes_only_to_a_worker_that_serves_its_name() {
    let mut queues = Queues::default();
    let named = |name: &str, run: &str, revision| Waiting {
        name: name.into(),
        ..waiting(1, "v1", run, revision)
    };
    let serves = |name: &str| {
        Arc::new(Profile { serves: BTreeSet::from([name.to_owned()]), ..Profile::default() })
    };
    queues.ready(named("plan", "a", 1));
    queues.ready(named("answer", "b", 2));
    queues.ready(named("plan", "c", 3));
    queues.set_free(1, "v1", 7, 9, &serves("answer"));
    assert_eq!(drain(&mut queues), [(1, "b".to_owned(), 7)]);
    queues.set_free(1, "v1", 8, 2, &serves("plan"));
    assert_eq!(drain(&mut queues), [(1, "a".to_owned(), 8), (1, "c".to_owned(), 8)]);
    queues.ready(named("other", "d", 4));
    assert_eq!(drain(&mut queues), [], "nobody serves it");
    free(&mut queues, 1, "v1", 9, 1);
    assert_eq!(drain(&mut queues), [(1, "d".to_owned(), 9)], "who names no steps serves all");
}

#[test]
fn a_step_of_a_shadow_run_goes_only_to_a_worker_that_is_shadow_safe() {
    let mut queues = Queues::default();
    let shadow = |run: &str, revision| {
        let rank = Rank { shadow: true, ..waiting(1, "v1", run, revision).rank };
        Waiting { rank, ..waiting(1, "v1", run, revision) }
    };
    queues.ready(shadow("a", 1));
    queues.ready(waiting(1, "v1", "b", 2));
    queues.ready(shadow("c", 3));
    free(&mut queues, 1, "v1", 1, 9);
    assert_eq!(drain(&mut queues), [(1, "b".to_owned(), 1)], "the one behind it is not held up");
    let safe = Arc::new(Profile { shadow_safe: true, ..Profile::default() });
    queues.set_free(1, "v1", 2, 9, &safe);
    assert_eq!(drain(&mut queues), [(1, "a".to_owned(), 2), (1, "c".to_owned(), 2)]);
    queues.ready(shadow("d", 4));
    queues.set_free(1, "v1", 2, 0, &safe);
    assert_eq!(drain(&mut queues), [], "nobody who is shadow-safe is free");
    queues.ready(waiting(1, "v1", "e", 5));
    assert_eq!(drain(&mut queues), [(1, "e".to_owned(), 1)]);
}

#[test]
fn a_withdrawn_step_is_not_handed_out() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "r", 1));
    free(&mut queues, 1, "v1", 1, 1);
    let step = StepId { agent: 1, run_id: "r".into(), step: 1 };
    assert!(queues.withdraw(&step));
    assert!(!queues.withdraw(&step));
    assert_eq!(drain(&mut queues), []);
}

#[test]
fn a_step_that_is_ready_again_waits_once() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "r", 1));
    queues.ready(Waiting { attempt: 2, ..waiting(1, "v1", "r", 5) });
    free(&mut queues, 1, "v1", 1, 3);
    let taken = take_any(&mut queues).expect("it waits");
    assert_eq!((taken.waiting.attempt, taken.waiting.ready_revision), (2, 5));
    assert_eq!(take_any(&mut queues), None);
}

#[test]
fn a_refused_queue_keeps_its_steps_and_others_go_on() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "paused", 1));
    queues.ready(waiting(1, "v2", "a", 2));
    queues.ready(waiting(2, "v1", "b", 3));
    free(&mut queues, 1, "v1", 1, 1);
    free(&mut queues, 1, "v2", 2, 1);
    free(&mut queues, 2, "v1", 3, 1);
    let not_paused = |agent: u32, bundle: &str| ((agent, bundle) != (1, "v1")).then_some(());
    let runs: Vec<_> = std::iter::from_fn(|| queues.take(not_paused, |(), _, _| true))
        .map(|(m, ())| m.waiting.step.run_id)
        .collect();
    assert_eq!(runs, ["a", "b"]);
    assert_eq!(drain(&mut queues).len(), 1);
}

#[test]
fn forgetting_the_steps_keeps_the_slots() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "r", 1));
    free(&mut queues, 1, "v1", 1, 1);
    queues.clear_ready();
    assert_eq!(drain(&mut queues), []);
    queues.ready(waiting(1, "v1", "s", 2));
    assert_eq!(drain(&mut queues).len(), 1);
}

#[test]
fn nothing_is_left_of_queues_that_are_over() {
    let mut queues = Queues::default();
    queues.ready(waiting(1, "v1", "r", 1));
    free(&mut queues, 1, "v1", 1, 1);
    drain(&mut queues);
    assert!(queues.queues.is_empty() && queues.matchable.is_empty() && queues.places.is_empty());
}

fn ranked(run: &str, revision: u64, priority: u32, key: &str, prefers: &str) -> Waiting {
    let rank = Rank { priority, key: key.into(), prefers: prefers.into(), shadow: false };
    Waiting { rank, ..waiting(1, "v1", run, revision) }
}

fn order(queues: &mut Queues) -> Vec<String> {
    drain(queues).into_iter().map(|(_, run, _)| run).collect()
}

#[test]
fn the_more_urgent_step_is_first_however_long_others_wait() {
    let mut queues = Queues::default();
    for (run, revision, priority) in [("a", 1, 3), ("b", 2, 5), ("c", 3, 1), ("d", 4, 3)] {
        queues.ready(ranked(run, revision, priority, run, ""));
    }
    let profile = Profile::default();
    assert_eq!(queues.best_priority(1, "v1", &profile), Some(1));
    free(&mut queues, 1, "v1", 1, 9);
    assert_eq!(order(&mut queues), ["c", "a", "d", "b"]);
    assert_eq!(queues.best_priority(1, "v1", &profile), None);
}

#[test]
fn keys_take_turns_however_much_one_of_them_has() {
    let mut queues = Queues::default();
    for i in 0..100 {
        queues.ready(ranked(&format!("flood{i:02}"), i, 3, "flood", ""));
    }
    free(&mut queues, 1, "v1", 1, 50);
    let taken = |queues: &mut Queues| {
        let next = take_any(queues).expect("a step and a slot");
        next.waiting.rank.key
    };
    assert_eq!(taken(&mut queues), "flood");
    // Who comes later waits for one step of the flood at most, and two of them share what there is.
    queues.ready(ranked("late1", 200, 3, "late", ""));
    queues.ready(ranked("late2", 201, 3, "late", ""));
    queues.ready(ranked("other", 202, 3, "other", ""));
    let keys: Vec<String> = (0..6).map(|_| taken(&mut queues)).collect();
    assert_eq!(keys, ["late", "other", "flood", "late", "flood", "flood"]);
}

#[test]
fn a_key_without_room_holds_nobody_else_back() {
    let mut queues = Queues::default();
    for (run, revision, key) in [("a1", 1, "a"), ("a2", 2, "a"), ("b1", 3, "b")] {
        queues.ready(ranked(run, revision, 3, key, ""));
    }
    free(&mut queues, 1, "v1", 1, 9);
    let take = |queues: &mut Queues, full: &str| {
        let next = queues.take(|_, _| Some(()), |(), _, key| key != full)?.0;
        Some(next.waiting.step.run_id)
    };
    assert_eq!(take(&mut queues, "a").as_deref(), Some("b1"));
    assert_eq!(take(&mut queues, "a"), None);
    queues.ready(ranked("a0", 4, 3, "a", ""));
    assert_eq!(take(&mut queues, ""), None, "it is shut until it is opened");
    queues.reopen(1, "a");
    assert_eq!(take(&mut queues, "").as_deref(), Some("a1"));
    assert_eq!(take(&mut queues, "a"), None);
    queues.reopen_all(1);
    assert_eq!(order(&mut queues), ["a2", "a0"]);
    assert!(queues.shut.is_empty());
}

#[test]
fn a_run_goes_back_to_the_worker_that_had_it_if_that_is_free() {
    let mut queues = Queues::default();
    let worker = |id: &str| Arc::new(Profile { worker_id: id.into(), ..Profile::default() });
    queues.set_free(1, "v1", 1, 1, &worker("had-it"));
    queues.set_free(1, "v1", 2, 9, &worker("idle"));
    for run in ["a", "b"] {
        queues.ready(ranked(run, 1, 3, run, "had-it"));
    }
    let taken: Vec<_> = drain(&mut queues).into_iter().map(|(_, run, at)| (run, at)).collect();
    assert_eq!(taken, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
}

#[test]
fn an_idle_worker_is_one_that_serves_the_step_and_has_none_waiting() {
    let mut queues = Queues::default();
    assert!(!queues.has_idle());
    let serves = |names: &[&str]| {
        let serves = names.iter().map(|name| (*name).to_owned()).collect();
        Arc::new(Profile { worker_id: names.concat(), serves, ..Profile::default() })
    };
    queues.set_free(1, "v1", 7, 1, &serves(&["other"]));
    assert!(queues.has_idle());
    let main = waiting(1, "v1", "a", 0);
    assert_eq!(queues.idle(&main), None, "it has no handler for that");
    queues.set_free(1, "v1", 8, 1, &serves(&["main"]));
    assert_eq!(queues.idle(&main), Some(8));
    assert_eq!(queues.idle(&waiting(1, "v2", "a", 0)), None);
    queues.ready(waiting(1, "v1", "b", 5));
    assert_eq!(queues.idle(&main), None);
    let other = Waiting { name: "other".into(), ..waiting(1, "v1", "a", 0) };
    assert_eq!(queues.idle(&other), Some(7), "the one that waits is not for this worker");
    queues.set_free(1, "v1", 7, 0, &serves(&["other"]));
    queues.set_free(1, "v1", 8, 0, &serves(&["main"]));
    assert!(!queues.has_idle());
}
