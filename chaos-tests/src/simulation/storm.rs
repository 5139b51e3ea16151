//! What a seed means: which faults hit when, and when routes change.

use std::time::Duration;

use pinrail_node::storage::memory::Failure;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::history::InFlight;
use crate::workload::AdminStep;
use crate::workload::client::rng;

/// When the one switch is asked for, and time for its drain to be over, in milliseconds.
pub(super) const SWITCH_MS: u64 = 800;
const DRAINED_MS: u64 = 6_000;
/// Load goes on for so long after the last fault.
const QUIET: Duration = Duration::from_secs(2);

/// The part of a crash's unsynced writes that is there afterwards, in thousandths.
const TORN: [usize; 4] = [0, 0, 500, 1_000];

/// A fault of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The node is gone at once; its disk keeps what was synced, and this part of the rest.
    Crash { torn_permille: usize },
    /// Its disk fails, which a node must not outlive.
    Disk(Failure),
    /// The node and the others do not hear each other; clients hear both.
    Partition,
    /// It hears nobody, and is heard.
    Deaf,
    /// It is not heard, and hears.
    Mute,
    /// What it and the others send each other arrives when this is over, all at once.
    Hold,
    /// What it and the others send each other takes long, each message its own time.
    Slow,
}

impl Kind {
    /// Whether the node is down until it is healed.
    pub(super) fn ends_node(self) -> bool {
        matches!(self, Self::Crash { .. } | Self::Disk(_))
    }
}

/// What of all this a seed may draw: each is left out of half of the seeds, so that rare company is met too.
fn kinds(rng: &mut StdRng) -> Vec<Kind> {
    let torn = TORN[rng.random_range(0..TORN.len())];
    let mut kinds = vec![Kind::Crash { torn_permille: torn }; 2];
    let others = [Kind::Partition, Kind::Deaf, Kind::Mute, Kind::Hold, Kind::Slow];
    let disk = Failure::ALL.map(Kind::Disk);
    kinds.extend(others.into_iter().chain(disk).filter(|_| rng.random_ratio(1, 2)));
    kinds
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
    /// Members of the cluster.
    pub(super) nodes: usize,
    pub(super) lasts: Duration,
    pub(super) faults: Vec<PlannedFault>,
    /// Route changes, milliseconds after the beginning.
    pub(super) admin: Vec<(u64, AdminStep)>,
}

impl Storm {
    /// One switch, whose drain has a short cap, and no fault but those that the caller adds.
    pub(super) fn of_one_switch() -> Self {
        let admin = vec![(SWITCH_MS, AdminStep::SwitchTo("v2".to_owned()))];
        let lasts = Duration::from_millis(SWITCH_MS + DRAINED_MS);
        Self { nodes: 3, lasts, faults: Vec::new(), admin }
    }

    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = rng(seed, u32::MAX - 1);
        let nodes = if rng.random_ratio(1, 6) { 5 } else { 3 };
        let kinds = kinds(&mut rng);
        let mut at_ms = 500;
        let mut faults = Vec::new();
        for _ in 0..rng.random_range(2..=6) {
            let kind = kinds[rng.random_range(0..kinds.len())];
            let all = matches!(kind, Kind::Crash { .. }) && rng.random_ratio(1, 4);
            let hit = if all { (0..nodes).collect() } else { vec![rng.random_range(0..nodes)] };
            let lasts_ms = rng.random_range(100..2_500);
            at_ms += rng.random_range(200..2_000);
            let (at, lasts) = (Duration::from_millis(at_ms), Duration::from_millis(lasts_ms));
            faults.push(PlannedFault { at, lasts, kind, nodes: hit });
            // The next one may come while this one lasts.
            if rng.random_ratio(1, 2) {
                at_ms += lasts_ms;
            }
        }
        let end = faults.iter().map(|fault| fault.at + fault.lasts).max().unwrap_or_default();
        let lasts = end + QUIET;
        let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
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
        Self { nodes, lasts, faults, admin }
    }
}
