//! Reads what processes have used when a window opens and when it closes.

use std::io;

use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::process::{self, Usage};
use super::window::Window;

/// What processes have used so far.
#[derive(Debug, Clone)]
struct Reading {
    at: Instant,
    own: Duration,
    servers: Vec<Usage>,
}

impl Reading {
    fn now(servers: &[u32]) -> io::Result<Reading> {
        let own = process::own_cpu();
        let servers = servers.iter().map(|pid| Usage::of(*pid)).collect::<io::Result<_>>()?;
        Ok(Reading { at: Instant::now(), own, servers })
    }
}

/// What a window took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// How long it was open: less than the load's duration when it was stopped.
    pub(super) open: Duration,
    /// CPU time of this process.
    pub(super) own_cpu: Duration,
    /// Of all server processes together; none were named: nothing.
    pub(super) servers: Option<Servers>,
}

/// What the server processes took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Servers {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Memory of the largest one at the end.
    pub(super) resident_bytes: u64,
    /// Sent to disks; unknown where this process may not look.
    pub(super) written_bytes: Option<u64>,
    /// Calls that write; unknown likewise.
    pub(super) write_calls: Option<u64>,
}

/// Waits until the window closes or `stop` is asked for, and gives what it took.
///
/// # Errors
/// When one of the server processes is gone.
pub(super) async fn meter(
    window: Window,
    servers: &[u32],
    stop: &CancellationToken,
) -> io::Result<Cost> {
    tokio::select! {
        () = sleep_until(window.opens) => {}
        () = stop.cancelled() => return Ok(Cost::default()),
    }
    let first = Reading::now(servers)?;
    tokio::select! {
        () = sleep_until(window.closes) => {}
        () = stop.cancelled() => {}
    }
    let last = Reading::now(servers)?;
    Ok(Cost {
        open: last.at.min(window.closes).saturating_duration_since(window.opens),
        own_cpu: last.own.saturating_sub(first.own),
        servers: (!servers.is_empty()).then(|| between(&first.servers, &last.servers)),
    })
}

fn between(first: &[Usage], last: &[Usage]) -> Servers {
    let mut sum = Servers { written_bytes: Some(0), write_calls: Some(0), ..Servers::default() };
    for (first, last) in first.iter().zip(last) {
        let grown = |sum: Option<u64>, of: fn(&Usage) -> Option<u64>| {
            Some(sum? + of(last)?.saturating_sub(of(first)?))
        };
        sum.cpu += last.cpu.saturating_sub(first.cpu);
        sum.resident_bytes = sum.resident_bytes.max(last.resident_bytes);
        sum.written_bytes = grown(sum.written_bytes, |usage| usage.written_bytes);
        sum.write_calls = grown(sum.write_calls, |usage| usage.write_calls);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_summed_up_and_what_one_hides_is_unknown() {
        let usage = |cpu_ms, resident_bytes, written| Usage {
            cpu: Duration::from_millis(cpu_ms),
            resident_bytes,
            written_bytes: written,
            write_calls: Some(cpu_ms),
        };
        let first = [usage(100, 7, Some(1_000)), usage(200, 9, Some(10))];
        let last = [usage(150, 8, Some(1_500)), usage(260, 5, Some(30))];
        let sum = between(&first, &last);
        assert_eq!((sum.cpu, sum.resident_bytes), (Duration::from_millis(110), 8));
        assert_eq!((sum.written_bytes, sum.write_calls), (Some(520), Some(110)));
        let hidden = [last[0], Usage { written_bytes: None, ..last[1] }];
        assert_eq!(between(&first, &hidden).written_bytes, None);
    }
}
