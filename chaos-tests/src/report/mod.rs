//! What a scenario found, as a table for people and as JSON for programs; and the folder where evidence is kept.

mod page;
mod plot;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::check::{Verdict, Violation};
use crate::history::{AgentFinal, Evidence, FaultKind, Outcome, WorkerEvent, WorkerLine};
use crate::scenario::Setting;

/// Lines of each kind that are printed; the rest is in the JSON.
const SHOWN: usize = 12;

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    pub count: usize,
    pub median_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Spread {
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |permille: usize| {
            let index = (values.len() * permille).div_ceil(1_000).saturating_sub(1);
            values.get(index).copied().unwrap_or_default()
        };
        Self {
            count: values.len(),
            median_us: at(500),
            p90_us: at(900),
            p95_us: at(950),
            p99_us: at(990),
            max_us: values.last().copied().unwrap_or_default(),
        }
    }
}

/// How a verb fared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verb {
    pub ok: usize,
    pub rejected: usize,
    pub unknown: usize,
    pub latency: Spread,
    /// Refusals by reason.
    pub reasons: BTreeMap<String, usize>,
}

/// The outcome of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub verbs: BTreeMap<String, Verb>,
    /// Longest time without an acknowledged write after each fault, by kind.
    pub gaps: BTreeMap<FaultKind, Spread>,
    pub violations: Vec<Violation>,
    /// What is wrong with the product beyond the promises.
    pub problems: Vec<String>,
    /// What the harness did not manage.
    pub harness: Vec<String>,
    pub compared: u64,
    /// Registers for whose calls an order was looked for, and those of them for which the search was given up.
    pub registers: u64,
    pub undecided: u64,
    pub steps_executed: usize,
    pub runs: usize,
    /// Runs that were continued as new.
    pub continued: usize,
    /// Runs that continue another, and whose worker began with them by the command that continued it.
    pub stayed: usize,
}

impl Report {
    #[must_use]
    pub fn of(evidence: &Evidence, verdict: Verdict) -> Self {
        let mut verbs: BTreeMap<String, Verb> = BTreeMap::new();
        let mut latencies: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for entry in &evidence.history {
            let name = entry.call.name();
            let verb = verbs.entry(name.to_owned()).or_default();
            match &entry.outcome {
                Outcome::Ok { .. } => {
                    verb.ok += 1;
                    let took = entry.returned_us.saturating_sub(entry.invoked_us);
                    latencies.entry(name).or_default().push(took);
                }
                Outcome::Rejected { reason, .. } => {
                    verb.rejected += 1;
                    *verb.reasons.entry(reason.clone()).or_default() += 1;
                }
                Outcome::Unknown { .. } => verb.unknown += 1,
            }
        }
        for (name, values) in latencies {
            if let Some(verb) = verbs.get_mut(name) {
                verb.latency = Spread::of(values);
            }
        }
        let began = |line: &&WorkerLine| matches!(line.event, WorkerEvent::Began { .. });
        Self {
            verbs,
            gaps: gaps(evidence),
            violations: verdict.violations,
            problems: Vec::new(),
            harness: verdict.harness,
            compared: verdict.compared,
            registers: verdict.decided + verdict.undecided,
            undecided: verdict.undecided,
            steps_executed: evidence.worker_log.iter().filter(began).count(),
            runs: evidence.finals.iter().map(|agent| agent.runs.len()).sum(),
            continued: evidence.finals.iter().map(|agent| agent.continued().len()).sum(),
            stayed: evidence.finals.iter().map(|agent| stayed(agent, &evidence.worker_log)).sum(),
        }
    }

    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.problems.is_empty() && self.harness.is_empty()
    }
}

fn stayed(agent: &AgentFinal, worker_log: &[WorkerLine]) -> usize {
    let began: BTreeSet<(&str, u64)> =
        worker_log.iter().map(|line| (line.run_id.as_str(), line.token)).collect();
    let next = agent.runs.iter().filter(|run| !run.first_run_id.is_empty());
    next.filter(|run| began.contains(&(run.run_id.as_str(), run.pin.revision))).count()
}

/// From each fault to the first write that was asked for after it and acknowledged.
fn gaps(evidence: &Evidence) -> BTreeMap<FaultKind, Spread> {
    let mut found: BTreeMap<FaultKind, Vec<u64>> = BTreeMap::new();
    for fault in &evidence.faults {
        if let Some(wait) = fault.effective_us.and_then(|at| evidence.next_acked_write(at)) {
            found.entry(fault.kind).or_default().push(wait);
        }
    }
    found.into_iter().map(|(kind, values)| (kind, Spread::of(values))).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<15} {:>7} {:>8} {:>8} {:>9} {:>9} {:>9}",
            "call", "ok", "rejected", "unknown", "p50 ms", "p99 ms", "max ms"
        )?;
        for (name, verb) in &self.verbs {
            writeln!(
                f,
                "  {name:<15} {:>7} {:>8} {:>8} {:>9} {:>9} {:>9}",
                verb.ok,
                verb.rejected,
                verb.unknown,
                ms(verb.latency.median_us),
                ms(verb.latency.p99_us),
                ms(verb.latency.max_us)
            )?;
        }
        for (kind, spread) in &self.gaps {
            writeln!(
                f,
                "  next acknowledged write after {kind:?}: {} faults, p50 {} ms, max {} ms",
                spread.count,
                ms(spread.median_us),
                ms(spread.max_us)
            )?;
        }
        writeln!(
            f,
            "  {} runs, {} of them continued as new, {} steps executed, {} statements compared",
            self.runs, self.continued, self.steps_executed, self.compared
        )?;
        writeln!(
            f,
            "  order of calls: {} registers, {} of them not decided",
            self.registers, self.undecided
        )?;
        list(
            f,
            "broken promises",
            self.violations.iter().map(|it| format!("{}: {}", it.promise, it.what)),
        )?;
        list(f, "problems", self.problems.iter().cloned())?;
        list(f, "harness", self.harness.iter().cloned())?;
        writeln!(f, "  {}", if self.passed() { "passed" } else { "FAILED" })
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    let count = lines.len();
    if count == 0 {
        return Ok(());
    }
    writeln!(f, "  {title}: {count}")?;
    for line in lines.take(SHOWN) {
        writeln!(f, "    {line}")?;
    }
    Ok(())
}

/// Microseconds as milliseconds with one decimal.
#[must_use]
pub fn ms(us: u64) -> String {
    format!("{}.{}", us / 1_000, us % 1_000 / 100)
}

/// The folder of a scenario: removed when it passed, kept and named when it did not.
#[derive(Debug)]
pub struct Keeper {
    name: String,
    folder: PathBuf,
    temporary: Option<tempfile::TempDir>,
    /// Where the page and the picture of every scenario go, passed or not.
    out: Option<PathBuf>,
}

impl Keeper {
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(setting: &Setting, name: &str) -> Result<Self> {
        let prefix = format!("pinrail-{name}-");
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(&prefix);
        let temporary = match &setting.out {
            Some(out) => {
                std::fs::create_dir_all(out)?;
                builder.tempdir_in(out)?
            }
            None => builder.tempdir()?,
        };
        Ok(Self {
            name: name.to_owned(),
            folder: temporary.path().to_owned(),
            temporary: Some(temporary),
            out: setting.out.clone(),
        })
    }

    /// Writes the report as a page, as JSON and as a picture, where somebody asked for them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn publish(&self, report: &Report, evidence: &Evidence) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        let page = page::markdown(&self.name, report, evidence);
        let files = [
            ("md", page.into_bytes()),
            ("json", serde_json::to_vec_pretty(report)?),
            ("svg", plot::availability(evidence).into_bytes()),
        ];
        for (kind, data) in files {
            let path = out.join(format!("{}.{kind}", self.name));
            std::fs::write(&path, data).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write<T: Serialize>(&self, name: &str, what: &T) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, serde_json::to_vec_pretty(what)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Keeps the folder unless the scenario passed, and says where it is.
    ///
    /// # Errors
    /// The one that it was given.
    pub fn settle(&mut self, result: Result<Report>) -> Result<Report> {
        let passed = result.as_ref().is_ok_and(Report::passed);
        if !passed && let Some(temporary) = self.temporary.take() {
            let folder = temporary.keep();
            eprintln!("logs, history and evidence are in {}", folder.display());
            if let Ok(report) = &result {
                self.write("report.json", report)?;
            }
        }
        result
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_count_from_below() {
        let spread = Spread::of((1..=100).rev().collect());
        assert_eq!((spread.median_us, spread.p90_us, spread.max_us), (50, 90, 100));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
