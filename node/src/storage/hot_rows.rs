//! Rows that were read of RocksDB lately, kept in memory: a search through it costs more than most commands.
//!
//! They are those of RocksDB as it is now. A reader of what it was before something arrived there, which another thread may
//! be, reads the store.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// What a row takes beside its key and value.
const ROW_BYTES: usize = 96;
/// Expected of a row: tells the cache how many there may be.
const USUAL_BYTES: usize = 320;

#[derive(Debug)]
pub(super) struct HotRows {
    rows: Cache<Vec<u8>, Bytes, Size>,
    store: u64,
}

#[derive(Debug, Clone)]
struct Size;

impl Weighter<Vec<u8>, Bytes> for Size {
    fn weight(&self, key: &Vec<u8>, value: &Bytes) -> u64 {
        (ROW_BYTES + key.len() + value.len()) as u64
    }
}

impl HotRows {
    /// Room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { rows: Cache::with_weighter(bytes / USUAL_BYTES, bytes as u64, Size), store: 0 }
    }

    /// Which store they are of: each change of it makes another one.
    pub(super) fn store(&self) -> u64 {
        self.store
    }

    /// A row of a store, or `None` when it has to be read.
    pub(super) fn get(&self, store: u64, key: &[u8]) -> Option<Bytes> {
        if store != self.store {
            return None;
        }
        self.rows.get(key).cloned()
    }

    /// Keeps what was read of a store.
    pub(super) fn keep(&mut self, store: u64, key: &[u8], value: &Bytes) {
        if store == self.store {
            self.rows.insert(key.to_vec(), value.clone());
        }
    }

    /// The store became another.
    pub(super) fn forget(&mut self) {
        self.store += 1;
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"run";

    #[test]
    fn only_rows_of_the_store_as_it_is_are_answered() {
        let mut hot = HotRows::new(1 << 20);
        let value = Bytes::from_static(b"read");
        let before = hot.store();
        assert_eq!(hot.get(before, KEY), None);
        hot.keep(before, KEY, &value);
        assert_eq!(hot.get(before, KEY), Some(value.clone()));
        hot.forget();
        assert_eq!(hot.get(before, KEY), None, "asked of the store before");
        hot.keep(before, KEY, &value);
        assert_eq!(hot.get(hot.store(), KEY), None, "read of the store before");
    }

    #[test]
    fn rows_do_not_take_more_than_their_room() {
        let mut hot = HotRows::new(1 << 16);
        for number in 0_u32..10_000 {
            hot.keep(0, &number.to_be_bytes(), &Bytes::from_static(b"0123456789"));
        }
        assert!(hot.rows.weight() <= 1 << 16, "{}", hot.rows.weight());
        assert!(hot.rows.len() > 400, "{}", hot.rows.len());
    }
}
