//! A million finished runs: what a page of a filtered list costs at each member, and whether retention takes the runs away
//! while others start.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use pinrail_client::{Client, Config};
use pinrail_proto::{time, v1};
use tokio::time::{Instant, sleep};

use super::Setting;
use super::measured::{client, each, go_live};
use super::plan::bundle;
use crate::api::setup::{self, Policy};
use crate::cluster::{Cluster, Options};
use crate::report::{Spread, ms};

const AGENT: &str = "history";
/// Questions of each kind at each member.
const ASKED: usize = 100;
const PAGE: u32 = 100;
const BOUND_US: u64 = 50_000;
/// One run in so many fails, and as many bear the rare label.
const RARE: usize = 1_000;
/// Between two starts while retention works.
const APART: Duration = Duration::from_millis(20);

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub runs: usize,
    /// How long finished runs are kept: they should all be there when the first goes.
    pub retention: Duration,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct ManyRuns {
    /// Time until all were finished.
    filled: Duration,
    /// By filter and member.
    pages: Vec<(String, Spread)>,
    /// Time from the end of the first run's retention until the last was gone, and starts meanwhile.
    removed: Duration,
    starts: Spread,
    runs: usize,
}

impl ManyRuns {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.pages.iter().all(|(_, spread)| spread.p99_us < BOUND_US) && self.starts.count > 0
    }
}

impl fmt::Display for ManyRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} runs were finished in {:?}", self.runs, self.filled)?;
        for (what, spread) in &self.pages {
            let verdict = if spread.p99_us < BOUND_US { "kept" } else { "MISSED" };
            let (median, p99, max) = (ms(spread.median_us), ms(spread.p99_us), ms(spread.max_us));
            writeln!(f, "  {what}: p50 {median} p99 {p99} max {max} ms; bound 50 ms: {verdict}")?;
        }
        let starts = &self.starts;
        writeln!(
            f,
            "  retention took them away in {:?}; {} starts meanwhile: p50 {} p99 {} max {} ms",
            self.removed,
            starts.count,
            ms(starts.median_us),
            ms(starts.p99_us),
            ms(starts.max_us)
        )
    }
}

/// # Errors
/// When the harness failed.
pub async fn many_runs(setting: &Setting, size: Size) -> Result<ManyRuns> {
    let mut cluster = Cluster::start(&Options::three(&setting.binaries.pinrail)).await?;
    let client = client(&cluster)?;
    let policy = Policy { external: true, ..Policy::default() };
    setup::agent(&cluster.nodes, AGENT, policy, &[bundle(1), bundle(2)]).await?;
    go_live(&client, AGENT, &bundle(1)).await?;
    keep_for(&client, size.retention).await?;
    let mut found = ManyRuns { runs: size.runs, ..ManyRuns::default() };
    let began = Instant::now();
    let half = size.runs / 2;
    each(half, |number| finished(&client, number)).await?;
    go_live(&client, AGENT, &bundle(2)).await?;
    each(size.runs - half, |number| finished(&client, half + number)).await?;
    found.filled = began.elapsed();
    println!("  {} runs were finished in {:?}", size.runs, found.filled);
    for member in &cluster.members {
        let at = Config { endpoints: vec![member.grpc.clone()], ..Config::default() };
        let at = Client::builder(at).learn_members(false).build()?;
        for (what, request) in filters() {
            let pages = pages(&at, &request).await?;
            found.pages.push((format!("{what} at {}", member.name), Spread::of(pages)));
        }
    }
    let first_goes = began + size.retention;
    if Instant::now() > first_goes {
        bail!("retention began before all was measured: give --retention more");
    }
    print!("{found}");
    tokio::time::sleep_until(first_goes).await;
    (found.removed, found.starts) = removal(&client, size).await?;
    cluster.must_run()?;
    Ok(found)
}

async fn keep_for(client: &Client, retention: Duration) -> Result<()> {
    let millis = u64::try_from(retention.as_millis())?;
    let runs = v1::RunPolicy {
        execution: v1::Execution::External.into(),
        retention: Some(time::duration(millis)),
        ..v1::RunPolicy::default()
    };
    let request = v1::UpdateAgentRequest {
        agent_id: AGENT.to_owned(),
        policy: Some(v1::Policy { runs: Some(runs), ..v1::Policy::default() }),
        ..v1::UpdateAgentRequest::default()
    };
    client.agents().update(request).await?;
    Ok(())
}

/// Starts a run and finishes it. Few fail.
async fn finished(client: &Client, number: usize) -> pinrail_client::Result<()> {
    let run_id = format!("run-{number}");
    let rare = number.is_multiple_of(RARE);
    let kind = if rare { "rare" } else { "usual" };
    let request = v1::StartRunRequest {
        agent_id: AGENT.to_owned(),
        run_id: run_id.clone(),
        labels: [("task_kind".to_owned(), kind.to_owned())].into(),
        ..v1::StartRunRequest::default()
    };
    client.runs().start(request).await?;
    let outcome = if rare { v1::Outcome::Failed } else { v1::Outcome::Completed };
    let request = v1::FinishRunRequest {
        agent_id: AGENT.to_owned(),
        run_id,
        outcome: outcome.into(),
        failure: rare.then(|| v1::Failure { reason: "RARE".to_owned(), ..v1::Failure::default() }),
        ..v1::FinishRunRequest::default()
    };
    client.runs().finish(request).await.map(drop)
}

fn filters() -> Vec<(&'static str, v1::ListRunsRequest)> {
    let label = |kind: &str| [("task_kind".to_owned(), kind.to_owned())].into();
    let all = v1::ListRunsRequest {
        agent_id: AGENT.to_owned(),
        page_size: PAGE,
        ..v1::ListRunsRequest::default()
    };
    let failed = v1::RunState::Failed.into();
    vec![
        ("all", all.clone()),
        ("state failed", v1::ListRunsRequest { state: failed, ..all.clone() }),
        ("open", v1::ListRunsRequest { open: true, ..all.clone() }),
        (
            "state running",
            v1::ListRunsRequest { state: v1::RunState::Running.into(), ..all.clone() },
        ),
        (
            "bundle v1, not live any more",
            v1::ListRunsRequest { bundle_id: bundle(1), ..all.clone() },
        ),
        ("label usual", v1::ListRunsRequest { labels: label("usual"), ..all.clone() }),
        ("label rare", v1::ListRunsRequest { labels: label("rare"), ..all.clone() }),
        (
            "label usual, state failed",
            v1::ListRunsRequest { labels: label("usual"), state: failed, ..all.clone() },
        ),
        ("older than 10s", v1::ListRunsRequest { older_than: Some(time::duration(10_000)), ..all }),
    ]
}

/// What each of a number of questions for the first page took.
async fn pages(client: &Client, request: &v1::ListRunsRequest) -> Result<Vec<u64>> {
    let mut took = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let began = Instant::now();
        client.runs().list(request.clone()).await?;
        took.push(u64::try_from(began.elapsed().as_micros())?);
    }
    Ok(took)
}

/// Starts runs until all that were finished are gone.
async fn removal(client: &Client, size: Size) -> Result<(Duration, Spread)> {
    let began = Instant::now();
    let give_up = began + size.retention + Duration::from_secs(600);
    let mut starts = Vec::new();
    loop {
        for _ in 0..50 {
            let request = v1::StartRunRequest {
                agent_id: AGENT.to_owned(),
                run_id: format!("meanwhile-{}", starts.len()),
                ..v1::StartRunRequest::default()
            };
            let asked = Instant::now();
            client.runs().start(request).await?;
            starts.push(u64::try_from(asked.elapsed().as_micros())?);
            sleep(APART).await;
        }
        let left = [v1::RunState::Completed, v1::RunState::Failed].map(|state| {
            let request = v1::ListRunsRequest {
                agent_id: AGENT.to_owned(),
                state: state.into(),
                page_size: 1,
                ..v1::ListRunsRequest::default()
            };
            async move { client.runs().list(request).await }
        });
        let [completed, failed] = left;
        if completed.await?.runs.is_empty() && failed.await?.runs.is_empty() {
            return Ok((began.elapsed(), Spread::of(starts)));
        }
        if Instant::now() > give_up {
            bail!("finished runs are still there");
        }
    }
}
