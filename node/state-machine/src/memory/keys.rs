//! The keys of which there are versions in some places, in order.

use crate::key::{Key, Kind, Parts, RowKey};
use crate::store::{Fault, KeyRange, Order, Read};

use super::scratch;

/// Rows that a list is read ahead by, where a row is a key and no more.
const AHEAD: usize = 32;

/// Where keys have versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In any layer.
    Chains,
    Layer(u32),
    Scratch(u64),
}

impl Place {
    /// What its rows have in common; a key of memory follows.
    fn rows(self, agent: u32) -> Key {
        match self {
            Self::Chains => Key::of(Kind::Memory, agent),
            Self::Layer(number) => Key::of(Kind::LayerKey, agent).u32(number),
            Self::Scratch(number) => scratch::all(agent, number),
        }
    }

    /// The rows behind all those of a key.
    fn behind(self, agent: u32, key: &str) -> RowKey {
        match self {
            // All versions of a key lie together.
            Self::Chains | Self::Scratch(_) => self.rows(agent).text(key).range().end,
            Self::Layer(_) => {
                let mut row = self.rows(agent).last(key);
                row.push(0);
                row
            }
        }
    }

    fn key(self, row: &[u8]) -> Option<&str> {
        let mut parts = Parts::new(row);
        parts.u32()?;
        match self {
            Self::Chains => parts.text(),
            Self::Layer(_) => {
                parts.u32()?;
                parts.last()
            }
            Self::Scratch(_) => {
                parts.u64()?;
                parts.text()
            }
        }
    }

    /// Rows to read at once: each is another key, or may have a value of any size.
    fn ahead(self) -> usize {
        match self {
            Self::Layer(_) => AHEAD,
            Self::Chains | Self::Scratch(_) => 1,
        }
    }
}

/// The keys of several places that begin with a prefix, each once.
#[derive(Debug)]
pub(crate) struct Keys {
    agent: u32,
    lists: Vec<List>,
}

#[derive(Debug)]
struct List {
    place: Place,
    rest: KeyRange,
    /// Read ahead, the first key last.
    ahead: Vec<String>,
    done: bool,
}

impl Keys {
    /// Of these places, behind a key; an empty one: from the first.
    pub(crate) fn of(
        agent: u32,
        places: impl IntoIterator<Item = Place>,
        prefix: &str,
        behind: &str,
    ) -> Self {
        let list = |place: Place| {
            let mut rest = KeyRange::prefix(&place.rows(agent).last(prefix));
            if !behind.is_empty() {
                rest.start = rest.start.max(place.behind(agent, behind));
            }
            List { place, rest, ahead: Vec::new(), done: false }
        };
        Self { agent, lists: places.into_iter().map(list).collect() }
    }

    pub(crate) fn next(&mut self, read: &dyn Read) -> Result<Option<String>, Fault> {
        for list in &mut self.lists {
            list.fill(read, self.agent)?;
        }
        let first = self.lists.iter().filter_map(|list| list.ahead.last()).min().cloned();
        for list in &mut self.lists {
            if list.ahead.last() == first.as_ref() {
                list.ahead.pop();
            }
        }
        Ok(first)
    }
}

impl List {
    fn fill(&mut self, read: &dyn Read, agent: u32) -> Result<(), Fault> {
        if self.done || !self.ahead.is_empty() {
            return Ok(());
        }
        let rows = read.scan(&self.rest, Order::Ascending, self.place.ahead())?;
        self.done = rows.len() < self.place.ahead();
        for (row, _) in rows.iter().rev() {
            let Some(key) = self.place.key(row) else {
                return Err(Fault(format!("row {} has no memory key", hex::encode(row))));
            };
            self.ahead.push(key.to_owned());
        }
        if let Some(last) = self.ahead.first() {
            self.rest.start = self.place.behind(agent, last);
        }
        Ok(())
    }
}
