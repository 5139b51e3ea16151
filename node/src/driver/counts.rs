//! How many steps there are of each agent, and of each key of it.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Agents that have any.
    agents: BTreeMap<u32, OfAgent>,
}

#[derive(Debug, Default)]
struct OfAgent {
    all: u64,
    keys: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn add(&mut self, agent: u32, key: &str) {
        let of = self.agents.entry(agent).or_default();
        of.all += 1;
        match of.keys.get_mut(key) {
            Some(count) => *count += 1,
            None => _ = of.keys.insert(key.to_owned(), 1),
        }
    }

    pub(crate) fn remove(&mut self, agent: u32, key: &str) {
        let Some(of) = self.agents.get_mut(&agent) else { return };
        let Some(count) = of.keys.get_mut(key) else { return };
        of.all -= 1;
        *count -= 1;
        if *count == 0 {
            of.keys.remove(key);
        }
        if of.all == 0 {
            self.agents.remove(&agent);
        }
    }

    pub(crate) fn of_agent(&self, agent: u32) -> u64 {
        self.agents.get(&agent).map_or(0, |of| of.all)
    }

    pub(crate) fn of_key(&self, agent: u32, key: &str) -> u64 {
        self.agents.get(&agent).and_then(|of| of.keys.get(key)).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }
}
