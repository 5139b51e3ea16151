//! What a layer sees.

use pinrail_proto::log::{AgentRecord, Ancestor, MemoryRecord};

use crate::bundle;
use crate::key::{Key, Kind};
use crate::store::{Fault, Order, Read};
use crate::txn::decode;

use super::layer;

/// Rows that one look into a key's chain reads at a time.
const CHUNK: usize = 32;

/// A layer's view: its own versions and those of its ancestors up to their limits.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) agent: u32,
    pub(crate) layer: u32,
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
        Ok(Self { agent: agent.number, layer: number, at, now, sees })
    }

    /// The newest version of a key that this view sees, deletions left out.
    pub(crate) fn find(&self, read: &dyn Read, key: &str) -> Result<Option<Found>, Fault> {
        let newest = self.newest(read, key)?;
        Ok(newest.filter(|found| found.record.value.is_some() && !self.is_over(&found.record)))
    }

    /// The newest version of a key that this view sees, be it a deletion.
    fn newest(&self, read: &dyn Read, key: &str) -> Result<Option<Found>, Fault> {
        let mut range = Key::of(Kind::Memory, self.agent).text(key).range();
        loop {
            let rows = read.scan(&range, Order::Ascending, CHUNK)?;
            for (row, value) in &rows {
                let found = Found { revision: revision_of(row)?, record: decode(row, value)? };
                if self.sees(&found) {
                    return Ok(Some(found));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == CHUNK => range = range.after(last),
                Some(_) | None => return Ok(None),
            }
        }
    }

    pub(crate) fn sees(&self, found: &Found) -> bool {
        let in_time = self.at == 0 || found.revision <= self.at;
        let of_layer =
            |a: &Ancestor| a.layer == found.record.layer && found.revision <= a.up_to_revision;
        in_time && self.sees.iter().any(of_layer)
    }

    /// Reads of the latest check cluster time; reads as of a revision see what was there.
    fn is_over(&self, record: &MemoryRecord) -> bool {
        self.at == 0 && record.expires_ms != 0 && record.expires_ms <= self.now
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

/// All versions of a key, newest first, of every layer.
pub(crate) fn versions(read: &dyn Read, agent: u32, key: &str) -> Result<Vec<Found>, Fault> {
    let range = Key::of(Kind::Memory, agent).text(key).range();
    let rows = read.scan(&range, Order::Ascending, usize::MAX)?;
    rows.iter()
        .map(|(row, value)| Ok(Found { revision: revision_of(row)?, record: decode(row, value)? }))
        .collect()
}

fn revision_of(row: &[u8]) -> Result<u64, Fault> {
    let tail =
        row.last_chunk::<8>().ok_or_else(|| Fault("a memory row is too short".to_owned()))?;
    Ok(u64::MAX - u64::from_be_bytes(*tail))
}
