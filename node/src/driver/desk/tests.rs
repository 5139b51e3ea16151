//! The leader's memory, told as what workers and commands do to it.

use pinrail_proto::log;
use pinrail_state_machine::effect::Rank;
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::driver::drift::Tools;
use crate::driver::gates::{BLOCKED, Gate};
use crate::driver::queues::Match;
use crate::driver::session::{Introduction, Outgoing};

const TTL: Duration = Duration::from_secs(30);
const OPEN: Gate =
    Gate { paused: false, max_running: 100, max_running_per_key: 0, max_per_second: 0 };

fn intro(worker: &str, slots: u32) -> Introduction {
    Introduction {
        agent: 1,
        namespace: "default".into(),
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        worker_id: worker.into(),
        code: String::new(),
        verified: false,
        profile: std::sync::Arc::default(),
        slots,
        version: String::new(),
        node: "n0".into(),
        lease: TTL,
        heartbeat: TTL / 3,
    }
}

fn step(run: &str) -> StepId {
    StepId { agent: 1, run_id: run.into(), step: 1 }
}

fn rank(key: &str) -> Rank {
    Rank { priority: 3, key: key.into(), prefers: String::new(), shadow: false }
}

fn ready(run: &str, revision: u64) -> Effect {
    Effect::StepReady {
        step: step(run),
        bundle_id: "v1".into(),
        name: "main".into(),
        attempt: 1,
        ready_revision: revision,
        rank: rank(run),
    }
}

fn leased(run: &str, worker: &str, revision: u64) -> Effect {
    Effect::Leased {
        step: step(run),
        bundle_id: "v1".into(),
        attempt: 1,
        token: log::Token { incarnation: 7, revision },
        worker_id: worker.into(),
        lease_ms: 30_000,
        rank: rank(run),
    }
}

fn ended(run: &str, worker: &str, revision: u64) -> Effect {
    let token = log::Token { incarnation: 7, revision };
    Effect::LeaseEnded { step: step(run), token, worker_id: worker.into() }
}

fn token(revision: u64) -> Token {
    Token { incarnation: 7, revision }
}

fn held(run: &str, revision: u64) -> v1::HeldStep {
    v1::HeldStep { token: Some(token(revision).into()), run_id: run.into(), step: 1 }
}

fn next(outgoing: &mut Outgoing) -> Option<Message> {
    match outgoing.messages.try_recv() {
        Ok(response) => response.message,
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
    }
}

/// A desk with one worker that granted its slots.
fn desk(slots: u32) -> (Desk, SessionId, Outgoing, Instant) {
    let (mut desk, now) = (Desk::for_term(1), Instant::now());
    let (id, outgoing) = desk.open((intro("w", slots), Tools::default()), &[], now, 1);
    desk.credit(id, slots);
    (desk, id, outgoing, now)
}

fn runs(matches: &[Match]) -> Vec<&str> {
    matches.iter().map(|m| m.waiting.step.run_id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_ready_step_goes_to_a_free_slot_once() {
    let (mut desk, id, mut outgoing, now) = desk(2);
    assert_eq!(desk.effect(&ready("r", 1), now), Wake { assign: true, ..Wake::default() });
    let mut taken = desk.take(now, |_, _| Some(OPEN));
    assert_eq!(runs(&taken), ["r"]);
    assert!(desk.take(now, |_, _| Some(OPEN)).is_empty());
    assert!(desk.settle(taken.remove(0), Assigned::Leased(token(5)), now));
    let assignment = v1::Assignment { token: Some(token(5).into()), ..Default::default() };
    desk.send_assignment(id, assignment);
    assert!(matches!(next(&mut outgoing), Some(Message::Assignment(_))));
    desk.effect(&leased("r", "w", 5), now);
    assert_eq!(desk.leases.len(), 1, "the effect tells of the same lease");
    assert!(desk.look(now + Duration::from_secs(3)).is_empty(), "it was sent");
}

#[tokio::test(start_paused = true)]
async fn a_slot_comes_back_with_a_credit_and_not_before() {
    let (mut desk, id, _outgoing, now) = desk(1);
    desk.effect(&ready("a", 1), now);
    desk.effect(&ready("b", 2), now);
    let mut taken = desk.take(now, |_, _| Some(OPEN));
    assert_eq!(runs(&taken), ["a"]);
    assert!(desk.settle(taken.remove(0), Assigned::Leased(token(5)), now));
    desk.effect(&leased("a", "w", 5), now);
    desk.effect(&ended("a", "w", 5), now);
    assert!(desk.take(now, |_, _| Some(OPEN)).is_empty(), "the worker did not say that it is free");
    desk.credit(id, 1);
    assert_eq!(runs(&desk.take(now, |_, _| Some(OPEN))), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_assignment_gives_slot_and_step_back_as_its_reason_says() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    desk.effect(&ready("a", 1), now);
    let mut taken = desk.take(now, |_, _| Some(OPEN));
    assert!(!desk.settle(taken.remove(0), Assigned::NotNow, now));
    assert!(desk.take(now, |_, _| Some(OPEN)).is_empty(), "left alone for a moment");
    let later = now + BLOCKED;
    let mut taken = desk.take(later, |_, _| Some(OPEN));
    assert_eq!(runs(&taken), ["a"]);
    assert!(!desk.settle(taken.remove(0), Assigned::Undecided, later));
    let mut taken = desk.take(later, |_, _| Some(OPEN));
    assert_eq!(runs(&taken), ["a"]);
    assert!(!desk.settle(taken.remove(0), Assigned::Gone, later));
    assert!(desk.take(later, |_, _| Some(OPEN)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_paused_agent_gets_no_leases_until_it_changes() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    desk.effect(&ready("a", 1), now);
    let paused = Gate { paused: true, ..OPEN };
    assert!(desk.take(now, |_, _| Some(paused)).is_empty());
    assert!(desk.take(now, |_, _| Some(OPEN)).is_empty(), "the gate is remembered");
    desk.effect(&Effect::AgentChanged { agent: 1 }, now);
    assert_eq!(runs(&desk.take(now, |_, _| Some(OPEN))), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_steps_run_than_the_policy_allows() {
    let (mut desk, _id, _outgoing, now) = desk(8);
    for (run, revision) in [("a", 1), ("b", 2), ("c", 3)] {
        desk.effect(&ready(run, revision), now);
    }
    let gate = Gate { max_running: 2, ..OPEN };
    let mut taken = desk.take(now, |_, _| Some(gate));
    assert_eq!(runs(&taken), ["a", "b"]);
    for (revision, taken) in [(5, taken.remove(0)), (6, taken.remove(0))] {
        desk.settle(taken, Assigned::Leased(token(revision)), now);
    }
    assert!(desk.take(now, |_, _| Some(gate)).is_empty());
    desk.effect(&ended("a", "w", 5), now);
    assert_eq!(runs(&desk.take(now, |_, _| Some(gate))), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_agrees_keeps_the_leases() {
    let (mut desk, id, _outgoing, now) = desk(1);
    desk.effect(&leased("a", "w", 5), now);
    desk.leases.set_sent(token(5));
    let digest = desk.leases.digest(&(1, "w".to_owned()));
    let beat = v1::Heartbeat { held_digest: digest, ..Default::default() };
    let later = now + Duration::from_secs(29);
    desk.heartbeat(id, &beat, later, 1);
    assert!(desk.look(now + TTL).is_empty());
    assert_eq!(desk.look(later + TTL).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_its_worker_lacks_ends_after_the_grace() {
    let (mut desk, id, _outgoing, now) = desk(1);
    desk.effect(&leased("a", "w", 5), now);
    desk.leases.set_sent(token(5));
    let nothing =
        v1::Heartbeat { held_digest: Leases::empty_digest(), free_slots: 1, ..Default::default() };
    desk.heartbeat(id, &nothing, now + Duration::from_secs(1), 1);
    assert!(desk.look(now + Duration::from_secs(1)).is_empty(), "it may be on its way");
    let later = now + SENT_WITHIN;
    desk.heartbeat(id, &nothing, later, 1);
    assert_eq!(desk.look(later).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_state_does_not_know_is_taken_away() {
    let (mut desk, id, mut outgoing, now) = desk(1);
    desk.seen(9);
    let beat = |revision| v1::Heartbeat {
        held_digest: 1,
        held: vec![held("a", revision)],
        ..Default::default()
    };
    desk.heartbeat(id, &beat(10), now, 1);
    assert_eq!(next(&mut outgoing), None, "its effect is not here yet");
    desk.heartbeat(id, &beat(9), now, 1);
    let Some(Message::Cancel(cancel)) = next(&mut outgoing) else { panic!("no cancel") };
    assert!(cancel.lease_lost);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_keeps_what_it_holds_and_loses_the_rest() {
    let (mut desk, id, _outgoing, now) = desk(4);
    for (run, revision) in [("a", 5), ("b", 6)] {
        desk.effect(&leased(run, "w", revision), now);
        desk.leases.set_sent(token(revision));
    }
    desk.seen(6);
    desk.disconnected(id);
    assert!(desk.look(now + Duration::from_secs(5)).is_empty(), "it may come back");
    let later = now + Duration::from_secs(6);
    let (_, mut outgoing) =
        desk.open((intro("w", 4), Tools::default()), &[held("a", 5), held("z", 2)], later, 1);
    let over: Vec<_> = desk.look(later).into_iter().map(|(token, _)| token).collect();
    assert_eq!(over, [token(6)]);
    let Some(Message::Cancel(cancel)) = next(&mut outgoing) else { panic!("no cancel") };
    assert_eq!(cancel.run_id, "z");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_worker_caused_is_no_news_to_it() {
    let (mut desk, _id, mut outgoing, now) = desk(2);
    for (run, revision) in [("a", 5), ("b", 6)] {
        desk.effect(&leased(run, "w", revision), now);
    }
    desk.leases.set_ending(token(5), true);
    desk.effect(&ended("a", "w", 5), now);
    assert_eq!(next(&mut outgoing), None);
    desk.effect(&ended("b", "w", 6), now);
    let Some(Message::Cancel(cancel)) = next(&mut outgoing) else { panic!("no cancel") };
    assert!(cancel.lease_lost && cancel.run_id == "b");
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_never_left_ends() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    desk.effect(&leased("a", "w", 5), now);
    assert!(desk.look(now + Duration::from_secs(1)).is_empty());
    assert_eq!(desk.look(now + SENT_WITHIN).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ended_before_its_answer_came_is_not_sent() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    desk.effect(&ready("a", 1), now);
    let mut taken = desk.take(now, |_, _| Some(OPEN));
    desk.effect(&leased("a", "w", 5), now);
    desk.effect(&ended("a", "w", 5), now);
    desk.seen(6);
    assert!(!desk.settle(taken.remove(0), Assigned::Leased(token(5)), now));
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_forgotten_and_its_steps_go_to_others() {
    let (mut desk, _id, outgoing, now) = desk(1);
    let silent = now + TTL + Duration::from_secs(1);
    desk.look(silent);
    assert_eq!(outgoing.end.get(), Some(&SessionEnd::Silent));
    assert_eq!(desk.sessions().count(), 0);
    desk.effect(&ready("a", 1), silent);
    assert!(desk.take(silent, |_, _| Some(OPEN)).is_empty());
    let (id, _other) = desk.open((intro("x", 1), Tools::default()), &[], silent, 1);
    desk.credit(id, 1);
    assert_eq!(runs(&desk.take(silent, |_, _| Some(OPEN))), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_the_leader_costs_nobody_anything() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    desk.effect(&leased("a", "w", 5), now);
    desk.leases.set_sent(token(5));
    desk.forgive(Duration::from_secs(60));
    assert!(desk.look(now + Duration::from_secs(60) + TTL - Duration::from_millis(1)).is_empty());
    assert_eq!(desk.sessions().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn reading_everything_again_keeps_slots_and_running_deadlines() {
    let (mut desk, _id, _outgoing, now) = desk(2);
    desk.effect(&leased("a", "w", 5), now);
    desk.effect(&ready("lost", 6), now);
    let later = now + Duration::from_secs(20);
    let before = desk.forget_state();
    desk.effect(&ready("b", 7), later);
    desk.inherited(token(5), Lease::new(&step("a"), "v1", "w", &rank("a"), TTL, later));
    desk.remember(&before);
    assert_eq!(desk.look(now + TTL).len(), 1, "its deadline ran on");
    assert_eq!(runs(&desk.take(later, |_, _| Some(OPEN))), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_is_told_and_gets_nothing_more() {
    let (mut desk, id, mut outgoing, now) = desk(1);
    let worker = desk.drain("default", "support", "w", now).expect("it is connected");
    assert_eq!(worker.state, i32::from(v1::WorkerState::Draining));
    assert!(matches!(next(&mut outgoing), Some(Message::Drain(_))));
    desk.credit(id, 1);
    desk.effect(&ready("a", 1), now);
    assert!(desk.take(now, |_, _| Some(OPEN)).is_empty());
    assert_eq!(desk.drain("default", "support", "nobody", now), None);
}

#[tokio::test(start_paused = true)]
async fn no_more_steps_of_a_key_run_than_the_policy_allows() {
    let (mut desk, id, _outgoing, now) = desk(8);
    let of = |run: &str, revision, key: &str| match ready(run, revision) {
        Effect::StepReady { step, bundle_id, name, attempt, ready_revision, rank: _ } => {
            let rank = rank(key);
            Effect::StepReady { step, bundle_id, name, attempt, ready_revision, rank }
        }
        other => other,
    };
    for (run, revision, key) in [("a", 1, "k"), ("b", 2, "k"), ("c", 3, "k"), ("d", 4, "l")] {
        desk.effect(&of(run, revision, key), now);
    }
    let gate = Gate { max_running_per_key: 1, ..OPEN };
    let mut taken = desk.take(now, |_, _| Some(gate));
    assert_eq!(runs(&taken), ["a", "d"], "those on their way count");
    desk.settle(taken.remove(0), Assigned::Leased(token(5)), now);
    assert!(desk.take(now, |_, _| Some(gate)).is_empty());
    // The effect of the same lease is no second one.
    let mut effect = leased("a", "w", 5);
    if let Effect::Leased { rank: of, .. } = &mut effect {
        *of = rank("k");
    }
    desk.effect(&effect, now);
    desk.effect(&ended("a", "w", 5), now);
    desk.credit(id, 1);
    let mut taken = desk.take(now, |_, _| Some(gate));
    assert_eq!(runs(&taken), ["b"]);
    desk.settle(taken.remove(0), Assigned::Gone, now);
    assert_eq!(runs(&desk.take(now, |_, _| Some(gate))), ["c"], "what came to nothing makes room");
}

#[tokio::test(start_paused = true)]
async fn no_more_steps_go_out_in_a_second_than_the_policy_allows() {
    let (mut desk, _id, _outgoing, now) = desk(99);
    for number in 0..50 {
        desk.effect(&ready(&format!("{number:02}"), number), now);
    }
    let gate = Gate { max_per_second: 20, ..OPEN };
    let first = desk.take(now, |_, _| Some(gate));
    assert_eq!(first.len(), 3, "a tenth of a second's worth and one");
    assert_eq!(desk.look_again_in(now, BLOCKED), Duration::from_millis(50));
    let (mut at, mut out) = (now, 3);
    while at < now + Duration::from_secs(1) {
        at += desk.look_again_in(at, BLOCKED);
        out += desk.take(at, |_, _| Some(gate)).len();
    }
    assert_eq!(out, 20 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_goes_on_with_a_run_unless_something_more_urgent_waits() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    let mut effect = leased("a", "w", 5);
    if let Effect::Leased { rank: of, .. } = &mut effect {
        of.priority = 3;
    }
    desk.effect(&effect, now);
    let who = intro("w", 1);
    assert!(desk.may_go_on(&who, token(5)));
    desk.effect(&ready("same", 6), now);
    assert!(desk.may_go_on(&who, token(5)), "others of its priority wait for a slot of their own");
    let mut urgent = ready("urgent", 7);
    if let Effect::StepReady { rank: of, .. } = &mut urgent {
        of.priority = 1;
    }
    desk.effect(&urgent, now);
    assert!(!desk.may_go_on(&who, token(5)));
}

fn coming(run: &str, key: &str) -> Waiting {
    Waiting {
        step: step(run),
        bundle_id: "v1".into(),
        name: "main".into(),
        attempt: 1,
        ready_revision: 0,
        rank: rank(key),
        since: Instant::now(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_about_to_start_takes_a_slot_and_gives_it_back_unless_it_got_the_lease() {
    let (mut desk, _id, _outgoing, now) = desk(1);
    let taken = desk.reserve(coming("a", "a"), now, |_, _| Some(OPEN)).expect("a worker waits");
    assert_eq!(desk.reserve(coming("b", "b"), now, |_, _| Some(OPEN)), None, "its slot is taken");
    desk.effect(&ready("c", 1), now);
    assert!(desk.take(now, |_, _| Some(OPEN)).is_empty());
    assert!(!desk.settle(taken, Assigned::Gone, now), "another bundle, say, or nobody knows");
    assert_eq!(runs(&desk.take(now, |_, _| Some(OPEN))), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_came_with_a_lease_is_one_lease() {
    let (mut desk, id, _outgoing, now) = desk(2);
    let taken = desk.reserve(coming("a", "a"), now, |_, _| Some(OPEN)).expect("a worker waits");
    desk.effect(&leased("a", "w", 5), now);
    desk.seen(5);
    assert!(desk.settle(taken, Assigned::Leased(token(5)), now));
    assert_eq!(desk.leases.len(), 1);
    let taken = desk.reserve(coming("b", "b"), now, |_, _| Some(OPEN)).expect("one slot is left");
    assert!(desk.settle(taken, Assigned::Leased(token(6)), now));
    assert_eq!(desk.reserve(coming("c", "c"), now, |_, _| Some(OPEN)), None);
    desk.reported(token(5));
    desk.credit(id, 1);
    assert!(desk.reserve(coming("c", "c"), now, |_, _| Some(OPEN)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_about_to_start_passes_nothing_that_waits() {
    let (mut desk, _id, _outgoing, now) = desk(2);
    desk.effect(&ready("first", 1), now);
    assert_eq!(desk.reserve(coming("a", "a"), now, |_, _| Some(OPEN)), None);
    let mut urgent = coming("b", "b");
    urgent.rank.priority = 1;
    assert!(desk.reserve(urgent, now, |_, _| Some(OPEN)).is_some(), "what is less urgent waits");
    assert_eq!(runs(&desk.take(now, |_, _| Some(OPEN))), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_about_to_start_goes_by_the_limits_of_its_agent() {
    let (mut desk, _id, _outgoing, now) = desk(9);
    let paused = Gate { paused: true, ..OPEN };
    assert_eq!(desk.reserve(coming("a", "k"), now, |_, _| Some(paused)), None);
    desk.effect(&Effect::AgentChanged { agent: 1 }, now);
    let gate = Gate { max_running: 3, max_running_per_key: 2, ..OPEN };
    let first = desk.reserve(coming("a", "k"), now, |_, _| Some(gate)).expect("there is room");
    assert!(desk.reserve(coming("b", "k"), now, |_, _| Some(gate)).is_some());
    assert_eq!(desk.reserve(coming("c", "k"), now, |_, _| Some(gate)), None, "of the key");
    assert!(desk.reserve(coming("d", "l"), now, |_, _| Some(gate)).is_some());
    assert_eq!(desk.reserve(coming("e", "m"), now, |_, _| Some(gate)), None, "of the agent");
    desk.settle(first, Assigned::Gone, now);
    assert!(desk.reserve(coming("c", "k"), now, |_, _| Some(gate)).is_some());
    desk.effect(&Effect::AgentChanged { agent: 1 }, now);
    let gate = Gate { max_per_second: 20, ..OPEN };
    let of = |number: u32| coming(&number.to_string(), &number.to_string());
    let out = (0..9).filter(|n| desk.reserve(of(*n), now, |_, _| Some(gate)).is_some()).count();
    assert_eq!(out, 3, "a tenth of a second's worth and one");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_term_took_is_nothing_to_the_next() {
    let (mut before, _id, _outgoing, now) = desk(1);
    let old = before.reserve(coming("a", "k"), now, |_, _| Some(OPEN)).expect("a worker waits");
    let mut desk = Desk::for_term(2);
    let (id, _outgoing) = desk.open((intro("w", 2), Tools::default()), &[], now, 1);
    desk.credit(id, 2);
    let gate = Gate { max_running_per_key: 1, ..OPEN };
    let own = desk.reserve(coming("b", "k"), now, |_, _| Some(gate)).expect("a worker waits");
    assert!(!desk.settle(old.clone(), Assigned::Leased(token(5)), now));
    assert!(!desk.settle(old, Assigned::Gone, now));
    assert_eq!(
        desk.reserve(coming("c", "k"), now, |_, _| Some(gate)),
        None,
        "its own still counts"
    );
    desk.settle(own, Assigned::Gone, now);
    assert!(desk.reserve(coming("c", "k"), now, |_, _| Some(gate)).is_some());
}
