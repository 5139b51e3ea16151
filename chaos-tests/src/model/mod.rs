//! What the cluster should be after each revision: a sequential model of one agent, written from the
//! specification and sharing no code with the node.
//!
//! Changes are applied in order of their revisions; between two of them the model can be asked. It must never
//! know the node, its state machine or the client library, nor how the history was recorded.

mod change;
mod memory;
mod pins;
mod route;

pub use change::{Change, Timeline};
pub use memory::{LayerNames, Memory};
pub use pins::Pins;
pub use route::{Placement, Route};

/// One agent.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Of the last change that was applied.
    pub revision: u64,
    pub route: Route,
    pub pins: Pins,
    pub memory: Memory,
}

impl Model {
    /// Applies the next change.
    ///
    /// # Errors
    /// Says what the specification does not allow.
    pub fn apply(&mut self, revision: u64, change: &Change) -> Result<(), String> {
        if revision < self.revision {
            return Err(format!("revision {revision} came after {}", self.revision));
        }
        self.revision = revision;
        match change {
            Change::Switched { epoch, to } => {
                let base = self.route.live().map(|live| live.layer);
                let layer = self.memory.open_layer(base, revision);
                self.route.switch(revision, *epoch, to, layer)
            }
            Change::RolledBack { epoch, from, to } => {
                self.route.roll_back(revision, *epoch, from, to)
            }
            Change::Started { run_id, bundle_id } => {
                self.pins.open(run_id, bundle_id);
                Ok(())
            }
            Change::Moved { run_id, bundle_id } => {
                self.pins.moved(run_id, bundle_id);
                Ok(())
            }
            Change::Ended { run_id } => self.pins.close(run_id),
            Change::Wrote { layer, key, value } => {
                self.memory.write(revision, *layer, key, value.as_deref());
                Ok(())
            }
        }
    }
}

/// A walk through a timeline, from question to question in order of their revisions.
#[derive(Debug)]
pub struct Sweep<'a> {
    pub model: Model,
    timeline: &'a Timeline,
    next: usize,
}

impl<'a> Sweep<'a> {
    #[must_use]
    pub fn new(timeline: &'a Timeline) -> Self {
        Self { model: Model::default(), timeline, next: 0 }
    }

    /// Applies everything up to and with `revision`.
    ///
    /// # Errors
    /// Every change that the specification does not allow.
    pub fn advance(&mut self, revision: u64) -> Result<&Model, Vec<String>> {
        let mut wrong = Vec::new();
        while let Some((at, change)) = self.timeline.changes.get(self.next) {
            if *at > revision {
                break;
            }
            self.next += 1;
            if let Err(why) = self.model.apply(*at, change) {
                wrong.push(format!("revision {at}: {why}"));
            }
        }
        if wrong.is_empty() { Ok(&self.model) } else { Err(wrong) }
    }
}
