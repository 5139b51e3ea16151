//! All hooks that this leader sends to: one lane each, and the stream that is dealt out among them. Pure.

use std::collections::BTreeMap;

use pinrail_proto::log::RecordDeliveries;
use pinrail_state_machine::query::{EventHead, Hooked};

use super::lane::{Delivery, Lane};

/// A hook by its agent's number and its name.
pub(super) type LaneId = (u32, String);

/// Agents whose results one proposal holds.
const AGENTS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Book {
    lanes: BTreeMap<LaneId, Lane>,
    /// Who an agent is; its events say this.
    names: BTreeMap<u32, (String, String)>,
    /// Behind whom the next turn begins, so that no hook is always the last.
    turn: Option<LaneId>,
}

impl Book {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The hooks of an agent as they are now.
    pub(super) fn refresh(&mut self, agent: u32, hooks: Vec<Hooked>) {
        let all = (agent, String::new())..(agent.saturating_add(1), String::new());
        let known: Vec<LaneId> = self.lanes.range(all).map(|(id, _)| id.clone()).collect();
        for id in known {
            if !hooks.iter().any(|hooked| hooked.hook.name == id.1) {
                self.lanes.remove(&id);
            }
        }
        match hooks.first() {
            Some(it) => self.names.insert(agent, (it.namespace.clone(), it.agent_id.clone())),
            None => self.names.remove(&agent),
        };
        for hooked in hooks {
            let id = (agent, hooked.hook.name.clone());
            match self.lanes.get_mut(&id) {
                Some(lane) => lane.refresh(hooked),
                None => _ = self.lanes.insert(id, Lane::new(hooked)),
            }
        }
    }

    /// Agents that have lanes.
    pub(super) fn agents(&self) -> Vec<u32> {
        self.names.keys().copied().collect()
    }

    /// From where the stream is to be read: the least advanced hook that takes events.
    pub(super) fn read_from(&self) -> Option<u64> {
        self.lanes.values().filter(|lane| lane.has_room()).map(Lane::scanned).min()
    }

    /// Deals out a page of the stream: all events behind `from`, up to `upto`. A hook that is behind `from` is not meant.
    pub(super) fn deal(&mut self, heads: &[EventHead], from: u64, upto: u64) {
        let mut of_agent: BTreeMap<(&str, &str), Vec<EventHead>> = BTreeMap::new();
        for head in heads {
            let name = (head.namespace.as_str(), head.agent_id.as_str());
            of_agent.entry(name).or_default().push(head.clone());
        }
        for ((agent, _), lane) in &mut self.lanes {
            if !lane.has_room() || lane.scanned() < from {
                continue;
            }
            let name =
                self.names.get(agent).map(|(namespace, id)| (namespace.as_str(), id.as_str()));
            let heads = name.and_then(|name| of_agent.get(&name));
            lane.offer(heads.map_or(&[], Vec::as_slice), upto);
        }
    }

    /// The next attempt, one of each hook in turn.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<(LaneId, Delivery)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = match &self.turn {
            Some(turn) => first(self.lanes.range_mut((Excluded(turn.clone()), Unbounded)), now_ms),
            None => None,
        };
        let next = behind.or_else(|| first(self.lanes.range_mut::<LaneId, _>(..), now_ms));
        self.turn = next.as_ref().map(|(id, _)| id.clone());
        next
    }

    pub(super) fn lane(&mut self, id: &LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = (&LaneId, &Lane)> {
        self.lanes.iter()
    }

    /// Name of an agent.
    pub(super) fn agent_name(&self, agent: u32) -> &str {
        self.names.get(&agent).map_or("", |(_, name)| name)
    }

    pub(super) fn has_results(&self) -> bool {
        self.lanes.values().any(Lane::has_results)
    }

    /// What is to be recorded next, an agent a command.
    pub(super) fn take_batch(&mut self, idle: bool) -> Vec<RecordDeliveries> {
        let mut batch: Vec<RecordDeliveries> = Vec::new();
        for ((agent, _), lane) in &mut self.lanes {
            let is_full =
                batch.len() == AGENTS && batch.last().is_some_and(|it| it.agent != *agent);
            if is_full {
                break;
            }
            let Some(progress) = lane.take_batch(idle) else { continue };
            match batch.last_mut() {
                Some(last) if last.agent == *agent => last.hooks.push(progress),
                Some(_) | None => {
                    batch.push(RecordDeliveries { agent: *agent, hooks: vec![progress] });
                }
            }
        }
        batch
    }

    /// Whether a batch was recorded.
    pub(super) fn recorded(&mut self, batch: &[RecordDeliveries], done: bool) {
        for command in batch {
            for progress in &command.hooks {
                if let Some(lane) = self.lanes.get_mut(&(command.agent, progress.hook.clone())) {
                    lane.recorded(done);
                }
            }
        }
    }

    /// When the next attempt is due, if one is known.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.lanes.values().filter_map(Lane::next_due_ms).min()
    }
}

fn first<'a>(
    mut lanes: impl Iterator<Item = (&'a LaneId, &'a mut Lane)>,
    now_ms: u64,
) -> Option<(LaneId, Delivery)> {
    lanes.find_map(|(id, lane)| lane.next(now_ms).map(|delivery| (id.clone(), delivery)))
}

#[cfg(test)]
mod tests {
    use pinrail_proto::v1;
    use pinrail_state_machine::query::Place;

    use super::*;

    fn hooked(name: &str, cursor: u64) -> Hooked {
        Hooked {
            namespace: "default".to_owned(),
            agent_id: "support".to_owned(),
            hook: v1::Hook {
                name: name.to_owned(),
                events: vec!["*".to_owned()],
                ..v1::Hook::default()
            },
            cursor,
            pending: Vec::new(),
            over: Vec::new(),
        }
    }

    fn head(revision: u64, agent_id: &str) -> EventHead {
        EventHead {
            place: Place { revision, index: 0 },
            namespace: "default".to_owned(),
            agent_id: agent_id.to_owned(),
            type_: "route.switched".to_owned(),
            at_ms: 0,
            callback: String::new(),
        }
    }

    #[test]
    fn a_page_is_dealt_to_all_that_are_there_and_one_behind_reads_for_itself() {
        let mut book = Book::default();
        book.refresh(1, vec![hooked("behind", 2), hooked("here", 10)]);
        assert_eq!(book.read_from(), Some(2));
        book.deal(&[head(3, "support"), head(11, "support"), head(12, "other")], 2, 12);
        assert_eq!(book.read_from(), Some(12));
        let starts: Vec<_> = std::iter::from_fn(|| book.next(0))
            .map(|((_, hook), delivery)| (hook, delivery.place.revision))
            .collect();
        let at = |hook: &str, revision| (hook.to_owned(), revision);
        assert_eq!(starts, [at("behind", 3), at("here", 11), at("behind", 11)]);
    }

    #[test]
    fn a_hook_that_left_the_policy_is_forgotten() {
        let mut book = Book::default();
        book.refresh(1, vec![hooked("a", 0), hooked("b", 0)]);
        book.refresh(2, vec![hooked("c", 0)]);
        book.refresh(1, vec![hooked("b", 0)]);
        let names: Vec<_> = book.lanes().map(|(id, _)| id.1.clone()).collect();
        assert_eq!(names, ["b", "c"]);
        book.refresh(1, vec![]);
        assert_eq!(book.agents(), [2]);
    }
}
