//! The general scenario: agents with workers and without, clients at every node, route changes and faults by the
//! plan of a seed, then healing, a final read, and the verdict.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep_until};

use super::conclude::conclude;
use super::plan::{BUNDLES, Plan, bundle};
use super::{Load, Nemesis, Setting};
use crate::api::setup::Policy;
use crate::cluster::{Cluster, Ground, Options};
use crate::history::{FaultKind, Recorder};
use crate::report::{Keeper, Report};
use crate::worker::Workers;
use crate::workload::{Mix, Patience};

/// Fewer acknowledged calls than this prove nothing.
const LEAST_ACKED: usize = 100;

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
        disks: plan.faults.iter().any(|fault| fault.kind == FaultKind::LosePower),
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
            .strike(fault.kind, Duration::from_millis(fault.lasts_ms))
            .await
            .with_context(|| format!("fault {fault:?}"))?;
    }
    sleep_until(begin + Duration::from_millis(plan.lasts_ms)).await;
    nemesis.heal().await?;
    load.finish().await;
    conclude(load, nemesis, keeper, LEAST_ACKED).await
}

/// One storm after the other until the time is over; stops at the first that fails. The ground says which faults are
/// drawn.
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
    let mut seed = setting.seed;
    loop {
        let plan = Plan::draw(seed, each, ground);
        let plan = match only {
            Some(kind) => plan.only(kind),
            None => plan,
        };
        let kinds: Vec<FaultKind> = plan.faults.iter().map(|fault| fault.kind).collect();
        println!("\nseed {seed}: {} faults {kinds:?}", kinds.len());
        let report = storm(&Setting { seed, ..setting.clone() }, &plan).await?;
        print!("{report}");
        if !report.passed() {
            return Ok(false);
        }
        seed += 1;
        if Instant::now() >= until {
            return Ok(true);
        }
    }
}
