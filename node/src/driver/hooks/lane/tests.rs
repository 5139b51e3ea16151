//! The lane of one hook, without a cluster.

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn head(revision: u64) -> EventHead {
    EventHead {
        place: Place { revision, index: 0 },
        namespace: "default".to_owned(),
        agent_id: "support".to_owned(),
        type_: "route.switched".to_owned(),
        at_ms: NOW,
        callback: String::new(),
    }
}

fn hooked(cursor: u64) -> Hooked {
    Hooked {
        namespace: "default".to_owned(),
        agent_id: "support".to_owned(),
        hook: v1::Hook {
            name: "pager".to_owned(),
            events: vec!["route.*".to_owned()],
            ..v1::Hook::default()
        },
        cursor,
        pending: Vec::new(),
        over: Vec::new(),
    }
}

fn lane(revisions: std::ops::RangeInclusive<u64>) -> Lane {
    let mut lane = Lane::new(hooked(0));
    let upto = *revisions.end();
    lane.offer(&revisions.map(head).collect::<Vec<_>>(), upto);
    lane
}

fn failed() -> Outcome {
    Outcome::Failed { status: 503, error: "busy".to_owned(), again_ms: None }
}

fn place(revision: u64) -> Place {
    Place { revision, index: 0 }
}

#[test]
fn a_few_at_once_and_the_cursor_waits_for_the_first() {
    let mut lane = lane(1..=6);
    let started: Vec<_> = std::iter::from_fn(|| lane.next(NOW)).map(|it| it.place).collect();
    assert_eq!(started, (1..=4).map(place).collect::<Vec<_>>());
    lane.landed(place(2), Outcome::Delivered { status: 200 }, NOW);
    let batch = lane.take_batch(false).expect("a result is there");
    assert_eq!((batch.cursor, batch.results.len()), (0, 1), "1 is still on its way");
    lane.recorded(true);
    lane.landed(place(1), failed(), NOW);
    let batch = lane.take_batch(false).expect("a result is there");
    assert_eq!(batch.cursor, 2, "1 is a pending row from here on");
    assert_eq!(batch.results[0].state(), DeliveryState::Pending);
    lane.recorded(true);
    assert!(lane.take_batch(false).is_none());
}

#[test]
fn a_batch_that_was_not_recorded_comes_again() {
    let mut lane = lane(1..=2);
    while lane.next(NOW).is_some() {}
    lane.landed(place(1), Outcome::Delivered { status: 200 }, NOW);
    let first = lane.take_batch(false).expect("a result");
    lane.landed(place(2), Outcome::Delivered { status: 200 }, NOW);
    assert!(lane.take_batch(false).is_none(), "one batch at a time");
    lane.recorded(false);
    let again = lane.take_batch(false).expect("both results");
    assert_eq!(again.results[0], first.results[0]);
    assert_eq!((again.results.len(), again.cursor), (2, 2));
}

#[test]
fn attempts_back_off_and_end_after_a_day() {
    let mut lane = lane(1..=1);
    let (mut now, mut waits) = (NOW, Vec::new());
    loop {
        let delivery = lane.next(now).expect("it is due");
        match lane.landed(delivery.place, failed(), now) {
            Some(DeliveryState::Pending) => {}
            state => break assert_eq!(state, Some(DeliveryState::Dead)),
        }
        assert!(lane.next(now).is_none(), "not before its turn");
        let due = lane.next_due_ms().expect("it waits");
        waits.push(due - now);
        now = due;
    }
    assert_eq!(now, NOW + HOOK_RETRY_MS, "the last attempt is at the end of the day");
    assert!(waits.windows(2).take(8).all(|two| two[1] >= two[0] * 3 / 2), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= LONGEST_MS));
    assert!((200..500).contains(&waits.len()), "{}", waits.len());
    assert_eq!(lane.backlog(), (0, None));
}

#[test]
fn a_receiver_may_ask_for_more_time() {
    let mut lane = lane(1..=1);
    lane.next(NOW);
    let again_ms = Some(120_000);
    let busy = Outcome::Failed { status: 429, error: "slow down".to_owned(), again_ms };
    lane.landed(place(1), busy, NOW);
    assert_eq!(lane.next_due_ms(), Some(NOW + 120_000));
}

#[test]
fn a_full_lane_leaves_the_rest_to_the_stream() {
    let mut lane = lane(1..=1_000);
    assert!(!lane.has_room());
    assert_eq!(lane.scanned(), FRESH as u64);
    let mut now = NOW;
    // All fail: it takes in more until it is clogged, and holds no more than that.
    for _ in 0..10_000 {
        if lane.has_room() {
            let from = lane.scanned();
            lane.offer(&(from + 1..=from + 500).map(head).collect::<Vec<_>>(), from + 500);
        }
        match lane.next(now) {
            Some(delivery) => _ = lane.landed(delivery.place, failed(), now),
            None => now = lane.next_due_ms().unwrap_or(now),
        }
        if lane.take_batch(false).is_some() {
            lane.recorded(true);
        }
        assert!(lane.backlog().0 <= HOOK_PENDING + FRESH, "{:?}", lane.backlog());
    }
    assert!(lane.is_clogged());
    assert!(lane.cursor() < lane.scanned());
}

#[test]
fn what_is_older_than_a_day_is_dead_at_once() {
    let mut lane = lane(1..=300);
    assert!(lane.next(NOW + HOOK_RETRY_MS).is_none());
    let batch = lane.take_batch(false).expect("they are told");
    assert_eq!(batch.results.len(), HOOK_RESULTS);
    assert!(batch.results.iter().all(|it| it.state() == DeliveryState::Dead));
    assert_eq!((batch.results[0].attempts, batch.cursor), (0, HOOK_RESULTS as u64));
}

#[test]
fn another_leader_goes_on_with_what_is_recorded() {
    let row = pinrail_proto::log::DeliveryRecord {
        attempts: 3,
        next_ms: NOW + 10,
        until_ms: NOW + HOOK_RETRY_MS,
        ..Default::default()
    };
    let state = Hooked { pending: vec![(place(2), row)], over: vec![place(5)], ..hooked(3) };
    let mut lane = Lane::new(state);
    lane.offer(&(1..=6).map(head).collect::<Vec<_>>(), 6);
    let started: Vec<_> =
        std::iter::from_fn(|| lane.next(NOW + 10)).map(|it| it.place.revision).collect();
    assert_eq!(started, [2, 4, 6], "1 and 3 are over, 5 was delivered before 4 was");
}

#[test]
fn what_somebody_sends_again_is_tried_at_once() {
    let mut lane = lane(1..=1);
    lane.next(NOW);
    lane.landed(place(1), failed(), NOW);
    let row = |next_ms, until_ms| pinrail_proto::log::DeliveryRecord {
        attempts: 1,
        next_ms,
        until_ms,
        ..Default::default()
    };
    let until_ms = NOW + HOOK_RETRY_MS;
    lane.refresh(Hooked { pending: vec![(place(1), row(0, until_ms))], ..hooked(0) });
    assert!(lane.next(NOW + 1).is_none(), "the row is older than what the lane knows");
    lane.take_batch(false);
    lane.recorded(true);
    lane.refresh(Hooked { pending: vec![(place(1), row(NOW, until_ms + 1))], ..hooked(0) });
    assert_eq!(lane.next(NOW + 1).map(|it| it.attempts), Some(1));
}

#[test]
fn only_the_cursor_is_recorded_now_and_then() {
    let mut lane = Lane::new(hooked(0));
    lane.offer(&[], IDLE_REVISIONS - 1);
    assert!(lane.take_batch(true).is_none());
    lane.offer(&[], IDLE_REVISIONS);
    assert!(lane.take_batch(false).is_none());
    assert_eq!(lane.take_batch(true).map(|it| it.cursor), Some(IDLE_REVISIONS));
}
