//! Random stories: whatever clients, workers, operators and the clock do, in whatever order, the promises hold,
//! replicas agree, and what is delivered twice is done once.
//!
//! Seeds are fixed, so that a failure is everybody's; `PROPTEST_RNG_SEED=7 PROPTEST_CASES=10000` looks further.

mod history;
mod op;
mod pins;
mod player;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1;
use pinrail_state_machine::key::{Key, Kind, RowKey};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::store::MemoryStore;
use pinrail_state_machine::{Machine, query};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::replica::{batch, reason};

use history::History;
use op::{Op, story};
use pins::Keeper;
use player::Player;

/// Longest story, in operations.
const MOST: usize = 240;

fn config(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let is_given = |name: &str| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if is_given("PROPTEST_CASES") { given.cases } else { cases },
        rng_seed: if is_given("PROPTEST_RNG_SEED") { given.rng_seed } else { RngSeed::Fixed(1) },
        failure_persistence: None,
        ..given
    }
}

/// All rows but the one that every command changes.
fn rows(store: &MemoryStore) -> BTreeMap<RowKey, bytes::Bytes> {
    let cluster = Key::new(Kind::Cluster).build();
    let row = |(key, value): (&RowKey, &bytes::Bytes)| (key.clone(), value.clone());
    store.rows().filter(|(key, _)| **key != cluster).map(row).collect()
}

/// Stories prove nothing about what they do not come by.
#[test]
fn stories_come_by_every_event_of_a_run() {
    let wanted = [
        "bundle.drained",
        "bundle.draining",
        "drain.shortened",
        "memory.discarded",
        "memory.promoted",
        "memory.written",
        "namespace.quota_near",
        "namespace.updated",
        "rollback.tightened",
        "route.rolled_back",
        "route.switched",
        "run.cancelled",
        "run.completed",
        "run.continued",
        "run.expired",
        "run.failed",
        "run.paused",
        "run.repinned",
        "run.restart_held",
        "run.restarted",
        "run.resumed",
        "run.retried",
        "run.scheduled",
        "run.scored",
        "run.signalled",
        "run.started",
        "session.ended",
        "step.failed",
        "step.lease_expired",
    ];
    let mut missing = BTreeSet::from(wanted);
    let mut runner = TestRunner::new(config(96));
    for _ in 0..2_000 {
        let story = story(MOST).new_tree(&mut runner).unwrap().current();
        let mut player = Player::new();
        for op in &story {
            player.play(op);
        }
        let all = query::EventFilter::default();
        let (events, _) = query::events(player.replica.read(), &all, 10_000).unwrap();
        events.iter().for_each(|event| _ = missing.remove(event.r#type.as_str()));
        if missing.is_empty() {
            return;
        }
    }
    panic!("no story came by {missing:?}");
}

/// What every layer sees now.
fn seen(player: &Player) -> Vec<Vec<v1::MemoryVersion>> {
    let view = |agent: &str, layer| {
        let scope = v1::MemoryScope { scope: Some(v1::memory_scope::Scope::Layer(layer)) };
        let read = player.replica.read();
        query::memory_list(read, "", agent, Some(&scope), "", 0, false, 0, "").unwrap().versions
    };
    player::AGENTS.iter().flat_map(|agent| (1..12).map(|layer| view(agent, layer))).collect()
}

/// What every run sees that serves no user and has a memory yet.
fn seen_aside(player: &Player) -> BTreeMap<String, Vec<v1::MemoryVersion>> {
    let read = player.replica.read();
    let mut seen = BTreeMap::new();
    for agent in player::AGENTS {
        let (runs, _) = query::runs(read, "", agent, &query::RunFilter::default(), 0, "").unwrap();
        for run in runs.into_iter().filter(|run| !run.kind().serves_users()) {
            let scope = v1::memory_scope::Scope::RunId(run.run_id.clone());
            let scope = v1::MemoryScope { scope: Some(scope) };
            let list = query::memory_list(read, "", agent, Some(&scope), "", 0, false, 0, "");
            seen.extend(list.ok().map(|list| (run.run_id, list.versions)));
        }
    }
    seen
}

/// Whether a command is about a step of a run that was cancelled because its parent is over.
fn ends_with_its_parent(player: &Player, command: &Command) -> bool {
    let step = match command {
        Command::LeaseStep(it) => it.step.as_ref(),
        Command::CompleteStep(it) => it.step.as_ref(),
        Command::FailStep(it) => it.step.as_ref(),
        Command::RecordCheckpoint(it) => it.step.as_ref(),
        Command::HandBackStep(it) => it.step.as_ref(),
        Command::ExpireLease(it) => it.step.as_ref(),
        _ => None,
    };
    let run_id = step.map_or("", |step| step.run_id.as_str());
    query::run(player.replica.read(), "", player::AGENTS[0], run_id)
        .is_ok_and(|run| run.end_reason() == v1::EndReason::Parent)
}

fn is_start_again(applied: &Applied) -> bool {
    matches!(&applied.outcome.result, Some(Answer::StartRun(answer)) if answer.already)
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn promises_hold_after_every_command(story in story(MOST)) {
        let mut player = Player::new();
        let mut history = History::default();
        let mut said = windows::Counts::new();
        for op in &story {
            for (command, applied) in player.play(op) {
                history.note(&player.replica, &command, &applied);
                windows::note(&mut said, &player.replica, &applied);
                player.replica.check_promises();
            }
        }
        prop_assert_eq!(windows::counted(&player.replica.store), said);
        // With time enough and nobody there, every run ends and nothing is left to do.
        // Delayed runs begin in the first round and end in the second.
        for _ in 0..2 {
            player.replica.now_ms += 120_000;
            for agent in 0..=2 {
                player.replica.sweep(agent);
            }
        }
        player.replica.check_promises();
        for agent in player::AGENTS {
            prop_assert_eq!(query::agent(player.replica.read(), "", agent).unwrap().open_runs, 0);
        }
    }
}

proptest! {
    #![proptest_config(config(64))]

    /// Entries one by one and several in one go: the same rows and the same hash. Each command in an entry of its own: the same
    /// rows, though another hash.
    #[test]
    fn replicas_agree_however_batches_are_cut(story in story(MOST), cuts in any::<u64>()) {
        let mut player = Player::new();
        for op in &story {
            player.play(op);
        }
        let one_by_one = &player.replica;
        let mut entries: Vec<(u64, Vec<bytes::Bytes>)> = Vec::new();
        for (number, (stamp_ms, command)) in (0_u32..).zip(&one_by_one.log) {
            let cut = cuts.rotate_left(number) & 1 == 1;
            match entries.last_mut() {
                Some((stamp, commands)) if stamp == stamp_ms && !cut => {
                    commands.push(command.clone());
                }
                Some(_) | None => entries.push((*stamp_ms, vec![command.clone()])),
            }
        }
        let apply = |at_once: usize| {
            let mut store = MemoryStore::default();
            for group in entries.chunks(at_once) {
                let mut machine = Machine::open(&store).unwrap();
                for (stamp_ms, commands) in group {
                    machine.apply_batch(&batch(*stamp_ms, commands.clone())).unwrap();
                }
                let written = machine.finish();
                store.write(written.writes);
            }
            store
        };
        let (store, one_entry_each) = (apply(1 + (cuts % 7) as usize), apply(1));
        prop_assert!(store.rows().eq(one_entry_each.rows()));
        let of = |store: &MemoryStore| log::ClusterRecord {
            state_hash: bytes::Bytes::new(),
            ..query::cluster(store).unwrap()
        };
        prop_assert_eq!(of(&store), of(&one_by_one.store));
        prop_assert_eq!(rows(&store), rows(&one_by_one.store));
    }

    /// A member that gets a snapshot and the rest of the log is where the others are.
    #[test]
    fn a_snapshot_midway_equals_a_straight_run(story in story(MOST), at in 0..1_000_usize) {
        let mut player = Player::new();
        for op in &story {
            player.play(op);
        }
        let log = &player.replica.log;
        let at = at % log.len();
        let apply = |store: &mut MemoryStore, part: &[(u64, bytes::Bytes)]| {
            for (stamp_ms, command) in part {
                let mut machine = Machine::open(store).unwrap();
                machine.apply_batch(&batch(*stamp_ms, vec![command.clone()])).unwrap();
                let written = machine.finish();
                store.write(written.writes);
            }
        };
        let mut sender = MemoryStore::default();
        apply(&mut sender, &log[..at]);
        let mut receiver = MemoryStore::default();
        receiver.write(sender.rows().map(|(key, value)| (key.clone(), Some(value.clone()))));
        prop_assert_eq!(
            query::dispatch::content_hash(&sender).unwrap(),
            query::dispatch::content_hash(&receiver).unwrap()
        );
        apply(&mut receiver, &log[at..]);
        prop_assert!(receiver.rows().eq(player.replica.store.rows()));
    }

    /// A start or completion whose answer was lost is sent again: same answer, nothing changed.
    #[test]
    fn what_is_delivered_twice_is_done_once(story in story(MOST)) {
        let mut player = Player::new();
        for op in &story {
            for (command, first) in player.play(op) {
                if !matches!(command, Command::StartRun(_) | Command::CompleteStep(_)) {
                    continue;
                }
                let before = rows(&player.replica.store);
                let second = player.apply(command);
                prop_assert_eq!(rows(&player.replica.store), before);
                prop_assert_eq!(&second.effects, &[]);
                match (first.outcome.result.unwrap(), second.outcome.result.unwrap()) {
                    (Answer::StartRun(mut first), Answer::StartRun(second)) => {
                        prop_assert!(second.already);
                        first.already = true;
                        // The lease came with the first one; whoever asks again is no worker.
                        first.token = None;
                        prop_assert_eq!(first, second);
                    }
                    (Answer::Rejection(first), Answer::Rejection(second)) => {
                        prop_assert_eq!(first.reason, second.reason);
                    }
                    (first, second) => prop_assert_eq!(first, second),
                }
            }
        }
    }

    /// Who waits for work decides who gets a run's first step and nothing else: the same runs start, with the same pins.
    #[test]
    fn a_waiting_worker_decides_only_who_has_the_first_step(story in story(MOST)) {
        let mut player = Player::new();
        for op in &story {
            let Op::StartFor { start, .. } = op else {
                player.play(op);
                continue;
            };
            let (mut bare, stale) = (player.clone(), player.replica.store.rows().count());
            let (with, without) = (player.play(op), bare.play(start));
            let answers = [&with, &without].map(|played| played[0].1.outcome.result.clone());
            match answers {
                [Some(Answer::StartRun(mut with)), Some(Answer::StartRun(mut without))] => {
                    let leased = with.token.take();
                    if leased.is_some() {
                        prop_assert_eq!(with.state(), v1::RunState::Running);
                        prop_assert_eq!(without.state(), v1::RunState::Queued);
                        without.state = with.state;
                    } else {
                        prop_assert!(player.replica.store.rows().eq(bare.replica.store.rows()));
                    }
                    prop_assert_eq!(with, without);
                }
                [with, without] => {
                    prop_assert_eq!(with, without);
                    prop_assert_eq!(player.replica.store.rows().count(), stale);
                }
            }
        }
    }

    /// However slowly somebody listens who keeps what they are told of pins: once they have heard all, they have what is there.
    #[test]
    fn who_keeps_pins_has_all_that_are_open(
        story in story(MOST), from in 0..MOST, pace in 1..20_usize, limit in 1..5_u32,
    ) {
        let mut player = Player::new();
        let mut keepers = player::AGENTS.map(Keeper::new);
        for (number, op) in story.iter().enumerate() {
            player.play(op);
            if number < from {
                continue;
            }
            for keeper in &mut keepers {
                let mut is_behind = keeper.hear(&player.replica, limit);
                while is_behind && number % pace == 0 {
                    is_behind = keeper.hear(&player.replica, limit);
                }
                if !is_behind {
                    let (kept, open) = keeper.compare(&player.replica);
                    prop_assert_eq!(kept, open);
                }
            }
        }
    }

    /// Old versions go, and nobody sees anything else because of it: not the layer, nor what froze on it.
    #[test]
    fn a_sweep_changes_nothing_that_is_seen(story in story(MOST)) {
        let mut player = Player::new();
        for op in &story {
            if matches!(op, Op::Tick { .. } | Op::Sweep) {
                // Time passes first: what ends by it is not the sweep's doing.
                player.apply(Command::Probe(log::Probe {}));
                let (before, aside_before) = (seen(&player), seen_aside(&player));
                player.play(op);
                prop_assert_eq!(seen(&player), before);
                for (run_id, now) in seen_aside(&player) {
                    prop_assert_eq!(Some(&now), aside_before.get(&run_id));
                }
            } else {
                player.play(op);
            }
        }
    }

    /// Whatever a lagging sweep lets act would have acted with a punctual one too, and an external run ends the
    /// same way.
    #[test]
    fn a_late_sweep_lets_nothing_act_that_is_over(story in story(MOST)) {
        let mut late = Player::new();
        for op in &story {
            let mut punctual = late.clone();
            for agent in 0..=2 {
                punctual.replica.sweep(agent);
            }
            let (here, there) = (late.play(op), punctual.play(op));
            for ((command, here), (_, there)) in here.iter().zip(&there) {
                // A punctual sweep has forgotten runs whose retention is over: their ids are free.
                if reason(there) == Some("RUN_NOT_FOUND") || is_start_again(here) {
                    continue;
                }
                // A child has its parent's pin, so it acts no later than that allows; that its parent is over for another
                // reason reaches it with the sweep.
                if ends_with_its_parent(&punctual, command) {
                    continue;
                }
                // A punctual sweep has dropped versions that a start could still begin with.
                // A sweep writes deletions where values ended, which count for a quota of memory.
                if matches!(reason(there), Some("COMPACTED" | "QUOTA_EXCEEDED")) {
                    continue;
                }
                // Discarding asks who is pinned to the layer: a restart that the sweep brings there comes behind it.
                let discards = matches!(command, Command::DiscardMemory(_));
                if discards && reason(there) == Some("MEMORY_IN_USE") {
                    continue;
                }
                // The sweeps' own commands come between: another event, or none, has that revision.
                if reason(there) == Some("EVENT_NOT_FOUND") {
                    continue;
                }
                if reason(here).is_none() {
                    prop_assert_eq!(reason(there), None, "{:?}", command);
                }
                if let Command::FinishRun(_) | Command::KeepRun(_) = command {
                    prop_assert_eq!(&here.outcome.result, &there.outcome.result);
                }
            }
        }
    }
}
