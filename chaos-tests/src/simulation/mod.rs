//! Whole nodes in one process under simulated time: the real server over an in-memory disk that knows what was
//! synced, a network that delays and parts, clocks that disagree. Every choice is drawn from a seed, Raft's election timeouts too, and
//! there are no threads: the same seed gives the same trace. The clients, workers, history and judge are those of the faults against
//! real processes.
//!
//! ```text
//!   seed ──> storm (faults) ──> turmoil: n0 n1 n2 (Server over Disk) · client host (load, workers)
//!                                     └─ history, worker log, final read ──> judge
//! ```

pub mod command;
#[cfg(feature = "mutants")]
pub mod gate;
mod storm;
mod world;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use pinrail_node::log_dump;
use pinrail_node::storage::memory::Disk;

use crate::api::Nodes;
use crate::api::setup::{Policy, code_of};
use crate::check::judge;
use crate::history::{Evidence, Fault, FaultKind, MemberLog, Recorder};
use crate::report::Report;
use crate::scenario::Load;
use crate::worker::{self, read_journals};
use crate::workload::{AdminStep, Mix, Patience};

use storm::Storm;

/// Members of a simulated cluster.
const NODES: usize = 3;
/// Simulated time after which a seed has failed, whatever it was doing.
const LONGEST: Duration = Duration::from_secs(180);
/// Fewer acknowledged calls prove nothing.
const LEAST_ACKED: usize = 100;
/// Drains may end so long after their bound; the judge knows the exact figure.
const SLACK: Duration = Duration::from_secs(4);

/// A leader that crashes at an entry is down for so long.
const DOWN: Duration = Duration::from_millis(1_500);
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
    let disks: Vec<Disk> = (0..NODES).map(|_| Disk::default()).collect();
    let mut sim = world::simulation(seed, LONGEST);
    for (number, disk) in disks.iter().enumerate() {
        world::host(&mut sim, seed, number, disk.clone(), archive(folder, number));
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
    let mut faults =
        Weather { storm, disks: &disks, recorder: &recorder, next: 0, healing: None, crash_at };
    let mut switch_at = 0;
    loop {
        let over = sim.step().map_err(|error| anyhow!("seed {seed}: {error}"))?;
        if over {
            break;
        }
        if let Some(begin) = *begun.borrow() {
            faults.blow(&mut sim, begin);
            if switch_at == 0 && sim.elapsed() >= begin + Duration::from_millis(storm::SWITCH_MS) {
                switch_at = last_index(&disks);
            }
        }
    }
    let Played { mut evidence, disagreement } =
        finished.borrow_mut().take().context("the client did not end")??;
    let losses = disks.iter().map(Disk::losses).fold((0, 0), |sum, l| (sum.0 + l.0, sum.1 + l.1));
    let trace = trace(&evidence)?;
    evidence.logs = (0..NODES).map(|node| applied(folder, node)).collect::<Result<_>>()?;
    let mut report = Report::of(&evidence, judge(&evidence));
    report.problems.extend(disagreement);
    let acked = evidence.history.iter().filter(|entry| entry.ok().is_some()).count();
    if acked < LEAST_ACKED {
        report.harness.push(format!("only {acked} calls were acknowledged"));
    }
    let entries = (switch_at, last_index(&disks));
    Ok(Seed { report, trace, losses, entries, evidence })
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
    /// How the members' states differ at the end.
    disagreement: Option<String>,
}

/// The clients' part: set up, load, and after the faults the final read.
async fn play(
    seed: u64,
    storm: &Storm,
    recorder: Recorder,
    folder: &Path,
    begun: &RefCell<Option<Duration>>,
) -> Result<Played> {
    let addresses: Vec<String> = (0..NODES).map(world::grpc_address).collect();
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
    let admin: Vec<(u64, AdminStep)> = storm.admin.clone();
    load.start_admin(WORKED, begin, &admin);
    load.start_admin(EXTERNAL, begin, &admin);
    tokio::time::sleep_until(begin + storm.lasts).await;
    load.finish().await;
    load.wait_drains(SLACK).await;
    workers.shutdown().await;
    let worker_log = read_journals(folder)?;
    let finals = load.final_read(&worker_log).await.context("the final read")?;
    if recorder.is_empty() {
        bail!("nothing was recorded");
    }
    let disagreement = nodes.agree(AGREE).await.err().map(|error| format!("{error:#}"));
    let (history, faults) = (recorder.entries(), recorder.faults());
    Ok(Played {
        evidence: Evidence { history, worker_log, faults, finals, logs: Vec::new() },
        disagreement,
    })
}

/// Injects and heals faults as simulated time goes by.
struct Weather<'a> {
    storm: &'a Storm,
    disks: &'a [Disk],
    recorder: &'a Recorder,
    next: usize,
    /// Until when the present fault lasts, and since when.
    healing: Option<(Duration, u64, storm::PlannedFault)>,
    /// Who writes the entry with this index first crashes.
    crash_at: Option<u64>,
}

impl Weather<'_> {
    fn blow(&mut self, sim: &mut turmoil::Sim<'_>, begin: Duration) {
        let now = sim.elapsed();
        if let Some((until, since_us, fault)) = self.healing.take() {
            if now < until {
                self.healing = Some((until, since_us, fault));
                return;
            }
            self.heal(sim, &fault, since_us, now);
        }
        let Some(fault) = self.at_its_index(now).or_else(|| self.planned(now, begin)) else {
            return;
        };
        self.strike(sim, &fault);
        self.healing = Some((now + fault.lasts, micros(now), fault));
    }

    /// The next fault of the plan, when its time has come.
    fn planned(&mut self, now: Duration, begin: Duration) -> Option<storm::PlannedFault> {
        let fault = self.storm.faults.get(self.next).filter(|fault| now >= begin + fault.at)?;
        self.next += 1;
        Some(fault.clone())
    }

    /// The crash of the node that has just written the awaited entry.
    fn at_its_index(&mut self, now: Duration) -> Option<storm::PlannedFault> {
        let index = self.crash_at?;
        let node = self.disks.iter().position(|disk| disk.last_index() >= index)?;
        self.crash_at = None;
        let kind = storm::Kind::Crash;
        Some(storm::PlannedFault { at: now, lasts: DOWN, kind, nodes: vec![node] })
    }

    fn strike(&self, sim: &mut turmoil::Sim<'_>, fault: &storm::PlannedFault) {
        match fault.kind {
            storm::Kind::Crash => {
                for node in &fault.nodes {
                    sim.crash(world::name(*node));
                    self.disks[*node].crash();
                }
            }
            storm::Kind::Partition => {
                for (one, other) in cut(&fault.nodes) {
                    sim.partition(one, other);
                }
            }
        }
    }

    fn heal(
        &self,
        sim: &mut turmoil::Sim<'_>,
        fault: &storm::PlannedFault,
        since_us: u64,
        now: Duration,
    ) {
        let kind = match fault.kind {
            storm::Kind::Crash => {
                for node in &fault.nodes {
                    sim.bounce(world::name(*node));
                }
                if fault.nodes.len() == NODES {
                    FaultKind::LostWrites
                } else {
                    FaultKind::KillLeader
                }
            }
            storm::Kind::Partition => {
                for (one, other) in cut(&fault.nodes) {
                    sim.repair(one, other);
                }
                FaultKind::Partition
            }
        };
        self.recorder.record_fault(Fault {
            kind,
            nodes: fault.nodes.clone(),
            injected_us: since_us,
            effective_us: Some(since_us),
            healed_us: micros(now),
        });
    }
}

/// Links between the members that are cut off and the others.
fn cut(nodes: &[usize]) -> Vec<(String, String)> {
    let others: Vec<usize> = (0..NODES).filter(|node| !nodes.contains(node)).collect();
    let pairs = nodes.iter().flat_map(|one| others.iter().map(move |other| (*one, *other)));
    pairs.map(|(one, other)| (world::name(one), world::name(other))).collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
