//! Rows that were written or read lately, kept in memory: nearly all that a command reads is what commands shortly before
//! it wrote, and a search through RocksDB for it costs more than the command itself.
//!
//! They are those of the newest moment. A reader of an older one, which another thread may be, reads the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// What a row takes beside its key and value.
const ROW_BYTES: usize = 96;
/// Expected of a row: tells the cache how many there may be.
const USUAL_BYTES: usize = 320;

/// By key; `None`: there is no such row.
#[derive(Debug)]
pub(super) struct HotRows {
    rows: Cache<Vec<u8>, Option<Bytes>, Size>,
    moment: u64,
}

#[derive(Debug, Clone)]
struct Size;

impl Weighter<Vec<u8>, Option<Bytes>> for Size {
    fn weight(&self, key: &Vec<u8>, value: &Option<Bytes>) -> u64 {
        (ROW_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)) as u64
    }
}

impl HotRows {
    /// Room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { rows: Cache::with_weighter(bytes / USUAL_BYTES, bytes as u64, Size), moment: 0 }
    }

    /// The newest moment: each write makes the next one.
    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    /// A row as of a moment, or `None` when it has to be read from the store.
    pub(super) fn get(&self, moment: u64, key: &[u8]) -> Option<Option<Bytes>> {
        if moment != self.moment {
            return None;
        }
        self.rows.get(key).cloned()
    }

    /// Keeps what was read of the store at a moment.
    pub(super) fn keep(&mut self, moment: u64, key: &[u8], value: Option<&Bytes>) {
        if moment == self.moment {
            self.rows.insert(key.to_vec(), value.cloned());
        }
    }

    /// Goes on to the moment behind these writes. Marks, whose key says it all, are only scanned for: they get no room.
    pub(super) fn wrote(&mut self, writes: BTreeMap<Vec<u8>, Option<Bytes>>) {
        self.moment += 1;
        for (key, value) in writes {
            match value {
                Some(value) if !value.is_empty() => self.rows.insert(key, Some(value)),
                Some(_) | None => {
                    self.rows.remove(&key);
                }
            }
        }
    }

    /// The whole store became another.
    pub(super) fn forget(&mut self) {
        self.moment += 1;
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"run";

    fn value(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn written(key: &[u8], value: Option<Bytes>) -> BTreeMap<Vec<u8>, Option<Bytes>> {
        [(key.to_vec(), value)].into()
    }

    #[test]
    fn a_row_is_what_was_written_last_and_an_older_moment_is_not_answered() {
        let mut hot = HotRows::new(1 << 20);
        let before = hot.moment();
        hot.keep(before, KEY, value("read").as_ref());
        assert_eq!(hot.get(before, KEY), Some(value("read")));
        hot.wrote(written(KEY, value("written")));
        assert_eq!(hot.get(hot.moment(), KEY), Some(value("written")));
        assert_eq!(hot.get(before, KEY), None);
        hot.keep(before, KEY, value("read").as_ref());
        assert_eq!(hot.get(hot.moment(), KEY), Some(value("written")), "read before the write");
    }

    #[test]
    fn what_was_deleted_or_replaced_with_the_store_is_not_kept() {
        let mut hot = HotRows::new(1 << 20);
        for (gone, of_store) in [(None, false), (value(""), false), (value("other"), true)] {
            hot.wrote(written(KEY, value("written")));
            if of_store {
                hot.forget();
            } else {
                hot.wrote(written(KEY, gone));
            }
            assert_eq!(hot.get(hot.moment(), KEY), None);
        }
        hot.keep(hot.moment(), KEY, None);
        assert_eq!(hot.get(hot.moment(), KEY), Some(None), "it was looked for, and is not there");
    }

    #[test]
    fn rows_do_not_take_more_than_their_room() {
        let mut hot = HotRows::new(1 << 16);
        for number in 0_u32..10_000 {
            hot.wrote(written(&number.to_be_bytes(), value("0123456789")));
        }
        assert!(hot.rows.weight() <= 1 << 16, "{}", hot.rows.weight());
        assert!(hot.rows.len() > 400, "{}", hot.rows.len());
    }
}
