//! A rollback with 10,000 open runs on the bundle that is left, under each in-flight policy: how long until it is
//! acknowledged, where the next run starts at every member, what became of exactly those runs, and whether the memory of the
//! bundle that is live again is what it was.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use pinrail_client::{Client, Config};
use pinrail_proto::v1::{self, EndReason, InFlight, RunState};
use tokio::time::{Instant, sleep};

use super::Setting;
use super::measured::{client, each, go_live, runs};
use super::plan::bundle;
use crate::api::setup::{self, Policy};
use crate::cluster::{Cluster, Options};
use crate::report::ms;

/// Runs that stay open on the bundle that is returned to: no policy concerns them.
const OLDER: usize = 200;
/// Keys that both bundles wrote.
const KEYS: usize = 200;
const BOUND_US: u64 = 1_000_000;
/// How long the sweep may take.
const SWEPT: Duration = Duration::from_secs(60);
const POLICIES: [InFlight; 3] = [InFlight::Keep, InFlight::Cancel, InFlight::Restart];

/// One rollback.
#[derive(Debug)]
pub struct Rolled {
    policy: InFlight,
    acked_us: u64,
    /// From the acknowledgement until the last run had ended, or was moved.
    swept: Duration,
    /// What is not as promised.
    misses: Vec<String>,
}

/// What was measured.
#[derive(Debug)]
pub struct RollbackCost {
    runs: usize,
    rolled: Vec<Rolled>,
}

impl RollbackCost {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.is_exact() && self.rolled.iter().all(|it| it.acked_us < BOUND_US)
    }

    /// Every run fared as the policy says, whatever the time it took.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.rolled.iter().all(|it| it.misses.is_empty())
    }
}

impl fmt::Display for RollbackCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in &self.rolled {
            let verdict = if it.acked_us < BOUND_US { "kept" } else { "MISSED" };
            writeln!(
                f,
                "  {} open runs, {:?}: acknowledged after {} ms (bound 1000 ms: {verdict}), all of them settled {:?} later",
                self.runs,
                it.policy,
                ms(it.acked_us),
                it.swept
            )?;
            it.misses.iter().try_for_each(|miss| writeln!(f, "    MISSED: {miss}"))?;
        }
        Ok(())
    }
}

/// # Errors
/// When the harness failed.
pub async fn rollback_cost(setting: &Setting, runs: usize) -> Result<RollbackCost> {
    let mut cluster = Cluster::start(&Options::three(&setting.binaries.pinrail)).await?;
    let client = client(&cluster)?;
    let members = cluster.members.iter().map(|member| {
        let config = Config { endpoints: vec![member.grpc.clone()], ..Config::default() };
        Client::builder(config).learn_members(false).build()
    });
    let members = members.collect::<pinrail_client::Result<Vec<_>>>()?;
    let mut rolled = Vec::new();
    for policy in POLICIES {
        let agent = format!("{policy:?}").to_lowercase();
        // Nobody works on the runs: they stay open until the rollback.
        let long = Policy { drain_cap_ms: 3_600_000, ..Policy::default() };
        setup::agent(&cluster.nodes, &agent, long, &[bundle(1), bundle(2)]).await?;
        let scene = Scene { client: &client, members: &members, agent, policy };
        rolled.push(scene.play(runs).await?);
    }
    cluster.must_run()?;
    Ok(RollbackCost { runs, rolled })
}

struct Scene<'a> {
    client: &'a Client,
    /// One that asks no other member, for each of them.
    members: &'a [Client],
    agent: String,
    policy: InFlight,
}

impl Scene<'_> {
    async fn play(&self, runs: usize) -> Result<Rolled> {
        go_live(self.client, &self.agent, &bundle(1)).await?;
        self.write("old").await?;
        self.start("older", OLDER).await?;
        let before = self.memory().await?;
        go_live(self.client, &self.agent, &bundle(2)).await?;
        self.write("new").await?;
        self.start("newer", runs).await?;
        println!("  {runs} runs of {} are open on v2", self.agent);

        let mut misses = Vec::new();
        let asked = Instant::now();
        let first = self.roll_back().await?;
        let acked = asked.elapsed();
        for (number, member) in self.members.iter().enumerate() {
            let run = start(member, &self.agent, format!("next-{number}")).await?;
            if run != bundle(1) {
                misses.push(format!("member {number} started a run on {run}"));
            }
        }
        let swept = self.settled(runs, acked, asked).await?;
        misses.extend(self.fates(runs).await?);
        if self.memory().await? != before {
            misses.push("the memory of v1 is not what it was".to_owned());
        }
        let again = self.roll_back().await?;
        if !again.already || (again.epoch, again.drain) != (first.epoch, first.drain) {
            misses.push(format!("the same rollback again came to epoch {}", again.epoch));
        }
        Ok(Rolled {
            policy: self.policy,
            acked_us: u64::try_from(acked.as_micros())?,
            swept,
            misses,
        })
    }

    async fn roll_back(&self) -> Result<v1::RollbackResponse> {
        let request = v1::RollbackRequest {
            agent_id: self.agent.clone(),
            from_bundle_id: bundle(2),
            in_flight: self.policy.into(),
            ..v1::RollbackRequest::default()
        };
        Ok(self.client.releases().rollback(request).await?)
    }

    async fn start(&self, name: &str, count: usize) -> Result<()> {
        each(count, |number| async move {
            start(self.client, &self.agent, format!("{name}-{number}")).await.map(drop)
        })
        .await
    }

    /// Writes every key on the live bundle.
    async fn write(&self, what: &str) -> Result<()> {
        each(KEYS, |number| async move {
            let data = format!("{what} {number}").into();
            let request = v1::PutMemoryRequest {
                agent_id: self.agent.clone(),
                key: format!("team/note-{number}"),
                value: Some(v1::Payload { content_type: "text/plain".to_owned(), data }),
                ..v1::PutMemoryRequest::default()
            };
            self.client.memory().put(request).await.map(drop)
        })
        .await
    }

    /// Everything that the first bundle sees.
    async fn memory(&self) -> Result<Vec<v1::MemoryVersion>> {
        let scope = v1::memory_scope::Scope::BundleId(bundle(1));
        let request = v1::ListMemoryRequest {
            agent_id: self.agent.clone(),
            scope: Some(v1::MemoryScope { scope: Some(scope) }),
            page_size: 1_000,
            ..v1::ListMemoryRequest::default()
        };
        Ok(self.client.memory().list(request).await?.versions)
    }

    /// Waits until the policy was carried out on every run of the second bundle.
    async fn settled(&self, runs: usize, acked: Duration, asked: Instant) -> Result<Duration> {
        loop {
            let open = self.list(&bundle(2), true).await?.len();
            let expected = if self.policy == InFlight::Keep { runs } else { 0 };
            if open == expected {
                return Ok(asked.elapsed().saturating_sub(acked));
            }
            if asked.elapsed() > SWEPT {
                bail!("{open} runs are still open on v2, {SWEPT:?} after the rollback");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs that did not fare as the policy says.
    async fn fates(&self, runs: usize) -> Result<Vec<String>> {
        let old = self.list(&bundle(1), true).await?;
        let of = |name: &str| old.iter().filter(|run| run.run_id.starts_with(name)).count();
        let (older, moved) = (of("older-"), of("newer-"));
        let ended = self.list(&bundle(2), false).await?;
        let ended_by = |run: &&v1::Run| {
            run.state() == RunState::Cancelled && run.end_reason() == EndReason::Rollback
        };
        let ended = ended.iter().filter(ended_by).count();
        let expected = match self.policy {
            InFlight::Cancel => (OLDER, 0, runs),
            InFlight::Restart => (OLDER, runs, 0),
            InFlight::Keep | InFlight::Unspecified => (OLDER, 0, 0),
        };
        let found = (older, moved, ended);
        let miss = (found != expected).then(|| {
            format!(
                "(older runs open on v1, moved to v1, ended on v2): {found:?}, not {expected:?}"
            )
        });
        Ok(miss.into_iter().collect())
    }

    async fn list(&self, bundle_id: &str, open: bool) -> Result<Vec<v1::Run>> {
        let wanted = v1::ListRunsRequest {
            agent_id: self.agent.clone(),
            bundle_id: bundle_id.to_owned(),
            open,
            ..v1::ListRunsRequest::default()
        };
        runs(self.client, wanted).await
    }
}

/// Starts a run on whatever is live; gives the bundle that it got.
async fn start(client: &Client, agent: &str, run_id: String) -> pinrail_client::Result<String> {
    let request = v1::StartRunRequest {
        agent_id: agent.to_owned(),
        run_id,
        ..v1::StartRunRequest::default()
    };
    Ok(client.runs().start(request).await?.bundle_id)
}
