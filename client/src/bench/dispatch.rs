//! How soon a worker has a step: from when `StartRun` is sent, whose commit makes the step ready, until its handler begins.
//!
//! ```text
//! start ── measured ──► handler begins ─► completed ─► rest ─► next start
//! ```
//! Each client waits for the end of its run and rests before it starts the next one: with one client nothing else is under way, so
//! that what is measured is the way and no queue. The moment of the commit cannot be seen from here, and the answer of `StartRun` comes
//! no earlier than the step: so the write is part of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::call::Calls;
use super::load::Load;
use super::tally::Tally;
use super::window::Window;
use super::workers::{STEP, Workers};
use crate::error::Result;
use crate::worker::{Next, StepContext};

/// Behind the end of a run: what the cluster still does for it is over then.
const REST: Duration = Duration::from_millis(5);
/// How long a handler may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reason of runs whose handler had not begun by then.
const NOT_BEGUN: &str = "NOT_BEGUN";

/// Where handlers say that they begin.
#[derive(Debug, Default)]
struct Desk {
    /// By run: who waits for it.
    waiting: Mutex<BTreeMap<String, oneshot::Sender<Instant>>>,
}

impl Desk {
    fn wait_for(&self, run_id: &str) -> oneshot::Receiver<Instant> {
        let (says, hears) = oneshot::channel();
        self.waiting.lock().insert(run_id.to_owned(), says);
        hears
    }

    /// The first attempt counts; nobody waits for another one.
    fn begins(&self, run_id: &str, now: Instant) {
        if let Some(says) = self.waiting.lock().remove(run_id) {
            // Who stopped waiting has noted it.
            let _ = says.send(now);
        }
    }
}

/// What the clients share.
struct Starts<'s> {
    calls: &'s Calls,
    desk: &'s Desk,
    window: Window,
    next: AtomicU64,
    tally: Mutex<Tally>,
}

impl Starts<'_> {
    async fn go(&self, client: usize) {
        while Instant::now() < self.window.closes {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.one(client, number).await;
            sleep(REST).await;
        }
    }

    async fn one(&self, client: usize, number: u64) {
        let (client, run_id) = (self.calls.client(client), Calls::run_id(number));
        let begun = self.desk.wait_for(&run_id);
        let asked = Instant::now();
        if let Err(error) = self.calls.start(client, number).await {
            self.note(asked, asked.elapsed(), Err(error.reason().to_owned()));
            return;
        }
        match timeout(PATIENCE, begun).await {
            Ok(Ok(begun)) => self.note(asked, begun - asked, Ok(())),
            Ok(Err(_)) | Err(_) => self.note(asked, asked.elapsed(), Err(NOT_BEGUN.to_owned())),
        }
        // An error is the next start's too.
        let _ = client.wait_for_result(&self.calls.agent, &run_id).await;
    }

    fn note(&self, since: Instant, took: Duration, outcome: std::result::Result<(), String>) {
        if self.window.counts(since) {
            self.tally.lock().note(took, outcome);
        }
    }
}

/// Lets clients start runs until the window closes or `stop` is asked for.
///
/// # Errors
/// Why the cluster did not want a worker.
pub(super) async fn drive(
    load: Load,
    window: Window,
    calls: &Calls,
    stop: &CancellationToken,
) -> Result<Tally> {
    let desk = Arc::new(Desk::default());
    let workers = Workers::start(&calls.clients, &calls.agent, load.clients, |worker| {
        let desk = Arc::clone(&desk);
        worker.step(STEP, move |context: StepContext, input: String| {
            let desk = Arc::clone(&desk);
            async move {
                desk.begins(context.run_id(), Instant::now());
                Ok(Next::done(input))
            }
        })
    });
    let tally = Mutex::new(Tally::default());
    let starts = Starts { calls, desk: &desk, window, next: AtomicU64::new(0), tally };
    tokio::select! {
        _ = join_all((0..load.clients).map(|client| starts.go(client))) => {}
        () = stop.cancelled() => {}
    }
    let tally = std::mem::take(&mut *starts.tally.lock());
    workers.stop().await.map(|()| tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_is_heard_once_by_who_waits_for_its_run() {
        let (desk, now) = (Desk::default(), Instant::now());
        let (one, other) = (desk.wait_for("one"), desk.wait_for("other"));
        desk.begins("one", now);
        desk.begins("one", now + Duration::from_secs(1));
        desk.begins("unknown", now);
        assert_eq!(one.await, Ok(now));
        drop(other);
        desk.begins("other", now);
        assert!(desk.waiting.lock().is_empty());
    }
}
