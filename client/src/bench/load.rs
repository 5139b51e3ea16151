//! Generates operations, and notes how long each took.
//!
//! ```text
//! closed loop   each client: operation, answer, next operation …   a slow answer delays the next question, and hides its wait
//! open loop     operation i is due at start + i / rate; a client that is free begins it then, or later; its latency
//!               counts from when it was due, so that the wait for a free client is part of it
//! ```
//! It must not know what an operation does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::tally::Tally;
use super::window::Window;

/// After a failed operation a client rests, so that refusals do not become a busy loop.
const REST: Duration = Duration::from_millis(10);
/// Reason of operations of an open loop that no client came to before the loop gave up.
pub const NOT_BEGUN: &str = "NOT_BEGUN";

/// How operations are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Callers, each with at most one operation under way.
    pub clients: usize,
    /// Operations in a second, whatever becomes of the earlier ones; none: a closed loop.
    pub rate: Option<f64>,
    /// Operations that begin within it do not count.
    pub warm_up: Duration,
    /// Of what counts.
    pub duration: Duration,
}

/// What is measured.
pub trait Operation: Send + Sync {
    /// Does it once; `client` is one of the load's, `number` is this operation's alone. The error is a reason's name.
    fn perform(&self, client: usize, number: u64) -> BoxFuture<'_, Result<(), String>>;
}

/// Performs operations until the window closes or `stop` is asked for. Whatever began before the window closed is waited for;
/// of an open loop that fell behind, for as long again as the window is, at most.
pub(super) async fn drive(
    load: Load,
    window: Window,
    operation: Arc<dyn Operation>,
    alarm: Alarm,
    stop: &CancellationToken,
) -> Tally {
    let shared = Arc::new(Shared {
        load,
        window,
        operation,
        next: AtomicU64::new(0),
        due: Semaphore::new(0),
        tally: Mutex::new(Tally::default()),
    });
    let mut clients = JoinSet::new();
    for client in 0..load.clients {
        let shared = Arc::clone(&shared);
        clients.spawn(async move {
            match shared.load.rate {
                None => shared.closed(client).await,
                Some(rate) => shared.open(client, rate).await,
            }
        });
    }
    if let Some(rate) = load.rate {
        let shared = Arc::clone(&shared);
        clients.spawn(async move { shared.pace(rate, &alarm).await });
    }
    tokio::select! {
        () = ended(&mut clients) => {}
        () = stop.cancelled() => clients.shutdown().await,
    }
    std::mem::take(&mut *shared.tally.lock())
}

async fn ended(clients: &mut JoinSet<()>) {
    while clients.join_next().await.is_some() {}
}

/// What the clients of one load share.
struct Shared {
    load: Load,
    window: Window,
    operation: Arc<dyn Operation>,
    next: AtomicU64,
    /// Operations of an open loop that are due and not begun.
    due: Semaphore,
    tally: Mutex<Tally>,
}

impl Shared {
    async fn closed(&self, client: usize) {
        loop {
            let began = Instant::now();
            if began >= self.window.closes {
                return;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.perform(client, number, began).await;
        }
    }

    /// When an operation of an open loop is due.
    fn due_at(&self, number: u64, rate: f64) -> Instant {
        self.window.begins + Duration::from_secs_f64(number as f64 / rate)
    }

    /// Lets clients begin what is due.
    async fn pace(&self, rate: f64, alarm: &Alarm) {
        let mut number = 0;
        loop {
            let due = self.due_at(number, rate);
            if due >= self.window.closes {
                // Each client comes once more, and sees that.
                self.due.add_permits(self.load.clients);
                return;
            }
            alarm.at(due).await;
            self.due.add_permits(1);
            number += 1;
        }
    }

    async fn open(&self, client: usize, rate: f64) {
        let gives_up = self.window.closes + self.load.duration;
        while let Ok(permit) = self.due.acquire().await {
            permit.forget();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.due_at(number, rate);
            if due >= self.window.closes {
                return;
            }
            if Instant::now() < gives_up {
                self.perform(client, number, due).await;
            } else {
                self.note(due, Err(NOT_BEGUN.to_owned()));
            }
        }
    }

    async fn perform(&self, client: usize, number: u64, since: Instant) {
        let outcome = self.operation.perform(client, number).await;
        let failed = outcome.is_err();
        self.note(since, outcome);
        if failed {
            sleep(REST).await;
        }
    }

    /// Notes an operation that ended now.
    fn note(&self, since: Instant, outcome: Result<(), String>) {
        if self.window.counts(since) {
            self.tally.lock().note(since.elapsed(), outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a millisecond, but for one that stalls for a second.
    struct Stalls(u64);

    impl Operation for Stalls {
        fn perform(&self, _: usize, number: u64) -> BoxFuture<'_, Result<(), String>> {
            let takes = if number == self.0 { 1_000 } else { 1 };
            Box::pin(async move {
                sleep(Duration::from_millis(takes)).await;
                Ok(())
            })
        }
    }

    /// Never answers.
    struct Hangs;

    impl Operation for Hangs {
        fn perform(&self, _: usize, _: u64) -> BoxFuture<'_, Result<(), String>> {
            Box::pin(std::future::pending())
        }
    }

    /// Refuses.
    struct Refuses;

    impl Operation for Refuses {
        fn perform(&self, _: usize, _: u64) -> BoxFuture<'_, Result<(), String>> {
            Box::pin(async { Err("NO_LEADER".to_owned()) })
        }
    }

    const LOAD: Load = Load {
        clients: 1,
        rate: None,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(4),
    };

    async fn driven(load: Load, operation: impl Operation + 'static) -> Tally {
        let window = Window::starting_now(&load);
        drive(load, window, Arc::new(operation), Alarm::Coarse, &CancellationToken::new()).await
    }

    const STALLED_US: std::ops::RangeInclusive<u64> = 500_000..=2_000_000;

    #[tokio::test(start_paused = true)]
    async fn one_stall_delays_all_that_was_due_meanwhile_and_an_open_loop_shows_it() {
        // In its second second; at 100 a second another hundred was due while it stalled, half of them for longer than
        // half a second.
        let open = Load { rate: Some(100.0), ..LOAD };
        let tally = driven(open, Stalls(150)).await;
        let late = tally.latencies().count_between(*STALLED_US.start(), *STALLED_US.end());
        assert!((45..=60).contains(&late), "{late} operations waited for more than half a second");
        assert_eq!(tally.latencies().len(), 400, "each that was due counts");
        assert!(tally.latencies().value_at_quantile(0.95) > *STALLED_US.start());
        // The same stall in a closed loop is a single slow operation: what an open loop is for.
        let tally = driven(LOAD, Stalls(1_200)).await;
        let late = tally.latencies().count_between(*STALLED_US.start(), *STALLED_US.end());
        assert_eq!(late, 1);
        assert!(tally.latencies().value_at_quantile(0.99) < 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn operations_that_no_client_came_to_count_with_their_wait() {
        // One client, which does two in a second where ten are due.
        struct Slow;
        impl Operation for Slow {
            fn perform(&self, _: usize, _: u64) -> BoxFuture<'_, Result<(), String>> {
                Box::pin(async {
                    sleep(Duration::from_millis(500)).await;
                    Ok(())
                })
            }
        }
        let tally = driven(Load { rate: Some(10.0), ..LOAD }, Slow).await;
        let not_begun = tally.errors().get(NOT_BEGUN).copied().unwrap_or_default();
        // Until five seconds and four more have passed it does 18 of 50, of which the first ten were warm-up.
        assert_eq!((tally.done(), not_begun), (8, 32));
        let longest = tally.latencies().max();
        assert!((7_200_000..7_400_000).contains(&longest), "{longest}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_began_behind_the_warm_up_counts() {
        let began = Instant::now();
        let tally = driven(LOAD, Stalls(u64::MAX)).await;
        // The first operation of the window may begin a millisecond late.
        assert!((3_900..=4_000).contains(&tally.done()), "{}", tally.done());
        assert_eq!(began.elapsed().as_secs(), 5);
        let tally = driven(Load { warm_up: Duration::ZERO, ..LOAD }, Stalls(0)).await;
        assert_eq!(tally.latencies().count_between(*STALLED_US.start(), *STALLED_US.end()), 1);
        let tally = driven(LOAD, Stalls(0)).await;
        assert_eq!(tally.latencies().count_between(*STALLED_US.start(), *STALLED_US.end()), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_by_reason_and_end_no_load() {
        let tally = driven(Load { clients: 2, ..LOAD }, Refuses).await;
        assert_eq!(tally.done(), 0);
        let refused = tally.errors().get("NO_LEADER").copied().unwrap_or_default();
        assert!((700..=802).contains(&refused), "two clients rest 10 ms after each: {refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_stops_when_it_is_told_to_whatever_hangs() {
        let stop = CancellationToken::new();
        let window = Window::starting_now(&LOAD);
        let began = Instant::now();
        let driven = drive(LOAD, window, Arc::new(Hangs), Alarm::Coarse, &stop);
        let stops = async {
            sleep(Duration::from_millis(1_500)).await;
            stop.cancel();
        };
        let (tally, ()) = tokio::join!(driven, stops);
        assert_eq!(tally.done(), 0);
        assert_eq!(began.elapsed(), Duration::from_millis(1_500));
    }
}
