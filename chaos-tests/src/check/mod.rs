//! The judge: one file a promise of the specification, each a function from the evidence to what breaks it; beside them what
//! the members' logs say (`log_order.rs`), and an order of the calls that no revision takes part in (`registers.rs`).
//!
//! It is linear in the history but for sorting and for the search of that order, which is bound. It must never know the node, its
//! state machine or the client library: what it believes about the rules it has from `model` alone.

mod continued_runs;
mod drain_counts;
mod drain_ends;
mod durable_steps;
mod durable_writes;
mod linearizable;
mod log_order;
mod memory;
mod registers;
mod rollback;
mod route_order;
mod steps_on_bundle;
mod watches;

use std::fmt;

use serde::Serialize;

use crate::history::{AgentFinal, Entry, Evidence};
use crate::model::Timeline;

/// A promise of `model.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Promise {
    /// A run executes every step on the bundle that it is pinned to.
    P1,
    /// A step's result is recorded at most once; nothing acknowledged is lost.
    P2,
    /// After a switch is acknowledged no later start lands on the previous bundle.
    P3,
    /// The drain is over within its bound and never early.
    P4,
    /// Drain counts are exact.
    P5,
    /// Rollback is fast and holds for every later start.
    P7,
    /// A run sees another bundle's write only through its layer's base.
    P8,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub promise: Promise,
    pub what: String,
}

/// What the checks found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// What the harness did not manage: neither a pass nor a failure of the product.
    pub harness: Vec<String>,
    /// How many statements were compared, so that an empty history cannot pass for a good one.
    pub compared: u64,
    /// Registers on which the search for an order was given up.
    pub undecided: u64,
    /// Registers on which it came to an end.
    pub decided: u64,
}

impl Verdict {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.harness.is_empty()
    }
}

/// One agent's part of the evidence, as the checks want it.
struct Case<'a> {
    evidence: &'a Evidence,
    agent: &'a AgentFinal,
    /// In order of return.
    history: Vec<&'a Entry>,
    timeline: Timeline,
}

/// What one check found.
struct Findings {
    promise: Promise,
    violations: Vec<Violation>,
    compared: u64,
}

impl Findings {
    fn new(promise: Promise) -> Self {
        Self { promise, violations: Vec::new(), compared: 0 }
    }

    /// Counts one comparison and notes what is wrong when it does not hold.
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !holds {
            self.violations.push(Violation { promise: self.promise, what: what() });
        }
    }

    fn wrong(&mut self, what: String) {
        self.expect(false, || what);
    }
}

/// Judges everything.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    for fault in &evidence.faults {
        if fault.effective_us.is_none() {
            verdict.harness.push(format!("{:?} on {:?} took no effect", fault.kind, fault.nodes));
        }
    }
    for agent in &evidence.finals {
        let mut history: Vec<&Entry> =
            evidence.history.iter().filter(|entry| entry.agent == agent.agent).collect();
        history.sort_by_key(|entry| (entry.returned_us, entry.invoked_us));
        let timeline = Timeline::of(agent, &evidence.history);
        verdict.harness.extend(timeline.gaps.iter().cloned());
        let case = Case { evidence, agent, history, timeline };
        for check in [
            steps_on_bundle::check,
            durable_writes::check,
            durable_steps::check,
            continued_runs::check,
            route_order::check,
            drain_ends::check,
            drain_counts::check,
            rollback::check,
            memory::check,
            watches::check,
        ] {
            let findings = check(&case);
            verdict.compared += findings.compared;
            verdict.violations.extend(findings.violations);
        }
        let (findings, undecided) = registers::check(&case);
        verdict.decided += findings.compared;
        verdict.undecided += undecided;
        verdict.compared += findings.compared;
        verdict.violations.extend(findings.violations);
    }
    if !evidence.logs.is_empty() {
        let (findings, missing) = log_order::check(evidence);
        verdict.compared += findings.compared;
        verdict.violations.extend(findings.violations);
        verdict.harness.extend(missing);
    }
    if verdict.undecided > 0 && verdict.decided == 0 {
        verdict.harness.push("no register was decided by the search for an order".to_owned());
    }
    verdict.violations.sort_by(|a, b| (a.promise, &a.what).cmp(&(b.promise, &b.what)));
    verdict.violations.dedup();
    verdict
}
