//! Whole nodes in one process under simulated time: the real server over an in-memory disk that knows what was synced and may fail,
//! a network that delays, holds back, parts, and brings Raft's messages twice and late, clocks that disagree, drift and jump. Every
//! choice is drawn from a seed, Raft's election timeouts too, and there are no threads: the same seed gives the same trace. The
//! clients, workers, history and judge are those of the faults against real processes.
//!
//! ```text
//!   seed ──> storm (faults) ──> turmoil: n0 n1 n2 (Server over Disk) · client host (load, workers)
//!                                     └─ history, worker log, final read ──> judge
//! ```

pub mod command;
mod invariants;
mod post;
mod storm;
mod weather;
mod world;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use pinrail_node::log_dump;
use pinrail_node::storage::memory::Disk;

use crate::api::Nodes;
use crate::api::setup::{Policy, code_of};
use crate::check::judge;
use crate::history::{Evidence, MemberLog, Recorder};
use crate::report::Report;
use crate::scenario::Load;
use crate::worker::{self, read_journals};
use crate::workload::{AdminStep, Mix, Patience};

use invariants::Invariants;
use storm::Storm;
use weather::Weather;
use world::World;

/// Simulated time after which a seed has failed, whatever it was doing.
const LONGEST: Duration = Duration::from_secs(180);
/// Fewer acknowledged calls prove nothing.
const LEAST_ACKED: usize = 50;
/// Drains may end so long after their bound; the judge knows the exact figure.
const SLACK: Duration = Duration::from_secs(4);
/// Without faults the members come together sooner.
const AGREE: Duration = Duration::from_secs(30);

const WORKED: &str = "alpha";
const EXTERNAL: &str = "beta";

/// What came of a seed.
#[derive(Debug)]
pub struct Seed {
    pub report: Report,
    /// Hash of everything that clients saw, in order, with the times.
    pub trace: u64,
    /// How often crashes lost unsynced log writes and unflushed state.
    pub losses: (u64, u64),
    /// Old messages of Raft that came once more and were answered.
    pub copies: u64,
    /// Index of the last entry when a single switch was asked for, and at the end.
    pub entries: (u64, u64),
    /// What the verdict rests on.
    pub evidence: Evidence,
}

/// Runs one seed. Journals of workers go into `folder`.
///
/// # Errors
/// When the cluster did not come back after all faults were healed, or the harness failed.
pub fn run(seed: u64, folder: &Path) -> Result<Seed> {
    played(seed, &Storm::draw(seed), None, folder)
}

/// Runs one switch whose drain has a short cap; whoever writes the entry with this index first, the leader that is, crashes then.
///
/// # Errors
/// As [`run`].
pub fn run_switch(seed: u64, crash_at: Option<u64>, folder: &Path) -> Result<Seed> {
    played(seed, &Storm::of_one_switch(), crash_at, folder)
}

fn played(seed: u64, storm: &Storm, crash_at: Option<u64>, folder: &Path) -> Result<Seed> {
    let world = World { seed, nodes: storm.nodes, copies: Arc::default() };
    let disks: Vec<Disk> = (0..storm.nodes).map(|_| world.disk()).collect();
    let mut sim = world.simulation(LONGEST);
    for (number, disk) in disks.iter().enumerate() {
        world.host(&mut sim, number, disk.clone(), archive(folder, number));
    }
    let recorder = Recorder::in_memory();
    let begun = Rc::new(RefCell::new(None));
    let finished: Rc<RefCell<Option<Result<Played>>>> = Rc::default();
    {
        let (storm, recorder) = (storm.clone(), recorder.clone());
        let (begun, finished) = (Rc::clone(&begun), Rc::clone(&finished));
        let folder = folder.to_owned();
        sim.client("client", async move {
            let result = play(seed, &storm, recorder, &folder, &begun).await;
            *finished.borrow_mut() = Some(result);
            Ok(())
        });
    }
    let mut weather = Weather::new(storm, &disks, &recorder, crash_at);
    let mut invariants = Invariants::default();
    let mut switch_at = 0;
    loop {
        let over = sim.step().map_err(|error| anyhow!("seed {seed}: {error}"))?;
        invariants.look(&disks, sim.elapsed())?;
        if over {
            break;
        }
        if let Some(begin) = *begun.borrow() {
            weather.blow(&mut sim, begin);
            if switch_at == 0 && sim.elapsed() >= begin + Duration::from_millis(storm::SWITCH_MS) {
                switch_at = last_index(&disks);
            }
        }
    }
    let Played { mut evidence, problems } =
        finished.borrow_mut().take().context("the client did not end")??;
    let losses = disks.iter().map(Disk::losses).fold((0, 0), |sum, l| (sum.0 + l.0, sum.1 + l.1));
    let trace = trace(&evidence)?;
    evidence.logs = (0..storm.nodes).map(|node| applied(folder, node)).collect::<Result<_>>()?;
    let mut report = Report::of(&evidence, judge(&evidence));
    report.problems.extend(problems);
    report.problems.extend(invariants.end(&disks)?);
    let acked = evidence.history.iter().filter(|entry| entry.ok().is_some()).count();
    if acked < LEAST_ACKED {
        report.harness.push(format!("only {acked} calls were acknowledged"));
    }
    let entries = (switch_at, last_index(&disks));
    let copies = world.copies.load(Ordering::Relaxed);
    Ok(Seed { report, trace, losses, copies, entries, evidence })
}

/// Where a member keeps every entry that it applies. What it lost of its disk is there all the same.
fn archive(folder: &Path, node: usize) -> PathBuf {
    folder.join(format!("{}.archive", world::name(node)))
}

fn applied(folder: &Path, node: usize) -> Result<MemberLog> {
    let mut dump = Vec::new();
    log_dump::archive(&archive(folder, node), &(0..=u64::MAX), &mut dump)?;
    let archive = MemberLog::parse(&String::from_utf8(dump)?)?;
    Ok(MemberLog { node, archive, log: Vec::new() })
}

fn last_index(disks: &[Disk]) -> u64 {
    disks.iter().map(Disk::last_index).max().unwrap_or(0)
}

fn trace(evidence: &Evidence) -> Result<u64> {
    let text = serde_json::to_vec(&(&evidence.history, &evidence.worker_log))?;
    Ok(xxhash_rust::xxh3::xxh3_64(&text))
}

/// What the clients brought home.
#[derive(Debug)]
struct Played {
    evidence: Evidence,
    /// How the members' states differ at the end, and who has not heard of everything.
    problems: Vec<String>,
}

/// The clients' part: set up, load, and after the faults the final read.
async fn play(
    seed: u64,
    storm: &Storm,
    recorder: Recorder,
    folder: &Path,
    begun: &RefCell<Option<Duration>>,
) -> Result<Played> {
    let addresses: Vec<String> = (0..storm.nodes).map(world::grpc_address).collect();
    let nodes = Nodes::connect(addresses.iter().map(String::as_str))?;
    let mut load = Load::new(nodes.clone(), recorder.clone(), seed);
    let bundles: Vec<String> = (1..=3).map(|number| format!("v{number}")).collect();
    load.add_agent(WORKED, Policy::default(), &bundles).await?;
    load.add_agent(EXTERNAL, Policy { external: true, ..Policy::default() }, &bundles).await?;
    let mut workers = tokio::task::JoinSet::new();
    for bundle_id in &bundles {
        let config = worker::Config {
            endpoints: addresses.clone(),
            agent: WORKED.to_owned(),
            bundle: bundle_id.clone(),
            code: code_of(bundle_id),
            worker_id: format!("{WORKED}-{bundle_id}"),
            slots: 8,
            journal: folder.join(format!("{WORKED}-{bundle_id}.jsonl")),
        };
        workers.spawn(worker::serve(config));
    }
    *begun.borrow_mut() = turmoil::sim_elapsed();
    let begin = tokio::time::Instant::now();
    load.start_clients(WORKED, 3, Mix::everything(), Patience::default());
    load.start_clients(EXTERNAL, 1, Mix::external(), Patience::default());
    load.start_watchers(WORKED, storm.nodes, Duration::ZERO);
    let admin: Vec<(u64, AdminStep)> = storm.admin.clone();
    load.start_admin(WORKED, begin, &admin);
    load.start_admin(EXTERNAL, begin, &admin);
    tokio::time::sleep_until(begin + storm.lasts).await;
    load.finish().await;
    load.wait_drains(SLACK).await;
    workers.shutdown().await;
    let worker_log = read_journals(folder)?;
    let mut finals = load.final_read(&worker_log).await.context("the final read")?;
    let (watched, late) = load.heard(&mut finals).await.context("the events")?;
    if recorder.is_empty() {
        bail!("nothing was recorded");
    }
    let mut problems = late;
    problems.extend(nodes.agree(AGREE).await.err().map(|error| format!("{error:#}")));
    let (history, faults) = (recorder.entries(), recorder.faults());
    Ok(Played {
        evidence: Evidence { history, worker_log, faults, finals, watched, logs: Vec::new() },
        problems,
    })
}
