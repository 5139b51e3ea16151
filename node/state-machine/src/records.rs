//! Records that commands read or wrote lately, as they were before they were encoded: a command reads five of them, mostly
//! the same as those before it, and decoding them again cost as much as the command itself.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::key::RowKey;

/// One of them, of whatever type.
pub type Record = Arc<dyn Any + Send + Sync>;

/// So many are kept at least, and twice as many at most: some 16 MiB.
const KEPT: usize = 8_192;

/// By the keys of their rows. What was not asked for longest is forgotten, half of all at once.
#[derive(Debug)]
pub struct Records {
    young: HashMap<RowKey, Record, FixedState>,
    old: HashMap<RowKey, Record, FixedState>,
    /// Kinds of rows, by the first byte of their keys, of which any was kept: most rows that are written are of no such kind.
    kinds: [bool; 256],
}

impl Default for Records {
    fn default() -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), kinds: [false; 256] }
    }
}

impl Records {
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Record> {
        if !self.keeps_kind_of(key) {
            return None;
        }
        if let Some(record) = self.young.get(key) {
            return Some(Arc::clone(record));
        }
        let (key, record) = self.old.remove_entry(key)?;
        self.insert(key, Arc::clone(&record));
        Some(record)
    }

    pub(crate) fn insert(&mut self, key: RowKey, record: Record) {
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.kinds[kind(&key)] = true;
        self.young.insert(key, record);
    }

    /// Forgets one whose row was written or deleted otherwise.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if self.keeps_kind_of(key) {
            self.young.remove(key);
            self.old.remove(key);
        }
    }

    fn keeps_kind_of(&self, key: &[u8]) -> bool {
        self.kinds[kind(key)]
    }
}

fn kind(key: &[u8]) -> usize {
    key.first().copied().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(records: &mut Records, key: u32) -> Option<u32> {
        records.get(&key.to_be_bytes())?.downcast_ref().copied()
    }

    fn keep(records: &mut Records, key: u32, value: u32) {
        records.insert(RowKey::from_slice(&key.to_be_bytes()), Arc::new(value));
    }

    #[test]
    fn what_is_asked_for_stays_and_the_others_are_forgotten() {
        let mut records = Records::default();
        keep(&mut records, 0, 7);
        for key in 1..=100_000 {
            keep(&mut records, key, key);
            assert_eq!(number(&mut records, 0), Some(7));
        }
        assert_eq!(number(&mut records, 1), None);
        assert_eq!(number(&mut records, 100_000), Some(100_000));
        assert!(records.young.len() + records.old.len() <= 2 * KEPT);
    }

    #[test]
    fn the_newest_of_a_key_is_answered_and_nothing_of_one_that_is_removed() {
        let mut records = Records::default();
        keep(&mut records, 1, 1);
        for key in 10..10 + u32::try_from(KEPT).unwrap() {
            keep(&mut records, key, key);
        }
        keep(&mut records, 1, 2);
        assert_eq!(number(&mut records, 1), Some(2), "and not the old one");
        records.remove(&1_u32.to_be_bytes());
        assert_eq!(number(&mut records, 1), None);
    }
}
