//! The keys that some layers have versions of, in order.

use crate::key::{Key, Kind, Parts};
use crate::store::{Fault, KeyRange, Order, Read};

/// Rows that one layer's list is read ahead by.
const AHEAD: usize = 32;

/// The keys of several layers that begin with a prefix, each once.
#[derive(Debug)]
pub(crate) struct Keys {
    lists: Vec<List>,
}

#[derive(Debug)]
struct List {
    rest: KeyRange,
    /// Read ahead, the first key last.
    ahead: Vec<String>,
    done: bool,
}

impl Keys {
    /// Of these layers, behind a key; an empty one: from the first.
    pub(crate) fn of(agent: u32, layers: &[u32], prefix: &str, behind: &str) -> Self {
        let list = |layer: &u32| {
            let key = |text| Key::of(Kind::LayerKey, agent).u32(*layer).last(text);
            let mut rest = KeyRange::prefix(&key(prefix));
            let after = key(behind);
            if !behind.is_empty() && after >= rest.start {
                rest = rest.after(&after);
            }
            List { rest, ahead: Vec::new(), done: false }
        };
        Self { lists: layers.iter().map(list).collect() }
    }

    pub(crate) fn next(&mut self, read: &dyn Read) -> Result<Option<String>, Fault> {
        for list in &mut self.lists {
            list.fill(read)?;
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
    fn fill(&mut self, read: &dyn Read) -> Result<(), Fault> {
        if self.done || !self.ahead.is_empty() {
            return Ok(());
        }
        let rows = read.scan(&self.rest, Order::Ascending, AHEAD)?;
        self.done = rows.len() < AHEAD;
        for (row, _) in rows.iter().rev() {
            let mut parts = Parts::new(row);
            let (_, _, Some(key)) = (parts.u32(), parts.u32(), parts.last()) else {
                return Err(Fault(format!("row {} has no memory key", hex::encode(row))));
            };
            self.ahead.push(key.to_owned());
        }
        if let Some((last, _)) = rows.last() {
            self.rest = self.rest.clone().after(last);
        }
        Ok(())
    }
}
