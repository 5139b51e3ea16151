//! Pins of an agent's runs, kept in this process: for a router that looks up a pin for every request.
//!
//! ```text
//! lookup ──kept──> at once
//!        └─not───> linearizable read ──> kept, unless an event of the run came meanwhile
//! events of the agent ──of a run──> that one is forgotten
//!                     └─of the route, a drain, an environment …──> all are forgotten
//! ```
//! What is kept is as old as the last event that was heard, so it may be wrong for as long as an event is under way: some
//! milliseconds. A stream that is silent because its member is cut off is noticed: every [`CONFIRM`] the cluster is asked,
//! linearizably, how far it is, and where the events have not come so far within [`MAX_STALE`], nothing that is kept is answered
//! until they have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_proto::v1;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep};

use crate::client::Client;
use crate::error::Result;

/// So many pins are kept at least, and twice as many at most: some 60 MiB.
const KEPT: usize = 65_536;
/// How often the cluster is asked how far it is.
const CONFIRM: Duration = Duration::from_secs(2);
/// The longest time for which an answer may be out of date. A member says every 5 s how far a quiet stream is.
pub const MAX_STALE: Duration = Duration::from_secs(15);
/// Between two tries to follow the events.
const RETRY: Duration = Duration::from_millis(500);

/// Pins of the runs of one agent, and the task that follows its events. That ends with it.
///
/// ```no_run
/// # async fn example(client: pinrail_client::Client) -> pinrail_client::Result<()> {
/// let pins = pinrail_client::PinCache::new(&client, "support");
/// let pin = pins.lookup("run-7f3a").await?;
/// println!("goes to {}", pin.bundle_id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PinCache {
    shared: Arc<Shared>,
    follower: JoinHandle<()>,
}

impl PinCache {
    /// Follows the events of an agent of the client's namespace, on the runtime that this is called in. Until it does, pins are
    /// looked up and not kept.
    #[must_use]
    pub fn new(client: &Client, agent_id: &str) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            agent_id: agent_id.to_owned(),
            kept: Mutex::new(Kept::default()),
        });
        let follower = tokio::spawn(follow(Arc::clone(&shared)));
        Self { shared, follower }
    }

    /// The pin of a run: as it is kept, or as a linearizable read finds it.
    ///
    /// # Errors
    /// Those of [`crate::service::Pins::lookup`], when it is not kept.
    pub async fn lookup(&self, run_id: &str) -> Result<Arc<v1::LookupPinResponse>> {
        let asking = {
            let mut kept = self.shared.kept.lock();
            if let Some(pin) = kept.get(run_id, Instant::now()) {
                return Ok(pin);
            }
            kept.ask(run_id);
            Asking { shared: &self.shared, run_id }
        };
        let request = v1::LookupPinRequest {
            agent_id: self.shared.agent_id.clone(),
            run_id: run_id.to_owned(),
            // Not what one member has of a pin that cannot move: it may be behind an end that was heard of.
            read: Some(v1::ReadOptions {
                consistency: v1::Consistency::Linearizable.into(),
                min_revision: 1,
            }),
            ..Default::default()
        };
        let pin = Arc::new(self.shared.client.pins().lookup(request).await?);
        asking.keep(&pin);
        Ok(pin)
    }

    /// Whether pins are kept at present: the events of the agent are followed, and no older than [`MAX_STALE`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.shared.kept.lock().is_live(Instant::now())
    }
}

impl Drop for PinCache {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

#[derive(Debug)]
struct Shared {
    client: Client,
    agent_id: String,
    kept: Mutex<Kept>,
}

/// A lookup that is under way, also where nobody waits for it any more.
struct Asking<'a> {
    shared: &'a Shared,
    run_id: &'a str,
}

impl Asking<'_> {
    /// Keeps what it found.
    fn keep(self, pin: &Arc<v1::LookupPinResponse>) {
        self.shared.kept.lock().put(self.run_id, pin);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shared.kept.lock().unask(self.run_id);
    }
}

/// What is known, and until when.
#[derive(Debug, Default)]
struct Kept {
    /// The revision up to which events were heard; none: they are not followed.
    heard: Option<u64>,
    /// A moment up to which all events were heard.
    confirmed: Option<Instant>,
    /// A moment, and how far the cluster was behind it.
    sought: Option<(Instant, u64)>,
    /// What was not asked for longest is forgotten, half of all at once.
    young: HashMap<String, Arc<v1::LookupPinResponse>>,
    old: HashMap<String, Arc<v1::LookupPinResponse>>,
    asked: BTreeMap<String, Asked>,
}

/// Lookups of one run that are under way.
#[derive(Debug, Default)]
struct Asked {
    callers: usize,
    /// Something has happened to the run since the first of them began.
    is_overtaken: bool,
}

impl Kept {
    fn is_live(&self, now: Instant) -> bool {
        let fresh = |confirmed| now.saturating_duration_since(confirmed) <= MAX_STALE;
        self.heard.is_some() && self.confirmed.is_some_and(fresh)
    }

    fn get(&mut self, run_id: &str, now: Instant) -> Option<Arc<v1::LookupPinResponse>> {
        if !self.is_live(now) {
            return None;
        }
        if let Some(pin) = self.young.get(run_id) {
            return Some(Arc::clone(pin));
        }
        let (run_id, pin) = self.old.remove_entry(run_id)?;
        self.insert(run_id, Arc::clone(&pin));
        Some(pin)
    }

    fn insert(&mut self, run_id: String, pin: Arc<v1::LookupPinResponse>) {
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(run_id, pin);
    }

    fn ask(&mut self, run_id: &str) {
        self.asked.entry(run_id.to_owned()).or_default().callers += 1;
    }

    fn unask(&mut self, run_id: &str) {
        if let Some(asked) = self.asked.get_mut(run_id) {
            asked.callers -= 1;
            if asked.callers == 0 {
                self.asked.remove(run_id);
            }
        }
    }

    /// Keeps what a lookup that is under way found. A run without a pin will get one, and one that is over is not asked for much.
    fn put(&mut self, run_id: &str, pin: &Arc<v1::LookupPinResponse>) {
        let is_overtaken = self.asked.get(run_id).is_none_or(|asked| asked.is_overtaken);
        if self.heard.is_some() && !is_overtaken && pin.open && pin.pin.is_some() {
            self.insert(run_id.to_owned(), Arc::clone(pin));
        }
    }

    fn forget(&mut self, run_id: &str) {
        self.young.remove(run_id);
        self.old.remove(run_id);
        if let Some(asked) = self.asked.get_mut(run_id) {
            asked.is_overtaken = true;
        }
    }

    fn forget_all(&mut self) {
        self.young.clear();
        self.old.clear();
        for asked in self.asked.values_mut() {
            asked.is_overtaken = true;
        }
    }

    /// Events are heard from a revision on, that the cluster was at or behind at this moment.
    fn begin(&mut self, now: Instant, revision: u64) {
        // Of lookups that began before it is not known what happened since.
        self.forget_all();
        self.heard = Some(revision);
        self.confirmed = Some(now);
        self.sought = None;
    }

    /// They are not heard any more.
    fn end(&mut self) {
        self.forget_all();
        self.heard = None;
        self.confirmed = None;
    }

    /// The cluster was at a revision some time after this moment.
    fn seek(&mut self, now: Instant, revision: u64) {
        if self.sought.is_none() {
            self.sought = Some((now, revision));
        }
        self.confirm();
    }

    fn hear(&mut self, answer: &v1::WatchEventsResponse) {
        for event in &answer.events {
            match concern(event) {
                Concern::Nothing => {}
                Concern::Run => self.forget(&event.run_id),
                Concern::Agent => self.forget_all(),
            }
        }
        self.heard = Some(answer.revision);
        self.confirm();
    }

    fn confirm(&mut self) {
        if let Some((at, revision)) = self.sought
            && self.heard >= Some(revision)
        {
            self.confirmed = Some(at);
            self.sought = None;
        }
    }
}

/// Whose pins an event may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    Nothing,
    Run,
    Agent,
}

/// An event that this client does not know may change all.
fn concern(event: &v1::Event) -> Concern {
    let noun = event.r#type.split_once('.').map_or("", |(noun, _)| noun);
    match noun {
        "step" | "memory" | "session" => Concern::Nothing,
        "run" if !event.run_id.is_empty() => Concern::Run,
        _ => Concern::Agent,
    }
}

async fn follow(shared: Arc<Shared>) {
    loop {
        if let Err(error) = shared.follow_once().await {
            tracing::debug!(agent = shared.agent_id, %error, "pins are not kept for now");
        }
        shared.kept.lock().end();
        sleep(RETRY).await;
    }
}

impl Shared {
    /// Follows the events until they cannot be heard.
    async fn follow_once(&self) -> Result<()> {
        let asked_at = Instant::now();
        let from = self.revision().await?;
        let mut watch = self.client.events().watch(v1::WatchEventsRequest {
            agent_id: self.agent_id.clone(),
            after_revision: from,
            ..Default::default()
        });
        self.kept.lock().begin(asked_at, from);
        let mut confirm = interval(CONFIRM);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = watch.next() => self.kept.lock().hear(&answer?),
                _ = confirm.tick() => {
                    let asked_at = Instant::now();
                    let revision = self.revision().await?;
                    self.kept.lock().seek(asked_at, revision);
                }
            }
        }
    }

    /// The revision that the cluster is at, read linearizably.
    async fn revision(&self) -> Result<u64> {
        let request = v1::ListEventsRequest {
            agent_id: self.agent_id.clone(),
            limit: 1,
            newest_first: true,
            ..Default::default()
        };
        Ok(self.client.events().list(request).await?.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "run-1";

    fn pin(bundle_id: &str) -> Arc<v1::LookupPinResponse> {
        Arc::new(v1::LookupPinResponse {
            run_id: RUN.to_owned(),
            bundle_id: bundle_id.to_owned(),
            pin: Some(v1::Pin::default()),
            open: true,
            ..Default::default()
        })
    }

    fn event(kind: &str, run_id: &str) -> v1::Event {
        v1::Event { r#type: kind.to_owned(), run_id: run_id.to_owned(), ..Default::default() }
    }

    fn heard(revision: u64, events: Vec<v1::Event>) -> v1::WatchEventsResponse {
        v1::WatchEventsResponse { events, revision }
    }

    /// One that follows the events since `now` and keeps a pin.
    fn kept(now: Instant) -> Kept {
        let mut kept = Kept::default();
        kept.begin(now, 10);
        kept.ask(RUN);
        kept.put(RUN, &pin("v1"));
        kept.unask(RUN);
        kept
    }

    #[test]
    fn an_event_of_a_run_takes_its_pin_and_one_of_the_agent_takes_all() {
        let now = Instant::now();
        let gone = |event: v1::Event| {
            let mut kept = kept(now);
            kept.hear(&heard(11, vec![event]));
            kept.get(RUN, now).is_none()
        };
        for other in [event("run.repinned", "run-2"), event("step.failed", RUN)] {
            assert!(!gone(other));
        }
        assert!(!gone(event("memory.written", "")));
        assert!(gone(event("run.repinned", RUN)));
        assert!(gone(event("run.completed", RUN)));
        for all in ["route.rolled_back", "drain.shortened", "environment.set", "weather.changed"] {
            assert!(gone(event(all, "")), "{all}");
        }
    }

    #[test]
    fn what_a_lookup_found_is_not_kept_when_an_event_overtook_it() {
        let now = Instant::now();
        for overtakes in [event("run.repinned", RUN), event("route.switched", "")] {
            let mut kept = Kept::default();
            kept.begin(now, 10);
            kept.ask(RUN);
            kept.hear(&heard(11, vec![overtakes]));
            kept.put(RUN, &pin("v1"));
            kept.unask(RUN);
            assert!(kept.get(RUN, now).is_none());
            assert!(kept.asked.is_empty());
            kept.ask(RUN);
            kept.put(RUN, &pin("v2"));
            kept.unask(RUN);
            assert_eq!(kept.get(RUN, now).unwrap().bundle_id, "v2");
        }
    }

    #[test]
    fn nothing_is_kept_while_events_are_not_followed_and_nothing_of_before() {
        let now = Instant::now();
        let mut kept = kept(now);
        kept.end();
        assert!(kept.get(RUN, now).is_none());
        kept.ask(RUN);
        kept.begin(now, 20);
        kept.put(RUN, &pin("v1"));
        assert!(kept.get(RUN, now).is_none(), "it was asked for before");
    }

    #[test]
    fn a_stream_that_stays_behind_ends_what_is_answered_until_it_catches_up() {
        let began = Instant::now();
        let mut kept = kept(began);
        let later = began + MAX_STALE + Duration::from_secs(1);
        kept.hear(&heard(11, vec![]));
        assert!(kept.get(RUN, later).is_none(), "no event says that it is not late");
        let asked = began + Duration::from_secs(4);
        kept.seek(asked, 12);
        assert!(kept.get(RUN, later).is_none(), "the cluster is further");
        kept.hear(&heard(12, vec![]));
        assert!(kept.get(RUN, later).is_some());
        assert!(kept.get(RUN, asked + MAX_STALE + Duration::from_secs(1)).is_none());
        kept.seek(later, 12);
        assert!(kept.get(RUN, later + MAX_STALE).is_some(), "it has heard that much already");
    }

    #[test]
    fn a_run_without_a_pin_and_one_that_is_over_are_asked_for_again() {
        let now = Instant::now();
        let mut kept = Kept::default();
        kept.begin(now, 10);
        for answer in [
            v1::LookupPinResponse { open: false, ..(*pin("v1")).clone() },
            v1::LookupPinResponse { pin: None, ..(*pin("")).clone() },
        ] {
            kept.ask(RUN);
            kept.put(RUN, &Arc::new(answer));
            kept.unask(RUN);
            assert!(kept.get(RUN, now).is_none());
        }
    }

    #[test]
    fn what_is_asked_for_stays_and_there_is_an_end_to_what_is_kept() {
        let now = Instant::now();
        let mut kept = kept(now);
        for number in 0..3 * KEPT {
            kept.insert(format!("other-{number}"), pin("v1"));
            assert!(kept.get(RUN, now).is_some());
        }
        assert!(kept.young.len() + kept.old.len() <= 2 * KEPT);
    }
}
