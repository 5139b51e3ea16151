//! The judge must reject each of these: somebody who watched heard something else than what there is.

use pinrail_chaos_tests::check::{Promise, judge};
use pinrail_chaos_tests::history::{EventFinal, Watched};

use crate::story::{self, AGENT, Story};

fn event(kind: &str, revision: u64, run_id: &str) -> EventFinal {
    EventFinal { revision, index: 0, kind: kind.to_owned(), run_id: run_id.to_owned() }
}

/// The good story, with the events of its runs and of two route changes.
fn story() -> Story {
    let mut story = story::good();
    let mut events = vec![event("route.switched", 10, ""), event("route.switched", 20, "")];
    let runs = &story.final_of().runs;
    events.extend(runs.iter().map(|run| event("run.started", run.pin.revision, &run.run_id)));
    events.sort_by_key(|event| event.revision);
    story.final_of().events = events;
    story
}

/// Hears some answers, each with the revision up to which it says all.
fn heard(answers: &[(&[EventFinal], u64)]) -> Watched {
    let mut watched = Watched::of("w", AGENT);
    for (events, upto) in answers {
        watched.hear(events, *upto);
    }
    watched
}

fn find(word: &str, watched: impl FnOnce(&[EventFinal]) -> Watched) {
    let mut story = story();
    let events = story.final_of().events.clone();
    story.evidence.watched = vec![watched(&events)];
    rejected(word, &story);
}

fn rejected(word: &str, story: &Story) {
    let verdict = judge(&story.evidence);
    let found =
        verdict.violations.iter().any(|it| it.promise == Promise::P2 && it.what.contains(word));
    assert!(found, "{word:?} was not found; instead: {:#?}", verdict.violations);
}

#[test]
fn whoever_heard_all_of_it_in_pieces_passes() {
    let mut story = story();
    let events = story.final_of().events.clone();
    story.evidence.watched = vec![
        heard(&[(&events, 100)]),
        heard(&[(&events[..1], 11), (&[], 15), (&events[2..], 100)]),
        heard(&[(&events[..3], events[2].revision)]),
        heard(&[]),
    ];
    // The second one leaves an event out, and says that it heard all up to behind it: it is the one that is wrong.
    let verdict = judge(&story.evidence);
    assert_eq!(verdict.violations.len(), 1, "{:#?}", verdict.violations);
    story.evidence.watched.remove(1);
    assert_eq!(judge(&story.evidence).violations, []);
}

#[test]
fn an_event_that_nobody_sent() {
    find("which are not", |events| heard(&[(&events[..1], 10), (&events[2..], 100)]));
}

#[test]
fn the_last_event_is_missing_though_all_up_to_it_was_sent() {
    find("which are not", |events| heard(&[(&events[..events.len() - 1], 100)]));
}

#[test]
fn an_event_that_came_twice() {
    find("behind revision", |events| heard(&[(events, 100), (&events[events.len() - 1..], 101)]));
}

#[test]
fn an_event_that_came_again_after_a_resume() {
    find("behind revision", |events| heard(&[(&events[..2], 12), (&events[1..], 100)]));
}

#[test]
fn two_events_in_the_wrong_order() {
    find("behind revision", |events| {
        let mut events = events.to_vec();
        events.swap(0, 1);
        heard(&[(&events, 100)])
    });
}

#[test]
fn an_event_that_never_was() {
    find("which are not", |events| {
        let more = [events, &[event("run.started", 90, "ghost")]].concat();
        heard(&[(&more, 100)])
    });
}

#[test]
fn an_event_of_another_kind() {
    find("which are not", |events| {
        let mut events = events.to_vec();
        events[1].kind = "route.rolled_back".to_owned();
        heard(&[(&events, 100)])
    });
}

#[test]
fn a_revision_that_goes_back() {
    find("was told revision", |events| heard(&[(events, 100), (&[], 50)]));
}

#[test]
fn a_run_that_began_without_an_event() {
    let mut story = story();
    let (agent, run_id) = (story.final_of(), "a");
    agent.events.retain(|event| event.run_id != run_id);
    rejected("its event is of", &story);
}

#[test]
fn a_run_whose_event_is_of_another_revision() {
    let mut story = story();
    let event = story.final_of().events.iter_mut().find(|event| event.run_id == "b");
    event.expect("the story has it").revision += 1;
    rejected("its event is of", &story);
}
