//! The general scenario: agents with workers and without, clients at every node, route changes and faults by the
//! plan of a seed, then healing, a final read, and the verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep_until};

use super::conclude::conclude;
use super::plan::{BUNDLES, Plan, PlannedFault, bundle, distinct_kinds};
use super::{Load, Nemesis, Setting};
use crate::api::setup::Policy;
use crate::cluster::{Cluster, Ground, Options};
use crate::history::{FaultKind, Needs, Recorder};
use crate::report::{Keeper, Report};
use crate::worker::Workers;
use crate::workload::{Mix, Patience};

/// Fewer acknowledged calls than this prove nothing.
const LEAST_ACKED: usize = 100;

const SNAPSHOT_LOG: &str = "64KiB";

/// The agent whose runs are executed by workers, and the one whose runs are not.
const WORKED: &str = "alpha";
const EXTERNAL: &str = "beta";

/// Runs a plan and judges what came of it.
///
/// # Errors
/// When the harness failed: no verdict then.
pub async fn storm(setting: &Setting, plan: &Plan) -> Result<Report> {
    let mut keeper = Keeper::new(setting, &format!("storm-{}", plan.seed))?;
    keeper.write("plan.json", plan)?;
    let result = weather(setting, plan, &keeper).await;
    keeper.settle(result)
}

async fn weather(setting: &Setting, plan: &Plan, keeper: &Keeper) -> Result<Report> {
    let options = Options {
        folder: Some(keeper.folder()),
        log_archive: true,
        ground: plan.ground(),
        disks: plan.needs(Needs::Disk),
        // A full disk is met when something new is written there, as a snapshot is.
        snapshot_log: plan.needs(Needs::Disk).then(|| SNAPSHOT_LOG.to_owned()),
        ..Options::three(&setting.binaries.pinrail)
    };
    let cluster = Cluster::start(&options).await?;
    let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
    let mut load = Load::new(cluster.nodes.clone(), recorder.clone(), plan.seed);
    let bundles: Vec<String> = (1..=BUNDLES).map(bundle).collect();
    load.add_agent(WORKED, Policy::default(), &bundles).await?;
    load.add_agent(EXTERNAL, Policy { external: true, ..Policy::default() }, &bundles).await?;
    let mut workers =
        Workers::new(&setting.binaries.worker, &keeper.folder(), &cluster.endpoints())?;
    // Two of each, so that a step whose worker is frozen goes to the other one.
    for bundle_id in bundles.iter().chain(&bundles) {
        workers.start(WORKED, bundle_id)?;
    }
    let mut nemesis = Nemesis { cluster, workers: Some(workers), recorder: recorder.clone() };

    let begin = Instant::now();
    let patience = Patience::default();
    load.start_clients(WORKED, plan.clients, Mix::everything(), patience);
    load.start_clients(EXTERNAL, 2, Mix::external(), patience);
    load.start_admin(WORKED, begin, &plan.admin);
    load.start_admin(EXTERNAL, begin, &plan.external_admin);
    for fault in &plan.faults {
        sleep_until(begin + Duration::from_millis(fault.at_ms)).await;
        nemesis
            .strike(&fault.kinds(), Duration::from_millis(fault.lasts_ms))
            .await
            .with_context(|| format!("fault {fault:?}"))?;
    }
    sleep_until(begin + Duration::from_millis(plan.lasts_ms)).await;
    nemesis.heal().await?;
    load.finish().await;
    conclude(load, nemesis, keeper, LEAST_ACKED).await
}

/// One storm after the other until the time is over; stops at the first that fails. The ground says which faults are
/// drawn; each of them must have been met, unless the time was too short for it.
///
/// # Errors
/// When the harness failed.
pub async fn run(
    setting: &Setting,
    minutes: f64,
    each: Duration,
    ground: Ground,
    only: Option<FaultKind>,
) -> Result<bool> {
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let (mut seed, mut storms) = (setting.seed, 0);
    let mut met: BTreeMap<FaultKind, usize> = BTreeMap::new();
    loop {
        let plan = Plan::draw(seed, each, ground);
        let plan = match only {
            Some(kind) => plan.only(kind),
            None => plan,
        };
        let kinds: Vec<FaultKind> = plan.faults.iter().flat_map(PlannedFault::kinds).collect();
        println!("\nseed {seed}: {} faults {kinds:?}", kinds.len());
        let report = storm(&Setting { seed, ..setting.clone() }, &plan).await?;
        print!("{report}");
        if !report.passed() {
            println!("  again with: chaos run --seed {seed} --minutes 0{}", again(ground, only));
            return Ok(false);
        }
        for kind in kinds {
            *met.entry(kind).or_default() += 1;
        }
        (seed, storms) = (seed + 1, storms + 1);
        if Instant::now() >= until {
            return Ok(covered(&met, storms, ground, only));
        }
    }
}

fn again(ground: Ground, only: Option<FaultKind>) -> String {
    let namespaces = if ground == Ground::Namespaces { " --namespaces" } else { "" };
    let word = only.and_then(|kind| serde_json::to_value(kind).ok());
    let only = word.as_ref().and_then(|word| word.as_str());
    format!("{namespaces}{}", only.map(|word| format!(" --only {word}")).unwrap_or_default())
}

/// Whether every kind was met, where there was time for it. A fault that took no effect has failed its storm already.
fn covered(
    met: &BTreeMap<FaultKind, usize>,
    storms: usize,
    ground: Ground,
    only: Option<FaultKind>,
) -> bool {
    let times: Vec<String> = met.iter().map(|(kind, times)| format!("{kind:?} {times}")).collect();
    println!("\n{storms} storms passed; faults met: {}", times.join(", "));
    let wanted = distinct_kinds(ground);
    let missing: Vec<_> = wanted.iter().filter(|kind| !met.contains_key(kind)).collect();
    if only.is_some() || storms < wanted.len() || missing.is_empty() {
        return true;
    }
    println!("never met: {missing:?}");
    false
}
