//! Rows that were written lately and are not in RocksDB yet. Most are written over or deleted again within a second, as a
//! step's lease and its timers are; those never reach RocksDB.
//!
//! They lie in layers, and a newer one hides what is below it. A reader holds the layers of its moment. A layer that is held,
//! or on its way to RocksDB, is never changed again: the next write begins another one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::store::{KeyRange, Writes};

/// What a row takes beside its key and value: what is free of its place in the tree, and an allocation.
const ROW_BYTES: usize = 112;

/// Rows of some writes, one after the other.
#[derive(Debug, Default)]
pub(super) struct Layer {
    rows: BTreeMap<RowKey, Option<Bytes>>,
    bytes: usize,
}

/// The layers of a moment, newest last.
pub(super) type Layers = Vec<Arc<Layer>>;

/// The layers of the newest moment.
#[derive(Debug, Default)]
pub(super) struct Recent {
    layers: Layers,
    /// So many of them, from the oldest on, are on their way to RocksDB.
    leaving: usize,
}

impl Layer {
    /// The row of a key, if one was written or deleted here.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(&RowKey::from_slice(key)).cloned()
    }

    /// The rows of a range, deleted ones too.
    pub(super) fn range<'l>(
        &'l self,
        range: &'l KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&'l [u8], &'l Option<Bytes>)> {
        let bounds = (Bound::Included(&range.start), Bound::Excluded(&range.end));
        self.rows.range::<RowKey, _>(bounds).map(|(key, value)| (&**key, value))
    }

    fn write(&mut self, key: RowKey, value: Option<Bytes>) {
        let length = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let (added, key_bytes) = (length(&value), key.len());
        match self.rows.insert(key, value) {
            Some(before) => self.bytes -= length(&before),
            None => self.bytes += ROW_BYTES + key_bytes,
        }
        self.bytes += added;
    }

    fn write_all(&mut self, writes: Writes) {
        for (key, value) in writes {
            self.write(key, value);
        }
    }
}

impl Recent {
    /// Goes on to the moment behind these writes.
    pub(super) fn write(&mut self, writes: Writes) {
        let newest = self.layers[self.leaving..].last_mut().and_then(Arc::get_mut);
        match newest {
            Some(layer) => layer.write_all(writes),
            None => {
                let mut layer = Layer::default();
                layer.write_all(writes);
                self.layers.push(Arc::new(layer));
            }
        }
        self.merge();
    }

    /// Makes one layer of the two newest when nobody holds either any more, so that there are no more of them than readers.
    fn merge(&mut self) {
        while let [.., below, newest] = &mut self.layers[self.leaving..] {
            let (Some(below), Some(newest)) = (Arc::get_mut(below), Arc::get_mut(newest)) else {
                return;
            };
            for (key, value) in std::mem::take(&mut newest.rows) {
                below.write(key, value);
            }
            self.layers.pop();
        }
    }

    pub(super) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Whether any layer is on its way.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Of the layers that are not on their way yet.
    pub(super) fn staying_bytes(&self) -> usize {
        self.layers[self.leaving..].iter().map(|layer| layer.bytes).sum()
    }

    /// Sends all layers that stay on their way.
    pub(super) fn leave(&mut self) -> Layers {
        let leaving = self.layers[self.leaving..].to_vec();
        self.leaving = self.layers.len();
        leaving
    }

    /// So many of the oldest have arrived in RocksDB.
    pub(super) fn arrived(&mut self, layers: usize) {
        self.layers.drain(..layers);
        self.leaving -= layers;
    }

    /// The whole store became another. Nothing may be on its way.
    pub(super) fn forget(&mut self) {
        debug_assert_eq!(self.leaving, 0, "what is on its way would get into the other store");
        self.layers.clear();
    }
}

/// The newest row of each key of these layers, in the order of the keys.
pub(super) fn newest(layers: &Layers) -> Box<dyn Iterator<Item = (&RowKey, &Option<Bytes>)> + '_> {
    match layers.as_slice() {
        // Nearly always: layers are merged when nobody holds them.
        [layer] => Box::new(layer.rows.iter()),
        layers => {
            let rows = layers.iter().flat_map(|layer| &layer.rows);
            Box::new(rows.collect::<BTreeMap<_, _>>().into_iter())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(number: u8) -> Writes {
        [(RowKey::from_slice(&[number % 3]), Some(Bytes::from(vec![number; 10])))].into()
    }

    fn values(layers: &Layers) -> Vec<Option<Bytes>> {
        newest(layers).map(|(_, value)| value.clone()).collect()
    }

    #[test]
    fn a_layer_that_is_held_is_not_changed_and_is_merged_when_it_is_free() {
        let mut recent = Recent::default();
        recent.write(rows(0));
        let held = recent.layers().clone();
        recent.write(rows(3));
        recent.write(rows(1));
        assert_eq!(recent.layers().len(), 2, "the held one and one of all that came behind it");
        assert_eq!(held[0].get(&[0]), Some(Some(Bytes::from(vec![0; 10]))));
        drop(held);
        recent.write(rows(2));
        assert_eq!(recent.layers().len(), 1);
        assert_eq!(recent.layers()[0].get(&[0]), Some(Some(Bytes::from(vec![3; 10]))));
        assert_eq!(recent.staying_bytes(), 3 * (ROW_BYTES + 1 + 10));
    }

    #[test]
    fn what_is_on_its_way_stays_as_it_is_until_it_has_arrived() {
        let mut recent = Recent::default();
        recent.write(rows(0));
        let leaving = recent.leave();
        recent.write(rows(3));
        recent.write(rows(6));
        assert_eq!(values(&leaving), [Some(Bytes::from(vec![0; 10]))]);
        assert_eq!(values(recent.layers()), [Some(Bytes::from(vec![6; 10]))]);
        assert_eq!(recent.staying_bytes(), ROW_BYTES + 1 + 10);
        assert!(recent.is_leaving());
        recent.arrived(leaving.len());
        assert_eq!(recent.layers().len(), 1);
        assert!(!recent.is_leaving());
    }

    #[test]
    fn a_row_that_becomes_shorter_or_is_deleted_takes_less_room() {
        let mut recent = Recent::default();
        recent.write(rows(0));
        let before = recent.staying_bytes();
        recent.write([(RowKey::from_slice(&[0]), None)].into());
        assert_eq!(recent.staying_bytes(), before - 10);
    }
}
