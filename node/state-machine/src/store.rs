//! What the state machine needs of a store: ordered keys, point reads and bounded scans.
//!
//! The store behind [`Read`] must never change under a reader's feet: it is one moment of the state.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::key::RowKey;
use crate::records::Record;

/// The store could not answer: an I/O error or bytes that do not decode. The node must stop; this is never an
/// answer to a user.
#[derive(Debug, Clone, thiserror::Error)]
#[error("storage fault: {0}")]
pub struct Fault(pub String);

/// Direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// Keys from `start` (inclusive) to `end` (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub start: RowKey,
    pub end: RowKey,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        Self { start: RowKey::from_slice(prefix), end: end.into() }
    }

    /// The part of this range from `key` on.
    #[must_use]
    pub fn since(mut self, key: RowKey) -> Self {
        self.start = self.start.max(key);
        self
    }

    /// The part of this range strictly behind `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.start = RowKey::from_slice(key);
        self.start.push(0);
        self
    }

    /// The part of this range strictly before `key`.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        if *key < *self.end {
            self.end = RowKey::from_slice(key);
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

pub type Row = (Bytes, Bytes);

/// Rows that were written, in key order; `None`: the row was deleted.
pub type Writes = BTreeMap<RowKey, Option<Bytes>>;

/// Reads of one moment of the state.
pub trait Read {
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// At most `limit` rows of `range` in `order`.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault>;

    /// The record of a row that is there, if this keeps records.
    fn kept(&self, _key: &[u8]) -> Option<Record> {
        None
    }

    /// As [`Read::kept`], for who is about to change it: where it is not needed otherwise, it is not kept any more.
    fn taken(&self, key: &[u8]) -> Option<Record> {
        self.kept(key)
    }

    /// Says what the row of a key was decoded to.
    fn keep(&self, _key: &[u8], _record: Record) {}
}

/// A store in memory: for tests, the simulation's engine and the model of what an engine must do.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    rows: BTreeMap<RowKey, Bytes>,
}

impl MemoryStore {
    /// Carries out mutations, in order.
    pub fn write(&mut self, mutations: impl IntoIterator<Item = (RowKey, Option<Bytes>)>) {
        for (key, value) in mutations {
            match value {
                Some(value) => {
                    self.rows.insert(key, value);
                }
                None => {
                    self.rows.remove(&key);
                }
            }
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = (&RowKey, &Bytes)> {
        self.rows.iter()
    }
}

impl Read for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.rows.range(range.start.clone()..range.end.clone());
        let row = |(key, value): (&RowKey, &Bytes)| (Bytes::copy_from_slice(key), value.clone());
        Ok(match order {
            Order::Ascending => rows.take(limit).map(row).collect(),
            Order::Descending => rows.rev().take(limit).map(row).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_of_high_bytes_ends_where_it_should() {
        assert_eq!(*KeyRange::prefix(&[1, 0xff]).end, [2]);
        assert_eq!(*KeyRange::prefix(&[1, 2]).end, [1, 3]);
    }
}
