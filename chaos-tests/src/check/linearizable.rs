//! Whether there is an order of concurrent operations, each at a moment between its call and its answer, in which every one
//! answers what it answered.
//!
//! The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory of what was tried
//! ("Testing for Linearizability", 2017): the same operations in another order that lead to the same state are tried once. It
//! knows neither revisions nor indexes, so a server that lies about those in a consistent way does not deceive it.
//!
//! ```text
//!   first call that may come next --takes effect--> lifted out of the list, begin anew
//!   an answer whose call was not lifted yet          the last one that was lifted goes back, the one behind it is tried
//!   no answers left                                  ordered
//! ```

use std::collections::HashSet;

/// What a register holds, by a number.
pub(super) type State = u32;

/// What an operation demands of the register, and what it leaves there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) invoked: u64,
    /// None: its fate is unknown, so it takes effect at any later time or never.
    pub(super) returned: Option<u64>,
    /// States in which it can answer what it answered; none: in each.
    pub(super) needs: Option<Vec<State>>,
    /// None: it leaves the state as it is.
    pub(super) sets: Option<State>,
}

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    Nothing,
    /// It was given up.
    Undecided,
}

/// Looks for an order that begins with a state. At most `most` operations are tried, counting every time: a bound in time
/// would have the verdict depend on the machine.
pub(super) fn search(operations: &[Operation], begin: State, most: usize) -> Found {
    let mut list = Timeline::of(operations);
    let mut open = operations.iter().filter(|operation| operation.returned.is_some()).count();
    let mut done = Done::new(operations.len());
    let mut tried: HashSet<(Box<[u64]>, usize, State)> = HashSet::new();
    let mut lifted: Vec<(usize, State)> = Vec::new();
    let mut state = begin;
    let mut at = list.first();
    let mut steps = 0;
    while open > 0 {
        if let Some(Event::Call(number)) = list.event(at) {
            let operation = &operations[number];
            let fits = operation.needs.as_ref().is_none_or(|needs| needs.contains(&state));
            if fits {
                steps += 1;
                if steps > most {
                    return Found::Undecided;
                }
                let next = operation.sets.unwrap_or(state);
                done.set(number, true);
                let (words, full) = done.key();
                if tried.insert((words, full, next)) {
                    lifted.push((number, state));
                    state = next;
                    open -= usize::from(operation.returned.is_some());
                    list.lift(number);
                    at = list.first();
                    continue;
                }
                done.set(number, false);
            }
            at = list.behind(at);
        } else {
            let Some((number, before)) = lifted.pop() else { return Found::Nothing };
            state = before;
            open += usize::from(operations[number].returned.is_some());
            done.set(number, false);
            list.put_back(number);
            at = list.behind(list.calls[number]);
        }
    }
    Found::Order
}

/// A moment of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Call(usize),
    /// Its operation must have taken effect by now.
    Answer,
}

/// Calls and answers in order of time, linked both ways. Place 0 is before all of them, the last one behind them.
#[derive(Debug)]
struct Timeline {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Places of each operation.
    calls: Vec<usize>,
    answers: Vec<Option<usize>>,
}

impl Timeline {
    fn of(operations: &[Operation]) -> Self {
        // At one moment calls come first: what happened then may have happened at the same time.
        let mut sorted: Vec<(u64, bool, usize)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            sorted.push((operation.invoked, false, number));
            sorted.extend(operation.returned.map(|returned| (returned, true, number)));
        }
        sorted.sort_unstable();
        let places = sorted.len() + 2;
        let mut calls = vec![0; operations.len()];
        let mut answers = vec![None; operations.len()];
        for (place, (_, is_answer, number)) in (1..).zip(&sorted) {
            if *is_answer {
                answers[*number] = Some(place);
            } else {
                calls[*number] = place;
            }
        }
        let event = |(_, is_answer, number): &(u64, bool, usize)| {
            if *is_answer { Event::Answer } else { Event::Call(*number) }
        };
        Self {
            events: sorted.iter().map(event).collect(),
            next: (1..=places).collect(),
            previous: (0..places).map(|place| place.saturating_sub(1)).collect(),
            calls,
            answers,
        }
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn behind(&self, place: usize) -> usize {
        self.next[place]
    }

    /// None at the end.
    fn event(&self, place: usize) -> Option<Event> {
        self.events.get(place - 1).copied()
    }

    fn lift(&mut self, number: usize) {
        for place in [Some(self.calls[number]), self.answers[number]].into_iter().flatten() {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last lift.
    fn put_back(&mut self, number: usize) {
        for place in [self.answers[number], Some(self.calls[number])].into_iter().flatten() {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = place;
            self.previous[next] = place;
        }
    }
}

/// Operations that took effect, a bit each.
#[derive(Debug)]
struct Done {
    words: Vec<u64>,
}

impl Done {
    fn new(operations: usize) -> Self {
        Self { words: vec![0; operations.div_ceil(64)] }
    }

    fn set(&mut self, number: usize, is_done: bool) {
        let bit = 1 << (number % 64);
        if is_done {
            self.words[number / 64] |= bit;
        } else {
            self.words[number / 64] &= !bit;
        }
    }

    /// The same set as few words, for operations are mostly done in their order: the words between those that are full and those
    /// that are empty, and how many are full.
    fn key(&self) -> (Box<[u64]>, usize) {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let end = self.words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        (self.words[full..end.max(full)].into(), full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 10_000;

    fn write(invoked: u64, returned: u64, sets: State) -> Operation {
        Operation { invoked, returned: Some(returned), needs: None, sets: Some(sets) }
    }

    fn read(invoked: u64, returned: u64, sees: State) -> Operation {
        Operation { invoked, returned: Some(returned), needs: Some(vec![sees]), sets: None }
    }

    fn swap(invoked: u64, returned: u64, from: State, to: State) -> Operation {
        let needs = Some(vec![from]);
        Operation { invoked, returned: Some(returned), needs, sets: Some(to) }
    }

    fn unknown(mut operation: Operation) -> Operation {
        operation.returned = None;
        operation
    }

    #[test]
    fn reads_beside_a_write_see_what_is_before_it_or_behind_it_but_never_both_ways() {
        let seen =
            |one, two| search(&[write(0, 100, 1), read(10, 20, one), read(30, 40, two)], 0, MOST);
        assert_eq!(seen(0, 0), Found::Order);
        assert_eq!(seen(0, 1), Found::Order);
        assert_eq!(seen(1, 1), Found::Order);
        assert_eq!(seen(1, 0), Found::Nothing);
    }

    #[test]
    fn what_was_answered_is_seen_by_who_asks_later_and_not_only_by_who_asks_at_that_moment() {
        assert_eq!(search(&[write(0, 10, 1), read(11, 20, 0)], 0, MOST), Found::Nothing);
        assert_eq!(search(&[write(0, 10, 1), read(10, 20, 0)], 0, MOST), Found::Order);
    }

    #[test]
    fn of_two_swaps_from_one_state_one_fails() {
        let both = [swap(0, 100, 0, 1), swap(0, 100, 0, 2)];
        assert_eq!(search(&both, 0, MOST), Found::Nothing);
        let chained = [swap(0, 100, 1, 2), swap(0, 100, 0, 1)];
        assert_eq!(search(&chained, 0, MOST), Found::Order);
    }

    #[test]
    fn what_has_an_unknown_fate_happens_late_or_never_but_not_before_it_was_asked() {
        let lost = unknown(write(50, 0, 1));
        let with = |reads: &[Operation]| {
            let all: Vec<Operation> = [lost.clone()].into_iter().chain(reads.to_vec()).collect();
            search(&all, 0, MOST)
        };
        assert_eq!(with(&[read(60, 70, 0), read(900, 910, 0)]), Found::Order);
        assert_eq!(with(&[read(60, 70, 0), read(900, 910, 1)]), Found::Order);
        assert_eq!(with(&[read(60, 70, 1), read(900, 910, 0)]), Found::Nothing);
        assert_eq!(with(&[read(10, 40, 1)]), Found::Nothing);
    }

    #[test]
    fn many_operations_at_the_same_time_are_decided_and_what_is_too_much_is_not() {
        // In no order does the last read see what nobody wrote; without a memory this is 10! orders.
        let mut all: Vec<Operation> = (1..=10).map(|to| write(0, 100, to)).collect();
        all.push(read(200, 210, 99));
        assert_eq!(search(&all, 0, 100_000), Found::Nothing);
        assert_eq!(search(&all, 0, 1_000), Found::Undecided);
    }

    #[test]
    fn a_long_history_is_decided_in_about_as_many_steps_as_it_has_operations() {
        let pairs = (0..2_000).flat_map(|turn: u32| {
            let at = u64::from(turn) * 10;
            [write(at, at + 12, turn + 1), read(at + 13, at + 15, turn + 1)]
        });
        let all: Vec<Operation> = pairs.collect();
        assert_eq!(search(&all, 0, 20_000), Found::Order);
    }
}
