//! Queues in the state are deleted from their front on. A store keeps what is deleted for a while, and a scan steps over it: how
//! much of that a look may meet is held to a number here, for RocksDB pays for it with time.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, FinishRun, StartRun};
use pinrail_proto::v1;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::store::{Fault, KeyRange, MemoryStore, Order, Read, Row};
use pinrail_state_machine::{Machine, invariants, query};
use prost::Message as _;

use crate::replica::{Replica, agent, batch, create_agent, create_bundle, payload, policy, switch};

const AGENT: &str = "fleet";
/// Far more than any look may step over.
const RUNS: usize = 4_000;
/// What one look may step over: a few chunks of the sweep.
const MOST: usize = 400;

/// A store that remembers what was deleted, as one does that compacts later.
#[derive(Default)]
struct Lazy {
    store: MemoryStore,
    deleted: BTreeSet<RowKey>,
    stepped_over: Cell<usize>,
}

impl Read for Lazy {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.store.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        let rows = self.store.scan(range, order, limit)?;
        let last =
            rows.last().filter(|_| rows.len() == limit).map(|(key, _)| RowKey::from_slice(key));
        let (from, to) = match (order, last) {
            (_, None) => (range.start.clone(), range.end.clone()),
            (Order::Ascending, Some(last)) => (range.start.clone(), last),
            (Order::Descending, Some(last)) => (last, range.end.clone()),
        };
        if from < to {
            let all = self.deleted.range((Bound::Included(from), Bound::Excluded(to)));
            self.stepped_over.set(self.stepped_over.get() + all.count());
        }
        Ok(rows)
    }
}

impl Lazy {
    /// Applies commands in one entry; how much of what was deleted before they have stepped over.
    fn apply(&mut self, now_ms: u64, commands: Vec<Command>) -> (Vec<Answer>, usize) {
        let encode =
            |kind| Bytes::from(log::Command { header: None, kind: Some(kind) }.encode_to_vec());
        let entry = batch(now_ms, commands.into_iter().map(encode).collect());
        self.stepped_over.set(0);
        let (answers, written) = {
            let mut machine = Machine::open(self).unwrap();
            let applied = machine.apply_batch(&entry).unwrap();
            let answers = applied.into_iter().map(|it| it.outcome.result.unwrap());
            (answers.collect(), machine.finish())
        };
        let stepped_over = self.stepped_over.get();
        for (key, value) in &written.writes {
            if value.is_none() {
                self.deleted.insert(key.clone());
            } else {
                self.deleted.remove(key);
            }
        }
        self.store.write(written.writes);
        (answers, stepped_over)
    }

    fn must(&mut self, now_ms: u64, command: Command) -> Answer {
        let answer = self.apply(now_ms, vec![command]).0.remove(0);
        assert!(!matches!(answer, Answer::Rejection(_)), "{answer:?}");
        answer
    }
}

fn start(number: usize) -> Command {
    Command::StartRun(StartRun {
        agent: agent(AGENT),
        run_id: format!("run-{number:06}"),
        input: Some(payload("in")),
        ..StartRun::default()
    })
}

fn finish(number: usize) -> Command {
    Command::FinishRun(FinishRun {
        agent: agent(AGENT),
        run_id: format!("run-{number:06}"),
        outcome: v1::Outcome::Completed.into(),
        ..FinishRun::default()
    })
}

#[test]
fn a_sweep_does_not_step_over_what_earlier_ones_have_deleted() {
    let formed = Replica::formed();
    let mut now_ms = formed.now_ms;
    let mut lazy = Lazy { store: formed.store, ..Lazy::default() };
    lazy.must(now_ms, create_agent(AGENT, true));
    let mut policy = policy(true);
    policy.runs.as_mut().unwrap().max_open = Some(1_000_000);
    let update = log::UpdateAgent { agent: agent(AGENT), policy: Some(policy) };
    lazy.must(now_ms, Command::UpdateAgent(Box::new(update)));
    lazy.must(now_ms, create_bundle(AGENT, "v1"));
    lazy.must(now_ms, switch(AGENT, "v1"));
    for number in 0..RUNS {
        now_ms += 1;
        lazy.apply(now_ms, vec![start(number), finish(number)]);
    }
    // Their retention is over, and so are the times of their pins, whose timers were cleared.
    now_ms += 120_000;
    let tick = || Command::Tick(log::Tick { agent: 1, max_items: 256 });
    let (mut ticks, mut more) = (0, true);
    while more {
        let (answers, stepped_over) = lazy.apply(now_ms, vec![tick()]);
        let Some(Answer::Tick(answer)) = answers.first() else { panic!("{answers:?}") };
        // The first and the last one step for once over the timers that were cleared.
        assert!(ticks == 0 || !answer.more || stepped_over <= MOST, "tick {ticks}: {stepped_over}");
        lazy.stepped_over.set(0);
        query::dispatch::next_deadline(&lazy, 1).unwrap();
        let stepped_over = lazy.stepped_over.get();
        assert!(!answer.more || stepped_over <= MOST, "behind tick {ticks}: {stepped_over}");
        (ticks, more) = (ticks + 1, answer.more);
    }
    assert!(ticks > 10, "{ticks}");
    assert_eq!(invariants::check(&lazy).unwrap(), []);
    // The next sweep, and what looks for the first deadline, begin where this one ended.
    now_ms += 1;
    assert!(lazy.apply(now_ms, vec![tick()]).1 <= MOST);
    lazy.stepped_over.set(0);
    query::dispatch::next_deadlines(&lazy).unwrap();
    assert!(lazy.stepped_over.get() <= MOST, "{}", lazy.stepped_over.get());
}
