//! What a random story is made of. Numbers stand for one of few things, so that operations meet.

use pinrail_proto::v1;
use proptest::prelude::*;

/// One thing that somebody does. Agents: 0 has workers, 1 is external.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Wait {
        ms: u64,
    },
    Start {
        agent: u8,
        run: u8,
        input: u8,
        bundle: u8,
        max_age_ms: u64,
        entry: u8,
    },
    /// `odd`: 0 is a good lease, others name another bundle or attempt.
    Lease {
        run: u8,
        odd: u8,
    },
    /// `back`: how many tokens ago the worker got the one that it uses.
    Complete {
        run: u8,
        back: u8,
        next: u8,
        lease_next: bool,
    },
    /// `signal`: 0 is none, only time ends the wait; `timeout_ms`: `u64::MAX` is none.
    WaitStep {
        run: u8,
        back: u8,
        signal: u8,
        timeout_ms: u64,
        lease_next: bool,
    },
    FanOut {
        run: u8,
        back: u8,
        branches: u8,
        settle: bool,
        lease_next: bool,
    },
    /// One of the other starts, which finds a worker of `bundle` waiting.
    StartFor {
        start: Box<Op>,
        bundle: u8,
    },
    /// One that begins later.
    StartLater {
        agent: u8,
        run: u8,
        delay_ms: u64,
    },
    /// One of a session; sessions are of the agent with workers.
    StartInSession {
        agent: u8,
        run: u8,
        session: u8,
        delay_ms: u64,
    },
    /// How sessions of the agent with workers take several runs, from here on.
    Overlap {
        overlap: i32,
    },
    EndSession {
        session: u8,
    },
    /// One that serves no user; `behind`: how many revisions ago it reads memory, 0 for an empty one.
    StartAside {
        agent: u8,
        run: u8,
        kind: i32,
        bundle: u8,
        behind: u8,
    },
    /// `human`: else by a judge.
    Score {
        agent: u8,
        run: u8,
        score: u32,
        human: bool,
    },
    /// One that may be moved to another bundle.
    StartRepinnable {
        run: u8,
        restart_step: bool,
    },
    Repin {
        run: u8,
        bundle: u8,
    },
    /// A child that nothing waits for.
    StartChild {
        agent: u8,
        run: u8,
        child: u8,
    },
    /// A child that the run waits for.
    ChildStep {
        run: u8,
        back: u8,
    },
    Continue {
        run: u8,
        back: u8,
        live: bool,
        lease_next: bool,
    },
    PauseRun {
        run: u8,
    },
    ResumeRun {
        run: u8,
    },
    Retry {
        run: u8,
    },
    Signal {
        agent: u8,
        run: u8,
        name: u8,
    },
    Fail {
        run: u8,
        back: u8,
        last: bool,
        destructive: bool,
        retry_after_ms: u64,
    },
    Checkpoint {
        run: u8,
        back: u8,
        name: u8,
        value: u8,
    },
    HandBack {
        run: u8,
        back: u8,
    },
    Expire {
        run: u8,
        back: u8,
    },
    Cancel {
        agent: u8,
        run: u8,
    },
    Finish {
        run: u8,
        failed: bool,
    },
    Keep {
        run: u8,
    },
    Put {
        agent: u8,
        bundle: u8,
        key: u8,
        ttl_ms: u64,
        expect: bool,
    },
    PutByRun {
        run: u8,
        back: u8,
        key: u8,
        ttl_ms: u64,
    },
    Delete {
        agent: u8,
        bundle: u8,
        key: u8,
    },
    /// From a layer by its number; `to` 0 is the live bundle.
    Promote {
        agent: u8,
        layer: u8,
        to: u8,
        late: bool,
        on_conflict: i32,
    },
    Discard {
        agent: u8,
        layer: u8,
    },
    Switch {
        agent: u8,
        bundle: u8,
        force: bool,
    },
    /// `from`: 0 is the live bundle by its name, 5 none.
    Rollback {
        agent: u8,
        from: u8,
        in_flight: i32,
    },
    SetDrain {
        agent: u8,
        bundle: u8,
        cap_ms: u64,
    },
    Pause {
        agent: u8,
        bundle: u8,
        reject: bool,
    },
    Resume {
        agent: u8,
        bundle: u8,
    },
    /// `limit`: `u64::MAX` takes the quota away.
    Quota {
        quota: i32,
        limit: u64,
    },
    Tick {
        agent: u8,
        max_items: u32,
    },
    /// What an attempt to deliver an event to the agent's hook came to; `back`: how many revisions ago it happened.
    Deliver {
        agent: u8,
        back: u8,
        state: i32,
        attempts: u32,
    },
    /// `back` 0: all that are dead.
    Redeliver {
        agent: u8,
        back: u8,
    },
    /// Everything that is due, of both agents and the cluster.
    Sweep,
}

/// Stories of at most `most` operations.
pub(super) fn story(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..most)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => life_of_a_run(),
        20 => work(),
        4 => memory(),
        1 => transfer(),
        1 => hook(),
        4 => route(),
        3 => time(),
        1 => quota(),
    ]
}

/// Mostly roomy, so that stories go on.
fn quota() -> impl Strategy<Value = Op> {
    let limit = prop_oneof![6 => Just(u64::MAX), 5 => 1_000..9_000_u64, 1 => 4..12_u64];
    (1..5_i32, limit).prop_map(|(quota, limit)| Op::Quota { quota, limit })
}

/// Mostly the agent with workers.
fn agent() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0_u8), 1 => Just(1_u8)]
}

/// Mostly no bundle by name.
fn mostly_none() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0_u8), 1 => 1..5_u8]
}

/// Mostly one of two, so that much happens to each.
fn run() -> impl Strategy<Value = u8> {
    prop_oneof![4 => 0..2_u8, 1 => 2..5_u8]
}

/// Mostly the newest token.
fn back() -> impl Strategy<Value = u8> {
    prop_oneof![9 => Just(0_u8), 1 => 1..4_u8]
}

fn start() -> impl Strategy<Value = Op> {
    let max_age_ms = prop_oneof![3 => Just(0_u64), 1 => 1_000..90_000_u64];
    prop_oneof![
        6 => (agent(), run(), 0..2_u8, mostly_none(), max_age_ms, 0..4_u8).prop_map(
            |(agent, run, input, bundle, max_age_ms, entry)| Op::Start {
                agent, run, input, bundle, max_age_ms, entry
            }
        ),
        1 => (agent(), run(), 1..9_000_u64)
            .prop_map(|(agent, run, delay_ms)| Op::StartLater { agent, run, delay_ms }),
        1 => (agent(), run(), 0..2_u8)
            .prop_map(|(agent, run, child)| Op::StartChild { agent, run, child }),
        3 => (agent(), 0..5_u8, 0..2_u8, prop_oneof![3 => Just(0_u64), 1 => 1..9_000_u64]).prop_map(
            |(agent, run, session, delay_ms)| Op::StartInSession { agent, run, session, delay_ms }
        ),
        3 => (agent(), run(), 3..7_i32, 1..5_u8, 0..9_u8).prop_map(
            |(agent, run, kind, bundle, behind)| Op::StartAside { agent, run, kind, bundle, behind }
        ),
        3 => (run(), any::<bool>())
            .prop_map(|(run, restart_step)| Op::StartRepinnable { run, restart_step }),
    ]
}

fn life_of_a_run() -> impl Strategy<Value = Op> {
    prop_oneof![
        9 => start(),
        5 => (start(), 1..4_u8)
            .prop_map(|(start, bundle)| Op::StartFor { start: Box::new(start), bundle }),
        1 => (0..2_u8, run()).prop_map(|(agent, run)| Op::Cancel { agent, run }),
        1 => (run(), any::<bool>()).prop_map(|(run, failed)| Op::Finish { run, failed }),
        1 => run().prop_map(|run| Op::Keep { run }),
        2 => run().prop_map(|run| Op::Retry { run }),
        1 => (0..2_u8).prop_map(|session| Op::EndSession { session }),
        1 => (1..4_i32).prop_map(|overlap| Op::Overlap { overlap }),
        2 => (agent(), run(), 0..1_001_u32, any::<bool>())
            .prop_map(|(agent, run, score, human)| Op::Score { agent, run, score, human }),
        2 => (run(), 0..5_u8).prop_map(|(run, bundle)| Op::Repin { run, bundle }),
        1 => run().prop_map(|run| Op::PauseRun { run }),
        2 => run().prop_map(|run| Op::ResumeRun { run }),
    ]
}

fn work() -> impl Strategy<Value = Op> {
    let odd = prop_oneof![9 => Just(0_u8), 1 => 1..3_u8];
    let timeout_ms = prop_oneof![
        1 => Just(u64::MAX),
        1 => Just(0_u64),
        3 => 0..8_000_u64,
        1 => 8_000..22_000_u64,
    ];
    let retry_after_ms = prop_oneof![2 => Just(u64::MAX), 1 => 0..3_000_u64];
    prop_oneof![
        8 => (run(), odd).prop_map(|(run, odd)| Op::Lease { run, odd }),
        6 => (run(), back(), 0..5_u8, any::<bool>())
            .prop_map(|(run, back, next, lease_next)| Op::Complete { run, back, next, lease_next }),
        3 => (run(), back(), 0..3_u8, timeout_ms, any::<bool>()).prop_map(
            |(run, back, signal, timeout_ms, lease_next)| Op::WaitStep {
                run, back, signal, timeout_ms, lease_next
            }
        ),
        2 => (run(), back()).prop_map(|(run, back)| Op::ChildStep { run, back }),
        1 => (run(), back(), any::<bool>(), any::<bool>()).prop_map(
            |(run, back, live, lease_next)| Op::Continue { run, back, live, lease_next }
        ),
        2 => (run(), back(), 1..4_u8, any::<bool>(), any::<bool>()).prop_map(
            |(run, back, branches, settle, lease_next)| Op::FanOut {
                run, back, branches, settle, lease_next
            }
        ),
        3 => (agent(), run(), 1..3_u8)
            .prop_map(|(agent, run, name)| Op::Signal { agent, run, name }),
        3 => (run(), back(), any::<bool>(), any::<bool>(), retry_after_ms).prop_map(
            |(run, back, last, destructive, retry_after_ms)| Op::Fail {
                run, back, last, destructive, retry_after_ms
            }
        ),
        2 => (run(), back(), 0..2_u8, 0..2_u8)
            .prop_map(|(run, back, name, value)| Op::Checkpoint { run, back, name, value }),
        1 => (run(), back()).prop_map(|(run, back)| Op::HandBack { run, back }),
        2 => (run(), back()).prop_map(|(run, back)| Op::Expire { run, back }),
    ]
}

fn memory() -> impl Strategy<Value = Op> {
    let ttl_ms = || prop_oneof![2 => Just(0_u64), 1 => 1..20_000_u64];
    prop_oneof![
        2 => (0..2_u8, 0..5_u8, 0..3_u8, ttl_ms(), any::<bool>()).prop_map(
            |(agent, bundle, key, ttl_ms, expect)| Op::Put { agent, bundle, key, ttl_ms, expect }
        ),
        2 => (run(), back(), 0..3_u8, ttl_ms())
            .prop_map(|(run, back, key, ttl_ms)| Op::PutByRun { run, back, key, ttl_ms }),
        1 => (0..2_u8, 0..5_u8, 0..3_u8)
            .prop_map(|(agent, bundle, key)| Op::Delete { agent, bundle, key }),
    ]
}

fn transfer() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (agent(), 1..5_u8, mostly_none(), any::<bool>(), 0..4_i32).prop_map(
            |(agent, layer, to, late, on_conflict)| Op::Promote {
                agent, layer, to, late, on_conflict
            }
        ),
        1 => (agent(), 1..5_u8).prop_map(|(agent, layer)| Op::Discard { agent, layer }),
    ]
}

fn hook() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..2_u8, 0..6_u8, 1..4_i32, 0..4_u32).prop_map(
            |(agent, back, state, attempts)| Op::Deliver { agent, back, state, attempts }
        ),
        1 => (0..2_u8, 0..6_u8).prop_map(|(agent, back)| Op::Redeliver { agent, back }),
    ]
}

fn route() -> impl Strategy<Value = Op> {
    // Mostly the live bundle by name (0), and what is left of its runs is to be restarted.
    let from = prop_oneof![4 => Just(0_u8), 1 => 1..6_u8];
    let restart = i32::from(v1::InFlight::Restart);
    let in_flight = prop_oneof![1 => 0..4_i32, 2 => Just(restart)];
    prop_oneof![
        3 => (agent(), 1..5_u8, any::<bool>())
            .prop_map(|(agent, bundle, force)| Op::Switch { agent, bundle, force }),
        4 => (agent(), from, in_flight)
            .prop_map(|(agent, from, in_flight)| Op::Rollback { agent, from, in_flight }),
        1 => (0..2_u8, 1..5_u8, 0..20_000_u64)
            .prop_map(|(agent, bundle, cap_ms)| Op::SetDrain { agent, bundle, cap_ms }),
        1 => (agent(), mostly_none(), any::<bool>())
            .prop_map(|(agent, bundle, reject)| Op::Pause { agent, bundle, reject }),
        4 => (agent(), mostly_none())
            .prop_map(|(agent, bundle)| Op::Resume { agent, bundle }),
    ]
}

fn time() -> impl Strategy<Value = Op> {
    let ms = prop_oneof![8 => 0..1_500_u64, 4 => 1_500..20_000_u64, 1 => 20_000..200_000_u64];
    prop_oneof![
        4 => ms.prop_map(|ms| Op::Wait { ms }),
        2 => (0..3_u8, 1..5_u32).prop_map(|(agent, max_items)| Op::Tick { agent, max_items }),
        2 => Just(Op::Sweep),
    ]
}
