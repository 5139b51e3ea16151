//! What a layer sees.

use std::collections::VecDeque;

use pinrail_proto::log::{AgentRecord, Ancestor, MemoryRecord, RunRecord, Scratch};

use crate::bundle;
use crate::key::{Key, Kind};
use crate::mutant::{Mutant, is_planted};
use crate::store::{Fault, KeyRange, Order, Read, Row};
use crate::txn::decode;

use super::{Keys, Place, layer, scratch};

/// Rows that a look into a key's chain reads at a time, from the second time on; mostly the first one is it.
const CHUNK: usize = 32;

/// A layer's view: its own versions and those of its ancestors up to their limits. A scratch memory's: its own, and what
/// its base saw at one revision.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) agent: u32,
    /// 0: a scratch memory's.
    pub(crate) layer: u32,
    scratch: Option<Scratch>,
    /// 0: the latest, where time to live counts.
    at: u64,
    now: u64,
    sees: Vec<Ancestor>,
}

/// A version that a view sees.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) revision: u64,
    pub(crate) record: MemoryRecord,
}

impl View {
    /// The view of layer `number` at revision `at` (0: the latest). Layer 0 sees nothing.
    pub(crate) fn open(
        read: &dyn Read,
        agent: &AgentRecord,
        number: u32,
        at: u64,
        now: u64,
    ) -> Result<Self, Fault> {
        let mut sees = vec![Ancestor { layer: number, up_to_revision: u64::MAX }];
        if let Some(record) = layer(read, agent.number, number)? {
            if record.moving {
                sees.extend(base_of_candidate(read, agent)?);
            } else {
                sees.extend(record.ancestors);
            }
        }
        Ok(Self { agent: agent.number, layer: number, scratch: None, at, now, sees })
    }

    /// The view of a run.
    pub(crate) fn of_run(
        read: &dyn Read,
        agent: &AgentRecord,
        run: &RunRecord,
        at: u64,
        now: u64,
    ) -> Result<Self, Fault> {
        match run.scratch {
            Some(scratch) => Self::of_scratch(read, agent, scratch, at, now),
            None => Self::open(read, agent, run.layer, at, now),
        }
    }

    pub(super) fn of_scratch(
        read: &dyn Read,
        agent: &AgentRecord,
        scratch: Scratch,
        at: u64,
        now: u64,
    ) -> Result<Self, Fault> {
        let base = Self::open(read, agent, scratch.base_layer, at, now)?;
        let mut sees = vec![Ancestor { layer: 0, up_to_revision: u64::MAX }];
        sees.extend(base.sees.into_iter().map(|seen| Ancestor {
            up_to_revision: seen.up_to_revision.min(scratch.base_revision),
            ..seen
        }));
        Ok(Self { layer: 0, scratch: Some(scratch), sees, ..base })
    }

    /// The newest version of a key that this view sees, deletions left out.
    pub(crate) fn find(&self, read: &dyn Read, key: &str) -> Result<Option<Found>, Fault> {
        let newest = self.newest(read, key)?;
        Ok(newest.filter(|found| found.record.value.is_some() && !self.is_over(&found.record)))
    }

    /// The newest version of a key that this view sees, be it a deletion or over.
    pub(crate) fn newest(&self, read: &dyn Read, key: &str) -> Result<Option<Found>, Fault> {
        let mut chain = self.versions(key, u64::MAX);
        let mut ends: Vec<Found> = Vec::new();
        while let Some(found) = chain.next(read)? {
            if !self.sees(&found) {
                continue;
            }
            if found.record.ended {
                // It speaks only of its layer's version before it: another layer's may be newer than that one.
                ends.push(found);
                continue;
            }
            let end = ends.into_iter().find(|end| end.record.layer == found.record.layer);
            return Ok(Some(end.unwrap_or(found)));
        }
        Ok(None)
    }

    pub(crate) fn is_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    /// The versions of a key that this view may see, newest first, those before a revision.
    pub(crate) fn versions(&self, key: &str, before: u64) -> Chain {
        let Some(scratch) = self.scratch else { return Chain::older_than(self.agent, key, before) };
        let base = Chain::older_than(self.agent, key, before.min(scratch.base_revision + 1));
        base.behind(scratch::versions(self.agent, scratch.number, key, before))
    }

    /// The keys with a prefix that this view may see versions of, in order, behind one; an empty one: from the first.
    pub(crate) fn keys(&self, prefix: &str, behind: &str) -> Keys {
        let scratch = self.scratch.map(|scratch| Place::Scratch(scratch.number));
        Keys::of(self.agent, [Place::Chains].into_iter().chain(scratch), prefix, behind)
    }

    /// Whether the end of a time to live took away what this view saw.
    pub(crate) fn sees_end(&self, read: &dyn Read, key: &str, end: &Found) -> Result<bool, Fault> {
        let mut older = Chain::older_than(self.agent, key, end.revision);
        while let Some(found) = older.next(read)? {
            if self.sees(&found) && !found.record.ended {
                return Ok(found.record.layer == end.record.layer);
            }
        }
        Ok(false)
    }

    /// Where the keys are of which two views may not see the same.
    pub(crate) fn apart(&self, other: &Self) -> Vec<Place> {
        let lacks = |these: &[Ancestor], those: &[Ancestor]| {
            let missing = these.iter().filter(|a| !those.contains(a)).map(|a| a.layer);
            missing.collect::<Vec<u32>>()
        };
        let mut layers = lacks(&self.sees, &other.sees);
        layers.extend(lacks(&other.sees, &self.sees));
        layers.sort_unstable();
        layers.dedup();
        let scratch = [self.scratch, other.scratch].into_iter().flatten();
        let scratch = scratch.map(|scratch| Place::Scratch(scratch.number));
        layers.into_iter().map(Place::Layer).chain(scratch).collect()
    }

    pub(crate) fn sees(&self, found: &Found) -> bool {
        let in_time = self.at == 0 || found.revision <= self.at;
        let of_layer = |a: &Ancestor| {
            a.layer == found.record.layer
                && (found.revision <= a.up_to_revision || is_planted(Mutant::SeesLateWrites))
        };
        in_time && self.sees.iter().any(of_layer)
    }

    /// Reads of the latest check cluster time; reads as of a revision see what was there, and so does who begins with one.
    pub(crate) fn is_over(&self, record: &MemoryRecord) -> bool {
        let is_of_base = self.scratch.is_some() && record.layer != 0;
        self.at == 0 && !is_of_base && record.expires_ms != 0 && record.expires_ms <= self.now
    }
}

/// A candidate sees the live layer as it moves.
fn base_of_candidate(read: &dyn Read, agent: &AgentRecord) -> Result<Vec<Ancestor>, Fault> {
    let Some(live) = bundle::find(read, agent.number, &agent.live_bundle_id)? else {
        return Ok(Vec::new());
    };
    let mut sees = vec![Ancestor { layer: live.layer, up_to_revision: u64::MAX }];
    if let Some(base) = layer(read, agent.number, live.layer)? {
        sees.extend(base.ancestors);
    }
    Ok(sees)
}

/// The versions of a key of every layer, newest first, a few at a time.
#[derive(Debug)]
pub(crate) struct Chain {
    /// What is to be read yet, in order.
    rest: VecDeque<KeyRange>,
    ahead: VecDeque<Row>,
    chunk: usize,
}

impl Chain {
    pub(crate) fn of(agent: u32, key: &str) -> Self {
        Self::read_from(Key::of(Kind::Memory, agent).text(key).range())
    }

    fn read_from(rest: KeyRange) -> Self {
        Self { rest: VecDeque::from([rest]), ahead: VecDeque::new(), chunk: 1 }
    }

    /// These come behind other versions.
    fn behind(mut self, newer: KeyRange) -> Self {
        self.rest.push_front(newer);
        self
    }

    /// The versions older than a revision.
    pub(crate) fn older_than(agent: u32, key: &str, revision: u64) -> Self {
        let all = Key::of(Kind::Memory, agent).text(key).range();
        Self::read_from(all.after(&super::version_key(agent, key, revision)))
    }

    pub(crate) fn next(&mut self, read: &dyn Read) -> Result<Option<Found>, Fault> {
        while self.ahead.is_empty()
            && let Some(rest) = self.rest.pop_front()
        {
            let rows = read.scan(&rest, Order::Ascending, self.chunk)?;
            let more = rows.len() == self.chunk;
            self.chunk = if more { CHUNK } else { 1 };
            if let Some((last, _)) = rows.last().filter(|_| more) {
                self.rest.push_front(rest.after(last));
            }
            self.ahead = rows.into();
        }
        let Some((row, value)) = self.ahead.pop_front() else { return Ok(None) };
        Ok(Some(Found { revision: revision_of(&row)?, record: decode(&row, &value)? }))
    }

    /// The next version of one layer.
    pub(crate) fn next_of(&mut self, read: &dyn Read, layer: u32) -> Result<Option<Found>, Fault> {
        while let Some(found) = self.next(read)? {
            if found.record.layer == layer {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn revision_of(row: &[u8]) -> Result<u64, Fault> {
    let tail =
        row.last_chunk::<8>().ok_or_else(|| Fault("a memory row is too short".to_owned()))?;
    Ok(u64::MAX - u64::from_be_bytes(*tail))
}
