//! The cluster's time: what a leader stamps entries with.
//!
//! A stamp is the leader's anchor plus its boot clock since then, so no step of a wall clock enters. Every node
//! remembers by how much stamps that it saw were ahead of its own boot clock; a new leader goes on from the
//! largest of the last minute. Only when nobody remembers (all were restarted) wall clocks count.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_state_machine::mutant::{Mutant, is_planted};

use crate::env::Clock;

/// How long a seen stamp counts.
const MEMORY_MS: u64 = 60_000;
/// One seen stamp a slot of so many milliseconds is kept.
const SLOT_MS: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct ClusterTime {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// While this node leads: (stamp, boot clock) that it counts from.
    anchor: Option<(u64, u64)>,
    /// (boot clock at receipt, stamp − boot clock) of stamps seen, one a slot.
    seen: VecDeque<(u64, i128)>,
    /// Largest stamp given or seen: stamps never go backwards.
    largest: u64,
}

impl ClusterTime {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, inner: Mutex::default() }
    }

    /// The stamp that a leader would give now; elsewhere the best guess.
    pub(crate) fn stamp_ms(&self) -> u64 {
        let now = self.clock.boot_ms();
        let mut inner = self.inner.lock();
        if is_planted(Mutant::CapsByLocalClock) {
            return self.clock.wall_ms();
        }
        let stamp = match inner.anchor {
            Some((stamp, boot)) => stamp + now.saturating_sub(boot),
            None => inner.guess(now).unwrap_or(0),
        };
        inner.largest = inner.largest.max(stamp);
        inner.largest
    }

    /// Notes a stamp that another member sent.
    pub(crate) fn observe(&self, stamp_ms: u64) {
        if stamp_ms == 0 {
            return;
        }
        let now = self.clock.boot_ms();
        let mut inner = self.inner.lock();
        inner.largest = inner.largest.max(stamp_ms);
        let ahead = i128::from(stamp_ms) - i128::from(now);
        match inner.seen.back_mut() {
            Some((at, seen)) if now.saturating_sub(*at) < SLOT_MS => *seen = (*seen).max(ahead),
            Some(_) | None => inner.seen.push_back((now, ahead)),
        }
        while inner.seen.front().is_some_and(|(at, _)| now.saturating_sub(*at) > MEMORY_MS) {
            inner.seen.pop_front();
        }
    }

    /// What this node remembers of the cluster's time, if it saw a stamp within the last minute.
    pub(crate) fn remembered(&self) -> Option<u64> {
        let now = self.clock.boot_ms();
        self.inner.lock().guess(now)
    }

    /// Begins to lead at no less than `floor_ms`.
    pub(crate) fn lead(&self, floor_ms: u64) {
        let now = self.clock.boot_ms();
        let mut inner = self.inner.lock();
        let from = inner.guess(now).unwrap_or(0).max(floor_ms).max(inner.largest);
        inner.anchor = Some((from, now));
        inner.largest = from;
    }

    pub(crate) fn follow(&self) {
        let mut inner = self.inner.lock();
        if let Some((stamp, boot)) = inner.anchor.take() {
            // What it led to is what it remembers.
            inner.seen.push_back((boot, i128::from(stamp) - i128::from(boot)));
        }
    }
}

impl Inner {
    fn guess(&self, now: u64) -> Option<u64> {
        let ahead = self.seen.iter().map(|(_, ahead)| *ahead).max()?;
        u64::try_from(i128::from(now) + ahead).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn boot_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn wall_ms(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_new_leader_goes_on_where_the_old_one_was() {
        let clock = Arc::new(Hand(AtomicU64::new(500)));
        let time = ClusterTime::new(Arc::clone(&clock) as Arc<dyn Clock>);
        time.observe(1_000_000);
        clock.0.store(1_500, Ordering::Relaxed);
        time.lead(900_000);
        assert_eq!(time.stamp_ms(), 1_001_000);
        clock.0.store(2_000, Ordering::Relaxed);
        assert_eq!(time.stamp_ms(), 1_001_500);
        time.follow();
        clock.0.store(3_000, Ordering::Relaxed);
        assert_eq!(time.remembered(), Some(1_002_500));
    }

    #[test]
    fn stamps_never_go_backwards() {
        let clock = Arc::new(Hand::default());
        let time = ClusterTime::new(Arc::clone(&clock) as Arc<dyn Clock>);
        time.observe(5_000);
        time.lead(10);
        assert!(time.stamp_ms() >= 5_000);
    }
}
