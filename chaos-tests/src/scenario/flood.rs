//! Two agents, one with 100,000 steps that wait for workers which sleep: how long the other one's steps wait for theirs,
//! with and without the flood, in interleaved pairs. Without it the flooding agent is paused and nothing of it is leased.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker};
use pinrail_proto::{time, v1};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Setting;
use super::measured::{client, each, go_live, start};
use super::plan::bundle;
use crate::api::setup::{self, Policy, code_of};
use crate::cluster::{Cluster, Options};
use crate::report::Spread;

const FLOOD: &str = "flood";
const QUIET: &str = "quiet";
/// Steps of the flood that are worked on at once, and how long each sleeps.
const FLOOD_SLOTS: u32 = 64;
const NAP: Duration = Duration::from_millis(200);
/// Runs of the quiet agent in one half of a pair, and the time between two of them.
const RUNS: usize = 500;
const APART: Duration = Duration::from_millis(20);
/// The bound: so many times the wait without the flood, and this on top.
const TIMES: u64 = 2;
const ON_TOP_US: u64 = 20_000;

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub steps: usize,
    pub pairs: usize,
}

/// Waits of one pair.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub without: Spread,
    pub with: Spread,
    /// Steps of the flood that ended meanwhile: it was one.
    pub flooded: u64,
}

/// What was measured.
#[derive(Debug)]
pub struct Flood {
    pub size: Size,
    pub pairs: Vec<Pair>,
}

impl Flood {
    fn median(&self, of: impl Fn(&Pair) -> u64) -> u64 {
        Spread::of(self.pairs.iter().map(of).collect()).median_us
    }

    fn bound_us(&self) -> u64 {
        self.median(|pair| pair.without.p99_us) * TIMES + ON_TOP_US
    }

    #[must_use]
    pub fn passed(&self) -> bool {
        self.median(|pair| pair.with.p99_us) <= self.bound_us()
            && self.pairs.iter().all(|pair| pair.flooded > 0)
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} steps of another agent wait; {RUNS} runs each", self.size.steps)?;
        for (number, pair) in self.pairs.iter().enumerate() {
            writeln!(
                f,
                "  pair {}: queue wait without p50 {} p99 {} ms, with p50 {} p99 {} ms; {} steps of the flood meanwhile",
                number + 1,
                pair.without.median_us / 1_000,
                pair.without.p99_us / 1_000,
                pair.with.median_us / 1_000,
                pair.with.p99_us / 1_000,
                pair.flooded
            )?;
        }
        let verdict = if self.passed() { "kept" } else { "MISSED" };
        writeln!(
            f,
            "  median p99 without {} ms, with {} ms; bound {} ms: {verdict}",
            self.median(|pair| pair.without.p99_us) / 1_000,
            self.median(|pair| pair.with.p99_us) / 1_000,
            self.bound_us() / 1_000
        )
    }
}

/// # Errors
/// When the harness failed.
pub async fn flood(setting: &Setting, size: Size) -> Result<Flood> {
    let mut cluster = Cluster::start(&Options::three(&setting.binaries.pinrail)).await?;
    let client = client(&cluster)?;
    for agent in [FLOOD, QUIET] {
        setup::agent(&cluster.nodes, agent, Policy::default(), &[bundle(1)]).await?;
        go_live(&client, agent, &bundle(1)).await?;
    }
    pause(&client, true).await?;
    let began = Instant::now();
    each(size.steps, |number| start(&client, FLOOD, format!("flood-{number}"))).await?;
    println!("  {} steps wait after {:?}", size.steps, began.elapsed());
    let mut workers = JoinSet::new();
    workers.spawn(worker(client.clone(), FLOOD, FLOOD_SLOTS, NAP));
    workers.spawn(worker(client.clone(), QUIET, 16, Duration::ZERO));
    // Connections, workers and caches are warm before anything counts.
    waits(&client, "warm-up").await?;
    let mut pairs = Vec::new();
    for number in 0..size.pairs {
        let without = Spread::of(waits(&client, &format!("without-{number}")).await?);
        let before = waiting(&client).await?;
        pause(&client, false).await?;
        let with = Spread::of(waits(&client, &format!("with-{number}")).await?);
        pause(&client, true).await?;
        rest(&client).await?;
        let flooded = before.saturating_sub(waiting(&client).await?);
        pairs.push(Pair { without, with, flooded });
    }
    cluster.must_run()?;
    workers.shutdown().await;
    Ok(Flood { size, pairs })
}

async fn worker(
    client: Client,
    agent: &str,
    slots: u32,
    nap: Duration,
) -> pinrail_client::Result<()> {
    let main = move |_: StepContext, _: Value| async move {
        sleep(nap).await;
        Ok(Next::done(())) as StepResult<Next>
    };
    let worker = Worker::builder(client)
        .agent(agent)
        .bundle(bundle(1))
        .code(code_of(&bundle(1)))
        .slots(slots)
        .step("main", main);
    worker.run_until(std::future::pending()).await
}

async fn pause(client: &Client, is_paused: bool) -> Result<()> {
    let agent_id = FLOOD.to_owned();
    if is_paused {
        let request = v1::PauseAgentRequest { agent_id, ..v1::PauseAgentRequest::default() };
        client.agents().pause(request).await?;
    } else {
        let request = v1::ResumeAgentRequest { agent_id, ..v1::ResumeAgentRequest::default() };
        client.agents().resume(request).await?;
    }
    Ok(())
}

/// Steps of the flood that wait for a worker.
async fn waiting(client: &Client) -> Result<u64> {
    let request = v1::GetAgentStatusRequest {
        agent_id: FLOOD.to_owned(),
        ..v1::GetAgentStatusRequest::default()
    };
    let status = client.agents().status(request).await?;
    Ok(status.bundles.iter().map(|bundle| bundle.ready_steps).sum())
}

/// Waits until nothing of the flood is held any more.
async fn rest(client: &Client) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let request = v1::ListWorkersRequest {
            agent_id: FLOOD.to_owned(),
            ..v1::ListWorkersRequest::default()
        };
        let workers = client.workers().list(request).await?.workers;
        if workers.iter().all(|worker| worker.held == 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("steps of the flood do not end");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// How long each of the quiet agent's steps waited for a worker, in cluster time.
async fn waits(client: &Client, name: &str) -> Result<Vec<u64>> {
    let mut ticks = interval(APART);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut starts = JoinSet::new();
    for number in 0..RUNS {
        ticks.tick().await;
        let (client, run_id) = (client.clone(), format!("{name}-{number}"));
        starts.spawn(async move {
            start(&client, QUIET, run_id.clone()).await?;
            client.wait_for_result(QUIET, &run_id).await?;
            Ok::<_, pinrail_client::Error>(run_id)
        });
    }
    let mut waits = Vec::with_capacity(RUNS);
    while let Some(started) = starts.join_next().await {
        let request = v1::ListStepsRequest {
            agent_id: QUIET.to_owned(),
            run_id: started??,
            ..v1::ListStepsRequest::default()
        };
        let steps = client.runs().steps(request).await?.steps;
        waits.extend(steps.iter().map(|step| wait_ms(step) * 1_000));
    }
    Ok(waits)
}

/// A step that was leased in the command that made it ready was never in a queue.
fn wait_ms(step: &v1::Step) -> u64 {
    let ms = |at: &_| time::timestamp_millis(Some(at));
    let leased = step.leased_at.as_ref().map_or(u64::MAX, ms);
    step.ready_at.as_ref().map_or(0, |ready| leased.saturating_sub(ms(ready)))
}
