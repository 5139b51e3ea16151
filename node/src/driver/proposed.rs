//! How many assignments are on their way through the log: they count as running before they are.

use std::collections::BTreeMap;

use super::queues::Waiting;

#[derive(Debug, Default)]
pub(crate) struct Proposed {
    of_agent: BTreeMap<u32, u64>,
    of_key: BTreeMap<(u32, String), u64>,
}

impl Proposed {
    pub(crate) fn add(&mut self, waiting: &Waiting) {
        let agent = waiting.step.agent;
        *self.of_agent.entry(agent).or_default() += 1;
        *self.of_key.entry((agent, waiting.rank.key.clone())).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, waiting: &Waiting) {
        let agent = waiting.step.agent;
        less(&mut self.of_agent, &agent);
        less(&mut self.of_key, &(agent, waiting.rank.key.clone()));
    }

    pub(crate) fn of_agent(&self, agent: u32) -> u64 {
        self.of_agent.get(&agent).copied().unwrap_or(0)
    }

    pub(crate) fn of_key(&self, agent: u32, key: &str) -> u64 {
        self.of_key.get(&(agent, key.to_owned())).copied().unwrap_or(0)
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
