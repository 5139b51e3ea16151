//! Nodes that hold very much: filled, weighed, and one of them started anew.

use std::fmt;

use anyhow::{Result, bail};
use futures::stream::{self, StreamExt as _};
use pinrail_client::bench::Usage;
use tokio::time::{Duration, Instant, sleep};

/// Calls under way while it is filled.
pub(super) const AT_ONCE: usize = 256;
/// How long what was begun may go on before nodes are weighed.
const SETTLE: Duration = Duration::from_secs(5);
/// How long one that was started anew may take.
const BACK: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(10);
/// A fill says so many times how far it is, unless it is small.
const REPORTS: u64 = 4;
const SMALL: u64 = 50_000;

/// What nodes that hold very much come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Memory of the largest node when it holds nothing yet.
    pub(super) idle_bytes: u64,
    /// The same when all hold everything.
    pub(super) full_bytes: u64,
    /// From the start of one that was killed until it answers with everything.
    pub(super) restart: Duration,
}

/// Does something for each number, many at a time.
///
/// # Errors
/// The first failure.
pub(super) async fn fill<F, Fut, E>(what: &str, count: u64, act: F) -> Result<()>
where
    F: Fn(u64) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    let mut acts = stream::iter(0..count).map(act).buffer_unordered(AT_ONCE);
    let mut done: u64 = 0;
    while let Some(outcome) = acts.next().await {
        if let Err(error) = outcome {
            bail!("{what} number {done} of {count} failed: {error}");
        }
        done += 1;
        if count > SMALL && done.is_multiple_of((count / REPORTS).max(1)) {
            eprintln!("  {done} of {count} {what}");
        }
    }
    Ok(())
}

/// Waits for what goes on behind an answer, and gives the memory of the largest node.
///
/// # Errors
/// When one of them is gone.
pub(super) async fn weigh(pids: &[u32]) -> Result<u64> {
    sleep(SETTLE).await;
    let sizes = pids.iter().map(|pid| Usage::of(*pid).map(|usage| usage.resident_bytes));
    Ok(sizes.collect::<std::io::Result<Vec<u64>>>()?.into_iter().max().unwrap_or_default())
}

/// Asks until the answer is a good one; gives the time since then.
///
/// # Errors
/// When it is none in time.
pub(super) async fn back<F, Fut>(since: Instant, ask: F) -> Result<Duration>
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    while !ask().await {
        if since.elapsed() > BACK {
            bail!("the node that was started anew does not have everything within {BACK:?}");
        }
        sleep(LOOK).await;
    }
    Ok(since.elapsed())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_fill_does_each_number_once_and_ends_with_the_first_failure() {
        let sum = AtomicU64::new(0);
        let add = |number| {
            sum.fetch_add(number, Ordering::Relaxed);
            async { Ok::<(), String>(()) }
        };
        fill("numbers", 1_000, add).await.expect("all are added");
        assert_eq!(sum.into_inner(), 499_500);
        let fails = |number| async move { if number == 7 { Err("it is full") } else { Ok(()) } };
        let error = fill("numbers", 1_000, fails).await.expect_err("one fails");
        assert!(error.to_string().ends_with("of 1000 failed: it is full"), "{error}");
    }

    #[tokio::test]
    async fn a_node_is_back_with_its_first_good_answer() {
        let (asked, since) = (AtomicU64::new(0), Instant::now());
        let ask = || {
            let count = asked.fetch_add(1, Ordering::Relaxed);
            async move { count == 3 }
        };
        let took = back(since, ask).await.expect("it comes back");
        assert!(took >= LOOK * 3, "{took:?}");
        assert_eq!(asked.into_inner(), 4);
    }
}
