//! How many runs the callers of a node may start in a second (`limits.runs_per_second`). A local matter of this node's door:
//! what is refused here never reaches the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How far starts may run ahead of an even pace: as many as in this time may come at once.
const BURST: Duration = Duration::from_secs(1);

/// An even pace, with room for bursts.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Between two starts; `None`: no pace is kept.
    gap: Option<Duration>,
    /// When the next start would come, were they evenly spread.
    next: Mutex<Instant>,
}

impl Pace {
    /// `per_second` 0: none.
    pub(crate) fn new(per_second: u32) -> Self {
        let gap = (per_second > 0).then(|| BURST / per_second);
        Self { gap, next: Mutex::new(Instant::now()) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// How long to wait for one.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let Some(gap) = self.gap else { return Ok(()) };
        let now = Instant::now();
        let mut next = self.next.lock();
        let taken = (*next).max(now) + gap;
        let ahead = taken.duration_since(now);
        if ahead > BURST {
            return Err(ahead - BURST);
        }
        *next = taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_room_for_so_many_and_no_more() {
        let pace = Pace::new(4);
        let at_once = (0..10).take_while(|_| pace.take().is_ok()).count();
        assert_eq!(at_once, 4);
        let wait = pace.take().expect_err("there is no room");
        assert_eq!(wait, Duration::from_millis(250));
        tokio::time::advance(wait).await;
        assert_eq!((pace.take().is_ok(), pace.take().is_ok()), (true, false));
    }

    #[test]
    fn without_a_number_there_is_no_pace() {
        let pace = Pace::new(0);
        assert!((0..10_000).all(|_| pace.take().is_ok()));
    }
}
