//! Checkpoints of one step: what was recorded comes back in the order in which the step asks for it.
//!
//! A name that is asked for again in the same attempt gets `#2`, `#3` …, so that loops need no counters. The first
//! question of an attempt is order 0. A place stays empty when making it failed and the step went on, or when
//! checkpoints were made at the same time and the worker was gone in between. Pure: it sends nothing.

use std::collections::BTreeMap;

use pinrail_proto::v1::{Checkpoint, Payload};
use pinrail_proto::{limits, reason};

use crate::worker::outcome::{StepError, StepResult};

/// The checkpoints of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    recorded: BTreeMap<u32, Checkpoint>,
    next: u32,
    names: BTreeMap<String, u32>,
}

/// Where an asked checkpoint stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Unique in the step.
    pub(crate) name: String,
    pub(crate) order: u32,
    /// What an earlier attempt recorded.
    pub(crate) recorded: Option<Payload>,
}

impl Journal {
    pub(crate) fn new(recorded: Vec<Checkpoint>) -> Journal {
        let recorded = recorded.into_iter().map(|one| (one.order, one)).collect();
        Journal { recorded, ..Journal::default() }
    }

    /// The place of the next checkpoint that the step asks for.
    pub(crate) fn ask(&mut self, name: &str) -> StepResult<Place> {
        let order = self.next;
        if order as usize >= limits::STEP_CHECKPOINTS as usize {
            let most = limits::STEP_CHECKPOINTS;
            let message = format!("a step may have {most} checkpoints");
            return Err(StepError::fatal(reason::LIMIT_EXCEEDED.name, message));
        }
        self.next += 1;
        let name = self.unique(name);
        let Some(recorded) = self.recorded.get(&order) else {
            return Ok(Place { name, order, recorded: None });
        };
        if recorded.name != name {
            let message = format!(
                "checkpoint {order} is {:?} in the record, and the step asked for {name:?}",
                recorded.name
            );
            return Err(StepError::fatal(reason::CHECKPOINT_MISMATCH.name, message));
        }
        let recorded = Some(recorded.value.clone().unwrap_or_default());
        Ok(Place { name, order, recorded })
    }

    /// Passes over recorded checkpoints that an asker took from the record itself, up to the one of this name. Tools are
    /// never passed over: each of their calls is asked for.
    #[cfg(feature = "cli")]
    pub(crate) fn skip_replayed(&mut self, name: &str) {
        while let Some(recorded) = self.recorded.get(&self.next) {
            if recorded.name == name || recorded.name.starts_with("tool:") {
                return;
            }
            self.names.insert(recorded.name.clone(), 1);
            self.next += 1;
        }
    }

    /// What earlier attempts recorded.
    #[cfg(feature = "cli")]
    pub(crate) fn recorded_by_name(&self) -> Vec<(String, Payload)> {
        let value = |one: &Checkpoint| (one.name.clone(), one.value.clone().unwrap_or_default());
        self.recorded.values().map(value).collect()
    }

    fn unique(&mut self, name: &str) -> String {
        let count = self.names.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}#{count}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(order: u32, name: &str, value: &str) -> Checkpoint {
        let value = Payload { content_type: "text/plain".into(), data: value.to_owned().into() };
        Checkpoint { name: name.into(), value: Some(value), order }
    }

    fn text(place: &Place) -> Option<String> {
        let value = place.recorded.as_ref()?;
        Some(String::from_utf8_lossy(&value.data).into_owned())
    }

    #[test]
    fn repeated_names_are_numbered() {
        let mut journal = Journal::default();
        let names: Vec<_> = ["turn", "turn", "other", "turn"]
            .iter()
            .map(|name| journal.ask(name).expect("nothing is recorded").name)
            .collect();
        assert_eq!(names, ["turn", "turn#2", "other", "turn#3"]);
    }

    #[test]
    fn recorded_values_come_back_in_order_and_then_new_ones_are_taken() {
        let record = vec![checkpoint(1, "turn#2", "b"), checkpoint(0, "turn", "a")];
        let mut journal = Journal::new(record);
        let first = journal.ask("turn").expect("recorded");
        let second = journal.ask("turn").expect("recorded");
        let third = journal.ask("turn").expect("new");
        assert_eq!((text(&first), text(&second)), (Some("a".into()), Some("b".into())));
        assert_eq!(third, Place { name: "turn#3".into(), order: 2, recorded: None });
    }

    #[test]
    fn another_name_than_the_recorded_one_is_a_mismatch_that_no_retry_helps() {
        let mut journal = Journal::new(vec![checkpoint(0, "search", "a")]);
        let error = journal.ask("draft").expect_err("the record says search");
        assert_eq!(error.reason(), "CHECKPOINT_MISMATCH");
        assert!(!error.is_retryable());
    }

    #[cfg(feature = "cli")]
    #[test]
    fn what_was_taken_from_the_record_is_passed_over_but_for_tools() {
        let record = ["a", "b", "tool:search", "c"]
            .iter()
            .zip(0..)
            .map(|(name, at)| checkpoint(at, name, name));
        let mut journal = Journal::new(record.collect());
        journal.skip_replayed("b");
        assert_eq!(text(&journal.ask("b").expect("recorded")), Some("b".into()));
        journal.skip_replayed("new");
        let error = journal.ask("new").expect_err("a tool was called here");
        assert_eq!(error.reason(), "CHECKPOINT_MISMATCH");
        assert_eq!(journal.recorded_by_name().len(), 4);
    }

    #[test]
    fn a_place_left_empty_by_a_failure_is_asked_for_again() {
        let mut journal = Journal::new(vec![checkpoint(1, "b", "kept")]);
        assert_eq!(text(&journal.ask("a").expect("not recorded")), None);
        assert_eq!(text(&journal.ask("b").expect("recorded")), Some("kept".into()));
    }
}
