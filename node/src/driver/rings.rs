//! What steps emit while they run, for those who watch: in the leader's memory, bounded, gone with the leader.
//!
//! A run's ring keeps its last chunks. Chunks are numbered, so that a watcher knows its place; what it missed it is told
//! of as a gap. Pure bookkeeping: instants come in as arguments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pinrail_proto::{limits, v1};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of all rings of a leader.
const BYTES: usize = 64 << 20;
/// Runs that have a ring.
const RINGS: usize = 20_000;
/// For so long after its end a run's chunks can still be read by who is behind.
const LINGER: Duration = Duration::from_secs(10);

/// An agent's number and a run.
type RunKey = (u32, String);

/// Chunks behind a place.
#[derive(Debug, Default)]
pub(crate) struct Emitted {
    pub(crate) chunks: Vec<v1::Chunk>,
    /// Some before these were lost.
    pub(crate) gap: bool,
    pub(crate) place: v1::ChunkPlace,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    chunk: v1::Chunk,
    /// Chunks between this one and the one before it never came.
    gap: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.chunk.value.as_ref().map_or(0, |value| value.data.len())
    }
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Number of the last chunk.
    last: u64,
    /// By step: the attempt that emitted last, and its sequence.
    steps: BTreeMap<u32, (u32, u64)>,
    changed: Arc<Notify>,
    /// Which of all rings it is, counted from the first.
    made: u64,
}

/// The rings of a leader.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    term: u64,
    rings: BTreeMap<RunKey, Ring>,
    /// In the order in which they were made: the oldest goes first when there are too many.
    order: BTreeMap<u64, RunKey>,
    made: u64,
    closed: VecDeque<(Instant, RunKey)>,
    bytes: usize,
}

impl Rings {
    pub(crate) fn for_term(term: u64) -> Self {
        Self { term, ..Self::default() }
    }

    /// Takes a chunk in. One that is too large, or that came before, is left out.
    pub(crate) fn emit(&mut self, agent: u32, run_id: &str, step: u32, it: v1::Emit, now: Instant) {
        self.forget_closed(now);
        let size = it.value.as_ref().map_or(0, |value| value.data.len());
        if size > limits::CHUNK_BYTES {
            return;
        }
        let ring = self.ring(agent, run_id);
        let before = ring.steps.get(&step).copied();
        let (attempt, sequence) = before.unwrap_or_default();
        if attempt > it.attempt || (attempt == it.attempt && sequence >= it.sequence) {
            return;
        }
        let restarted = before.is_some() && attempt < it.attempt;
        let expected = if attempt == it.attempt { sequence + 1 } else { 1 };
        ring.steps.insert(step, (it.attempt, it.sequence));
        ring.last += 1;
        let chunk = v1::Chunk {
            step,
            attempt: it.attempt,
            sequence: it.sequence,
            value: it.value,
            restarted,
        };
        ring.entries.push_back(Entry { number: ring.last, chunk, gap: it.sequence != expected });
        ring.bytes += size;
        let mut dropped = 0;
        while ring.entries.len() > limits::CHUNKS || ring.bytes > limits::CHUNKS_BYTES {
            let Some(entry) = ring.entries.pop_front() else { break };
            ring.bytes -= entry.bytes();
            dropped += entry.bytes();
        }
        ring.changed.notify_waiters();
        self.bytes = (self.bytes + size).saturating_sub(dropped);
        self.bound();
    }

    /// Chunks of a run behind a place.
    pub(crate) fn read(&mut self, agent: u32, run_id: &str, after: v1::ChunkPlace) -> Emitted {
        let term = self.term;
        let ring = self.ring(agent, run_id);
        // A place of another leader, or of a ring that was dropped since: what was there is lost.
        let known = after.number == 0 || (after.term == term && after.number <= ring.last);
        let behind = if known { after.number } else { 0 };
        let entries = || ring.entries.iter().filter(|entry| entry.number > behind);
        let oldest = entries().next().map_or(ring.last + 1, |entry| entry.number);
        Emitted {
            gap: !known || oldest > behind + 1 || entries().any(|entry| entry.gap),
            chunks: entries().map(|entry| entry.chunk.clone()).collect(),
            place: v1::ChunkPlace { term, number: ring.last },
        }
    }

    /// Tells of chunks of a run that come from now on, and of the ring's end.
    pub(crate) fn signal(&mut self, agent: u32, run_id: &str) -> Arc<Notify> {
        Arc::clone(&self.ring(agent, run_id).changed)
    }

    /// The run is over: who reads its chunks has a while to finish.
    pub(crate) fn closed(&mut self, agent: u32, run_id: &str, now: Instant) {
        self.forget_closed(now);
        let key = (agent, run_id.to_owned());
        if self.rings.contains_key(&key) {
            self.closed.push_back((now, key));
        }
    }

    fn ring(&mut self, agent: u32, run_id: &str) -> &mut Ring {
        let key = (agent, run_id.to_owned());
        self.rings.entry(key).or_insert_with_key(|key| {
            self.made += 1;
            self.order.insert(self.made, key.clone());
            Ring { made: self.made, ..Ring::default() }
        })
    }

    fn forget_closed(&mut self, now: Instant) {
        while let Some((at, _)) = self.closed.front()
            && *at + LINGER <= now
            && let Some((_, key)) = self.closed.pop_front()
        {
            self.forget(&key);
        }
    }

    fn bound(&mut self) {
        while (self.bytes > BYTES || self.rings.len() > RINGS)
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &RunKey) {
        if let Some(ring) = self.rings.remove(key) {
            self.order.remove(&ring.made);
            self.bytes = self.bytes.saturating_sub(ring.bytes);
            ring.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit(attempt: u32, sequence: u64, text: &str) -> v1::Emit {
        let value = v1::Payload { content_type: "text/plain".into(), data: text.to_owned().into() };
        v1::Emit { token: None, sequence, value: Some(value), attempt }
    }

    fn texts(emitted: &Emitted) -> Vec<String> {
        let text = |chunk: &v1::Chunk| {
            let data = chunk.value.clone().unwrap_or_default().data;
            String::from_utf8_lossy(&data).into_owned()
        };
        emitted.chunks.iter().map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_gets_each_chunk_once_and_in_order() {
        let (mut rings, now) = (Rings::for_term(3), Instant::now());
        for (sequence, text) in [(1, "a"), (2, "b")] {
            rings.emit(1, "r", 1, emit(1, sequence, text), now);
        }
        let first = rings.read(1, "r", v1::ChunkPlace::default());
        assert_eq!((texts(&first), first.gap), (vec!["a".to_owned(), "b".into()], false));
        rings.emit(1, "r", 1, emit(1, 2, "b"), now);
        rings.emit(1, "r", 1, emit(1, 3, "c"), now);
        let second = rings.read(1, "r", first.place);
        assert_eq!((texts(&second), second.gap), (vec!["c".to_owned()], false));
        let place = v1::ChunkPlace { term: 2, number: 1 };
        assert!(rings.read(1, "r", place).gap, "a place of the leader before");
    }

    #[tokio::test(start_paused = true)]
    async fn another_attempt_says_that_it_restarted() {
        let (mut rings, now) = (Rings::for_term(1), Instant::now());
        rings.emit(1, "r", 1, emit(1, 1, "a"), now);
        rings.emit(1, "r", 1, emit(2, 1, "b"), now);
        rings.emit(1, "r", 1, emit(1, 2, "late"), now);
        rings.emit(1, "r", 2, emit(1, 1, "c"), now);
        let all = rings.read(1, "r", v1::ChunkPlace::default());
        assert_eq!(texts(&all), ["a", "b", "c"]);
        let restarted: Vec<bool> = all.chunks.iter().map(|chunk| chunk.restarted).collect();
        assert_eq!(restarted, [false, true, false]);
        assert!(!all.gap);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_dropped_or_never_came_is_a_gap() {
        let (mut rings, now) = (Rings::for_term(1), Instant::now());
        rings.emit(1, "r", 1, emit(1, 2, "x"), now);
        assert!(rings.read(1, "r", v1::ChunkPlace::default()).gap, "the first one never came");
        for sequence in 3..=limits::CHUNKS as u64 + 9 {
            rings.emit(1, "r", 1, emit(1, sequence, "y"), now);
        }
        let place = v1::ChunkPlace { term: 1, number: 1 };
        let rest = rings.read(1, "r", place);
        assert_eq!((rest.chunks.len(), rest.gap), (limits::CHUNKS, true));
        let last = rings.read(1, "r", rest.place);
        assert!(last.chunks.is_empty() && !last.gap);
    }

    #[tokio::test(start_paused = true)]
    async fn rings_are_bounded_and_end_with_their_runs() {
        let (mut rings, now) = (Rings::for_term(1), Instant::now());
        let large = "z".repeat(limits::CHUNK_BYTES);
        for run in 0..2_000 {
            rings.emit(1, &format!("r{run}"), 1, emit(1, 1, &large), now);
        }
        assert!(rings.bytes <= BYTES && rings.rings.len() == BYTES / limits::CHUNK_BYTES);
        rings.emit(1, "r", 1, emit(1, 1, &format!("{large}!")), now);
        assert!(rings.read(1, "r", v1::ChunkPlace::default()).chunks.is_empty(), "too large");
        rings.closed(1, "r1999", now);
        rings.closed(1, "none", now + LINGER);
        assert!(rings.read(1, "r1999", v1::ChunkPlace::default()).chunks.is_empty());
    }
}
