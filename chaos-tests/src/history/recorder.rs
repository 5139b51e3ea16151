//! Collects entries from concurrent clients, in memory and as a file of JSON lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::{Call, Entry, Fault, Gap};

/// Cheap to clone; all clones write to the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    entries: Vec<Entry>,
    faults: Vec<Fault>,
    file: Option<BufWriter<File>>,
    next_operation: u64,
}

impl Recorder {
    /// Keeps the history in memory only.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    /// # Errors
    /// When the file cannot be created.
    pub fn to_file(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self::new(Some(BufWriter::new(file))))
    }

    fn new(file: Option<BufWriter<File>>) -> Self {
        let inner = Inner { entries: Vec::new(), faults: Vec::new(), file, next_operation: 1 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A number that the attempts of one operation share.
    #[must_use]
    pub fn operation(&self) -> u64 {
        let mut inner = self.lock();
        inner.next_operation += 1;
        inner.next_operation
    }

    pub fn record(&self, entry: Entry) {
        let mut inner = self.lock();
        if let Some(file) = &mut inner.file {
            // A history that cannot be written still is judged from memory.
            let _ = serde_json::to_writer(&mut *file, &entry).map(|()| file.write_all(b"\n"));
        }
        inner.entries.push(entry);
    }

    pub fn record_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// When the first acknowledged write that was asked for after `since_us` returned.
    #[must_use]
    pub fn first_acked_write_since(&self, since_us: u64) -> Option<u64> {
        self.lock()
            .entries
            .iter()
            .rev()
            .take_while(|entry| entry.returned_us >= since_us)
            .filter(|entry| entry.invoked_us >= since_us && entry.call.is_write())
            .filter(|entry| entry.ok().is_some())
            .map(|entry| entry.returned_us)
            .min()
    }

    /// How many writes were acknowledged in a time.
    #[must_use]
    pub fn acked_writes(&self, from_us: u64, to_us: u64) -> usize {
        let inner = self.lock();
        let acked =
            inner.entries.iter().filter(|entry| entry.call.is_write() && entry.ok().is_some());
        acked.filter(|entry| (from_us..to_us).contains(&entry.returned_us)).count()
    }

    /// The longest time within a window in which no call of a kind succeeded, whoever asked.
    #[must_use]
    pub fn longest_wait(&self, window: Gap, kind: impl Fn(&Call) -> bool) -> Wait {
        let inner = self.lock();
        let acked = inner.entries.iter().filter(|entry| entry.ok().is_some() && kind(&entry.call));
        let mut acked: Vec<u64> = acked.map(|entry| entry.returned_us).collect();
        acked.sort_unstable();
        longest_wait(acked.into_iter(), window)
    }

    /// The longest time in which the least lucky client was answered nothing that needs a quorum.
    #[must_use]
    pub fn slowest_client(&self, window: Gap) -> u64 {
        // Who asked for nothing within the window does not wait.
        let mut waiting: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let inner = self.lock();
        let needs_quorum = || inner.entries.iter().filter(|entry| entry.call.is_linearizable());
        for entry in needs_quorum() {
            if (window.from_us..window.to_us).contains(&entry.invoked_us) {
                waiting.entry(entry.client).or_default();
            }
        }
        for entry in needs_quorum().filter(|entry| entry.ok().is_some()) {
            if let Some(acked) = waiting.get_mut(&entry.client) {
                // A client has one call under way at a time: its entries are in order.
                acked.push(entry.returned_us);
            }
        }
        let waits = waiting.into_values().map(|acked| longest_wait(acked.into_iter(), window));
        waits.map(|wait| wait.us).max().unwrap_or(u64::MAX)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of what was recorded so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.lock().faults.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of another client must not hide the history.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time without a success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    /// `u64::MAX`: it still goes on.
    pub us: u64,
    /// When it began.
    pub from_us: u64,
}

/// The longest time between two successes of which the first is before the window's end and the second after its
/// begin. Times are in order.
fn longest_wait(successes: impl Iterator<Item = u64>, window: Gap) -> Wait {
    let mut last = None;
    let mut longest = Wait::default();
    for at in successes {
        // A client that began within the window has not waited before.
        if let Some(last) = last
            && at > window.from_us
        {
            longest = longest.max(Wait { us: at - last, from_us: last });
        }
        if at > window.to_us {
            return longest;
        }
        last = Some(at);
    }
    // It was never served again.
    last.map_or(longest, |from_us| Wait { us: u64::MAX, from_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_reach_over_the_edges_of_the_window() {
        let wait = |successes: &[u64]| {
            longest_wait(successes.iter().copied(), Gap { from_us: 100, to_us: 200 }).us
        };
        assert_eq!(wait(&[10, 90, 150, 190, 230]), 60, "from the last one before it");
        assert_eq!(wait(&[10, 95, 150, 160, 260, 900]), 100, "to the first one after it");
        assert_eq!(wait(&[10, 99, 101, 199, 201, 900]), 98);
        assert_eq!(wait(&[10, 99, 150]), u64::MAX, "it still waits");
    }
}
