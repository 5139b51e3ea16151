//! Records that commands read or wrote lately, as they were before they were encoded: a command reads five of them, mostly
//! the same as those before it, and decoding them again cost as much as the command itself.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;

use crate::key::RowKey;
use crate::store::{Fault, KeyRange, Order, Read, Row};

/// One of them, of whatever type.
pub type Record = Arc<dyn Any + Send + Sync>;

/// So many are kept at least, and twice as many at most: some 16 MiB.
const KEPT: usize = 8_192;

/// By the keys of their rows, each in one of the two. What was not asked for longest is forgotten, half of all at once.
#[derive(Debug)]
pub struct Records {
    /// None: a command took it, and most likely puts another one in its place.
    young: HashMap<RowKey, Option<Record>, FixedState>,
    old: HashMap<RowKey, Option<Record>, FixedState>,
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
            return record.clone();
        }
        let (key, record) = self.old.remove_entry(key)?;
        self.add(key, record.clone());
        record
    }

    /// As [`Records::get`], for who is about to change it: it is not kept any more, and need not be copied.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<Record> {
        if !self.keeps_kind_of(key) {
            return None;
        }
        match self.young.get_mut(key) {
            Some(record) => record.take(),
            None => self.old.remove(key)?,
        }
    }

    pub(crate) fn insert(&mut self, key: RowKey, record: Record) {
        self.kinds[kind(&key)] = true;
        if let Some(kept) = self.young.get_mut(&key) {
            *kept = Some(record);
        } else {
            self.old.remove(&key);
            self.add(key, Some(record));
        }
    }

    fn look_up(&self, key: &[u8]) -> Option<Record> {
        if !self.keeps_kind_of(key) {
            return None;
        }
        self.young.get(key).or_else(|| self.old.get(key)).cloned().flatten()
    }

    /// Forgets one whose row was written or deleted otherwise.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if self.keeps_kind_of(key) && self.young.remove(key).is_none() {
            self.old.remove(key);
        }
    }

    fn add(&mut self, key: RowKey, record: Option<Record>) {
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, record);
    }

    fn keeps_kind_of(&self, key: &[u8]) -> bool {
        self.kinds[kind(key)]
    }
}

/// A moment of a store, and the records of just that moment.
pub struct WithRecords<'a> {
    pub store: &'a dyn Read,
    pub records: &'a Records,
}

impl std::fmt::Debug for WithRecords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithRecords").field("records", self.records).finish_non_exhaustive()
    }
}

impl Read for WithRecords<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.store.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        self.store.scan(range, order, limit)
    }

    fn kept(&self, key: &[u8]) -> Option<Record> {
        self.records.look_up(key)
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

    #[test]
    fn one_that_was_taken_is_not_kept_until_another_takes_its_place() {
        let mut records = Records::default();
        for is_old in [false, true] {
            keep(&mut records, 1, 1);
            for key in 10..10 + u32::try_from(KEPT).unwrap() * u32::from(is_old) {
                keep(&mut records, key, key);
            }
            let taken = records.take(&1_u32.to_be_bytes()).unwrap();
            assert_eq!(Arc::strong_count(&taken), 1, "it can be changed where it is");
            assert_eq!(number(&mut records, 1), None);
            assert!(records.take(&1_u32.to_be_bytes()).is_none());
            keep(&mut records, 1, 2);
            assert_eq!(number(&mut records, 1), Some(2));
        }
    }
}
