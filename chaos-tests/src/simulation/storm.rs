//! What a seed means: which faults hit when, and when routes change.

use std::time::Duration;

use rand::RngExt;

use super::NODES;
use crate::history::InFlight;
use crate::workload::AdminStep;
use crate::workload::client::rng;

/// When the one switch is asked for, and time for its drain to be over, in milliseconds.
pub(super) const SWITCH_MS: u64 = 800;
const DRAINED_MS: u64 = 6_000;

/// A fault of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The node is gone at once; its disk keeps what was synced.
    Crash,
    /// The node and the others do not hear each other; clients hear both.
    Partition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedFault {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) kind: Kind,
    pub(super) nodes: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storm {
    pub(super) lasts: Duration,
    pub(super) faults: Vec<PlannedFault>,
    /// Route changes, milliseconds after the beginning.
    pub(super) admin: Vec<(u64, AdminStep)>,
}

impl Storm {
    /// One switch, whose drain has a short cap, and no fault but those that the caller adds.
    pub(super) fn of_one_switch() -> Self {
        let admin = vec![(SWITCH_MS, AdminStep::SwitchTo("v2".to_owned()))];
        Self { lasts: Duration::from_millis(SWITCH_MS + DRAINED_MS), faults: Vec::new(), admin }
    }

    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = rng(seed, u32::MAX - 1);
        let mut at_ms = 500;
        let faults = (0..rng.random_range(2..=5)).map(|_| {
            let kind = if rng.random_ratio(2, 3) { Kind::Crash } else { Kind::Partition };
            let all = kind == Kind::Crash && rng.random_ratio(1, 4);
            let nodes = if all { (0..NODES).collect() } else { vec![rng.random_range(0..NODES)] };
            let lasts_ms = rng.random_range(100..2_500);
            at_ms += rng.random_range(200..2_000);
            let fault = PlannedFault {
                at: Duration::from_millis(at_ms),
                lasts: Duration::from_millis(lasts_ms),
                kind,
                nodes,
            };
            at_ms += lasts_ms;
            fault
        });
        let faults: Vec<_> = faults.collect();
        let lasts_ms = at_ms + 2_000;
        let mut admin = Vec::new();
        let mut change_ms = rng.random_range(500..2_000);
        while change_ms < lasts_ms {
            let step = if rng.random_ratio(1, 3) {
                let in_flight = [InFlight::Keep, InFlight::Cancel, InFlight::Restart];
                AdminStep::RollBack(in_flight[rng.random_range(0..3)])
            } else {
                AdminStep::SwitchTo(format!("v{}", rng.random_range(1..=3)))
            };
            admin.push((change_ms, step));
            change_ms += rng.random_range(800..4_000);
        }
        Self { lasts: Duration::from_millis(lasts_ms), faults, admin }
    }
}
