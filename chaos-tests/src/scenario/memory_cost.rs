//! What memory costs when there is much of it: a read after a hundred releases against one after a single release, and a
//! switch, which opens a layer, of an agent with a million keys against one with a thousand. Interleaved, at the leader.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Config, Worker};
use pinrail_proto::v1;
use tokio::time::Instant;

use super::Setting;
use super::measured::{client, each, go_live};
use super::plan::bundle;
use crate::api::setup::{self, Policy, code_of};
use crate::cluster::{Cluster, Options};
use crate::report::{Spread, ms};

const ONCE: &str = "released-once";
const OFTEN: &str = "released-often";
const FEW: &str = "few-keys";
const MANY: &str = "many-keys";
/// Keys of the agents whose reads are timed, and of the smaller one whose switches are.
const KEYS: usize = 1_000;
/// Keys that one run writes with its completion: an operator's writes are remembered by their request ids, of which a cluster
/// keeps a million.
const BY_RUN: usize = 100;
/// Keys that are written again on each release.
const REWRITTEN: usize = 50;
const READS: usize = 3_000;
const SWITCHES: usize = 200;
/// The bound, in thousandths.
const BOUND_PERMILLE: u64 = 1_200;

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub keys: usize,
    pub releases: usize,
}

/// What was measured.
#[derive(Debug)]
pub struct MemoryCost {
    size: Size,
    reads: [Spread; 2],
    switches: [Spread; 2],
}

fn permille([base, more]: [Spread; 2]) -> u64 {
    more.median_us * 1_000 / base.median_us.max(1)
}

impl MemoryCost {
    #[must_use]
    pub fn passed(&self) -> bool {
        [self.reads, self.switches].into_iter().all(|pair| permille(pair) <= BOUND_PERMILLE)
    }
}

impl fmt::Display for MemoryCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { keys, releases } = self.size;
        let rows = [
            (format!("read of a key after 1 and {releases} releases"), self.reads),
            (format!("switch with {KEYS} and {keys} keys"), self.switches),
        ];
        for (what, pair) in rows {
            let ratio = permille(pair);
            writeln!(
                f,
                "  {what}: p50 {} and {} ms, p99 {} and {} ms; ratio of the medians {}.{:03} (bound 1.2): {}",
                ms(pair[0].median_us),
                ms(pair[1].median_us),
                ms(pair[0].p99_us),
                ms(pair[1].p99_us),
                ratio / 1_000,
                ratio % 1_000,
                if ratio <= BOUND_PERMILLE { "kept" } else { "MISSED" }
            )?;
        }
        Ok(())
    }
}

/// # Errors
/// When the harness failed.
pub async fn memory_cost(setting: &Setting, size: Size) -> Result<MemoryCost> {
    let mut cluster = Cluster::start(&Options::three(&setting.binaries.pinrail)).await?;
    let client = client(&cluster)?;
    let policy = Policy::default();
    for agent in [ONCE, OFTEN, FEW, MANY] {
        setup::agent(&cluster.nodes, agent, policy, &[bundle(1), bundle(2)]).await?;
        go_live(&client, agent, &bundle(1)).await?;
    }
    for (agent, keys) in [(ONCE, KEYS), (OFTEN, KEYS), (FEW, KEYS), (MANY, size.keys)] {
        let began = Instant::now();
        // Both agents whose switches are timed have the same runs behind them: keys alone make the difference.
        let runs = if agent == FEW { size.keys / BY_RUN } else { keys / BY_RUN };
        fill(&client, agent, keys, runs).await?;
        println!("  {agent}: {keys} keys written in {:.1?}", began.elapsed());
    }
    go_live(&client, ONCE, &bundle(2)).await?;
    for number in 0..size.releases {
        go_live(&client, OFTEN, &bundle(1 + (number + 1) % 2)).await?;
        each(REWRITTEN, |key| write(&client, OFTEN, (number * REWRITTEN + key) % KEYS)).await?;
    }
    let leader = cluster.wait_leader(Duration::from_secs(5)).await?;
    let endpoints = vec![cluster.members[leader].grpc.clone()];
    let at =
        Client::builder(Config { endpoints, ..Config::default() }).learn_members(false).build()?;
    let reads =
        pairs(READS, [ONCE, OFTEN], |agent, number| read(&at, agent, number % KEYS)).await?;
    let switches =
        pairs(SWITCHES, [FEW, MANY], |agent, number| switch(&at, agent, 1 + (number + 1) % 2))
            .await?;
    cluster.must_run()?;
    Ok(MemoryCost { size, reads, switches })
}

/// Times something for both agents in turn.
async fn pairs<F, Fut>(count: usize, agents: [&'static str; 2], act: F) -> Result<[Spread; 2]>
where
    F: Fn(&'static str, usize) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let mut took = [Vec::with_capacity(count), Vec::with_capacity(count)];
    for number in 0..count {
        for (agent, took) in agents.into_iter().zip(&mut took) {
            let asked = Instant::now();
            act(agent, number).await?;
            took.push(u64::try_from(asked.elapsed().as_micros())?);
        }
    }
    Ok(took.map(Spread::of))
}

/// Runs write the keys, each with its completion; those behind the last key write nothing.
async fn fill(client: &Client, agent: &'static str, keys: usize, runs: usize) -> Result<()> {
    let main = move |ctx: StepContext, first: usize| async move {
        let memory = ctx.memory();
        for number in first..keys.min(first + BY_RUN) {
            memory.put_on_complete(segments(number), &value(number))?;
        }
        Ok(Next::done(())) as StepResult<Next>
    };
    let worker = Worker::builder(client.clone())
        .agent(agent)
        .bundle(bundle(1))
        .code(code_of(&bundle(1)))
        .slots(8)
        .step("main", main)
        .run_until(std::future::pending());
    let runs = each(runs, |number| async move {
        let first = number * BY_RUN;
        client.run::<_, ()>(agent, first).await
    });
    tokio::select! {
        ended = worker => bail!("the worker ended: {ended:?}"),
        done = runs => done,
    }
}

fn value(number: usize) -> String {
    format!("what is remembered as number {number}")
}

fn segments(number: usize) -> [String; 3] {
    ["user".to_owned(), (number % 1_000).to_string(), format!("note-{number}")]
}

fn key(number: usize) -> String {
    segments(number).join("/")
}

async fn write(client: &Client, agent: &str, number: usize) -> pinrail_client::Result<()> {
    let data = value(number).into();
    let request = v1::PutMemoryRequest {
        agent_id: agent.to_owned(),
        key: key(number),
        value: Some(v1::Payload { content_type: "text/plain".to_owned(), data }),
        ..v1::PutMemoryRequest::default()
    };
    client.memory().put(request).await.map(drop)
}

async fn read(client: &Client, agent: &str, number: usize) -> Result<()> {
    let request = v1::GetMemoryRequest {
        agent_id: agent.to_owned(),
        key: key(number),
        ..v1::GetMemoryRequest::default()
    };
    let found = client.memory().get(request).await?;
    anyhow::ensure!(found.version.is_some(), "{agent} has no key {number}");
    Ok(())
}

async fn switch(client: &Client, agent: &str, number: usize) -> Result<()> {
    go_live(client, agent, &bundle(number)).await
}
