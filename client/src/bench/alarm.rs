//! Wakes at a moment, to some microseconds: tokio's timers are good to a millisecond, which many operations do not take.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// One task's alarm.
#[derive(Debug)]
pub(super) enum Alarm {
    /// A timer of the kernel.
    Precise(AsyncFd<OwnedFd>),
    /// Tokio's, for tests with a clock of their own.
    #[cfg(test)]
    Coarse,
}

impl Alarm {
    /// # Errors
    /// When the kernel has no timer for it.
    pub(super) fn precise() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for what does not own its descriptor, and this does"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Alarm::Precise(timer))
    }

    /// Waits until then.
    pub(super) async fn at(&self, due: Instant) {
        match self {
            Alarm::Precise(timer) => {
                if let Err(error) = precisely(timer, due).await {
                    tracing::warn!(%error, "the kernel's timer fails, another one is used");
                    sleep_until(due).await;
                }
            }
            #[cfg(test)]
            Alarm::Coarse => sleep_until(due).await,
        }
    }
}

async fn precisely(timer: &AsyncFd<OwnedFd>, due: Instant) -> io::Result<()> {
    let left = due.saturating_duration_since(Instant::now());
    // Zero would disarm it.
    if left.is_zero() {
        return Ok(());
    }
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    let once = Itimerspec { it_interval: zero, it_value: value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    let mut count = [0; 8];
    timer
        .async_io(Interest::READABLE, |timer| Ok(rustix::io::read(timer, &mut count)?))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_alarm_comes_behind_its_moment_and_again() {
        let alarm = Alarm::precise().expect("the kernel has timers");
        for _ in 0..3 {
            let due = Instant::now() + Duration::from_micros(300);
            alarm.at(due).await;
            assert!(Instant::now() >= due);
        }
        alarm.at(Instant::now()).await;
    }
}
