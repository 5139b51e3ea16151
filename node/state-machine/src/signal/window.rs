//! Sliding windows: what runs were like that ended, summed up by bundle, kind of run and span of time.
//!
//! ```text
//!   now ──> fine slices, a tenth of the window wide ──older than the windows──> coarse slices ──older than the baseline──> gone
//! ```
//! The end of a run changes one small row. Whoever begins a new fine slice moves a bounded number of old ones on, so there
//! are never more than [`FINE_SLICES`] and [`COARSE_SLICES`] that count.

use pinrail_proto::log::{AgentRecord, SliceRecord};
use pinrail_proto::v1::RunKind;

use crate::key::{Key, Kind, Parts, RowKey};
use crate::outcome::Stop;
use crate::store::{Fault, KeyRange, Order, Read, Row};
use crate::txn::{Txn, decode};

use super::histogram;
use super::settings::Windows;

/// A window moves by so many parts of itself.
const PARTS: u64 = 10;
/// Narrowest slice.
const LEAST_MS: u64 = 100;
/// Fine slices of one bundle and kind that are kept at most.
const FINE_SLICES: u64 = 240;
/// Coarse slices of one baseline.
const COARSE_SLICES: u64 = 96;
/// Old slices that a new one moves on.
const MOVED: usize = 64;

/// How fine a slice is; part of its key.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Grain {
    Fine = 0,
    Coarse = 1,
}

/// How wide slices are, and how long they are kept.
#[derive(Debug, Clone, Copy)]
struct Spans {
    fine_ms: u64,
    fine_kept_ms: u64,
    coarse_ms: u64,
    coarse_kept_ms: u64,
}

impl Spans {
    fn of(windows: Windows) -> Self {
        let fine_ms = (windows.window_ms / PARTS).max(LEAST_MS);
        let asked_ms = windows.window_ms.max(windows.scores_ms);
        let fine_kept_ms = asked_ms.min(fine_ms * FINE_SLICES).max(windows.window_ms) + fine_ms;
        let coarse_ms = (windows.baseline_ms / COARSE_SLICES).max(fine_ms);
        Self { fine_ms, fine_kept_ms, coarse_ms, coarse_kept_ms: windows.baseline_ms }
    }
}

/// Kinds of runs that are compared; the others serve tests alone.
pub(super) fn is_compared(kind: RunKind) -> bool {
    match kind {
        RunKind::Live | RunKind::Canary | RunKind::Shadow => true,
        RunKind::Unspecified | RunKind::Eval | RunKind::Smoke | RunKind::Drill => false,
    }
}

/// Changes the present slice of a bundle and kind.
pub(super) fn change(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    (bundle_id, kind): (&str, RunKind),
    change: impl FnOnce(&mut SliceRecord),
) -> Result<(), Stop> {
    let spans = Spans::of(Windows::of_agent(agent));
    let begin_ms = txn.now / spans.fine_ms * spans.fine_ms;
    let row = key(agent.number, bundle_id, kind, Grain::Fine).u64(begin_ms).build();
    let found: Option<SliceRecord> = txn.get(&row)?;
    if found.is_none() {
        move_on(txn, agent.number, (bundle_id, kind), spans)?;
    }
    let mut slice = found.unwrap_or_default();
    change(&mut slice);
    txn.put(row, &slice);
    Ok(())
}

/// Changes a slice of the past, if it is still a fine one.
pub(super) fn change_past(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    (bundle_id, kind): (&str, RunKind),
    at_ms: u64,
    change: impl FnOnce(&mut SliceRecord),
) -> Result<(), Stop> {
    let fine_ms = Spans::of(Windows::of_agent(agent)).fine_ms;
    let begin_ms = at_ms / fine_ms * fine_ms;
    let row = key(agent.number, bundle_id, kind, Grain::Fine).u64(begin_ms).build();
    if let Some(mut slice) = txn.get::<SliceRecord>(&row)? {
        change(&mut slice);
        txn.put(row, &slice);
    }
    Ok(())
}

/// Adds old fine slices to their coarse ones, and drops coarse ones that are older than the baseline.
fn move_on(
    txn: &mut Txn<'_>,
    agent: u32,
    (bundle_id, kind): (&str, RunKind),
    spans: Spans,
) -> Result<(), Stop> {
    let now = txn.now;
    let older = |grain, kept_ms: u64| KeyRange {
        start: key(agent, bundle_id, kind, grain).build(),
        end: key(agent, bundle_id, kind, grain).u64(now.saturating_sub(kept_ms)).build(),
    };
    for (row, value) in txn.scan(&older(Grain::Fine, spans.fine_kept_ms), MOVED)? {
        let begin_ms = begin_of(&row)? / spans.coarse_ms * spans.coarse_ms;
        let coarse = key(agent, bundle_id, kind, Grain::Coarse).u64(begin_ms).build();
        let mut sum: SliceRecord = txn.get(&coarse)?.unwrap_or_default();
        merge(&mut sum, &decode(&row, &value)?);
        txn.put(coarse, &sum);
        txn.delete(RowKey::from_slice(&row));
    }
    let kept_ms = spans.coarse_kept_ms + spans.coarse_ms;
    for (row, _) in txn.scan(&older(Grain::Coarse, kept_ms), MOVED)? {
        txn.delete(RowKey::from_slice(&row));
    }
    Ok(())
}

/// What a bundle's runs of these kinds were like since a moment, with all of the fine slice that it lies in.
pub(crate) fn sum(
    read: &dyn Read,
    agent: &AgentRecord,
    bundle_id: &str,
    kinds: &[RunKind],
    since_ms: u64,
) -> Result<SliceRecord, Fault> {
    let fine_ms = Spans::of(Windows::of_agent(agent)).fine_ms;
    let grains = [(Grain::Coarse, since_ms), (Grain::Fine, since_ms / fine_ms * fine_ms)];
    let mut sum = SliceRecord::default();
    for kind in kinds {
        for (grain, from_ms) in grains {
            let all = key(agent.number, bundle_id, *kind, grain);
            let mut range = all.clone().range();
            range.start = all.u64(from_ms).build();
            for (row, value) in read.scan(&range, Order::Ascending, usize::MAX)? {
                merge(&mut sum, &decode(&row, &value)?);
            }
        }
    }
    Ok(sum)
}

/// Forgets what a bundle's runs were like: at most a few hundred rows.
pub(crate) fn forget(txn: &mut Txn<'_>, agent: u32, bundle_id: &str) -> Result<(), Stop> {
    let rows: Vec<Row> = txn.scan(&of_bundle(agent, bundle_id).range(), usize::MAX)?;
    for (row, _) in rows {
        txn.delete(RowKey::from_slice(&row));
    }
    Ok(())
}

fn merge(into: &mut SliceRecord, other: &SliceRecord) {
    into.completed += other.completed;
    into.failed += other.failed;
    into.cancelled += other.cancelled;
    into.cost_micros = into.cost_micros.saturating_add(other.cost_micros);
    histogram::merge(&mut into.latency, &other.latency);
    histogram::merge(&mut into.cut, &other.cut);
    into.scored += other.scored;
    into.score_sum_permille += other.score_sum_permille;
}

fn of_bundle(agent: u32, bundle_id: &str) -> Key {
    Key::of(Kind::SignalSlice, agent).text(bundle_id)
}

fn key(agent: u32, bundle_id: &str, kind: RunKind, grain: Grain) -> Key {
    let number = u8::try_from(i32::from(kind)).unwrap_or(0);
    of_bundle(agent, bundle_id).u8(number).u8(grain as u8)
}

/// When a slice begins.
fn begin_of(row: &[u8]) -> Result<u64, Fault> {
    let mut parts = Parts::new(row);
    let _ = (parts.u32(), parts.text(), parts.u8(), parts.u8());
    parts.u64().ok_or_else(|| Fault(format!("key {} does not come apart", hex::encode(row))))
}
