//! What an attempt waits for goes into the state, once it has waited for a while: whoever asks, at any member, sees why a
//! release does not go on.

use std::collections::BTreeMap;

use pinrail_state_machine::query::Attended;
use tokio::time::{Duration, Instant};

/// A stage that passes at once has nothing to say.
const QUIET: Duration = Duration::from_secs(1);
/// Counts change with every run: what is told is at most so old, and the log gets no more of it.
const APART: Duration = Duration::from_secs(10);

/// Agent, release, stage, attempt.
type AttemptId = (u32, u32, i32, u32);

/// What was told of the attempts that are under way.
#[derive(Debug, Default)]
pub(super) struct Waits(BTreeMap<AttemptId, Told>);

#[derive(Debug)]
struct Told {
    since: Instant,
    last: Option<(String, Instant)>,
}

impl Waits {
    /// Forgets the attempts of an agent that are not under way any more.
    pub(super) fn keep(&mut self, agent: u32, all: &[Attended]) {
        let present: Vec<AttemptId> = all.iter().map(id).collect();
        self.0.retain(|id, _| id.0 != agent || present.contains(id));
    }

    /// Whether it is time to tell that an attempt waits for this; it then counts as told.
    pub(super) fn is_news(&mut self, it: &Attended, reason: &str, now: Instant) -> bool {
        let told = self.0.entry(id(it)).or_insert(Told { since: now, last: None });
        let due = match &told.last {
            None => now >= told.since + QUIET,
            Some((last, at)) => last != reason && now >= *at + APART,
        };
        if due {
            told.last = Some((reason.to_owned(), now));
        }
        due
    }
}

fn id(it: &Attended) -> AttemptId {
    (it.agent, it.release.number, it.release.stage, it.release.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::release::tests::attended;

    #[test]
    fn what_lasts_is_told_once_and_what_changes_is_told_now_and_then() {
        let mut waits = Waits::default();
        let (it, began) = (attended(0), Instant::now());
        let mut told =
            |reason, after_ms| waits.is_news(&it, reason, began + Duration::from_millis(after_ms));
        assert!(!told("no worker", 0) && !told("no worker", 999));
        assert!(told("no worker", 1_000));
        assert!(!told("no worker", 50_000), "nothing new");
        assert!(told("3 of 5 pairs", 50_100));
        assert!(!told("4 of 5 pairs", 60_000), "too soon");
        assert!(told("4 of 5 pairs", 60_100));
    }

    #[test]
    fn another_attempt_begins_anew() {
        let mut waits = Waits::default();
        let (mut it, began) = (attended(0), Instant::now());
        assert!(!waits.is_news(&it, "no worker", began));
        assert!(waits.is_news(&it, "no worker", began + QUIET));
        it.release.attempt += 1;
        waits.keep(it.agent, std::slice::from_ref(&it));
        assert_eq!(waits.0.len(), 0);
        assert!(!waits.is_news(&it, "no worker", began + QUIET));
    }
}
