//! How many steps of an agent go out in a second: the generic cell rate algorithm (ITU-T I.371). Pure: instants come in
//! as arguments.

use std::time::Duration;

use tokio::time::Instant;

/// What was not used is kept for so long, so that a late look costs nothing.
const BURST: Duration = Duration::from_millis(100);

/// An agent's pace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// When the next step is due if none goes out early.
    next: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// Whether a step may go out now.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        self.next <= now + BURST
    }

    /// A step goes out.
    pub(crate) fn step(&mut self, now: Instant, per_second: u64) {
        let apart = Duration::from_secs(1) / u32::try_from(per_second.max(1)).unwrap_or(u32::MAX);
        self.next = self.next.max(now) + apart;
    }

    /// How long until there is room; nothing when there is some.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.next.saturating_duration_since(now + BURST);
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_sees_more_than_its_steps_and_a_burst() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let mut out = 0;
        for ms in 0..2_000 {
            let now = begin + Duration::from_millis(ms);
            while pace.has_room(now) {
                pace.step(now, 50);
                out += 1;
            }
        }
        // A tenth of a second's worth comes ahead.
        assert_eq!(out, 100 + 5);
        let end = begin + Duration::from_secs(2);
        assert!(pace.wait(end).is_none_or(|wait| wait <= Duration::from_millis(20)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_not_saved_up() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let later = begin + Duration::from_secs(60);
        let mut out = 0;
        while pace.has_room(later) {
            pace.step(later, 10);
            out += 1;
        }
        assert_eq!(out, 2);
        assert_eq!(pace.wait(later), Some(Duration::from_millis(100)));
    }
}
