//! What somebody heard who watched an agent's events.

use serde::{Deserialize, Serialize};

/// Complaints of one watcher that are kept: one mistake mostly brings others.
const KEPT: usize = 5;

/// An event, as far as it is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFinal {
    pub revision: u64,
    /// Place within its revision.
    pub index: u32,
    /// `run.started`, …
    pub kind: String,
    pub run_id: String,
}

/// Events that one watcher heard, over as many streams as it took. They are too many to be kept: they are chained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    pub watcher: String,
    pub agent: String,
    /// Everything up to this revision was said to have been sent.
    pub upto: u64,
    pub count: u64,
    /// See [`chain`].
    pub chain: u64,
    /// Events that came twice or too late.
    pub problems: Vec<String>,
    /// Revision and place of the last one.
    last: (u64, u32),
}

impl Watched {
    #[must_use]
    pub fn of(watcher: &str, agent: &str) -> Self {
        let (watcher, agent) = (watcher.to_owned(), agent.to_owned());
        Self { watcher, agent, ..Self::default() }
    }

    /// Takes one answer: its events, and the revision up to which all were sent.
    pub fn hear(&mut self, events: &[EventFinal], upto: u64) {
        for event in events {
            let place = (event.revision, event.index);
            if place <= self.last || event.revision <= self.upto {
                self.complain(format!(
                    "heard {} of revision {} behind revision {}",
                    event.kind,
                    event.revision,
                    self.upto.max(self.last.0)
                ));
            }
            self.last = place;
            self.count += 1;
            self.chain = chain(self.chain, event);
        }
        if upto < self.upto {
            self.complain(format!("was told revision {upto} after {}", self.upto));
        }
        self.upto = self.upto.max(upto);
    }

    fn complain(&mut self, problem: String) {
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }
}

/// One event more: two sequences have the same chain if they are the same.
#[must_use]
pub fn chain(before: u64, event: &EventFinal) -> u64 {
    let EventFinal { revision, index, kind, run_id } = event;
    let text = format!("{before} {revision} {index} {kind} {run_id}");
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}
