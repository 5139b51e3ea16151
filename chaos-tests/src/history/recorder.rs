//! Collects entries from concurrent clients, in memory and as a file of JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::{Entry, Fault};

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
