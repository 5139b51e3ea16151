//! One moment of the state: the layers of rows that are not in RocksDB yet, over a snapshot of RocksDB.

use std::borrow::Cow;

use bytes::Bytes;
use parking_lot::Mutex;
use pinrail_state_machine::key::group_of;
use pinrail_state_machine::store::{Fault, KeyRange, Order, Read, Row};
use rocksdb::{Direction, IteratorMode, ReadOptions};

use super::hot_rows::HotRows;
use super::recent::{Layer, Layers};
use super::rocks_state::fault;

pub(super) struct Moment<'a> {
    pub(super) layers: Layers,
    pub(super) snapshot: rocksdb::Snapshot<'a>,
    /// Which store the snapshot is of.
    pub(super) store: u64,
    pub(super) hot: &'a Mutex<HotRows>,
}

/// A row of one source, or that it is deleted there.
type Change<'a> = (Cow<'a, [u8]>, Option<Bytes>);
type Found<'a> = Result<Change<'a>, Fault>;

impl Read for Moment<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(value) = self.layers.iter().rev().find_map(|layer| layer.get(key)) {
            return Ok(value);
        }
        if let Some(value) = self.hot.lock().get(self.store, key) {
            return Ok(Some(value));
        }
        let value = self.snapshot.get(key).map_err(fault)?.map(Bytes::from);
        // What is not there is mostly the row of something new, which is asked for once.
        if let Some(value) = &value {
            self.hot.lock().keep(self.store, key, value);
        }
        Ok(value)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let of_layers = self.layers.iter().rev().map(|layer| of_layer(layer, range, order));
        let sources = of_layers.chain([self.of_store(range, order)]);
        let mut sources: Vec<_> = sources.map(Iterator::peekable).collect();
        let mut rows = Vec::new();
        while rows.len() < limit
            && let Some((key, value)) = next(&mut sources, order)?
        {
            if let Some(value) = value {
                rows.push((Bytes::from(key.into_owned()), value));
            }
        }
        Ok(rows)
    }
}

impl Moment<'_> {
    fn of_store<'s>(
        &'s self,
        range: &KeyRange,
        order: Order,
    ) -> Box<dyn Iterator<Item = Found<'s>> + 's> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(&*range.start);
        options.set_iterate_upper_bound(&*range.end);
        // Files whose filter says that they have nothing of a group are not looked into. From the end there is no such way.
        let of_group = order == Order::Ascending && group_of(range).is_some();
        options.set_prefix_same_as_start(of_group);
        options.set_total_order_seek(!of_group);
        let mode = match order {
            Order::Ascending => IteratorMode::From(&range.start, Direction::Forward),
            Order::Descending => IteratorMode::End,
        };
        Box::new(self.snapshot.iterator_opt(mode, options).map(|row| {
            let (key, value) = row.map_err(fault)?;
            Ok((Cow::Owned(key.into_vec()), Some(Bytes::from(value))))
        }))
    }
}

fn of_layer<'l>(
    layer: &'l Layer,
    range: &'l KeyRange,
    order: Order,
) -> Box<dyn Iterator<Item = Found<'l>> + 'l> {
    let rows = layer.range(range).map(|(key, value)| Ok((Cow::Borrowed(key), value.clone())));
    match order {
        Order::Ascending => Box::new(rows),
        Order::Descending => Box::new(rows.rev()),
    }
}

/// Takes the next key of all sources, of which the first hides the others.
fn next<'s, I: Iterator<Item = Found<'s>>>(
    sources: &mut [std::iter::Peekable<I>],
    order: Order,
) -> Result<Option<Change<'s>>, Fault> {
    let mut nearest: Option<(usize, &[u8])> = None;
    for (at, source) in sources.iter_mut().enumerate() {
        let Some(found) = source.peek() else { continue };
        let (key, _) = found.as_ref().map_err(Clone::clone)?;
        let is_nearer = nearest.is_none_or(|(_, nearest)| match order {
            Order::Ascending => key.as_ref() < nearest,
            Order::Descending => key.as_ref() > nearest,
        });
        if is_nearer {
            nearest = Some((at, key));
        }
    }
    let Some((at, _)) = nearest else { return Ok(None) };
    let Some(row) = sources[at].next().transpose()? else { return Ok(None) };
    for source in &mut sources[at + 1..] {
        let hidden = |found: &Found<'_>| found.as_ref().is_ok_and(|(key, _)| *key == row.0);
        let _ = source.next_if(hidden);
    }
    Ok(Some(row))
}

#[cfg(test)]
mod tests {
    use pinrail_state_machine::key::{Key, Kind, RowKey};
    use pinrail_state_machine::store::{MemoryStore, Writes};

    use super::super::StateEngine as _;
    use super::super::rocks_state::Rocks;
    use super::*;

    /// Memory for rows to stay in: each write is taken to RocksDB.
    const TOO_LITTLE: u64 = 1;

    #[test]
    fn scans_show_all_rows_of_their_range_whatever_groups_it_has() {
        // Rows of two grouped kinds and one between them, of two agents, in groups whose names begin alike.
        let row = |kind, agent, group: u32, number| {
            Key::of(kind, agent).text(&"r".repeat(1 + group as usize)).u32(number).build()
        };
        let all: Vec<RowKey> = [Kind::Step, Kind::RunByState, Kind::Memory]
            .into_iter()
            .flat_map(|kind| (0..2).map(move |agent| (kind, agent * 256)))
            .flat_map(|(kind, agent)| (0..4).map(move |group| (kind, agent, group)))
            .flat_map(|(kind, agent, group)| (0..3).map(move |n| row(kind, agent, group, n)))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let engine = Rocks::open(folder.path(), TOO_LITTLE).unwrap();
        let mut model = MemoryStore::default();
        for round in 0..6 {
            let change = |at: usize| match (at * 7 + round * 5) % 6 {
                0 => Some(Some(Bytes::from(round.to_string()))),
                1 => Some(None),
                _ => None,
            };
            let writes: Writes = all
                .iter()
                .enumerate()
                .filter_map(|(at, key)| Some((key.clone(), change(at)?)))
                .collect();
            model.write(writes.clone());
            engine.write(writes, Bytes::from_static(b"position")).unwrap();
            engine.flush().unwrap();
            let ranges = all.iter().flat_map(|start| {
                let ends = all.iter().filter(move |end| *end > start);
                let ranges = ends.map(|end| KeyRange { start: start.clone(), end: end.clone() });
                ranges.chain([KeyRange::prefix(start), KeyRange::prefix(&start[..start.len() - 4])])
            });
            engine
                .read(&mut |read| {
                    for range in ranges.clone() {
                        for (order, limit) in [(Order::Ascending, 100), (Order::Descending, 2)] {
                            let found = read.scan(&range, order, limit)?;
                            assert_eq!(found, model.scan(&range, order, limit)?, "{range:?}");
                        }
                    }
                    Ok(())
                })
                .unwrap();
        }
    }
}
