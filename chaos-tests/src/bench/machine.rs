//! What the measurements were made on: a ratio of two systems means little without it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tokio::time::{Duration, Instant};

/// Of one write of the probe.
const PROBE_BYTES: usize = 4_096;
const PROBED_FOR: Duration = Duration::from_secs(2);

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    memory_mib: u64,
}

impl Machine {
    pub(super) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kib / 1_024,
        }
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{} cores of {}, {} MiB, Linux {}; all servers and the generator on it, over loopback, on one disk",
            self.cores, self.processor, self.memory_mib, self.kernel
        )
    }
}

/// Appends of 4 KiB that reach the disk in a second, one after the other: it tells how even the disk is, and whether it is one.
///
/// # Errors
/// When a file in `folder` cannot be written.
pub(super) fn syncs_per_second(folder: &Path) -> Result<f64> {
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < PROBED_FOR {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_data()?;
        count += 1;
    }
    let took = began.elapsed();
    std::fs::remove_file(&path)?;
    Ok(f64::from(count) / took.as_secs_f64())
}
