//! What a switch costs with 10,000 open pins on the bundle that loses its traffic, against one with none; and how
//! the expiry of the 10,000 at their cap goes while new runs start.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::stream::{self, StreamExt as _};
use tokio::time::sleep;

use super::conclude::conclude;
use super::plan::bundle;
use super::{Load, Nemesis, Setting};
use crate::api::setup::{self, Policy};
use crate::clock;
use crate::cluster::{Cluster, Options};
use crate::history::{Answer, Call, Entry, Evidence, Outcome, Recorder};
use crate::report::{Keeper, Report, Spread, ms};
use crate::workload::{Mix, Operator, Patience};

/// The agent with open pins, and the one without any.
const FULL: &str = "full";
const EMPTY: &str = "empty";
/// Starts under way at the same time.
const AT_ONCE: usize = 64;
/// How much dearer a switch with open pins may be.
const BOUND_PERMILLE: u64 = 1_300;
/// Pins that one command of the sweep may end: `limits::TICK_ITEMS`.
const BATCH: usize = 256;
/// Between two switches, so that one does not wait for the other's disk.
const REST: Duration = Duration::from_millis(5);

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub pins: usize,
    pub switches: usize,
}

/// What was measured.
#[derive(Debug)]
pub struct SwitchCost {
    pub size: Size,
    pub with_pins: Spread,
    pub without: Spread,
    /// Revisions that a switch took, at least: one command is one revision.
    pub revisions: u64,
    /// Starts while the pins expired.
    pub starts: Spread,
    pub expired: usize,
    pub largest_batch: usize,
    /// From the drain deadline to the end of the last pin, cluster time.
    pub expiry_ms: u64,
    pub report: Report,
}

impl SwitchCost {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.misses().is_empty()
    }

    fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        if self.with_pins.median_us * 1_000 > self.without.median_us * BOUND_PERMILLE {
            misses.push("a switch with open pins is more than 1.3 times as dear".to_owned());
        }
        if self.revisions != 1 {
            misses.push(format!("a switch took {} commands", self.revisions));
        }
        if self.largest_batch > BATCH {
            misses.push(format!("one command ended {} pins", self.largest_batch));
        }
        if self.expired < self.size.pins {
            misses.push(format!("only {} of {} pins expired", self.expired, self.size.pins));
        }
        if self.starts.count == 0 {
            misses.push("no run was started while the pins expired".to_owned());
        }
        misses
    }
}

impl fmt::Display for SwitchCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, spread: &Spread| {
            writeln!(
                f,
                "  {what}: {} times, p50 {} ms, p90 {} ms, max {} ms",
                spread.count,
                ms(spread.median_us),
                ms(spread.p90_us),
                ms(spread.max_us)
            )
        };
        line(f, &format!("switch with {} open pins", self.size.pins), &self.with_pins)?;
        line(f, "switch with none", &self.without)?;
        let permille = self.with_pins.median_us * 1_000 / self.without.median_us.max(1);
        writeln!(
            f,
            "  ratio of the medians {}.{:03} (bound 1.3); commands per switch: {}",
            permille / 1_000,
            permille % 1_000,
            self.revisions
        )?;
        writeln!(
            f,
            "  {} pins expired {} ms after their deadline, at most {} in one command",
            self.expired, self.expiry_ms, self.largest_batch
        )?;
        line(f, "starts meanwhile", &self.starts)?;
        self.misses().iter().try_for_each(|miss| writeln!(f, "  MISSED: {miss}"))
    }
}

/// # Errors
/// When the harness failed.
pub async fn switch_cost(setting: &Setting, size: Size) -> Result<SwitchCost> {
    let mut keeper = Keeper::new(setting, "switch-cost")?;
    let mut cost = SwitchCost {
        size,
        with_pins: Spread::default(),
        without: Spread::default(),
        revisions: u64::MAX,
        starts: Spread::default(),
        expired: 0,
        largest_batch: 0,
        expiry_ms: 0,
        report: Report::default(),
    };
    let result = measure(setting, &keeper, &mut cost).await;
    cost.report = keeper.settle(result)?;
    Ok(cost)
}

async fn measure(setting: &Setting, keeper: &Keeper, cost: &mut SwitchCost) -> Result<Report> {
    let size = cost.size;
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let mut cluster = Cluster::start(&options).await?;
    let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
    let mut load = Load::new(cluster.nodes.clone(), recorder.clone(), setting.seed);
    // Nothing expires while switches are measured.
    let long = Policy { external: true, drain_cap_ms: 3_600_000, ..Policy::default() };
    for agent in [FULL, EMPTY] {
        load.add_agent(agent, long, &[bundle(1), bundle(2)]).await?;
    }
    let leader = cluster.wait_leader(Duration::from_secs(5)).await?;
    let mut operator = load.operator();
    fill(&mut operator, leader, size.pins).await?;
    println!("  {} runs are open on v1", size.pins);
    let mut with_pins = Vec::new();
    let mut without = Vec::new();
    for _ in 0..size.switches {
        for (agent, times) in [(FULL, &mut with_pins), (EMPTY, &mut without)] {
            times.push(timed_switch(&mut operator, leader, agent, 2, &mut cost.revisions).await?);
            sleep(REST).await;
            timed_switch(&mut operator, leader, agent, 1, &mut cost.revisions).await?;
            sleep(REST).await;
        }
    }
    (cost.with_pins, cost.without) = (Spread::of(with_pins), Spread::of(without));

    // Now with a cap that comes soon.
    let short = Policy { drain_cap_ms: 2_000, grace_ms: 1_000, ..long };
    setup::set_policy(&cluster.nodes, FULL, short).await?;
    load.set_policy(FULL, short);
    timed_switch(&mut operator, leader, FULL, 2, &mut cost.revisions).await?;
    let since_us = clock::now_us();
    let mix = Mix { start: 50, put: 0, drain: 50, ..Mix::writes() };
    load.start_clients(FULL, 4, mix, Patience::default());
    load.wait_drains_of(FULL, &bundle(1), Duration::from_secs(10)).await;
    load.finish().await;
    let entries = recorder.entries();
    cost.starts = Spread::of(starts_since(&entries, since_us));
    let nemesis = Nemesis { cluster, workers: None, recorder };
    let report = conclude(load, nemesis, keeper, size.pins).await?;
    expiry(keeper, cost)?;
    Ok(report)
}

/// Starts so many external runs, many at the same time.
async fn fill(operator: &mut Operator, leader: usize, pins: usize) -> Result<()> {
    let (nodes, recorder) = (operator.nodes.clone(), operator.recorder.clone());
    let failed = stream::iter(0..pins)
        .map(|number| {
            let mut hands = Operator {
                client: operator.client,
                nodes: nodes.clone(),
                recorder: recorder.clone(),
                rng: crate::workload::client::rng(number as u64, 0),
                patience: Patience { attempt: Duration::from_secs(10), ..operator.patience },
            };
            async move {
                let call = Call::StartRun {
                    run_id: format!("pin-{number}"),
                    input: "{}".to_owned(),
                    bundle_id: String::new(),
                };
                let operation = hands.recorder.operation();
                hands.attempt(FULL, &call, operation, "", leader).await
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter(|outcome| {
            let bad = !matches!(outcome, Outcome::Ok { .. });
            async move { bad }
        })
        .collect::<Vec<_>>()
        .await;
    if let Some(first) = failed.first() {
        bail!("{} starts failed, the first with {first:?}", failed.len());
    }
    Ok(())
}

/// Switches at the leader and gives the time it took. On a quiet cluster the revision shows the commands it took.
async fn timed_switch(
    operator: &mut Operator,
    leader: usize,
    agent: &str,
    to: usize,
    revisions: &mut u64,
) -> Result<u64> {
    let before = ask(operator, leader, agent, Call::ReadRoute).await?.0;
    let call = Call::Switch { bundle_id: bundle(to) };
    let (revision, _, took) = ask(operator, leader, agent, call).await?;
    *revisions = (*revisions).min(revision.saturating_sub(before));
    ask(operator, leader, agent, Call::ReadRoute).await?;
    Ok(took)
}

async fn ask(
    operator: &mut Operator,
    leader: usize,
    agent: &str,
    call: Call,
) -> Result<(u64, Answer, u64)> {
    let operation = operator.recorder.operation();
    let request_id = if call.is_write() { format!("cost-{operation}") } else { String::new() };
    let begin = clock::now_us();
    let outcome = operator.attempt(agent, &call, operation, &request_id, leader).await;
    let took = clock::now_us() - begin;
    match outcome {
        Outcome::Ok { revision, answer } => Ok((revision, answer, took)),
        other => bail!("{} of {agent} came to {other:?}", call.name()),
    }
}

fn starts_since(entries: &[Entry], since_us: u64) -> Vec<u64> {
    entries
        .iter()
        .filter(|entry| entry.invoked_us >= since_us && entry.ok().is_some())
        .filter(|entry| matches!(entry.call, Call::StartRun { .. }))
        .map(|entry| entry.returned_us - entry.invoked_us)
        .collect()
}

/// How the pins ended, from the evidence that was kept.
fn expiry(keeper: &Keeper, cost: &mut SwitchCost) -> Result<()> {
    let text = std::fs::read(keeper.path().join("evidence.json"))?;
    let evidence: Evidence = serde_json::from_slice(&text)?;
    let full = evidence.finals.iter().find(|one| one.agent == FULL).context("no final read")?;
    let deadline = evidence
        .history
        .iter()
        .filter(|entry| entry.agent == FULL)
        .filter_map(|entry| match entry.ok()?.1 {
            Answer::Moved { drain_deadline_ms, epoch, .. } => Some((*epoch, *drain_deadline_ms)),
            _ => None,
        })
        .max()
        .map_or(0, |(_, deadline)| deadline);
    let mut batches: BTreeMap<u64, usize> = BTreeMap::new();
    for run in full.runs.iter().filter(|run| run.end_reason == "drain_cap") {
        *batches.entry(run.revision).or_default() += 1;
        cost.expired += 1;
        cost.expiry_ms = cost.expiry_ms.max(run.ended_at_ms.saturating_sub(deadline));
    }
    cost.largest_batch = batches.values().copied().max().unwrap_or_default();
    Ok(())
}
