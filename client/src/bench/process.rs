//! What processes use: CPU time, memory, and what they write, as `/proc` says it.

use std::io::{Error, ErrorKind, Result};

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Duration;

/// What a process has used since it began, and what it has now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In the program and in the kernel for it.
    pub cpu: Duration,
    /// Memory that it has now.
    pub resident_bytes: u64,
    /// Sent to the disk; unknown where this process may not look.
    pub written_bytes: Option<u64>,
    /// Calls that write, of files and of sockets; unknown likewise.
    pub write_calls: Option<u64>,
}

impl Usage {
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Usage> {
        let read = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}"));
        let cpu = cpu_of(&read("stat")?, clock_ticks_per_second()).ok_or_else(|| odd("stat"))?;
        let resident_bytes = resident_of(&read("status")?);
        // Only the process's user may read it.
        let io = read("io").unwrap_or_default();
        let line =
            |key: &str| io.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        Ok(Usage {
            cpu,
            resident_bytes,
            written_bytes: line("write_bytes:"),
            write_calls: line("syscw:"),
        })
    }
}

/// CPU time of this process.
pub(super) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("/proc/PID/{what} does not read as documented"))
}

/// The 14th and 15th field; the second one is a name in brackets that may hold anything.
fn cpu_of(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let micros = (user + system).checked_mul(1_000_000)? / ticks_per_second.max(1);
    Some(Duration::from_micros(micros))
}

/// None of a process that is ending.
fn resident_of(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name_whatever_that_is() {
        let stat = "71 (a ) 9 b) S 1 71 71 0 -1 4194560 900 0 2 0 250 50 0 0 20 0 9 0 12 100 20";
        assert_eq!(cpu_of(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("71 (a) S 1", 100), None);
        assert_eq!(resident_of("Name:\ta\nVmRSS:\t    2048 kB\n"), 2 << 20);
        assert_eq!(resident_of("Name:\ta\n"), 0);
    }

    #[test]
    fn this_process_uses_memory_and_what_is_not_there_is_an_error() {
        let usage = Usage::of(std::process::id()).expect("it is there");
        assert!(usage.resident_bytes > 0, "{usage:?}");
        assert!(own_cpu() > Duration::ZERO);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
