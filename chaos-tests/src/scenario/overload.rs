//! Three times the load that the cluster sustains, for half a minute: what of it still gets done, whether leases survive it,
//! what memory it takes, and how soon the cluster is itself again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::BoxFuture;
use pinrail_client::bench::{Figures, Load, Operation, Usage, measure};
use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Setting;
use super::measured::{client, each, go_live, start};
use super::plan::bundle;
use crate::api::setup::{self, Policy, code_of};
use crate::cluster::{Cluster, Options, Timings};
use crate::report::ms;

/// One agent may have 100,000 open runs: the starts are those of several.
const CROWD: [&str; 8] =
    ["crowd-0", "crowd-1", "crowd-2", "crowd-3", "crowd-4", "crowd-5", "crowd-6", "crowd-7"];
const HELD: &str = "held";
/// Callers that find what the cluster sustains, and those that ask for more.
const SUSTAINED: Load = Load {
    clients: 64,
    rate: None,
    warm_up: Duration::from_secs(2),
    duration: Duration::from_secs(10),
};
const CALLERS: usize = 4_096;
const TIMES: f64 = 3.0;
const LASTS: Duration = Duration::from_secs(30);
/// Callers that share a connection.
const OF_A_CONNECTION: usize = 128;
/// Steps that are held all the time, and their lease: one that is not extended in time is executed again.
const STEPS: usize = 64;
const LEASE_MS: u64 = 5_000;
/// Of what is sustained.
const GOODPUT: f64 = 0.8;
/// A call counts as quick again below this, and the cluster as itself again after so many in a row.
const QUICK: Duration = Duration::from_millis(50);
const IN_A_ROW: usize = 20;
const RECOVERED_US: u64 = 5_000_000;
/// Memory may grow by what is kept of the runs that were started, and by calls under way.
const MEMORY: u64 = 512 << 20;

/// What was measured.
#[derive(Debug)]
pub struct Overload {
    sustained: Figures,
    overloaded: Figures,
    /// Of the largest member, before and while.
    resident: [u64; 2],
    /// Executions of steps that had one to have.
    executed: usize,
    recovered_us: u64,
}

impl Overload {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.misses().is_empty()
    }

    fn goodput(&self) -> f64 {
        self.overloaded.per_second / self.sustained.per_second
    }

    fn misses(&self) -> Vec<&'static str> {
        [
            ("goodput", self.goodput() >= GOODPUT),
            ("memory", self.resident[1] <= self.resident[0] + MEMORY),
            ("leases", self.executed == STEPS),
            ("recovery", self.recovered_us <= RECOVERED_US),
        ]
        .into_iter()
        .filter(|(_, kept)| !kept)
        .map(|(what, _)| what)
        .collect()
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            f,
            "  sustained by {} callers: {:.0} starts/s, p99 {} ms",
            SUSTAINED.clients,
            self.sustained.per_second,
            ms(self.sustained.p99_us)
        )?;
        writeln!(
            f,
            "  asked for {TIMES} times as many for {LASTS:?} by {CALLERS} callers: {:.0} starts/s, {:.0} % (bound {:.0} %)",
            self.overloaded.per_second,
            100.0 * self.goodput(),
            100.0 * GOODPUT
        )?;
        for (reason, count) in &self.overloaded.errors {
            writeln!(f, "    {count} given up: {reason}")?;
        }
        writeln!(
            f,
            "  memory of the largest member: {} MiB before, {} MiB at most (bound {} MiB more)",
            mib(self.resident[0]),
            mib(self.resident[1]),
            mib(MEMORY)
        )?;
        writeln!(
            f,
            "  {STEPS} steps were held all the time under leases of {LEASE_MS} ms: {} executions",
            self.executed
        )?;
        writeln!(
            f,
            "  {IN_A_ROW} quick calls in a row after {} ms (bound {} ms)",
            ms(self.recovered_us),
            ms(RECOVERED_US)
        )?;
        self.misses().iter().try_for_each(|miss| writeln!(f, "  MISSED: {miss}"))
    }
}

/// Starts runs that nobody executes.
struct Starts {
    clients: Vec<Client>,
    /// Of the run ids.
    prefix: &'static str,
}

impl Operation for Starts {
    fn perform(&self, client: usize, number: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let client = &self.clients[client % self.clients.len()];
            let run_id = format!("{}-{number}", self.prefix);
            let agent = CROWD[number as usize % CROWD.len()];
            start(client, agent, run_id).await.map_err(|error| error.to_string())
        })
    }
}

/// # Errors
/// When the harness failed.
pub async fn overload(setting: &Setting) -> Result<Overload> {
    let options =
        Options { timings: Timings::Production, ..Options::three(&setting.binaries.pinrail) };
    let mut cluster = Cluster::start(&options).await?;
    let admin = client(&cluster)?;
    let held = Policy { lease_ms: LEASE_MS, ..Policy::default() };
    let crowd = Policy { external: true, ..Policy::default() };
    for (agent, policy) in CROWD.map(|agent| (agent, crowd)).into_iter().chain([(HELD, held)]) {
        setup::agent(&cluster.nodes, agent, policy, &[bundle(1)]).await?;
        go_live(&admin, agent, &bundle(1)).await?;
    }
    let steps = HeldSteps::begin(&admin).await?;
    let pids = cluster.pids();

    let sustained = load(&cluster, SUSTAINED, "sustained", &pids).await?;
    let before = resident(&pids)?;
    println!("  sustained: {:.0} starts/s; now {TIMES} times as many", sustained.per_second);
    let rate = Some(TIMES * sustained.per_second);
    let more = Load { clients: CALLERS, rate, warm_up: Duration::ZERO, duration: LASTS };
    let (overloaded, most) =
        tokio::try_join!(load(&cluster, more, "overload", &pids), most_resident(&pids, LASTS))?;
    let recovered_us = recovery(&admin).await?;
    cluster.must_run()?;
    let executed = steps.end(&admin).await?;
    Ok(Overload { sustained, overloaded, resident: [before, most], executed, recovered_us })
}

/// Starts runs for as long as the load says, and not a moment longer: an open loop would work off what is overdue.
async fn load(
    cluster: &Cluster,
    load: Load,
    prefix: &'static str,
    pids: &[u32],
) -> Result<Figures> {
    let connections = load.clients.div_ceil(OF_A_CONNECTION).max(4);
    let clients: Result<Vec<Client>> = (0..connections).map(|_| client(cluster)).collect();
    let starts = Arc::new(Starts { clients: clients?, prefix });
    let stop = CancellationToken::new();
    let over = stop.clone();
    let ends = async move {
        sleep(load.warm_up + load.duration).await;
        over.cancel();
    };
    let (figures, ()) = tokio::join!(measure(load, starts, pids, &stop), ends);
    figures?.context("nothing was measured")
}

/// Of the largest of some processes.
fn resident(pids: &[u32]) -> Result<u64> {
    let mut largest = 0;
    for pid in pids {
        largest = largest.max(Usage::of(*pid)?.resident_bytes);
    }
    Ok(largest)
}

/// The most that the largest of some processes had, looked at again and again.
async fn most_resident(pids: &[u32], during: Duration) -> Result<u64> {
    let until = Instant::now() + during;
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(resident(pids)?);
        sleep(Duration::from_millis(200)).await;
    }
    Ok(most)
}

/// Time until calls are quick again, in microseconds.
async fn recovery(client: &Client) -> Result<u64> {
    let began = Instant::now();
    let mut quick = 0;
    for number in 0_u64.. {
        let asked = Instant::now();
        let answered = timeout(QUICK, start(client, CROWD[0], format!("after-{number}"))).await;
        quick = if matches!(answered, Ok(Ok(()))) { quick + 1 } else { 0 };
        if quick == IN_A_ROW {
            break;
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("calls are not quick a minute after the overload: {answered:?}");
        }
        tokio::time::sleep_until(asked + QUICK / 5).await;
    }
    Ok(u64::try_from(began.elapsed().as_micros())?)
}

/// Steps that last until they are told to end.
struct HeldSteps {
    executions: Arc<AtomicUsize>,
    go_on: watch::Sender<bool>,
    workers: JoinSet<pinrail_client::Result<()>>,
}

impl HeldSteps {
    async fn begin(client: &Client) -> Result<Self> {
        let executions = Arc::new(AtomicUsize::new(0));
        let (go_on, ends) = watch::channel(true);
        let counted = Arc::clone(&executions);
        let main = move |_: StepContext, _: Value| {
            let (counted, mut ends) = (Arc::clone(&counted), ends.clone());
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                // It is dropped after the steps have ended.
                let _ = ends.wait_for(|go_on| !go_on).await;
                Ok(Next::done(())) as StepResult<Next>
            }
        };
        let slots = u32::try_from(STEPS)? * 2;
        let worker = Worker::builder(client.clone())
            .agent(HELD)
            .bundle(bundle(1))
            .code(code_of(&bundle(1)))
            .slots(slots)
            .step("main", main);
        let mut workers = JoinSet::new();
        workers.spawn(async move { worker.run_until(std::future::pending()).await });
        each(STEPS, |number| start(client, HELD, format!("held-{number}"))).await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while executions.load(Ordering::Relaxed) < STEPS {
            ensure!(Instant::now() < deadline, "the steps do not begin");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { executions, go_on, workers })
    }

    /// Lets them end, and gives how often they were executed.
    async fn end(mut self, client: &Client) -> Result<usize> {
        self.go_on.send(false)?;
        for number in 0..STEPS {
            client.wait_for_result(HELD, &format!("held-{number}")).await?;
        }
        self.workers.shutdown().await;
        Ok(self.executions.load(Ordering::Relaxed))
    }
}
