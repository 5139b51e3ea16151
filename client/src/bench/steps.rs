//! Steps through worker streams: chains of runs of ten steps, as many as the load has clients, each as fast as it goes.
//!
//! ```text
//! step 1 → step 2 → … → step 10 → continued as a new run: step 1 → …
//! ```
//! That a step's handler begins says that the completion of the step before it was acknowledged: what is measured is the time
//! between the two. It takes no call beside the streams.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_proto::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::{Calls, VALUE_BYTES};
use super::load::Load;
use super::tally::Tally;
use super::window::Window;
use super::workers::{STEP, STEPS, Workers};
use crate::client::Client;
use crate::error::Result;
use crate::payload;
use crate::worker::{Next, StepContext, StepResult};

/// Bytes of an input beside its text.
const PLACE_BYTES: usize = 40;
/// How long a step may take to be seen after the window has closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reason of steps that were not seen by then.
const NOT_SEEN: &str = "NOT_SEEN";

/// Where a chain is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    chain: usize,
    step: u32,
    text: String,
}

/// What all chains share.
#[derive(Debug)]
struct Chains {
    window: Window,
    state: Mutex<State>,
    one_ended: Notify,
}

#[derive(Debug)]
struct State {
    tally: Tally,
    /// By chain: when its newest step began.
    newest: Vec<Option<Instant>>,
    /// Chains that are over: their last step may be tried twice.
    over: BTreeSet<usize>,
}

impl Chains {
    fn new(window: Window, chains: usize) -> Chains {
        let newest = vec![None; chains];
        let state = State { tally: Tally::default(), newest, over: BTreeSet::new() };
        Chains { window, state: Mutex::new(state), one_ended: Notify::new() }
    }

    /// A step began. Answers whether its chain goes on.
    fn began(&self, chain: usize, now: Instant) -> bool {
        let mut state = self.state.lock();
        let State { tally, newest, over } = &mut *state;
        let Some(newest) = newest.get_mut(chain) else { return false };
        if let Some(before) = newest.replace(now).filter(|before| self.window.counts(*before)) {
            tally.note(now - before, Ok(()));
        }
        if now < self.window.closes {
            return true;
        }
        *newest = None;
        over.insert(chain);
        self.one_ended.notify_one();
        false
    }

    async fn ended(&self) {
        loop {
            {
                let state = self.state.lock();
                if state.over.len() == state.newest.len() {
                    return;
                }
            }
            self.one_ended.notified().await;
        }
    }

    /// Notes the steps that were not seen in time, with their wait.
    fn note_missing(&self, now: Instant) {
        let mut state = self.state.lock();
        let State { tally, newest, .. } = &mut *state;
        for before in newest.iter().flatten().filter(|at| self.window.counts(**at)) {
            tally.note(now - *before, Err(NOT_SEEN.to_owned()));
        }
    }

    fn take(&self) -> Tally {
        std::mem::take(&mut self.state.lock().tally)
    }

    async fn step(&self, place: Place) -> StepResult<Next> {
        if !self.began(place.chain, Instant::now()) {
            return Ok(Next::done(()));
        }
        let next = Place { step: place.step % STEPS + 1, ..place };
        Ok(if next.step == 1 { Next::continue_as_new(next) } else { Next::step(STEP, next) })
    }
}

/// Lets chains of steps go until the window closes or `stop` is asked for. Connections have a worker each.
///
/// # Errors
/// Why a chain could not begin, or why the cluster did not want a worker.
pub(super) async fn drive(
    load: Load,
    window: Window,
    calls: &Calls,
    stop: &CancellationToken,
) -> Result<Tally> {
    let Calls { clients, agent, .. } = calls;
    let chains = Arc::new(Chains::new(window, load.clients));
    let workers = Workers::start(clients, agent, load.clients, |worker| {
        let chains = Arc::clone(&chains);
        worker.step(STEP, move |_: StepContext, place: Place| {
            let chains = Arc::clone(&chains);
            async move { chains.step(place).await }
        })
    });
    let begun = begin(load, clients, agent).await;
    if begun.is_ok() {
        tokio::select! {
            ended = timeout_at(window.closes + PATIENCE, chains.ended()) => {
                if ended.is_err() {
                    chains.note_missing(Instant::now());
                }
            }
            // What is under way now was not waited for: nothing of it is missing.
            () = stop.cancelled() => {}
        }
    }
    let tally = chains.take();
    let stopped = workers.stop().await;
    begun.and(stopped).map(|()| tally)
}

/// Starts the first run of each chain.
async fn begin(load: Load, clients: &[Client], agent: &str) -> Result<()> {
    let text = "x".repeat(VALUE_BYTES - PLACE_BYTES);
    let starts = (0..load.clients).map(|chain| {
        let input = payload::encode(&Place { chain, step: 1, text: text.clone() });
        let request = v1::StartRunRequest {
            agent_id: agent.to_owned(),
            input: input.ok(),
            ..Default::default()
        };
        let client = &clients[chain % clients.len()];
        async move { client.runs().start(request).await.map(drop) }
    });
    futures::future::try_join_all(starts).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_count_from_one_to_the_next_and_those_that_are_not_seen_count_too() {
        let second = Duration::from_secs(1);
        let load = Load { clients: 2, rate: None, warm_up: second, duration: second };
        let chains = Chains::new(Window::starting_now(&load), 2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(chains.began(0, at(900)), "in the warm-up");
        assert!(chains.began(0, at(1_100)));
        assert!(chains.began(0, at(1_150)), "the first that counts took 50 ms");
        assert!(chains.began(1, at(1_200)));
        assert!(!chains.began(0, at(2_300)), "it began in the window, and its end is seen");
        assert!(!chains.began(0, at(2_400)), "another attempt of the last step");
        chains.note_missing(at(5_200));
        let tally = chains.take();
        assert_eq!((tally.done(), tally.errors().get(NOT_SEEN)), (2, Some(&1)));
        let waits = tally.latencies();
        assert_eq!(waits.count_between(50_000, 50_100), 1);
        assert_eq!(waits.count_between(1_150_000, 1_151_000), 1);
        assert_eq!(waits.count_between(4_000_000, 4_002_000), 1);
    }

    #[tokio::test]
    async fn a_run_has_ten_steps_and_is_continued() {
        let hour = Duration::from_secs(3_600);
        let load = Load { clients: 1, rate: None, warm_up: hour, duration: hour };
        let chains = Chains::new(Window::starting_now(&load), 1);
        for step in 1..=STEPS {
            let place = Place { chain: 0, step, text: String::new() };
            let next = chains.step(place).await.expect("it goes on").into_outcome();
            match next.expect("it is JSON") {
                v1::complete_step::Outcome::Next(_) => assert!(step < STEPS, "{step}"),
                v1::complete_step::Outcome::ContinueAsNew(_) => assert_eq!(step, STEPS),
                other => panic!("step {step} goes on with {other:?}"),
            }
        }
    }

    #[test]
    fn inputs_have_the_size_of_every_value() {
        let text = "x".repeat(VALUE_BYTES - PLACE_BYTES);
        for (chain, step) in [(0, 1), (999, 10)] {
            let input = Place { chain, step, text: text.clone() };
            let bytes = payload::encode(&input).expect("it is JSON").data.len();
            assert!((VALUE_BYTES - 10..=VALUE_BYTES).contains(&bytes), "{bytes}");
        }
    }
}
