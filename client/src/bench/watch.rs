//! A value that is written again and again while many follow it: how long from when a write is sent until each of them sees it.
//!
//! ```text
//! write n is sent ──┬──► watcher 1 sees n     each of these times is one operation
//!                   ├──► watcher 2 sees n
//!                   └──► …
//! ```
//! It must not know what is watched, or how.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::call::VALUE_BYTES;
use super::figures::Figures;
use super::load::{self, Load, Operation};
use super::session::metered;
use super::tally::Tally;
use super::window::Window;
use crate::error::{Error, Result};

/// Writes in a second where the load does not say.
const WRITES: f64 = 50.0;
/// Who writes: enough for one to be free when the next write is due.
const WRITERS: usize = 8;
/// How long all watchers may take to be there, and a write to be seen after the window has closed.
const OPEN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
/// Reason of what a watcher did not see by then.
const NOT_SEEN: &str = "NOT_SEEN";
/// Digits of a number in a value.
const DIGITS: usize = 12;

/// What is watched.
pub trait Watched: Send + Sync {
    /// Writes the value of this number. The error is a reason's name.
    fn write(&self, number: u64) -> BoxFuture<'_, std::result::Result<(), String>>;

    /// Tells the board when this watcher is there, and each number that it sees from then on. It ends with what went wrong.
    fn follow<'w>(&'w self, watcher: usize, board: &'w Board) -> BoxFuture<'w, String>;
}

/// The value of a number, as large as every value.
#[must_use]
pub fn numbered(number: u64) -> Bytes {
    let text = "x".repeat(VALUE_BYTES - 2 - DIGITS);
    Bytes::from(format!("\"{number:0DIGITS$}{text}\""))
}

/// The number of a value.
#[must_use]
pub fn number_of(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.get(1..=DIGITS)?).ok()?.parse().ok()
}

/// What was sent and what was seen.
#[derive(Debug)]
pub struct Board {
    watchers: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    tally: Tally,
    /// By number: writes of the window that not everybody has seen.
    under_way: BTreeMap<u64, Sent>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    seen: usize,
}

impl Board {
    fn new(watchers: usize) -> Board {
        Board { watchers, state: Mutex::new(State::default()), changed: Notify::new() }
    }

    /// A watcher is there: it sees what is written from now on.
    pub fn opened(&self) {
        self.state.lock().open += 1;
        self.changed.notify_one();
    }

    /// A watcher sees this number now.
    pub fn sees(&self, number: u64) {
        self.seen_at(number, Instant::now());
    }

    fn seen_at(&self, number: u64, now: Instant) {
        let mut state = self.state.lock();
        let State { tally, under_way, .. } = &mut *state;
        let Some(sent) = under_way.get_mut(&number) else { return };
        tally.note(now - sent.at, Ok(()));
        sent.seen += 1;
        if sent.seen == self.watchers {
            under_way.remove(&number);
            self.changed.notify_one();
        }
    }

    fn sent_at(&self, number: u64, at: Instant) {
        self.state.lock().under_way.insert(number, Sent { at, seen: 0 });
    }

    /// A write failed: nobody need see it.
    fn failed(&self, number: u64, reason: String) {
        let mut state = self.state.lock();
        if let Some(sent) = state.under_way.remove(&number) {
            state.tally.note(sent.at.elapsed(), Err(reason));
        }
    }

    async fn until(&self, is: impl Fn(&State) -> bool) {
        loop {
            if is(&self.state.lock()) {
                return;
            }
            self.changed.notified().await;
        }
    }

    /// What came of it; what somebody did not see counts with its wait.
    fn take(&self, now: Instant) -> Tally {
        let State { mut tally, under_way, .. } = std::mem::take(&mut *self.state.lock());
        for sent in under_way.values() {
            for _ in sent.seen..self.watchers {
                tally.note(now - sent.at, Err(NOT_SEEN.to_owned()));
            }
        }
        tally
    }
}

/// The writes, as operations of a load.
struct Writes {
    watched: Arc<dyn Watched>,
    board: Arc<Board>,
    window: Window,
}

impl Operation for Writes {
    fn perform(&self, _: usize, number: u64) -> BoxFuture<'_, std::result::Result<(), String>> {
        Box::pin(async move {
            let now = Instant::now();
            if self.window.counts(now) {
                self.board.sent_at(number, now);
            }
            let written = self.watched.write(number).await;
            if let Err(reason) = &written {
                self.board.failed(number, reason.clone());
            }
            written
        })
    }
}

/// Measures with as many watchers as the load has clients; its rate is that of the writes. None when it was stopped before anything
/// was measured.
///
/// # Errors
/// When not all watchers come to be there, or one of the server processes is gone.
pub async fn measure_watch(
    load: Load,
    watched: Arc<dyn Watched>,
    servers: &[u32],
    stop: &CancellationToken,
) -> Result<Option<Figures>> {
    let alarm = Alarm::precise().map_err(|error| Error::invalid(format!("no timer: {error}")))?;
    let board = Arc::new(Board::new(load.clients));
    let mut watchers = JoinSet::new();
    for watcher in 0..load.clients {
        let (watched, board) = (Arc::clone(&watched), Arc::clone(&board));
        watchers.spawn(async move { watched.follow(watcher, &board).await });
    }
    let all_open = board.until(|state| state.open == load.clients);
    tokio::select! {
        open = timeout(OPEN, all_open) => {
            open.map_err(|_| Error::invalid(format!("not all watchers are there within {OPEN:?}")))?;
        }
        Some(ended) = watchers.join_next() => {
            let reason = ended.unwrap_or_else(|error| error.to_string());
            return Err(Error::invalid(format!("a watcher ended: {reason}")));
        }
        () = stop.cancelled() => return Ok(None),
    }
    let writes = Load { clients: WRITERS, rate: Some(load.rate.unwrap_or(WRITES)), ..load };
    let window = Window::starting_now(&writes);
    let operation = Arc::new(Writes { watched, board: Arc::clone(&board), window });
    let driven = async {
        load::drive(writes, window, operation, alarm, stop).await;
        if stop.is_cancelled() {
            // What is under way now was not waited for: nothing of it is missing.
            return Ok(std::mem::take(&mut board.state.lock().tally));
        }
        let all_seen = board.until(|state| state.under_way.is_empty());
        let _ = timeout_at(window.closes + PATIENCE, all_seen).await;
        Ok(board.take(Instant::now()))
    };
    let figures = metered(window, driven, servers, stop).await;
    watchers.shutdown().await;
    figures
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[test]
    fn a_value_has_its_number_and_the_size_of_every_value() {
        for number in [0, 7, 999_999_999_999] {
            let value = numbered(number);
            assert_eq!((value.len(), number_of(&value)), (VALUE_BYTES, Some(number)));
        }
        assert_eq!(number_of(b"\"short\""), None);
        assert_eq!(number_of(&[b'x'; 64]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn each_watcher_counts_and_what_one_does_not_see_counts_with_its_wait() {
        let board = Board::new(2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        board.sent_at(1, at(0));
        board.sent_at(2, at(100));
        board.sent_at(3, at(200));
        board.seen_at(1, at(10));
        board.seen_at(1, at(20));
        board.seen_at(2, at(130));
        board.seen_at(9, at(130));
        board.failed(3, "NO_LEADER".to_owned());
        let tally = board.take(at(1_100));
        assert_eq!(tally.done(), 3);
        let errors = [("NO_LEADER".to_owned(), 1), (NOT_SEEN.to_owned(), 1)];
        assert_eq!(tally.errors(), &errors.into());
        assert_eq!(tally.latencies().count_between(10_000, 30_100), 3);
        assert_eq!(tally.latencies().count_between(1_000_000, 1_000_900), 1);
    }

    /// Is seen five milliseconds after it was sent.
    struct Echo(tokio::sync::broadcast::Sender<u64>);

    impl Watched for Echo {
        fn write(&self, number: u64) -> BoxFuture<'_, std::result::Result<(), String>> {
            Box::pin(async move {
                sleep(Duration::from_millis(5)).await;
                self.0.send(number).map(drop).map_err(|_| "NOBODY".to_owned())
            })
        }

        fn follow<'w>(&'w self, _: usize, board: &'w Board) -> BoxFuture<'w, String> {
            Box::pin(async move {
                let mut heard = self.0.subscribe();
                board.opened();
                loop {
                    match heard.recv().await {
                        Ok(number) => board.sees(number),
                        Err(error) => return error.to_string(),
                    }
                }
            })
        }
    }

    #[tokio::test]
    async fn every_watcher_sees_every_write_of_the_window() {
        let load = Load {
            clients: 3,
            rate: Some(100.0),
            warm_up: Duration::from_millis(50),
            duration: Duration::from_millis(200),
        };
        let echo = Arc::new(Echo(tokio::sync::broadcast::channel(64).0));
        let figures = measure_watch(load, echo, &[], &CancellationToken::new()).await;
        let figures = figures.expect("it is measured").expect("it is not stopped");
        assert!(figures.errors.is_empty(), "{figures:?}");
        assert!(figures.operations >= 3 && figures.operations % 3 == 0, "{figures:?}");
        assert!(figures.p50_us >= 5_000, "{figures:?}");
    }
}
