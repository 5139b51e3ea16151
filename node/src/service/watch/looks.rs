//! Looks that many watchers take at one moment of the state: the first of them looks, the others are told what it found.

use std::fmt;

use parking_lot::Mutex;
use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{EventFilter, MemoryFilter, PinCursor, Position, position};
use pinrail_state_machine::store::Read;

/// Questions whose answers are kept, each of at most a page.
const KEPT: usize = 8;

/// Of this node's watchers.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    pub(super) memory: Shared<MemoryFilter, v1::WatchMemoryResponse>,
    pub(super) events: Shared<EventFilter, (Vec<v1::Event>, u64)>,
    pub(super) pins: Shared<PinCursor, (Vec<v1::LookupPinResponse>, PinCursor)>,
}

/// What was found of one kind of question at the newest moment that anybody looked at.
pub(super) struct Shared<Q, F>(Mutex<Last<Q, F>>);

struct Last<Q, F> {
    at: Position,
    found: Vec<(Q, F)>,
}

impl<Q, F> Default for Shared<Q, F> {
    fn default() -> Self {
        Self(Mutex::new(Last { at: Position::default(), found: Vec::new() }))
    }
}

impl<Q, F> fmt::Debug for Shared<Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<Q: Clone + PartialEq, F: Clone> Shared<Q, F> {
    /// What there is to find at the moment that is read: a revision and a time are one state and no other.
    pub(super) fn look(
        &self,
        read: &dyn Read,
        question: &Q,
        look: impl FnOnce() -> Result<F, Stop>,
    ) -> Result<F, Stop> {
        self.look_at(position(read)?, question, look)
    }

    fn look_at(
        &self,
        at: Position,
        question: &Q,
        look: impl FnOnce() -> Result<F, Stop>,
    ) -> Result<F, Stop> {
        if let Some(found) = self.0.lock().answer(at, question) {
            return Ok(found);
        }
        let found = look()?;
        self.0.lock().note(at, question, &found);
        Ok(found)
    }
}

impl<Q: Clone + PartialEq, F: Clone> Last<Q, F> {
    fn answer(&self, at: Position, question: &Q) -> Option<F> {
        let found = self.found.iter().find(|(asked, _)| self.at == at && asked == question);
        found.map(|(_, found)| found.clone())
    }

    fn note(&mut self, at: Position, question: &Q, found: &F) {
        if self.at != at {
            self.at = at;
            self.found.clear();
        }
        if self.found.len() < KEPT {
            self.found.push((question.clone(), found.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use pinrail_proto::reason;
    use pinrail_state_machine::outcome::reject;

    use super::*;

    fn at(revision: u64) -> Position {
        Position { revision, now_ms: 7 }
    }

    #[test]
    fn a_question_is_answered_once_for_each_moment_of_the_state() {
        let looks: Shared<&str, u64> = Shared::default();
        let mut taken = Vec::new();
        for (revision, question) in [(1, "a"), (1, "b"), (1, "a"), (2, "a"), (2, "a"), (1, "b")] {
            let look = || {
                taken.push((revision, question));
                Ok(revision)
            };
            let found = looks.look_at(at(revision), &question, look).expect("it is there");
            assert_eq!(found, revision, "{question}");
        }
        assert_eq!(taken, [(1, "a"), (1, "b"), (2, "a"), (1, "b")]);
    }

    #[test]
    fn time_that_passes_is_another_moment_and_a_refusal_is_nobody_elses() {
        let looks: Shared<&str, u64> = Shared::default();
        let refuse = || Err(reject(reason::COMPACTED, "it is gone"));
        assert!(looks.look_at(at(1), &"a", refuse).is_err());
        assert_eq!(looks.look_at(at(1), &"a", || Ok(3)).expect("it is there"), 3);
        let later = Position { now_ms: 8, ..at(1) };
        assert_eq!(looks.look_at(later, &"a", || Ok(4)).expect("it is there"), 4);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let looks: Shared<usize, usize> = Shared::default();
        for question in 0..2 * KEPT {
            assert!(looks.look_at(at(1), &question, || Ok(question)).is_ok());
        }
        assert_eq!(looks.0.lock().found.len(), KEPT);
    }
}
