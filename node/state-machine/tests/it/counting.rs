//! A store that counts what is read of it: the costs of reads are held to numbers, not to times.

use std::cell::Cell;

use bytes::Bytes;
use pinrail_state_machine::store::{Fault, KeyRange, Order, Read, Row};

pub(super) struct Counting<'a> {
    store: &'a dyn Read,
    gets: Cell<usize>,
    scans: Cell<usize>,
    rows: Cell<usize>,
}

/// What was read of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reads {
    pub(super) gets: usize,
    pub(super) scans: usize,
    /// That scans gave.
    pub(super) rows: usize,
}

impl Reads {
    pub(super) fn all(self) -> usize {
        self.gets + self.scans + self.rows
    }
}

impl<'a> Counting<'a> {
    pub(super) fn new(store: &'a dyn Read) -> Self {
        Self { store, gets: Cell::new(0), scans: Cell::new(0), rows: Cell::new(0) }
    }

    pub(super) fn reads(&self) -> Reads {
        Reads { gets: self.gets.get(), scans: self.scans.get(), rows: self.rows.get() }
    }
}

impl Read for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.gets.set(self.gets.get() + 1);
        self.store.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        let rows = self.store.scan(range, order, limit)?;
        self.scans.set(self.scans.get() + 1);
        self.rows.set(self.rows.get() + rows.len());
        Ok(rows)
    }
}
