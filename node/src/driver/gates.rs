//! What holds back the queues of an agent: a pause, and how many of its steps may run, in all and of one key, and go out
//! in a second. Cached views of the state, and the pace. Knows no queue.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// A queue whose step was refused for the agent's sake (paused, full) is left alone for so long.
pub(crate) const BLOCKED: Duration = Duration::from_millis(250);
/// Queues that a pace holds back are looked at no sooner: what became due meanwhile goes out together.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// Whether an agent lets steps of a bundle out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) paused: bool,
    /// Leased steps of the agent at once.
    pub(crate) max_running: u64,
    /// Of one key; 0: no limit.
    pub(crate) max_running_per_key: u64,
    /// Steps handed out in a second; 0: no limit.
    pub(crate) max_per_second: u64,
}

impl Gate {
    /// Whether one more step of a key may run. `running` counts those that do.
    pub(crate) fn has_room(&self, running: impl FnOnce() -> u64) -> bool {
        self.max_running_per_key == 0 || running() < self.max_running_per_key
    }
}

/// The gates of all bundles.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    known: BTreeMap<(u32, String), Gate>,
    blocked: BTreeMap<(u32, String), Instant>,
    paces: BTreeMap<u32, Pace>,
}

impl Gates {
    /// The gate of a bundle when it lets a step out now. `running`: steps of the agent that run; `load` reads the gate.
    pub(crate) fn open(
        &mut self,
        agent: u32,
        bundle: &str,
        running: u64,
        now: Instant,
        load: &mut impl FnMut(u32, &str) -> Option<Gate>,
    ) -> Option<Gate> {
        let key = (agent, bundle.to_owned());
        if self.blocked.get(&key).is_some_and(|until| *until > now) {
            return None;
        }
        let gate = self.known.get(&key).copied().or_else(|| load(agent, bundle))?;
        self.known.insert(key, gate);
        let in_time = gate.max_per_second == 0
            || self.paces.entry(agent).or_insert_with(|| Pace::new(now)).has_room(now);
        (!gate.paused && running < gate.max_running && in_time).then_some(gate)
    }

    /// A step goes out by this gate.
    pub(crate) fn step(&mut self, agent: u32, gate: &Gate, now: Instant) {
        if gate.max_per_second > 0
            && let Some(pace) = self.paces.get_mut(&agent)
        {
            pace.step(now, gate.max_per_second);
        }
    }

    /// Whether a bundle's steps go out at a pace, as far as is known.
    pub(crate) fn is_paced(&self, agent: u32, bundle: &str) -> bool {
        let gate = self.known.get(&(agent, bundle.to_owned()));
        gate.is_some_and(|gate| gate.max_per_second > 0)
    }

    /// The state refused a step for the agent's sake.
    pub(crate) fn block(&mut self, agent: u32, bundle: &str, now: Instant) {
        let key = (agent, bundle.to_owned());
        self.known.remove(&key);
        self.blocked.insert(key, now + BLOCKED);
    }

    /// Blocks that are over are forgotten.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.blocked.retain(|_, until| *until > now);
    }

    /// The agent's pause or limits have changed.
    pub(crate) fn changed(&mut self, agent: u32) {
        self.known.retain(|(of, _), _| *of != agent);
        self.blocked.retain(|(of, _), _| *of != agent);
    }

    /// Everything is read from the state again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// When queues that a pace holds back should be looked at again, at the latest after `most`.
    pub(crate) fn look_again_in(&self, now: Instant, most: Duration) -> Duration {
        let waits = self.paces.values().filter_map(|pace| pace.wait(now));
        waits.min().map_or(most, |wait| wait.clamp(LEAST_WAIT, most))
    }
}
