//! How many more steps a worker asks for: its slots, less what it holds, what it already asked for, and what it keeps
//! for the next steps of runs whose last step it just completed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

/// How long a slot is kept for a run's next step after its completion was done. The step may have gone elsewhere.
const KEPT: Duration = Duration::from_secs(2);

/// The account of one worker's slots.
#[derive(Debug)]
pub(crate) struct Slots {
    all: u32,
    /// Credits that the cluster has and did not use yet.
    granted: u32,
    /// By run: until when a slot is kept for its next step.
    kept: BTreeMap<String, Instant>,
    /// No kept slot is free before: a worker's loop asks with each of its events, and hundreds may be kept.
    kept_until: Option<Instant>,
    /// Runs with a completion on its way that asks for the next step.
    asked: BTreeSet<String>,
    /// Runs whose next step came before the answer to the completion.
    early: BTreeSet<String>,
}

impl Slots {
    pub(crate) fn new(all: u32) -> Slots {
        Slots {
            all,
            granted: 0,
            kept: BTreeMap::new(),
            kept_until: None,
            asked: BTreeSet::new(),
            early: BTreeSet::new(),
        }
    }

    /// A new stream: nothing is granted yet.
    pub(crate) fn stream_opened(&mut self) {
        self.granted = 0;
        self.kept.clear();
        self.early.clear();
    }

    /// All slots.
    pub(crate) fn all(&self) -> u32 {
        self.all
    }

    /// A completion is on its way that asks for the run's next step.
    pub(crate) fn asked(&mut self, run_id: &str) {
        self.asked.insert(run_id.to_owned());
    }

    /// A step came.
    pub(crate) fn assigned(&mut self, run_id: &str) {
        if self.kept.remove(run_id).is_some() {
            return;
        }
        if self.asked.remove(run_id) {
            self.early.insert(run_id.to_owned());
            return;
        }
        self.granted = self.granted.saturating_sub(1);
    }

    /// A lease is over. `next`: the run whose next step is to come, as was asked for with the completion.
    pub(crate) fn over(&mut self, run_id: &str, next: Option<&str>, now: Instant) {
        self.early.remove(run_id);
        if self.asked.remove(run_id)
            && let Some(next) = next
        {
            self.kept.insert(next.to_owned(), now + KEPT);
            self.kept_until.get_or_insert(now + KEPT);
        }
    }

    /// The credits to give now, with so many leases held.
    pub(crate) fn grant(&mut self, held: usize, now: Instant) -> u32 {
        if self.kept_until.is_some_and(|until| until <= now) {
            self.kept.retain(|_, until| *until > now);
            self.kept_until = self.kept.values().min().copied();
        }
        let busy = held.saturating_add(self.kept.len());
        let busy = u32::try_from(busy).unwrap_or(u32::MAX).saturating_add(self.granted);
        self.all.saturating_sub(busy)
    }

    /// Takes in that credits were given.
    pub(crate) fn granted(&mut self, credits: u32) {
        self.granted = self.granted.saturating_add(credits);
    }

    /// Free slots with so many leases held.
    pub(crate) fn free(&self, held: usize) -> u32 {
        self.all.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX))
    }

    /// When to look whether a kept slot is free again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.kept_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_never_exceed_the_slots() {
        let (mut slots, now) = (Slots::new(4), Instant::now());
        let credits = slots.grant(0, now);
        slots.granted(credits);
        assert_eq!(credits, 4);
        assert_eq!(slots.grant(0, now), 0);
        slots.assigned("a");
        assert_eq!(slots.grant(1, now), 0, "the step fills the slot");
        assert_eq!(slots.grant(0, now), 1, "the step is over");
    }

    #[test]
    fn the_next_step_of_a_run_takes_no_credit() {
        let (mut slots, now) = (Slots::new(1), Instant::now());
        let credits = slots.grant(0, now);
        slots.granted(credits);
        slots.assigned("a");
        slots.asked("a");
        slots.over("a", Some("a"), now);
        assert_eq!(slots.grant(0, now), 0, "kept for the next step");
        slots.assigned("a");
        assert_eq!(slots.grant(1, now), 0);
        slots.over("a", None, now);
        assert_eq!(slots.grant(0, now), 1);
    }

    #[test]
    fn the_first_step_of_the_run_that_continues_takes_no_credit() {
        let (mut slots, now) = (Slots::new(1), Instant::now());
        let credits = slots.grant(0, now);
        slots.granted(credits);
        slots.assigned("a");
        slots.asked("a");
        slots.over("a", Some("a+1"), now);
        assert_eq!(slots.grant(0, now), 0, "kept for the next run's step");
        slots.assigned("a+1");
        assert_eq!(slots.grant(1, now), 0);
        slots.over("a+1", None, now);
        assert_eq!(slots.grant(0, now), 1);
    }

    #[test]
    fn a_next_step_before_the_answer_takes_no_credit_either() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        let credits = slots.grant(0, now);
        slots.granted(credits);
        slots.assigned("a");
        slots.asked("a");
        slots.assigned("a");
        slots.over("a", Some("a"), now);
        assert_eq!(slots.grant(1, now), 0, "one runs, one credit is still given");
        assert_eq!(slots.grant(0, now), 1);
    }

    #[test]
    fn a_next_step_that_does_not_come_gives_its_slot_back() {
        let (mut slots, now) = (Slots::new(1), Instant::now());
        slots.asked("a");
        slots.over("a", Some("a"), now);
        assert_eq!(slots.grant(0, now), 0);
        let later = slots.next_due().expect("a slot is kept");
        assert_eq!(slots.grant(0, later), 1);
    }

    #[test]
    fn each_kept_slot_is_free_at_its_own_time() {
        let (mut slots, now) = (Slots::new(3), Instant::now());
        for (run, second) in [("a", 0), ("b", 1), ("c", 1)] {
            slots.asked(run);
            slots.over(run, Some(run), now + Duration::from_secs(second));
        }
        let first = slots.next_due().expect("three are kept");
        assert_eq!(slots.grant(0, first), 1);
        slots.assigned("c");
        let second = slots.next_due().expect("one is kept");
        assert_eq!(second - first, Duration::from_secs(1));
        assert_eq!(slots.grant(1, second), 2, "one runs");
        assert_eq!(slots.next_due(), None);
    }
}
