//! Workers that are killed, and workers that stand still for longer than their leases and then go on: their steps are leased again
//! soon after the lease is over, and whatever they say too late is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::Setting;
use super::conclude::conclude;
use super::opening::open;
use super::plan::bundle;
use crate::api::setup::Policy;
use crate::cluster::Options;
use crate::history::{Fault, FaultKind, WorkerEvent, WorkerLine};
use crate::report::{Keeper, Report, Spread, ms};
use crate::worker::read_journals;
use crate::workload::{Mix, Patience};

const AGENT: &str = "alpha";
/// So few that no step waits for a free worker.
const CLIENTS: u32 = 2;
/// Beside the one that every scenario starts.
const MORE_WORKERS: usize = 2;
/// Load between two faults; a lease lasts a second.
const BETWEEN: Duration = Duration::from_secs(2);
const PAUSED: Duration = Duration::from_secs(3);
/// A step whose worker is gone is leased again after its lease and this at most.
const OVER_MS: u64 = 500;
const KINDS: [FaultKind; 2] = [FaultKind::KillWorker, FaultKind::PauseWorker];

/// What came of it.
#[derive(Debug)]
pub struct LateWorkers {
    /// From the fault to the next lease of a step that the worker held, by kind of fault.
    again: BTreeMap<FaultKind, Spread>,
    /// Calls of workers that were refused, and steps that they gave up when they were told first that the lease was lost.
    refused: usize,
    lost: usize,
    pub report: Report,
}

impl LateWorkers {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.misses().is_empty()
    }

    fn misses(&self) -> Vec<String> {
        let bound_us = bound_us();
        let mut misses = Vec::new();
        for kind in KINDS {
            let again = self.again.get(&kind).copied().unwrap_or_default();
            if again.count == 0 {
                misses.push(format!("{kind:?}: no worker held a step"));
            }
            if again.max_us > bound_us {
                misses.push(format!("{kind:?}: a step waited for {} ms", ms(again.max_us)));
            }
        }
        if self.refused + self.lost == 0 {
            misses.push("no worker was late".to_owned());
        }
        misses
    }
}

fn bound_us() -> u64 {
    (Policy::default().lease_ms + OVER_MS) * 1_000
}

impl fmt::Display for LateWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        for (kind, again) in &self.again {
            writeln!(
                f,
                "  {kind:?}: {} steps leased again after p50 {} ms, p95 {} ms, max {} ms (bound {} ms)",
                again.count,
                ms(again.median_us),
                ms(again.p95_us),
                ms(again.max_us),
                ms(bound_us())
            )?;
        }
        let (refused, lost) = (self.refused, self.lost);
        writeln!(
            f,
            "  too late: {refused} calls were refused, {lost} steps given up before a call"
        )?;
        self.misses().iter().try_for_each(|miss| writeln!(f, "  MISSED: {miss}"))
    }
}

/// # Errors
/// When the harness failed.
pub async fn late_workers(setting: &Setting, trials: u32) -> Result<LateWorkers> {
    let mut keeper = Keeper::new(setting, "late-workers")?;
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    let result = story(setting, trials, &keeper, &mut lines, &mut faults).await;
    let report = keeper.settle(result)?;
    let again = KINDS.map(|kind| {
        let of_kind = faults.iter().filter(|fault| fault.kind == kind);
        (kind, Spread::of(of_kind.flat_map(|fault| leased_again(fault, &lines)).collect()))
    });
    let refused = |line: &&WorkerLine| matches!(line.event, WorkerEvent::Refused { .. });
    let lost =
        |line: &&WorkerLine| matches!(line.event, WorkerEvent::Cancelled { lease_lost: true });
    let refused = lines.iter().filter(refused).count();
    let lost = lines.iter().filter(lost).count();
    Ok(LateWorkers { again: BTreeMap::from(again), refused, lost, report })
}

async fn story(
    setting: &Setting,
    trials: u32,
    keeper: &Keeper,
    lines: &mut Vec<WorkerLine>,
    faults: &mut Vec<Fault>,
) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        log_archive: true,
        ..Options::three(&setting.binaries.pinrail)
    };
    let (mut load, mut nemesis) = open(setting, keeper, &options, AGENT, &[bundle(1)]).await?;
    let workers = nemesis.workers.as_mut().context("the scenario has workers")?;
    for _ in 0..MORE_WORKERS {
        workers.start(AGENT, &bundle(1))?;
    }
    load.start_clients(AGENT, CLIENTS, mix(), Patience::default());
    for _ in 0..trials {
        for kind in KINDS {
            sleep(BETWEEN).await;
            nemesis.strike(&[kind], PAUSED).await?;
        }
    }
    sleep(PAUSED).await;
    load.finish().await;
    let workers = nemesis.workers.as_ref().context("the scenario has workers")?;
    *lines = read_journals(workers.folder())?;
    *faults = load.recorder.faults();
    conclude(load, nemesis, keeper, 100).await
}

/// Steps that take a while, so that a worker mostly holds some, and end.
fn mix() -> Mix {
    Mix { stuck_percent: 0, long_percent: 0, step_ms: 900, ..Mix::everything() }
}

/// How long after a fault each step was leased again that the worker of the fault held: one whose attempt had begun before it,
/// and of which that worker said nothing more before the next attempt.
fn leased_again(fault: &Fault, lines: &[WorkerLine]) -> Vec<u64> {
    let Some(at_us) = fault.effective_us else { return Vec::new() };
    let mut steps: BTreeMap<(&str, u32), Vec<&WorkerLine>> = BTreeMap::new();
    for line in lines {
        steps.entry((&line.run_id, line.step)).or_default().push(line);
    }
    let mut found = Vec::new();
    for said in steps.values_mut() {
        said.sort_by_key(|line| line.at_us);
        let began = |line: &&&WorkerLine| matches!(line.event, WorkerEvent::Began { .. });
        let Some(held) = said.iter().filter(began).rfind(|line| line.at_us < at_us) else {
            continue;
        };
        let next = said.iter().filter(began).find(|line| line.at_us >= at_us);
        let Some(next) = next.filter(|next| next.attempt > held.attempt) else { continue };
        let spoke = |line: &&WorkerLine| {
            line.attempt == held.attempt && (at_us..next.at_us).contains(&line.at_us)
        };
        // Its worker may have been another one, which failed in its own way.
        let was_over = said
            .iter()
            .any(|line| line.attempt == held.attempt && line.at_us < at_us && ends(&line.event));
        if !was_over && !said.iter().any(spoke) {
            found.push(next.at_us - at_us);
        }
    }
    found
}

fn ends(event: &WorkerEvent) -> bool {
    matches!(
        event,
        WorkerEvent::Completed { .. } | WorkerEvent::Refused { .. } | WorkerEvent::Cancelled { .. }
    )
}
