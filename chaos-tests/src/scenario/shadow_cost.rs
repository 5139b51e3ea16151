//! Live runs beside a candidate in shadow that hangs, fails or writes memory: how long they take with and without it, in
//! interleaved pairs, and whether anything of it is seen. In the last pair the candidate's worker is gone halfway.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pinrail_client::worker::{Next, StepContext, StepError, StepResult};
use pinrail_client::{Client, Worker};
use pinrail_proto::v1::{self, ReleaseState, StageMode};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Setting;
use super::measured::{client, go_live, runs};
use super::plan::bundle;
use crate::api::setup::{self, Policy, code_of};
use crate::cluster::{Cluster, Options};
use crate::report::{Spread, ms};

const AGENT: &str = "mirrored";
/// Live runs in one half of a pair, and the time between two of them.
const RUNS: usize = 500;
const APART: Duration = Duration::from_millis(20);
/// What a step does besides: it waits for a model.
const THINKS: Duration = Duration::from_millis(5);
/// The bound, in thousandths of the p99 without a shadow.
const BOUND_PERMILLE: u64 = 1_200;
/// A key that both bundles write.
const KEY: &str = "last";

/// What the candidate does with what it is given.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Hangs,
    Fails,
    Writes,
}

/// One pair.
#[derive(Debug)]
struct Pair {
    manner: Manner,
    without: Spread,
    with: Spread,
    /// Runs that were mirrored meanwhile.
    mirrored: usize,
}

/// What was measured.
#[derive(Debug)]
pub struct ShadowCost {
    pairs: Vec<Pair>,
}

impl ShadowCost {
    fn median_us(&self, of: impl Fn(&Pair) -> &Spread) -> u64 {
        Spread::of(self.pairs.iter().map(|pair| of(pair).p99_us).collect()).median_us
    }

    fn permille(&self) -> u64 {
        self.median_us(|pair| &pair.with) * 1_000 / self.median_us(|pair| &pair.without).max(1)
    }

    #[must_use]
    pub fn passed(&self) -> bool {
        self.permille() <= BOUND_PERMILLE && self.pairs.iter().all(|pair| pair.mirrored > 0)
    }
}

impl fmt::Display for ShadowCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pair) in self.pairs.iter().enumerate() {
            writeln!(
                f,
                "  pair {}, the candidate {:?}: without p50 {} p99 {} ms, with p50 {} p99 {} ms; {} runs mirrored",
                number + 1,
                pair.manner,
                ms(pair.without.median_us),
                ms(pair.without.p99_us),
                ms(pair.with.median_us),
                ms(pair.with.p99_us),
                pair.mirrored
            )?;
        }
        let permille = self.permille();
        let verdict = if self.passed() { "kept" } else { "MISSED" };
        writeln!(
            f,
            "  median p99 without {} ms, with {} ms: ratio {}.{:03} (bound 1.2): {verdict}",
            ms(self.median_us(|pair| &pair.without)),
            ms(self.median_us(|pair| &pair.with)),
            permille / 1_000,
            permille % 1_000
        )
    }
}

/// # Errors
/// When the harness failed, or a live run saw the candidate.
pub async fn shadow_cost(setting: &Setting, pairs: usize) -> Result<ShadowCost> {
    let mut cluster = Cluster::start(&Options::three(&setting.binaries.pinrail)).await?;
    let client = client(&cluster)?;
    setup::agent(&cluster.nodes, AGENT, Policy::default(), &[bundle(1), bundle(2)]).await?;
    mirror_all(&client).await?;
    go_live(&client, AGENT, &bundle(1)).await?;
    let mut workers = JoinSet::new();
    workers.spawn(live(client.clone()));
    // Connections, workers and caches are warm before anything counts.
    measure(&client, "warm-up").await?;
    let mut found = ShadowCost { pairs: Vec::new() };
    for number in 0..pairs {
        let manner = [Manner::Hangs, Manner::Fails, Manner::Writes][number % 3];
        let without = Spread::of(measure(&client, &format!("without-{number}")).await?);
        let mut candidate = JoinSet::new();
        candidate.spawn(serve(client.clone(), manner));
        let before = mirrored(&client).await?;
        release(&client).await?;
        let killing = async {
            if number + 1 == pairs {
                sleep(APART * u32::try_from(RUNS / 2)?).await;
                candidate.shutdown().await;
            }
            Ok::<_, anyhow::Error>(())
        };
        let name = format!("with-{number}");
        let (with, killed) = tokio::join!(measure(&client, &name), killing);
        killed?;
        let mirrored = mirrored(&client).await? - before;
        abort(&client).await?;
        candidate.shutdown().await;
        found.pairs.push(Pair { manner, without, with: Spread::of(with?), mirrored });
    }
    cluster.must_run()?;
    workers.shutdown().await;
    Ok(found)
}

/// Every live run is mirrored, and no number of pairs is enough.
async fn mirror_all(client: &Client) -> Result<()> {
    let off = StageMode::Off.into();
    let gates = v1::GatesPolicy {
        smoke: Some(v1::SmokeGate { mode: off, ..v1::SmokeGate::default() }),
        evals: Some(v1::EvalsGate { mode: off, ..v1::EvalsGate::default() }),
        shadow: Some(v1::ShadowGate {
            mode: StageMode::Required.into(),
            share_bp: vec![10_000, 10_000],
            min_pairs: Some(100_000),
            ..v1::ShadowGate::default()
        }),
        ..v1::GatesPolicy::default()
    };
    let request = v1::UpdateAgentRequest {
        agent_id: AGENT.to_owned(),
        policy: Some(v1::Policy { gates: Some(gates), ..v1::Policy::default() }),
        ..v1::UpdateAgentRequest::default()
    };
    client.agents().update(request).await?;
    Ok(())
}

/// The worker of the live bundle: it counts in memory, and says who it is.
async fn live(client: Client) -> pinrail_client::Result<()> {
    let main = |ctx: StepContext, _: Value| async move {
        let memory = ctx.memory();
        let seen: Option<String> = memory.get([KEY]).await?;
        sleep(THINKS).await;
        memory.put([KEY], &"live").await?;
        Ok(Next::done(seen)) as StepResult<Next>
    };
    worker(client, 1).step("main", main).run_until(std::future::pending()).await
}

/// The candidate's worker: it sleeps rather than burns.
async fn serve(client: Client, manner: Manner) -> pinrail_client::Result<()> {
    let main = move |ctx: StepContext, _: Value| async move {
        match manner {
            Manner::Hangs => std::future::pending::<()>().await,
            Manner::Fails => return Err(StepError::fatal("WORSE", "the candidate cannot")),
            Manner::Writes => drop(ctx.memory().put([KEY], &"candidate").await?),
        }
        Ok(Next::done("candidate")) as StepResult<Next>
    };
    worker(client, 2).shadow_safe().step("main", main).run_until(std::future::pending()).await
}

fn worker(client: Client, number: usize) -> pinrail_client::worker::WorkerBuilder {
    let name = bundle(number);
    Worker::builder(client).agent(AGENT).code(code_of(&name)).bundle(name).slots(64)
}

/// Starts a release, and waits until it mirrors.
async fn release(client: &Client) -> Result<()> {
    let request = v1::StartReleaseRequest {
        agent_id: AGENT.to_owned(),
        bundle_id: bundle(2),
        ..v1::StartReleaseRequest::default()
    };
    client.releases().start(request).await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let request = v1::GetReleaseRequest {
            agent_id: AGENT.to_owned(),
            ..v1::GetReleaseRequest::default()
        };
        let release = client.releases().get(request).await?.release.unwrap_or_default();
        if release.state() == ReleaseState::Shadow {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the release does not come to its shadow: {release:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn abort(client: &Client) -> Result<()> {
    let request = v1::AbortReleaseRequest {
        agent_id: AGENT.to_owned(),
        ..v1::AbortReleaseRequest::default()
    };
    client.releases().abort(request).await?;
    Ok(())
}

/// Mirrors that there are or were.
async fn mirrored(client: &Client) -> Result<usize> {
    let wanted = v1::ListRunsRequest {
        agent_id: AGENT.to_owned(),
        bundle_id: bundle(2),
        ..v1::ListRunsRequest::default()
    };
    Ok(runs(client, wanted).await?.len())
}

/// From the start of each live run to its result, as a caller sees it, in microseconds.
async fn measure(client: &Client, name: &str) -> Result<Vec<u64>> {
    let mut ticks = interval(APART);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut runs = JoinSet::new();
    for number in 0..RUNS {
        ticks.tick().await;
        let (client, run_id) = (client.clone(), format!("{name}-{number}"));
        runs.spawn(async move { timed(&client, run_id).await });
    }
    let mut took = Vec::with_capacity(RUNS);
    while let Some(run) = runs.join_next().await {
        took.push(run??);
    }
    Ok(took)
}

async fn timed(client: &Client, run_id: String) -> Result<u64> {
    let asked = Instant::now();
    super::measured::start(client, AGENT, run_id.clone()).await?;
    let answer = client.wait_for_result(AGENT, &run_id).await?;
    let took = u64::try_from(asked.elapsed().as_micros())?;
    let text = format!("{answer:?}");
    ensure!(!text.contains("candidate"), "a live run saw the candidate: {text}");
    Ok(took)
}
