//! Switches and rollbacks under full load, with thousands of open pins on the bundle that loses its traffic: how long until each is
//! acknowledged, and whether the next run at every member starts where it must.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::stream::{FuturesUnordered, StreamExt as _};
use pinrail_client::{Client, Config};
use pinrail_proto::v1;
use tokio::time::{Instant, sleep};

use super::Setting;
use super::measured::{client, each, go_live, start};
use super::plan::bundle;
use crate::api::setup::{self, Policy};
use crate::cluster::{Cluster, Options, Timings};
use crate::report::{Spread, ms};

const AGENT: &str = "alpha";
/// Callers that write memory, each as soon as its last write was acknowledged, and the keys of each. Runs would soon be more than an
/// agent may have open.
const CALLERS: usize = 64;
const KEYS: usize = 100;
const REST: Duration = Duration::from_millis(100);
/// At the 99th percentile of the moves.
const BOUND_US: u64 = 100_000;

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Open on the bundle that is left by every move.
    pub pins: usize,
    /// Switches, and as many rollbacks.
    pub moves: usize,
}

/// What was measured.
#[derive(Debug)]
pub struct Moves {
    size: Size,
    pub switches: Spread,
    pub rollbacks: Spread,
    /// Writes meanwhile, in a second.
    writes: u64,
    /// Runs that started on a bundle that had lost its traffic before.
    astray: Vec<String>,
}

impl Moves {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.is_exact() && [self.switches, self.rollbacks].iter().all(|it| it.p99_us <= BOUND_US)
    }

    /// Every run started where it must, whatever the time it took.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.astray.is_empty() && self.writes > 0
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pins, writes) = (self.size.pins, self.writes);
        writeln!(f, "  {pins} open pins or more on what is left, {writes} writes in a second")?;
        for (what, acked) in [("switch", &self.switches), ("rollback", &self.rollbacks)] {
            let verdict = if acked.p99_us <= BOUND_US { "kept" } else { "MISSED" };
            writeln!(
                f,
                "  {what} acknowledged, {} times: p50 {} ms, p99 {} ms, max {} ms (bound {} ms at p99: {verdict})",
                acked.count,
                ms(acked.median_us),
                ms(acked.p99_us),
                ms(acked.max_us),
                BOUND_US / 1_000
            )?;
        }
        self.astray.iter().try_for_each(|run| writeln!(f, "  MISSED: {run}"))
    }
}

/// The members' data is in this folder, or in a temporary one.
///
/// # Errors
/// When the harness failed.
pub async fn moves(setting: &Setting, size: Size, folder: Option<&Path>) -> Result<Moves> {
    let options = Options {
        timings: Timings::Production,
        folder: folder.map(Path::to_owned),
        ..Options::three(&setting.binaries.pinrail)
    };
    let mut cluster = Cluster::start(&options).await?;
    let client = client(&cluster)?;
    let members = cluster.members.iter().map(|member| {
        let config = Config { endpoints: vec![member.grpc.clone()], ..Config::default() };
        Client::builder(config).learn_members(false).build()
    });
    let members = members.collect::<pinrail_client::Result<Vec<_>>>()?;
    // Nobody works on the runs: they stay open.
    let long = Policy { drain_cap_ms: 3_600_000, ..Policy::default() };
    setup::agent(&cluster.nodes, AGENT, long, &[bundle(1), bundle(2)]).await?;
    go_live(&client, AGENT, &bundle(1)).await?;
    each(size.pins, |number| start(&client, AGENT, format!("one-{number}"))).await?;
    go_live(&client, AGENT, &bundle(2)).await?;
    each(size.pins, |number| start(&client, AGENT, format!("two-{number}"))).await?;
    go_live(&client, AGENT, &bundle(1)).await?;
    eprintln!("  {} runs are open on each of two bundles", size.pins);

    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        let callers = (0..CALLERS).map(|caller| calls(&client, caller, &stop, &written));
        let mut callers: FuturesUnordered<_> = callers.collect();
        while let Some(done) = callers.next().await {
            done?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let begin = Instant::now();
    let work = async {
        let measured = measure(&client, &members, size).await;
        stop.store(true, Ordering::Relaxed);
        measured
    };
    let (loaded, measured) = tokio::join!(load, work);
    loaded?;
    let (switches, rollbacks, astray) = measured?;
    let seconds = begin.elapsed().as_secs().max(1);
    cluster.must_run()?;
    Ok(Moves {
        size,
        switches: Spread::of(switches),
        rollbacks: Spread::of(rollbacks),
        writes: written.load(Ordering::Relaxed) / seconds,
        astray,
    })
}

/// Writes one key after the other.
async fn calls(
    client: &Client,
    caller: usize,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Result<()> {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let data = number.to_string().into();
        let request = v1::PutMemoryRequest {
            agent_id: AGENT.to_owned(),
            key: format!("load/{caller}/{}", number % KEYS),
            value: Some(v1::Payload { content_type: "text/plain".to_owned(), data }),
            ..v1::PutMemoryRequest::default()
        };
        client.memory().put(request).await?;
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Switches to the second bundle and rolls back to the first, again and again.
async fn measure(
    client: &Client,
    members: &[Client],
    size: Size,
) -> Result<(Vec<u64>, Vec<u64>, Vec<String>)> {
    let (mut switches, mut rollbacks, mut astray) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..size.moves {
        sleep(REST).await;
        let asked = Instant::now();
        let request = v1::SwitchRequest {
            agent_id: AGENT.to_owned(),
            bundle_id: bundle(2),
            // It was rolled back the last time.
            force: true,
            options: Some(v1::WriteOptions {
                reason: "measured".to_owned(),
                ..v1::WriteOptions::default()
            }),
            ..v1::SwitchRequest::default()
        };
        client.releases().switch(request).await?;
        switches.push(u64::try_from(asked.elapsed().as_micros())?);
        astray.extend(strays(members, &format!("to-{turn}"), &bundle(2)).await?);
        sleep(REST).await;
        let asked = Instant::now();
        let request = v1::RollbackRequest {
            agent_id: AGENT.to_owned(),
            from_bundle_id: bundle(2),
            in_flight: v1::InFlight::Keep.into(),
            ..v1::RollbackRequest::default()
        };
        client.releases().rollback(request).await?;
        rollbacks.push(u64::try_from(asked.elapsed().as_micros())?);
        astray.extend(strays(members, &format!("back-{turn}"), &bundle(1)).await?);
    }
    Ok((switches, rollbacks, astray))
}

/// Starts a run at each member, and says which did not start on the live bundle.
async fn strays(members: &[Client], name: &str, live: &str) -> Result<Vec<String>> {
    let mut strays = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let run_id = format!("{name}-{number}");
        let request = v1::StartRunRequest {
            agent_id: AGENT.to_owned(),
            run_id: run_id.clone(),
            ..v1::StartRunRequest::default()
        };
        let run = member.runs().start(request).await?;
        if run.bundle_id != live {
            strays.push(format!("{run_id} started on {}; {live} was live", run.bundle_id));
        }
    }
    Ok(strays)
}
