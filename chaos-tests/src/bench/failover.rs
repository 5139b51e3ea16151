//! SIGKILL of the leader: how long until a write is acknowledged again, by turns with etcd, each trial on a fresh cluster with the
//! settings that it has by default.

use std::fmt;
use std::pin::pin;

use anyhow::{Context as _, Result, bail};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::etcd::Etcd;
use super::pinrail::Pinrail;
use crate::config::Peers;
use crate::report::{Spread, ms};
use crate::scenario::Setting;

/// Ours at most so much of etcd's, by the medians.
const GOAL: f64 = 0.55;
/// Callers that ask the members that are left, in turn.
const CALLERS: usize = 4;
/// How long one attempt may take, and the pause behind one that failed.
pub(super) const ATTEMPT: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(5);
/// Between the start of a cluster and the end of its leader.
const SETTLE: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(30);

/// Times until the next acknowledged write.
#[derive(Debug)]
pub struct Failover {
    ours: Spread,
    /// None: etcd is not here.
    etcd: Option<Spread>,
}

impl Failover {
    /// Of ours, and of etcd's where it is here.
    pub(super) fn medians_us(&self) -> (u64, Option<u64>) {
        (self.ours.median_us, self.etcd.map(|etcd| etcd.median_us))
    }

    fn ratio(&self) -> Option<f64> {
        let etcd = self.etcd.filter(|etcd| etcd.median_us > 0)?;
        Some(self.ours.median_us as f64 / etcd.median_us as f64)
    }

    /// Whether the goal is met, where there is something to compare with.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.ratio().is_none_or(|ratio| ratio <= GOAL)
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, name: &str, it: &Spread| {
            let (median, p90, max) = (ms(it.median_us), ms(it.p90_us), ms(it.max_us));
            writeln!(
                f,
                "{name:<8} {} trials: median {median} ms, p90 {p90} ms, max {max} ms",
                it.count
            )
        };
        writeln!(f, "SIGKILL of the leader to the next acknowledged write")?;
        side(f, "ours", &self.ours)?;
        match (&self.etcd, self.ratio()) {
            (Some(etcd), Some(ratio)) => {
                side(f, "etcd", etcd)?;
                let verdict = if self.passed() { "met" } else { "missed" };
                writeln!(f, "ratio of the medians {ratio:.2}, goal at most {GOAL:.2}: {verdict}")
            }
            (Some(_) | None, _) => {
                writeln!(f, "etcd     skipped: PINRAIL_ETCD names no etcd program")
            }
        }
    }
}

/// Before each trial ours gets so many open runs, and etcd as many keys.
///
/// # Errors
/// When the harness failed.
pub async fn failover(setting: &Setting, trials: usize, held: u64) -> Result<Failover> {
    let out = setting.out.as_deref();
    let binary = Peers::locate().etcd;
    let (mut ours, mut etcd) = (Vec::new(), Vec::new());
    for trial in 1..=trials {
        let mut pinrail = Pinrail::start(&setting.binaries.pinrail, out).await?;
        if held > 0 {
            pinrail.open_runs(held).await?;
        }
        ours.push(pinrail.lose_leader(SETTLE).await.context("ours")?);
        pinrail.cluster.kill_all().await?;
        let mut line = format!("trial {trial}: ours {} ms", ms(ours[trial - 1]));
        if let Some(binary) = &binary {
            let mut server = Etcd::start(binary, out).await?;
            if held > 0 {
                server.put_keys(held).await?;
            }
            etcd.push(server.lose_leader(SETTLE).await.context("etcd")?);
            line.push_str(&format!(", etcd {} ms", ms(etcd[trial - 1])));
        }
        eprintln!("{line}");
    }
    Ok(Failover { ours: Spread::of(ours), etcd: binary.map(|_| Spread::of(etcd)) })
}

/// Asks until a write is acknowledged; gives the microseconds since `since`. `attempt` gets the caller and the number of its attempt, and
/// says whether it was acknowledged.
///
/// # Errors
/// When none is in time.
pub(super) async fn first_write<F, Fut>(since: Instant, attempt: F) -> Result<u64>
where
    F: Fn(usize, usize) -> Fut,
    Fut: Future<Output = bool>,
{
    let attempt = &attempt;
    let callers = (0..CALLERS).map(|caller| async move {
        for number in 0.. {
            if matches!(timeout(ATTEMPT, attempt(caller, number)).await, Ok(true)) {
                break;
            }
            sleep(PAUSE).await;
        }
    });
    let mut callers = pin!(callers.collect::<FuturesUnordered<_>>());
    if timeout(GIVE_UP, callers.next()).await.is_err() {
        bail!("no write is acknowledged within {GIVE_UP:?}");
    }
    Ok(u64::try_from(since.elapsed().as_micros())?)
}
