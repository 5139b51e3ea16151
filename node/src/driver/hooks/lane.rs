//! One hook's queue: which events wait for it, which are on their way, what came of them. Pure: places, times and
//! outcomes come in, deliveries to start and results to record come out.
//!
//! ```text
//!   stream ──offer──> fresh ──next──> flying ──landed──> delivered, dead
//!                                       ^  └────────────> waiting ──due──┐
//!                                       └────────────────────────────────┘
//! ```
//! Bounded: with [`FRESH`] events in it, or [`HOOK_PENDING`] that failed, it takes no more from the stream, which keeps
//! them. The cursor never passes an event whose result is not recorded: what a lost leader knew alone is done again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pinrail_proto::limits::{HOOK_PENDING, HOOK_RESULTS, HOOK_RETRY_MS};
use pinrail_proto::log::{DeliveryResult, HookProgress};
use pinrail_proto::v1::{self, DeliveryState};
use pinrail_state_machine::query::{EventHead, Hooked, Place};

/// Events that wait for their first attempt.
const FRESH: usize = 256;
/// Attempts of one hook at once.
const IN_FLIGHT: usize = 4;
/// How far the stream may go on without an event for the hook before the cursor is recorded.
const IDLE_REVISIONS: u64 = 1_000;
/// First and longest wait before another attempt, in milliseconds.
const BACKOFF_MS: u64 = 1_000;
const LONGEST_MS: u64 = 5 * 60_000;
/// A receiver may ask for more than that, up to an hour.
const ASKED_MS: u64 = 3_600_000;

/// An event on its way to a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) place: Place,
    pub(super) type_: String,
    pub(super) event_ms: u64,
    /// Attempts made.
    pub(super) attempts: u32,
    /// When it is given up.
    until_ms: u64,
    /// When it is tried next.
    next_ms: u64,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered {
        status: u16,
    },
    /// `status` 0: there was no answer. `again_ms`: when the receiver wants to be asked again.
    Failed {
        status: u16,
        error: String,
        again_ms: Option<u64>,
    },
    /// The event is not kept any more.
    Gone,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) hook: v1::Hook,
    /// Cursor in the state.
    recorded: u64,
    /// Events up to this revision were looked at.
    scanned: u64,
    fresh: VecDeque<EventHead>,
    waiting: BTreeMap<Place, Delivery>,
    /// The same in the order of their turns.
    due: BTreeSet<(u64, Place)>,
    flying: BTreeMap<Place, Delivery>,
    results: VecDeque<DeliveryResult>,
    /// Results on their way through the log, with the cursor that goes along.
    recording: Option<(u64, Vec<DeliveryResult>)>,
    /// Events behind the cursor that were over when this leader began.
    over: BTreeSet<Place>,
    /// Whose turn it is when both wait.
    prefers_due: bool,
}

impl Lane {
    pub(super) fn new(hooked: Hooked) -> Self {
        let mut lane = Self {
            hook: hooked.hook,
            recorded: hooked.cursor,
            scanned: hooked.cursor,
            fresh: VecDeque::new(),
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            flying: BTreeMap::new(),
            results: VecDeque::new(),
            recording: None,
            over: hooked.over.into_iter().collect(),
            prefers_due: true,
        };
        for (place, row) in hooked.pending {
            lane.wait(delivery_of(place, row));
        }
        lane
    }

    /// The hook as the policy has it now, and what somebody made pending by hand.
    pub(super) fn refresh(&mut self, hooked: Hooked) {
        if hooked.hook != self.hook {
            self.hook = hooked.hook;
            let hook = &self.hook;
            self.fresh.retain(|head| head.is_for(hook));
        }
        for (place, row) in hooked.pending {
            let row = delivery_of(place, row);
            if self.flying.contains_key(&place) || self.unrecorded(place) > row.attempts {
                continue;
            }
            match self.waiting.remove(&place) {
                // By hand: it has longer than this lane knew.
                Some(known) if row.until_ms > known.until_ms => {
                    self.due.remove(&(known.next_ms, place));
                    self.wait(Delivery { attempts: known.attempts, ..row });
                }
                Some(known) => {
                    self.waiting.insert(place, known);
                }
                None => {
                    self.fresh.retain(|head| head.place != place);
                    self.wait(row);
                }
            }
        }
    }

    /// Attempts that a result which is not recorded yet speaks of.
    fn unrecorded(&self, place: Place) -> u32 {
        let under_way = self.recording.iter().flat_map(|(_, results)| results);
        let of_place = under_way
            .chain(&self.results)
            .filter(|it| (it.revision, it.index) == (place.revision, place.index));
        of_place.map(|it| it.attempts.max(1)).max().unwrap_or(0)
    }

    fn wait(&mut self, delivery: Delivery) {
        self.due.insert((delivery.next_ms, delivery.place));
        self.waiting.insert(delivery.place, delivery);
    }

    pub(super) fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Whether it takes events from the stream.
    pub(super) fn has_room(&self) -> bool {
        self.fresh.len() < FRESH && !self.is_clogged()
    }

    fn is_clogged(&self) -> bool {
        self.waiting.len() + self.flying.len() >= HOOK_PENDING
    }

    /// Takes in the events of its agent behind `scanned`; all up to `upto` are among them.
    pub(super) fn offer(&mut self, heads: &[EventHead], upto: u64) {
        for head in heads.iter().filter(|head| head.place.revision > self.scanned) {
            if !head.is_for(&self.hook) || self.over.contains(&head.place) {
                continue;
            }
            if self.waiting.contains_key(&head.place) || self.flying.contains_key(&head.place) {
                continue;
            }
            let last = self.fresh.back().map_or(0, |last| last.place.revision);
            // A revision is taken whole, or a cursor could stand inside of it.
            if self.fresh.len() >= FRESH && last != head.place.revision {
                self.scanned = head.place.revision - 1;
                return;
            }
            self.fresh.push_back(head.clone());
        }
        self.scanned = self.scanned.max(upto);
        let scanned = self.scanned;
        self.over.retain(|place| place.revision > scanned);
    }

    /// The next delivery to attempt, which is on its way from here on.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Delivery> {
        if self.flying.len() >= IN_FLIGHT {
            return None;
        }
        self.give_up_old(now_ms);
        let due = self.due.first().copied().filter(|(at, _)| *at <= now_ms);
        let is_fresh = !self.fresh.is_empty() && !self.is_clogged();
        let delivery = match due {
            Some(turn) if self.prefers_due || !is_fresh => {
                self.due.remove(&turn);
                self.waiting.remove(&turn.1)?
            }
            Some(_) | None if is_fresh => begin(self.fresh.pop_front()?),
            Some(_) | None => return None,
        };
        self.prefers_due = !self.prefers_due;
        self.flying.insert(delivery.place, delivery.clone());
        Some(delivery)
    }

    /// Events that waited longer than anything is tried are dead without an attempt.
    fn give_up_old(&mut self, now_ms: u64) {
        while self.fresh.front().is_some_and(|head| now_ms >= head.at_ms + HOOK_RETRY_MS) {
            let Some(head) = self.fresh.pop_front() else { return };
            let error = "24 hours were over before it came to an attempt";
            let result =
                DeliveryResult { error: error.to_owned(), ..result_of(&begin(head), now_ms) };
            self.results.push_back(as_state(result, DeliveryState::Dead));
        }
    }

    /// An attempt is over. Says what became of the delivery; `None`: it was none of this lane's.
    pub(super) fn landed(
        &mut self,
        place: Place,
        outcome: Outcome,
        now_ms: u64,
    ) -> Option<DeliveryState> {
        let mut delivery = self.flying.remove(&place)?;
        delivery.attempts += 1;
        let mut result = result_of(&delivery, now_ms);
        let state = match outcome {
            Outcome::Delivered { status } => {
                result.status = u32::from(status);
                DeliveryState::Delivered
            }
            Outcome::Gone => {
                "the event is not kept any more".clone_into(&mut result.error);
                DeliveryState::Dead
            }
            Outcome::Failed { status, error, again_ms } => {
                (result.status, result.error) = (u32::from(status), error);
                if now_ms >= delivery.until_ms {
                    DeliveryState::Dead
                } else {
                    let wait = backoff(&delivery).max(again_ms.unwrap_or(0).min(ASKED_MS));
                    delivery.next_ms = (now_ms + wait).min(delivery.until_ms);
                    result.next_ms = delivery.next_ms;
                    self.wait(delivery);
                    DeliveryState::Pending
                }
            }
        };
        self.results.push_back(as_state(result, state));
        Some(state)
    }

    /// What is to be recorded, if anything is: `idle` lets the cursor alone be worth it. One batch at a time.
    pub(super) fn take_batch(&mut self, idle: bool) -> Option<HookProgress> {
        if self.recording.is_some() {
            return None;
        }
        let results: Vec<_> = self.results.drain(..self.results.len().min(HOOK_RESULTS)).collect();
        let cursor = self.cursor();
        let far = idle && cursor >= self.recorded + IDLE_REVISIONS;
        if results.is_empty() && !far {
            return None;
        }
        self.recording = Some((cursor, results.clone()));
        Some(HookProgress { hook: self.hook.name.clone(), cursor, results })
    }

    /// Whether the batch was recorded. One whose fate is unknown was not: it is recorded again.
    pub(super) fn recorded(&mut self, done: bool) {
        let Some((cursor, results)) = self.recording.take() else { return };
        if done {
            self.recorded = self.recorded.max(cursor);
        } else {
            results.into_iter().rev().for_each(|result| self.results.push_front(result));
        }
    }

    /// Everything up to here is over, or is in the batch that was just taken, or was recorded.
    fn cursor(&self) -> u64 {
        let fresh = self.fresh.front().map(|head| head.place.revision);
        // One that was attempted before has a row, or a result among these.
        let flying = self.flying.values().filter(|it| it.attempts == 0);
        let flying = flying.map(|it| it.place.revision).min();
        let left = self.results.iter().map(|it| it.revision).min();
        let first = [fresh, flying, left].into_iter().flatten().min();
        first.map_or(self.scanned, |first| first.saturating_sub(1)).max(self.recorded)
    }

    /// When the next attempt is due, if one is known.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        if self.flying.len() >= IN_FLIGHT {
            return None;
        }
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn has_results(&self) -> bool {
        !self.results.is_empty() && self.recording.is_none()
    }

    /// Events on their way that are known here, and since when the oldest of them is.
    pub(super) fn backlog(&self) -> (usize, Option<u64>) {
        let oldest = self.fresh.front().map(|head| head.at_ms);
        let others = self.waiting.values().chain(self.flying.values()).map(|it| it.event_ms).min();
        let count = self.fresh.len() + self.waiting.len() + self.flying.len();
        (count, oldest.into_iter().chain(others).min())
    }
}

fn begin(head: EventHead) -> Delivery {
    Delivery {
        place: head.place,
        type_: head.type_,
        event_ms: head.at_ms,
        attempts: 0,
        until_ms: head.at_ms + HOOK_RETRY_MS,
        next_ms: 0,
    }
}

fn delivery_of(place: Place, row: pinrail_proto::log::DeliveryRecord) -> Delivery {
    Delivery {
        place,
        type_: row.r#type,
        event_ms: row.event_ms,
        attempts: row.attempts,
        until_ms: row.until_ms,
        next_ms: row.next_ms,
    }
}

fn result_of(delivery: &Delivery, now_ms: u64) -> DeliveryResult {
    DeliveryResult {
        revision: delivery.place.revision,
        index: delivery.place.index,
        r#type: delivery.type_.clone(),
        attempts: delivery.attempts,
        event_ms: delivery.event_ms,
        tried_ms: now_ms,
        until_ms: delivery.until_ms,
        ..DeliveryResult::default()
    }
}

fn as_state(result: DeliveryResult, state: DeliveryState) -> DeliveryResult {
    DeliveryResult { state: state.into(), ..result }
}

/// Doubles from attempt to attempt; a part of it depends on the event, so that those that failed together do not come
/// back together.
fn backoff(delivery: &Delivery) -> u64 {
    let doublings = delivery.attempts.saturating_sub(1).min(16);
    let wait = (BACKOFF_MS << doublings).min(LONGEST_MS);
    let place = delivery.place;
    let mixed = place.revision.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(place.index);
    wait - wait / 5 * (mixed >> 32 & 0xff) / 0xff
}

#[cfg(test)]
mod tests;
