//! All measurements of one bench, one after the other, each on ground of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::call::{Calls, value};
use super::dispatch;
use super::figures::Figures;
use super::ground::{Ground, kept};
use super::load::{self, Load, Operation};
use super::meter::meter;
use super::steps;
use super::tally::Tally;
use super::watch::measure_watch;
use super::window::Window;
use super::workers::{Workers, echo, relay};
use super::workload::Workload;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pin_cache::PinCache;
use crate::worker::WorkerBuilder;

/// Clients of a load that share a connection, and connections of a load at most.
const CLIENTS_OF_A_CONNECTION: usize = 16;
const CONNECTIONS: usize = 16;
/// How long a connection may take to learn who leads: members that have just come together find out first where the others are
/// called.
const LEARN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// What to measure, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Each of them.
    pub workloads: Vec<Workload>,
    /// With each of these numbers of clients.
    pub clients: Vec<usize>,
    /// Operations in a second; none: closed loops.
    pub rate: Option<f64>,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Of each measurement.
    pub duration: Duration,
    /// How often; the rounds follow each other, so that what changes meanwhile meets all alike.
    pub repeats: usize,
    /// Server processes of this machine whose use is read.
    pub server_pids: Vec<u32>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub workload: Workload,
    /// With so many clients.
    pub clients: usize,
    /// In which round, from 1.
    pub round: usize,
    /// What it came to.
    pub figures: Figures,
}

/// How far a bench is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'p> {
    /// A namespace was made: it is deleted at the end.
    Made(&'p str),
    /// This measurement begins.
    Measures(Workload, usize, usize),
    /// What it made is removed.
    Removes,
}

/// What a bench came to.
#[derive(Debug)]
pub struct Outcome {
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
    /// Why it ended early, if it did by itself.
    pub failed: Option<Error>,
    /// The namespace that could not be removed, and why.
    pub left: Option<(String, Error)>,
}

/// Measures until all is measured or `stop` is asked for, and removes what it made, whatever happens. `config` says where
/// the cluster is.
///
/// # Errors
/// When not even a namespace could be made.
pub async fn run(
    config: &Config,
    plan: &Plan,
    stop: &CancellationToken,
    tell: impl Fn(Progress<'_>),
) -> Result<Outcome> {
    let client = Client::new(config.clone())?;
    let ground = Ground::make(&client).await?;
    tell(Progress::Made(ground.name()));
    let mut measurements = Vec::new();
    let session = Session { config, plan, ground: &ground, stop };
    let measured = session.rounds(&mut measurements, &tell).await;
    tell(Progress::Removes);
    let removed = ground.remove().await;
    Ok(Outcome {
        measurements,
        failed: measured.err(),
        left: removed.err().map(|error| (ground.name().to_owned(), error)),
    })
}

struct Session<'s> {
    config: &'s Config,
    plan: &'s Plan,
    ground: &'s Ground,
    stop: &'s CancellationToken,
}

impl Session<'_> {
    async fn rounds(
        &self,
        found: &mut Vec<Measurement>,
        tell: &impl Fn(Progress<'_>),
    ) -> Result<()> {
        for round in 1..=self.plan.repeats {
            for workload in &self.plan.workloads {
                for clients in &self.plan.clients {
                    if self.stop.is_cancelled() {
                        return Ok(());
                    }
                    let (workload, clients) = (*workload, *clients);
                    tell(Progress::Measures(workload, clients, round));
                    let load = self.load(clients);
                    let servers = &self.plan.server_pids;
                    let connections = self.connections(clients).await?;
                    let ground = self.ground;
                    let subject = Subject { ground, connections, servers, value: value() };
                    let figures = subject.measure(workload, load, self.stop).await?;
                    self.ground.remove_agent(workload.name()).await?;
                    found.extend(figures.map(|figures| Measurement {
                        workload,
                        clients,
                        round,
                        figures,
                    }));
                }
            }
        }
        Ok(())
    }

    fn load(&self, clients: usize) -> Load {
        let Plan { rate, warm_up, duration, .. } = *self.plan;
        Load { clients, rate, warm_up, duration }
    }

    /// Connections for so many clients, which know who leads.
    async fn connections(&self, clients: usize) -> Result<Vec<Client>> {
        let mut all = Vec::new();
        for _ in 0..connections(clients) {
            let client = Client::new(self.config.clone())?.with_namespace(self.ground.name());
            let deadline = Instant::now() + LEARN;
            client.connection().find_leader().await;
            while client.connection().leader().is_none() && Instant::now() < deadline {
                sleep(LOOK).await;
                client.connection().find_leader().await;
            }
            all.push(client);
        }
        Ok(all)
    }
}

/// Connections that so many clients share.
#[must_use]
pub fn connections(clients: usize) -> usize {
    clients.div_ceil(CLIENTS_OF_A_CONNECTION).clamp(1, CONNECTIONS)
}

/// Where one workload is measured.
#[derive(Debug)]
pub struct Subject<'s> {
    /// Gets an agent for the measurement.
    pub ground: &'s Ground,
    /// Shared evenly by the load's clients; at least one.
    pub connections: Vec<Client>,
    /// Processes whose use is read.
    pub servers: &'s [u32],
    /// Input of each run and value of each key. Those of `step` and of `watch` have something of their own to say.
    pub value: Bytes,
}

impl Subject<'_> {
    /// Makes an agent of the workload's name, which is left there, and measures. None when it was stopped before anything was
    /// measured.
    ///
    /// # Errors
    /// What the cluster refuses, or that it does not answer.
    pub async fn measure(
        &self,
        workload: Workload,
        load: Load,
        stop: &CancellationToken,
    ) -> Result<Option<Figures>> {
        let agent = workload.name();
        let measured = load.warm_up + load.duration;
        self.ground.agent(agent, workload.execution(), kept(measured)).await?;
        let calls = Calls {
            workload,
            agent: agent.to_owned(),
            clients: self.connections.clone(),
            value: self.value.clone(),
            pins: match (workload, self.connections.first()) {
                (Workload::Cached, Some(client)) => Some(PinCache::new(client, agent)),
                _ => None,
            },
        };
        calls.prepare().await?;
        match workload {
            Workload::Start
            | Workload::Put
            | Workload::Read
            | Workload::Lookup
            | Workload::Cached
            | Workload::Get => measure(load, Arc::new(calls), self.servers, stop).await,
            Workload::Run => self.with_workers(echo, load, calls, stop).await,
            Workload::Chain => self.with_workers(relay, load, calls, stop).await,
            Workload::Watch => measure_watch(load, Arc::new(calls), self.servers, stop).await,
            Workload::Step => {
                let window = Window::starting_now(&load);
                let driven = steps::drive(load, window, &calls, stop);
                metered(window, driven, self.servers, stop).await
            }
            Workload::Dispatch => {
                let window = Window::starting_now(&load);
                let driven = dispatch::drive(load, window, &calls, stop);
                metered(window, driven, self.servers, stop).await
            }
        }
    }

    /// Calls beside workers that serve what they ask for.
    async fn with_workers(
        &self,
        serve: fn(WorkerBuilder) -> WorkerBuilder,
        load: Load,
        calls: Calls,
        stop: &CancellationToken,
    ) -> Result<Option<Figures>> {
        let workers = Workers::start(&self.connections, &calls.agent, load.clients, serve);
        let figures = measure(load, Arc::new(calls), self.servers, stop).await;
        workers.stop().await.and(figures)
    }
}

/// Measures operations of any kind: this cluster's, or another system's. None when it was stopped before anything was measured.
///
/// # Errors
/// When one of the server processes is gone.
pub async fn measure(
    load: Load,
    operation: Arc<dyn Operation>,
    servers: &[u32],
    stop: &CancellationToken,
) -> Result<Option<Figures>> {
    let alarm = Alarm::precise().map_err(|error| Error::invalid(format!("no timer: {error}")))?;
    let window = Window::starting_now(&load);
    let driven = async { Ok(load::drive(load, window, operation, alarm, stop).await) };
    metered(window, driven, servers, stop).await
}

/// What comes of a load, with what the processes use in its window.
pub(super) async fn metered(
    window: Window,
    driven: impl Future<Output = Result<Tally>>,
    servers: &[u32],
    stop: &CancellationToken,
) -> Result<Option<Figures>> {
    let gone = |error| Error::invalid(format!("a server process cannot be read: {error}"));
    let (tally, cost) = tokio::join!(driven, meter(window, servers, stop));
    Ok(Figures::of(&tally?, &cost.map_err(gone)?))
}
