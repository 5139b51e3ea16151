//! The changes of one agent in order of their revisions, put together from acknowledgements and the final read.
//!
//! Route changes come from acknowledgements alone: an operation whose first attempt is unknown is asked again with
//! the same request id until it answers, and the epoch in the answer is its place. Starts, ends and memory versions
//! come from the final read, since a write nobody saw acknowledged may have happened; that acknowledged ones are
//! among them is another check's promise.

use std::collections::BTreeMap;

use super::{LayerNames, Sweep};
use crate::history::{AgentFinal, Answer, Call, Entry, Pin, RunFinal, Scope};

/// One change of the agent's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Switched {
        epoch: u64,
        to: String,
    },
    RolledBack {
        epoch: u64,
        from: String,
        to: String,
    },
    Started {
        run_id: String,
        bundle_id: String,
    },
    /// Restarted on another bundle by a rollback.
    Moved {
        run_id: String,
        bundle_id: String,
    },
    Ended {
        run_id: String,
    },
    Wrote {
        layer: usize,
        key: String,
        value: Option<String>,
    },
}

/// All changes of one agent.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    pub changes: Vec<(u64, Change)>,
    pub layers: LayerNames,
    /// Runs that were restarted more than once, or nobody saw before they were: for a while their bundle is not known.
    pub vague_runs: BTreeMap<String, RunFinal>,
    /// What does not fit together, by what it is about.
    pub problems: Vec<String>,
    /// Route changes whose revision nobody read: the harness's fault, not the product's.
    pub gaps: Vec<String>,
}

impl Timeline {
    #[must_use]
    pub fn of(agent: &AgentFinal, history: &[Entry]) -> Self {
        let mut timeline = Self::default();
        timeline.add_route_changes(&agent.agent, history);
        timeline.learn_layers(agent, history);
        timeline.add_runs(agent, history);
        timeline.add_memory(agent);
        timeline.changes.sort_by_key(|(revision, _)| *revision);
        timeline
    }

    fn add_route_changes(&mut self, agent: &str, history: &[Entry]) {
        let read = route_revisions(agent, history);
        let mut seen: BTreeMap<u64, (u64, Change)> = BTreeMap::new();
        for entry in history.iter().filter(|entry| entry.agent == agent) {
            let Some((acked, Answer::Moved { from, to, epoch, already: false, .. })) = entry.ok()
            else {
                continue;
            };
            let change = match &entry.call {
                Call::Rollback { .. } => {
                    Change::RolledBack { epoch: *epoch, from: from.clone(), to: to.clone() }
                }
                _ => Change::Switched { epoch: *epoch, to: to.clone() },
            };
            let revision = read.get(epoch).copied().unwrap_or(acked);
            if !read.contains_key(epoch) && attempts(history, entry) > 1 {
                self.gaps.push(format!("nobody read the revision of epoch {epoch}"));
            }
            match seen.get(epoch) {
                Some((_, other)) if *other != change => self.problems.push(format!(
                    "epoch {epoch} was acknowledged twice: {other:?} and {change:?}"
                )),
                Some(_) => {}
                None => {
                    seen.insert(*epoch, (revision, change));
                }
            }
        }
        self.changes.extend(seen.into_values());
        self.changes.sort_by_key(|(revision, _)| *revision);
    }

    /// Learns the server's layer numbers from pins and from answers about memory.
    fn learn_layers(&mut self, agent: &AgentFinal, history: &[Entry]) {
        let mut hints: Vec<(u64, u64, Hint)> = Vec::new();
        let pins = pins_seen(agent, history);
        hints.extend(pins.map(|pin| (pin.revision, pin.layer, Hint::Pin(pin.clone()))));
        for entry in history.iter().filter(|entry| entry.agent == agent.agent) {
            let (Call::PutMemory { scope: Scope::Bundle(name), .. }
            | Call::GetMemory { scope: Scope::Bundle(name), .. }) = &entry.call
            else {
                continue;
            };
            match entry.ok() {
                Some((_, Answer::Wrote { key_revision, layer })) => {
                    hints.push((*key_revision, *layer, Hint::Bundle(name.clone())));
                }
                Some((revision, Answer::Read { layer, .. })) if *layer != 0 => {
                    hints.push((revision, *layer, Hint::Bundle(name.clone())));
                }
                Some(_) | None => {}
            }
        }
        hints.sort_by_key(|(revision, ..)| *revision);
        let route = Self { changes: self.changes.clone(), ..Self::default() };
        let mut sweep = Sweep::new(&route);
        for (revision, theirs, hint) in hints {
            let Ok(model) = sweep.advance(revision) else {
                continue; // What is wrong with the route is reported by the sweeps of the checks.
            };
            let ours = match &hint {
                Hint::Bundle(name) => model.route.layer_of(name),
                Hint::Pin(pin) => model
                    .route
                    .at_epoch(pin.epoch)
                    .filter(|placed| placed.bundle_id == pin.bundle_id)
                    .map(|placed| placed.layer),
            };
            let Some(ours) = ours else { continue };
            if let Err(why) = self.layers.bind(theirs, ours) {
                self.problems.push(format!("revision {revision}: {why} ({hint:?})"));
            }
        }
    }

    fn add_runs(&mut self, agent: &AgentFinal, history: &[Entry]) {
        let first = first_pins(&agent.agent, history);
        let continued = agent.continued();
        for run in &agent.runs {
            let run_id = run.run_id.clone();
            let told = first.get(run.run_id.as_str()).map_or(&run.pin, |pin| *pin);
            let before = continued.get(run.run_id.as_str());
            let start = before.map_or(told.revision, |before| before.revision);
            let bundle_id = told.bundle_id.clone();
            self.changes.push((start, Change::Started { run_id, bundle_id }));
            if run.restarts > 0 && start < run.pin.revision {
                let (run_id, bundle_id) = (run.run_id.clone(), run.pin.bundle_id.clone());
                self.changes.push((run.pin.revision, Change::Moved { run_id, bundle_id }));
            }
            // Nobody is told of the first pin of a run that continues another.
            let is_known = before.is_none() && told.revision < run.pin.revision;
            if run.restarts > 1 || (run.restarts > 0 && !is_known) {
                self.vague_runs.insert(run.run_id.clone(), run.clone());
            }
            if run.is_over() {
                self.changes.push((run.revision, Change::Ended { run_id: run.run_id.clone() }));
            }
        }
    }

    fn add_memory(&mut self, agent: &AgentFinal) {
        if let Some(last) = agent.layers.last() {
            // Each switch opens one.
            let is_switch =
                |(_, change): &&(u64, Change)| matches!(change, Change::Switched { .. });
            self.layers.end(*last, self.changes.iter().filter(is_switch).count());
        }
        for version in &agent.versions {
            self.layers.infer(version.layer);
            match self.layers.ours(version.layer) {
                Some(layer) => {
                    let (key, value) = (version.key.clone(), version.value.clone());
                    self.changes.push((version.revision, Change::Wrote { layer, key, value }));
                }
                None => self.problems.push(format!(
                    "key {} has a version at revision {} in layer {}, which nothing ever pointed at",
                    version.key, version.revision, version.layer
                )),
            }
        }
    }
}

#[derive(Debug)]
enum Hint {
    Pin(Pin),
    Bundle(String),
}

/// Epoch to the revision of its route change, as somebody read it.
fn route_revisions(agent: &str, history: &[Entry]) -> BTreeMap<u64, u64> {
    history
        .iter()
        .filter(|entry| entry.agent == agent)
        .filter_map(|entry| match entry.ok()? {
            (_, Answer::Route { epoch, changed_revision, .. }) if *changed_revision != 0 => {
                Some((*epoch, *changed_revision))
            }
            _ => None,
        })
        .collect()
}

fn attempts(history: &[Entry], of: &Entry) -> usize {
    history.iter().filter(|entry| entry.operation == of.operation).count()
}

/// The pin that each run was first acknowledged with.
fn first_pins<'a>(agent: &str, history: &'a [Entry]) -> BTreeMap<&'a str, &'a Pin> {
    let mut first: BTreeMap<&str, &Pin> = BTreeMap::new();
    for entry in history.iter().filter(|entry| entry.agent == agent) {
        if let (Call::StartRun { run_id, .. }, Some((_, Answer::Started { pin, .. }))) =
            (&entry.call, entry.ok())
        {
            let known = first.entry(run_id.as_str()).or_insert(pin);
            if pin.revision < known.revision {
                *known = pin;
            }
        }
    }
    first
}

/// Every pin that anybody was told of.
fn pins_seen<'a>(
    agent: &'a AgentFinal,
    history: &'a [Entry],
) -> impl Iterator<Item = &'a Pin> + 'a {
    let told = history.iter().filter(|entry| entry.agent == agent.agent).filter_map(|entry| {
        match entry.ok()?.1 {
            Answer::Started { pin, .. } | Answer::Pinned { pin, .. } => Some(pin),
            _ => None,
        }
    });
    agent.runs.iter().map(|run| &run.pin).chain(told)
}
