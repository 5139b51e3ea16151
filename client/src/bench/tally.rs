//! What came of operations: how long they took, and why some failed.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use tokio::time::Duration;

/// Latencies above it are noted as it: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
/// Latencies are right to a thousandth.
const DIGITS: u8 = 3;

/// Counts operations. Latencies are those of all operations, in microseconds: who asked for one that failed waited too.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    latencies: Histogram<u64>,
    done: u64,
    errors: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)
            .expect("one microsecond to an hour with three digits is a histogram");
        Tally { latencies, done: 0, errors: BTreeMap::new() }
    }
}

impl Tally {
    /// Notes one operation; the error is a reason's name.
    pub(super) fn note(&mut self, took: Duration, outcome: Result<(), String>) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(took_us);
        match outcome {
            Ok(()) => self.done += 1,
            Err(reason) => *self.errors.entry(reason).or_default() += 1,
        }
    }

    /// Operations that succeeded.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Operations that failed, by reason.
    pub(super) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// In microseconds.
    pub(super) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }
}
