//! Lists of runs and their retention among very many finished runs.

use std::collections::BTreeMap;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, FinishRun, StartRun};
use pinrail_proto::{limits, v1};
use pinrail_state_machine::key::{Kind, RowKey};
use pinrail_state_machine::query::{self, RunFilter};
use pinrail_state_machine::{Machine, store::Read};
use prost::Message as _;

use crate::counting::{Counting, Reads};
use crate::replica::{Replica, agent, batch, create_agent, create_bundle, payload, policy, switch};

const AGENT: &str = "fleet";

fn formed() -> Replica {
    let mut replica = Replica::formed();
    replica.must(create_agent(AGENT, true));
    let mut policy = policy(true);
    policy.runs.as_mut().unwrap().max_open = Some(1_000_000);
    replica.must(Command::UpdateAgent(Box::new(log::UpdateAgent {
        agent: agent(AGENT),
        policy: Some(policy),
    })));
    for bundle in ["v1", "v2"] {
        replica.must(create_bundle(AGENT, bundle));
    }
    replica.must(switch(AGENT, "v1"));
    replica
}

fn start(number: usize) -> Command {
    let kind = if number.is_multiple_of(3) { "refund" } else { "order" };
    let half = if number.is_multiple_of(2) { "even" } else { "odd" };
    let customer = format!("c{}", number % 10_000);
    let labels =
        [("task_kind", kind), ("customer", &customer), ("half", half), ("other_half", half)];
    Command::StartRun(StartRun {
        agent: agent(AGENT),
        run_id: format!("run-{number:06}"),
        input: Some(payload("in")),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..StartRun::default()
    })
}

fn finish(number: usize) -> Command {
    let outcome = if number % 1_000 == 7 { v1::Outcome::Failed } else { v1::Outcome::Completed };
    Command::FinishRun(FinishRun {
        agent: agent(AGENT),
        run_id: format!("run-{number:06}"),
        outcome: outcome.into(),
        ..FinishRun::default()
    })
}

/// Many commands in a few entries.
fn apply(replica: &mut Replica, commands: impl Iterator<Item = Command>) {
    let encode =
        |kind| Bytes::from(log::Command { header: None, kind: Some(kind) }.encode_to_vec());
    let entry = batch(replica.now_ms, commands.map(encode).collect());
    let mut machine = Machine::open(&replica.store).unwrap();
    for applied in machine.apply_batch(&entry).unwrap() {
        assert!(!matches!(applied.outcome.result, Some(Answer::Rejection(_))), "{applied:?}");
    }
    replica.store.write(machine.finish().writes);
}

/// So many finished runs, a hundred a second; the newer half of them on v2.
fn with_finished(runs: usize) -> Replica {
    let mut replica = formed();
    for first in (0..runs).step_by(100) {
        if first == runs / 2 {
            replica.must(switch(AGENT, "v2"));
        }
        replica.now_ms += 100;
        let all = first..(first + 100).min(runs);
        apply(&mut replica, all.clone().map(start).chain(all.map(finish)));
    }
    replica
}

fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn page(read: &dyn Read, filter: &RunFilter, size: u32) -> (Vec<v1::Run>, Reads) {
    let counting = Counting::new(read);
    let (runs, _) = query::runs(&counting, "", AGENT, filter, size, "").unwrap();
    (runs, counting.reads())
}

#[test]
fn a_filtered_page_among_a_hundred_thousand_finished_runs_reads_a_bounded_number_of_rows() {
    const RUNS: usize = 100_000;
    let replica = with_finished(RUNS);
    let read = replica.read();
    let any = RunFilter::default();
    let failed = RunFilter { state: v1::RunState::Failed, ..any.clone() };
    let refund = RunFilter { labels: labels("task_kind", "refund"), ..any.clone() };
    for (what, filter, found, most) in [
        ("all", any.clone(), 100, 450),
        ("state", failed.clone(), 100, 450),
        ("state and bundle", RunFilter { bundle_id: "v1".to_owned(), ..failed.clone() }, 50, 350),
        ("open", RunFilter { open: true, ..any.clone() }, 0, 20),
        ("bundle", RunFilter { bundle_id: "v1".to_owned(), ..any.clone() }, 100, 480),
        ("kind", RunFilter { kind: v1::RunKind::Smoke, ..any.clone() }, 0, 10),
        // What is left of a stage: there is none, and no other index is asked, not even for its end.
        (
            "open, of a kind and bundle",
            RunFilter {
                kind: v1::RunKind::Smoke,
                bundle_id: "v2".to_owned(),
                open: true,
                ..any.clone()
            },
            0,
            8,
        ),
        ("kind live", RunFilter { kind: v1::RunKind::Live, ..any.clone() }, 100, 450),
        ("label", refund.clone(), 100, 450),
        ("older than", RunFilter { older_than_ms: 50_000, ..any.clone() }, 100, 450),
        // One in ten thousand and one in three: the rarer label leads.
        (
            "two labels",
            RunFilter {
                labels: labels("customer", "c33").into_iter().chain(refund.labels).collect(),
                ..any.clone()
            },
            3,
            250,
        ),
        // One in a thousand failed, one in three is a refund: the state leads, and two thirds do not fit.
        ("state and label", RunFilter { labels: labels("task_kind", "order"), ..failed }, 66, 700),
    ] {
        let (runs, reads) = page(read, &filter, 100);
        assert!(runs.len() >= found, "{what}: {} runs", runs.len());
        assert!(reads.all() <= most, "{what}: {reads:?}");
        assert!(runs.is_sorted_by_key(|run| std::cmp::Reverse(run.started_at.unwrap().seconds)));
    }
}

#[test]
fn a_combination_that_matches_nothing_gives_up_in_time_and_its_token_goes_on() {
    const RUNS: usize = 5 * limits::RUNS_EXAMINED;
    let replica = with_finished(RUNS);
    // Half of all runs are in the one index and half in the other, and none is in both.
    let mut both = labels("half", "even");
    both.extend(labels("other_half", "odd"));
    let filter = RunFilter { labels: both, ..RunFilter::default() };
    let (mut token, mut pages) = (String::new(), 0);
    loop {
        let counting = Counting::new(replica.read());
        let (runs, next) = query::runs(&counting, "", AGENT, &filter, 100, &token).unwrap();
        assert_eq!(runs, []);
        let reads = counting.reads();
        assert!(reads.all() < 2 * limits::RUNS_EXAMINED + 500, "{reads:?}");
        pages += 1;
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(pages, 3);
}

#[test]
fn pages_give_every_run_once() {
    const RUNS: usize = 3_000;
    let replica = with_finished(RUNS);
    let older = RunFilter { bundle_id: "v1".to_owned(), ..RunFilter::default() };
    for (filter, expected) in [(RunFilter::default(), RUNS), (older, RUNS / 2)] {
        let (mut token, mut all) = (String::new(), Vec::new());
        loop {
            let (runs, next) =
                query::runs(replica.read(), "", AGENT, &filter, 700, &token).unwrap();
            all.extend(runs.into_iter().map(|run| run.run_id));
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(all.len(), expected);
        assert!(all.is_sorted_by(|newer, older| newer > older), "newest first");
    }
}

#[test]
fn retention_takes_all_rows_of_finished_runs_in_bounded_batches() {
    let mut replica = with_finished(2_000);
    replica.check_promises();
    replica.now_ms += 40_000;
    let tick = Command::Tick(log::Tick { agent: 1, max_items: 256 });
    let mut ticks = 0;
    loop {
        let before = replica.store.rows().count();
        let Answer::Tick(answer) = replica.must(tick.clone()) else { panic!() };
        let gone = before.saturating_sub(replica.store.rows().count());
        assert!(gone <= 256 * 16, "a tick took {gone} rows");
        ticks += 1;
        if ticks % 4 == 0 {
            replica.check_promises();
        }
        if !answer.more {
            break;
        }
        assert!(ticks < 20);
    }
    let is_of_runs = |key: &&RowKey| {
        let byte = key[0];
        (Kind::Run as u8..=Kind::Leased as u8).contains(&byte)
            || (Kind::RunByStart as u8..=Kind::RunByLabel as u8).contains(&byte)
    };
    assert_eq!(replica.store.rows().map(|(key, _)| key).filter(is_of_runs).count(), 0);
    assert_eq!(page(replica.read(), &RunFilter::default(), 0).0, []);
    replica.check_promises();
}
