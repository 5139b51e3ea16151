//! The closing table: what came of the promises, from the evidence.

use std::collections::BTreeMap;
use std::fmt;

use crate::check::{Promise, Verdict, judge};
use crate::history::{Answer, Call, Evidence};
use crate::report::{Report, ms};

/// A rollback must be acknowledged within this time.
const ROLLBACK_US: u64 = 1_000_000;

/// How the demonstration ended.
#[derive(Debug)]
pub(super) struct Closing {
    verdict: Verdict,
    problem: Option<String>,
    /// Agent and bundle, to state and count.
    runs: BTreeMap<(String, String), BTreeMap<String, usize>>,
    steps: usize,
    off_bundle: usize,
    acked_writes: usize,
    lost: usize,
    failover_us: u64,
    drains: Vec<DrainEnd>,
    rollback_us: u64,
    report: Report,
}

/// How one drain ended, in milliseconds of cluster time after the route change.
#[derive(Debug)]
struct DrainEnd {
    agent: String,
    bundle_id: String,
    pins: usize,
    by_cap: usize,
    ended_ms: u64,
    bound_ms: u64,
}

impl Closing {
    pub(super) fn of(evidence: &Evidence, cap_ms: u64, problem: Option<String>) -> Self {
        let verdict = judge(evidence);
        let broken =
            |promise: Promise| verdict.violations.iter().filter(|it| it.promise == promise).count();
        let mut runs: BTreeMap<(String, String), BTreeMap<String, usize>> = BTreeMap::new();
        for agent in &evidence.finals {
            for run in &agent.runs {
                let place = (agent.agent.clone(), run.pin.bundle_id.clone());
                *runs.entry(place).or_default().entry(run.state.clone()).or_default() += 1;
            }
        }
        let acked = evidence.history.iter().filter(|entry| entry.call.is_write());
        Self {
            runs,
            steps: evidence.worker_log.len(),
            off_bundle: broken(Promise::P1),
            acked_writes: acked.filter(|entry| entry.ok().is_some()).count(),
            lost: broken(Promise::P2),
            failover_us: failover(evidence),
            drains: drain_ends(evidence, cap_ms),
            rollback_us: rollback(evidence),
            report: Report::of(evidence, verdict.clone()),
            verdict,
            problem,
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.verdict.passed()
            && self.problem.is_none()
            && self.steps > 0
            && self.drains.len() == 4
            && self.drains.iter().all(|drain| drain.ended_ms <= drain.bound_ms)
            && (1..=ROLLBACK_US).contains(&self.rollback_us)
    }

    /// For the folder of evidence.
    pub(super) fn report(&self, held: bool) -> Report {
        let mut report = self.report.clone();
        report.problems.extend(self.problem.clone());
        if !held && report.passed() {
            report.problems.push("the closing table shows a broken promise".to_owned());
        }
        report
    }
}

/// From the kill of the leader to the next acknowledged write.
fn failover(evidence: &Evidence) -> u64 {
    let gaps = evidence.gaps();
    gaps.iter().map(|gap| gap.to_us.saturating_sub(gap.from_us)).max().unwrap_or_default()
}

/// The slowest rollback that moved a route.
fn rollback(evidence: &Evidence) -> u64 {
    evidence
        .history
        .iter()
        .filter(|entry| matches!(entry.call, Call::Rollback { .. }))
        .filter(|entry| matches!(entry.ok(), Some((_, Answer::Moved { already: false, .. }))))
        .map(|entry| entry.returned_us - entry.invoked_us)
        .max()
        .unwrap_or_default()
}

fn drain_ends(evidence: &Evidence, cap_ms: u64) -> Vec<DrainEnd> {
    let mut ends = Vec::new();
    for agent in &evidence.finals {
        for entry in evidence.history.iter().filter(|entry| entry.agent == agent.agent) {
            let Some((_, moved)) = entry.ok() else { continue };
            let Answer::Moved {
                from, epoch, already: false, drain_deadline_ms, drained_by_ms, ..
            } = moved
            else {
                continue;
            };
            if *drain_deadline_ms == 0 {
                continue;
            }
            let begin = drain_deadline_ms - cap_ms;
            let drained = agent
                .runs
                .iter()
                .filter(|run| run.pin.bundle_id == *from && run.pin.epoch < *epoch)
                .filter(|run| !run.is_over() || run.ended_at_ms >= begin);
            let mut end = DrainEnd {
                agent: agent.agent.clone(),
                bundle_id: from.clone(),
                pins: 0,
                by_cap: 0,
                ended_ms: 0,
                // What the promise allows beyond deadline and grace.
                bound_ms: drained_by_ms - begin + 2_000,
            };
            for run in drained {
                end.pins += 1;
                end.by_cap += usize::from(run.end_reason == "drain_cap");
                let ended = if run.is_over() { run.ended_at_ms - begin } else { u64::MAX };
                end.ended_ms = end.ended_ms.max(ended);
            }
            ends.push(end);
        }
    }
    ends
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = ["completed", "failed", "cancelled", "expired"];
        writeln!(f, "\nruns             completed   failed   cancelled   expired   open")?;
        for ((agent, bundle), counts) in &self.runs {
            let of = |state: &str| counts.get(state).copied().unwrap_or_default();
            let all: usize = counts.values().sum();
            let open = all - states.iter().map(|state| of(state)).sum::<usize>();
            writeln!(
                f,
                "  {:<14} {:>9} {:>8} {:>11} {:>9} {:>6}",
                format!("{agent} {bundle}"),
                of("completed"),
                of("failed"),
                of("cancelled"),
                of("expired"),
                open
            )?;
        }
        writeln!(
            f,
            "\n  steps executed off their bundle   {} of {}   (worker processes' logs joined with final pins)",
            self.off_bundle, self.steps
        )?;
        writeln!(f, "  acknowledged writes lost          {} of {}", self.lost, self.acked_writes)?;
        writeln!(f, "  failover, to the next write       {} ms", ms(self.failover_us))?;
        for drain in &self.drains {
            writeln!(
                f,
                "  drain of {:<24} over after {}.{} s, bound {}.{} s; {} pins, {} ended by the cap",
                format!("{} {}", drain.agent, drain.bundle_id),
                drain.ended_ms / 1_000,
                drain.ended_ms % 1_000 / 100,
                drain.bound_ms / 1_000,
                drain.bound_ms % 1_000 / 100,
                drain.pins,
                drain.by_cap
            )?;
        }
        writeln!(
            f,
            "  rollback, acknowledged            {} ms   (bound 1000 ms)",
            ms(self.rollback_us)
        )?;
        let compared = self.verdict.compared;
        writeln!(f, "  statements compared by the judge  {compared}")?;
        for violation in self.verdict.violations.iter().take(20) {
            writeln!(f, "  BROKEN {}: {}", violation.promise, violation.what)?;
        }
        for what in self.verdict.harness.iter().chain(&self.problem) {
            writeln!(f, "  PROBLEM {what}")?;
        }
        let verdict = if self.passed() { "every promise held" } else { "A PROMISE WAS BROKEN" };
        writeln!(f, "\n{verdict}")
    }
}
