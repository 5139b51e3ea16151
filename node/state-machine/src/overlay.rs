//! The overlay that lets a command read what it wrote itself, and what commands before it in the same batch wrote.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use pinrail_proto::encode;

use crate::key::RowKey;
use crate::records::Record;
use crate::store::{Fault, KeyRange, Order, Read, Row, Writes};
use crate::txn::Decoded;

/// A row that is encoded when all who change it have done so.
pub(crate) trait LateRow: Debug + Send + Sync {
    fn encode(&self) -> Bytes;
    fn record(self: Arc<Self>) -> Record;
}

impl<M: Decoded> LateRow for M {
    fn encode(&self) -> Bytes {
        Bytes::from(encode(self))
    }

    fn record(self: Arc<Self>) -> Record {
        self
    }
}

pub(crate) type LateRows = BTreeMap<RowKey, Arc<dyn LateRow>>;

/// Mutations on top of a store: reads see them. Dropping it forgets them.
pub(crate) struct Overlay<'a> {
    base: &'a dyn Read,
    writes: Writes,
    /// What some of the writes were encoded from. None: what the base keeps is not what it is any more.
    records: Vec<(RowKey, Option<Record>)>,
    /// Rows that are encoded later, in place of what else is said here of their keys.
    late: LateRows,
    /// The last scan of the base, if it was a small one: a write of memory looks into its key's chain before it, while it is
    /// judged, and behind it.
    scanned: RefCell<Option<Scanned>>,
}

/// The first rows of a range of the base.
struct Scanned {
    range: KeyRange,
    order: Order,
    rows: Vec<Row>,
    /// Whether there are no more.
    is_all: bool,
}

/// Scans of at most so many rows are remembered.
const SMALL_SCAN: usize = 4;

impl Debug for Overlay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("writes", &self.writes.len()).finish_non_exhaustive()
    }
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a dyn Read) -> Self {
        Self {
            base,
            writes: BTreeMap::new(),
            records: Vec::new(),
            late: BTreeMap::new(),
            scanned: RefCell::default(),
        }
    }

    pub(crate) fn put(&mut self, key: RowKey, value: Bytes) {
        self.forget(&key);
        self.writes.insert(key, Some(value));
    }

    /// Puts a row that is likely to be read again soon, and keeps what it was encoded from.
    pub(crate) fn put_kept(&mut self, key: RowKey, value: Bytes, record: Record) {
        self.forget(&key);
        self.records.push((key.clone(), Some(record)));
        self.writes.insert(key, Some(value));
    }

    /// Keeps a record that lies in another one's row.
    pub(crate) fn keep_within(&mut self, key: RowKey, record: Record) {
        self.set_within(key, Some(record));
    }

    /// Forgets what is kept of a record that lies in another one's row.
    pub(crate) fn forget_within(&mut self, key: RowKey) {
        self.set_within(key, None);
    }

    fn set_within(&mut self, key: RowKey, record: Option<Record>) {
        self.records.retain(|(kept, _)| *kept != key);
        self.records.push((key, record));
    }

    /// Puts a row that is likely to be changed again before it is wanted as bytes.
    pub(crate) fn put_late(&mut self, key: RowKey, row: Arc<dyn LateRow>) {
        self.late.insert(key, row);
    }

    pub(crate) fn delete(&mut self, key: RowKey) {
        self.forget(&key);
        self.writes.insert(key, None);
    }

    /// As if the row of a key, which was not there before, had not been put here.
    pub(crate) fn withdraw(&mut self, key: &[u8]) {
        self.forget(key);
        self.writes.remove(key);
    }

    /// Whether the row of a key was written or deleted here.
    pub(crate) fn has_written(&self, key: &[u8]) -> bool {
        self.writes.contains_key(key)
    }

    fn scan_base(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        if limit > SMALL_SCAN {
            return self.base.scan(range, order, limit);
        }
        let mut scanned = self.scanned.borrow_mut();
        if let Some(known) = scanned.as_ref().and_then(|it| it.answer(range, order, limit)) {
            return Ok(known);
        }
        // One more than asked for: a row that is written meanwhile may hide one.
        let rows = self.base.scan(range, order, limit + 1)?;
        let is_all = rows.len() <= limit;
        let answer = rows.iter().take(limit).cloned().collect();
        *scanned = Some(Scanned { range: range.clone(), order, rows, is_all });
        Ok(answer)
    }

    /// What a row that is encoded later holds.
    pub(crate) fn late_record(&self, key: &[u8]) -> Option<Record> {
        self.late.get(key).map(|row| Arc::clone(row).record())
    }

    /// The record of a key: what is kept of it here, or what the base says where nothing was written here.
    fn record(
        &self,
        key: &[u8],
        of_base: impl FnOnce(&dyn Read) -> Option<Record>,
    ) -> Option<Record> {
        if let Some(record) = self.late_record(key) {
            return Some(record);
        }
        if let Some((_, record)) = self.records.iter().find(|(kept, _)| **kept == *key) {
            return record.clone();
        }
        if self.writes.contains_key(key) { None } else { of_base(self.base) }
    }

    fn forget(&mut self, key: &[u8]) {
        self.records.retain(|(kept, _)| **kept != *key);
        self.late.remove(key);
    }

    /// Takes what was written, in key order.
    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }

    /// Takes what was written, in key order, the records that were kept of it, and what is encoded later.
    pub(crate) fn into_parts(self) -> (Writes, Vec<(RowKey, Option<Record>)>, LateRows) {
        (self.writes, self.records, self.late)
    }

    /// Adds what was written in another overlay that was laid over this one.
    pub(crate) fn absorb(&mut self, writes: Writes, late: LateRows) {
        if !self.late.is_empty() {
            for key in writes.keys() {
                self.late.remove(key);
            }
        }
        self.writes.extend(writes);
        self.late.extend(late);
    }

    /// Takes what was to be encoded later: now is the time.
    pub(crate) fn take_late(&mut self) -> LateRows {
        std::mem::take(&mut self.late)
    }
}

impl Scanned {
    /// The rows, if these are known.
    fn answer(&self, range: &KeyRange, order: Order, limit: usize) -> Option<Vec<Row>> {
        let is_known = self.is_all || limit <= self.rows.len();
        let is_same = self.order == order && self.range == *range;
        (is_known && is_same).then(|| self.rows.iter().take(limit).cloned().collect())
    }
}

impl Read for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(row) = self.late.get(key) {
            return Ok(Some(row.encode()));
        }
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        if range.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(&range.start), Bound::Excluded(&range.end));
        let late = self.late.range::<RowKey, _>(bounds);
        let hidden = self.writes.range::<RowKey, _>(bounds).count() + late.clone().count();
        // Every row of ours can hide at most one row of the base.
        let below = self.scan_base(range, order, limit.saturating_add(hidden))?;
        if hidden == 0 {
            return Ok(below);
        }
        let mut merged: BTreeMap<Bytes, Bytes> = below.into_iter().collect();
        for (key, value) in self.writes.range::<RowKey, _>(bounds) {
            match value {
                Some(value) => merged.insert(Bytes::copy_from_slice(key), value.clone()),
                None => merged.remove(&**key),
            };
        }
        merged.extend(late.map(|(key, row)| (Bytes::copy_from_slice(key), row.encode())));
        Ok(match order {
            Order::Ascending => merged.into_iter().take(limit).collect(),
            Order::Descending => merged.into_iter().rev().take(limit).collect(),
        })
    }

    fn kept(&self, key: &[u8]) -> Option<Record> {
        self.record(key, |base| base.kept(key))
    }

    fn taken(&self, key: &[u8]) -> Option<Record> {
        self.record(key, |base| base.taken(key))
    }

    fn keep(&self, key: &[u8], record: Record) {
        let is_of_base = self.records.iter().all(|(kept, _)| **kept != *key);
        if is_of_base && !self.writes.contains_key(key) {
            self.base.keep(key, record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::MemoryStore;

    /// Counts the scans of a store.
    struct Counted<'a> {
        store: &'a MemoryStore,
        scans: Cell<usize>,
    }

    impl Read for Counted<'_> {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
            self.store.get(key)
        }

        fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
            self.scans.set(self.scans.get() + 1);
            self.store.scan(range, order, limit)
        }
    }

    fn row(key: &str) -> RowKey {
        RowKey::from_slice(key.as_bytes())
    }

    fn store(keys: &[&str]) -> MemoryStore {
        let mut store = MemoryStore::default();
        store.write(keys.iter().map(|k| (row(k), Some(Bytes::from_static(b"0")))));
        store
    }

    fn keys(rows: &[Row]) -> Vec<String> {
        rows.iter().map(|(k, _)| String::from_utf8_lossy(k).into_owned()).collect()
    }

    #[test]
    fn scans_of_an_overlay_see_its_writes_and_not_what_it_deleted() {
        let base = store(&["a1", "a2", "a3", "a5", "b1"]);
        let mut overlay = Overlay::new(&base);
        overlay.put(row("a4"), Bytes::from_static(b"1"));
        overlay.delete(row("a1"));
        overlay.delete(row("a2"));
        let range = KeyRange::prefix(b"a");
        let up = overlay.scan(&range, Order::Ascending, 2).unwrap();
        assert_eq!(keys(&up), ["a3", "a4"]);
        let down = overlay.scan(&range, Order::Descending, 2).unwrap();
        assert_eq!(keys(&down), ["a5", "a4"]);
        assert_eq!(overlay.get(b"a1").unwrap(), None);
    }

    #[test]
    fn a_small_scan_that_is_asked_for_again_reads_nothing_and_sees_what_was_written_meanwhile() {
        for stored in 0..5 {
            let names = ["a1", "a3", "a5", "a7", "a9"];
            let base = store(&names[..stored]);
            let counted = Counted { store: &base, scans: Cell::new(0) };
            let mut overlay = Overlay::new(&counted);
            let range = KeyRange::prefix(b"a");
            let mut model = names[..stored].to_vec();
            for written in [None, Some("a2"), Some("a0")] {
                if let Some(key) = written {
                    overlay.put(row(key), Bytes::from_static(b"1"));
                    model.push(key);
                    model.sort_unstable();
                }
                for order in [Order::Ascending, Order::Descending] {
                    let mut wanted = model.clone();
                    if order == Order::Descending {
                        wanted.reverse();
                    }
                    wanted.truncate(2);
                    let scanned = counted.scans.get();
                    let found = overlay.scan(&range, order, 2).unwrap();
                    assert_eq!(keys(&found), wanted, "{stored} rows, {written:?}, {order:?}");
                    assert_eq!(keys(&overlay.scan(&range, order, 2).unwrap()), wanted);
                    assert!(counted.scans.get() <= scanned + 1, "the second one is known");
                }
            }
        }
    }

    #[test]
    fn a_chain_of_one_row_or_none_is_read_once_though_a_row_is_put_before_it() {
        for stored in [&[] as &[&str], &["a5"]] {
            let base = store(stored);
            let counted = Counted { store: &base, scans: Cell::new(0) };
            let mut overlay = Overlay::new(&counted);
            let range = KeyRange::prefix(b"a");
            let before = overlay.scan(&range, Order::Ascending, 1).unwrap();
            assert_eq!(keys(&before), stored);
            overlay.put(row("a1"), Bytes::from_static(b"1"));
            let behind = overlay.scan(&range, Order::Ascending, 1).unwrap();
            assert_eq!((keys(&behind), counted.scans.get()), (vec!["a1".to_owned()], 1));
        }
    }

    #[test]
    fn a_row_that_is_encoded_later_is_seen_at_once() {
        let namespace = |namespace: &str| {
            let namespace = namespace.to_owned();
            Arc::new(pinrail_proto::v1::Namespace { namespace, ..Default::default() })
        };
        let base = store(&["a1", "a2", "a3"]);
        let mut below = Overlay::new(&base);
        below.put(row("a2"), Bytes::from_static(b"written before"));
        below.put_late(row("a2"), namespace("one"));
        let mut above = Overlay::new(&below);
        let value = |read: &dyn Read| read.get(b"a2").unwrap();
        let range = KeyRange::prefix(b"a");
        assert_eq!(value(&above), Some(LateRow::encode(&*namespace("one"))));
        above.put_late(row("a2"), namespace("two"));
        let two = Some(LateRow::encode(&*namespace("two")));
        assert_eq!(value(&above), two);
        let last = above.scan(&range, Order::Descending, 2).unwrap();
        assert_eq!(keys(&last), ["a3", "a2"]);
        assert_eq!(Some(last[1].1.clone()), two);
        let (writes, _, late) = above.into_parts();
        assert!(writes.is_empty());
        below.absorb(writes, late);
        assert_eq!(value(&below), two);
        below.absorb([(row("a2"), None)].into(), LateRows::new());
        assert_eq!(value(&below), None, "it was deleted behind that");
        assert!(below.take_late().is_empty());
    }
}
