//! What a seed means: when which fault hits, and when routes change. Printed whole, so that a finding can be read.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::cluster::Ground;
use crate::history::{FaultKind, InFlight, Needs};
use crate::workload::AdminStep;
use crate::workload::client::rng;

/// Bundles of an agent in a storm.
pub const BUNDLES: usize = 4;

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFault {
    pub at_ms: u64,
    pub kind: FaultKind,
    /// A second one, which comes while the first one lasts.
    pub and: Option<FaultKind>,
    /// How long it lasts, before the process is started again or thawed.
    pub lasts_ms: u64,
}

impl PlannedFault {
    /// The fault, and the one that comes with it.
    #[must_use]
    pub fn kinds(&self) -> Vec<FaultKind> {
        [self.kind].into_iter().chain(self.and).collect()
    }
}

/// Everything that a storm does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    pub lasts_ms: u64,
    pub clients: u32,
    pub faults: Vec<PlannedFault>,
    /// Route changes of the agent with workers, and of the external one.
    pub admin: Vec<(u64, AdminStep)>,
    pub external_admin: Vec<(u64, AdminStep)>,
}

/// The bundle by its number.
#[must_use]
pub fn bundle(number: usize) -> String {
    format!("v{number}")
}

/// Faults of processes, by their weights.
const PROCESSES: [FaultKind; 11] = [
    FaultKind::KillLeader,
    FaultKind::KillLeader,
    FaultKind::KillLeader,
    FaultKind::PauseLeader,
    FaultKind::PauseLeader,
    FaultKind::StopLeader,
    FaultKind::KillFollower,
    FaultKind::PauseFollower,
    FaultKind::KillAll,
    FaultKind::KillWorker,
    FaultKind::PauseWorker,
];

/// Faults of the network between the members, of their disks, processors and clocks, where they have their own.
const SURROUNDINGS: [FaultKind; 15] = [
    FaultKind::PartitionLeader,
    FaultKind::PartitionLeaderIn,
    FaultKind::PartitionLeaderOut,
    FaultKind::PartitionFollower,
    FaultKind::PartitionBridge,
    FaultKind::LosePower,
    FaultKind::FailSync,
    FaultKind::SlowSync,
    FaultKind::FillDisk,
    FaultKind::ReadOnlyDisk,
    FaultKind::StarveLeader,
    FaultKind::SkewClock,
    FaultKind::SlowNetwork,
    FaultKind::LossyNetwork,
    FaultKind::WildNetwork,
];

/// What may come while another fault lasts: it finds its victim also with one member less.
const SECOND: [FaultKind; 5] = [
    FaultKind::KillFollower,
    FaultKind::PauseFollower,
    FaultKind::KillLeader,
    FaultKind::KillWorker,
    FaultKind::PauseWorker,
];

/// Kinds of faults that storms on a ground draw from.
fn kinds(ground: Ground) -> Vec<FaultKind> {
    match ground {
        Ground::Loopback => PROCESSES.to_vec(),
        Ground::Namespaces | Ground::Weather => [&PROCESSES[..], &SURROUNDINGS[..]].concat(),
    }
}

/// The kinds, each once: as many storms in a row meet them all.
#[must_use]
pub fn distinct_kinds(ground: Ground) -> BTreeSet<FaultKind> {
    kinds(ground).into_iter().collect()
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64, lasts: Duration, ground: Ground) -> Self {
        let mut rng = rng(seed, u32::MAX);
        let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let admin = route_changes(&mut rng, lasts_ms);
        let external_admin = route_changes(&mut rng, lasts_ms);
        let mut faults = faults(&mut rng, lasts_ms, &admin, ground);
        // Chance alone may leave a kind out of many storms: each seed has one of its own.
        let distinct = distinct_kinds(ground);
        let own = distinct.iter().nth(usize::try_from(seed).unwrap_or(0) % distinct.len());
        if let (Some(first), Some(own)) = (faults.first_mut(), own) {
            (first.kind, first.and) = (*own, None);
        }
        Self { seed, lasts_ms, clients: rng.random_range(4..=6), faults, admin, external_admin }
    }

    /// The same storm with one kind of fault only.
    #[must_use]
    pub fn only(mut self, kind: FaultKind) -> Self {
        for fault in &mut self.faults {
            (fault.kind, fault.and) = (kind, None);
        }
        self
    }

    /// Where its members must be.
    #[must_use]
    pub fn ground(&self) -> Ground {
        if self.needs(Needs::Weather) {
            Ground::Weather
        } else if self.needs(Needs::Network) {
            Ground::Namespaces
        } else {
            Ground::Loopback
        }
    }

    /// Whether one of its faults needs this.
    #[must_use]
    pub fn needs(&self, needs: Needs) -> bool {
        self.faults.iter().flat_map(PlannedFault::kinds).any(|kind| kind.needs() == needs)
    }
}

fn route_changes(rng: &mut StdRng, lasts_ms: u64) -> Vec<(u64, AdminStep)> {
    let mut steps = Vec::new();
    let mut at_ms = 1_500;
    // What is live before: the scenario itself puts the first bundle live.
    let mut stack = vec![1];
    while at_ms + 1_000 < lasts_ms {
        if stack.len() > 1 && rng.random_ratio(2, 5) {
            stack.pop();
            let in_flight = match rng.random_range(0..4) {
                0 => InFlight::Cancel,
                1 => InFlight::Restart,
                _ => InFlight::Keep,
            };
            steps.push((at_ms, AdminStep::RollBack(in_flight)));
            // One rollback of a switch; the next change is a switch again.
            stack.truncate(1);
        } else {
            let live = stack.last().copied().unwrap_or(1);
            let next = 1 + (live + rng.random_range(0..BUNDLES - 1)) % BUNDLES;
            let next = if next == live { 1 + next % BUNDLES } else { next };
            stack = vec![live, next];
            steps.push((at_ms, AdminStep::SwitchTo(bundle(next))));
        }
        at_ms += rng.random_range(1_500..4_500);
    }
    steps
}

fn faults(
    rng: &mut StdRng,
    lasts_ms: u64,
    admin: &[(u64, AdminStep)],
    ground: Ground,
) -> Vec<PlannedFault> {
    let kinds = kinds(ground);
    let mut faults = Vec::new();
    let mut at_ms = 2_000 + rng.random_range(0..1_000);
    while at_ms + 2_500 < lasts_ms {
        let kind = kinds[rng.random_range(0..kinds.len())];
        // Every other fault hits at a route change, a moment before it or right in it.
        let near = admin.iter().map(|(at, _)| *at).find(|at| *at >= at_ms && *at < at_ms + 2_500);
        if let Some(change) = near.filter(|_| rng.random_ratio(1, 2)) {
            at_ms = change.saturating_sub(20) + rng.random_range(0..60);
        }
        let lasts_ms = match kind {
            FaultKind::PauseLeader | FaultKind::PauseFollower => rng.random_range(300..3_000),
            FaultKind::SlowSync | FaultKind::StarveLeader => rng.random_range(1_000..4_000),
            kind if matches!(kind.needs(), Needs::Network | Needs::Weather) => {
                rng.random_range(300..3_000)
            }
            // Longer than a lease, so that it comes back with a stale one.
            FaultKind::PauseWorker => rng.random_range(2_000..4_000),
            _ => rng.random_range(100..1_500),
        };
        let stops_all = matches!(kind, FaultKind::KillAll | FaultKind::LosePower);
        let and = (!stops_all && rng.random_ratio(1, 3))
            .then(|| SECOND[rng.random_range(0..SECOND.len())]);
        faults.push(PlannedFault { at_ms, kind, and, lasts_ms });
        at_ms += lasts_ms + rng.random_range(1_500..3_500);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_plan_twice_and_others_another() {
        let plan = |seed| Plan::draw(seed, Duration::from_secs(20), Ground::Namespaces);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn as_many_seeds_as_there_are_kinds_meet_them_all() {
        for ground in [Ground::Loopback, Ground::Namespaces] {
            let wanted = distinct_kinds(ground);
            let seeds = 5..5 + wanted.len() as u64;
            let plans = seeds.map(|seed| Plan::draw(seed, Duration::from_secs(20), ground));
            let met: BTreeSet<FaultKind> =
                plans.flat_map(|plan| plan.faults).flat_map(|fault| fault.kinds()).collect();
            assert_eq!(met, wanted);
        }
    }

    #[test]
    fn no_plan_switches_to_the_live_bundle() {
        for seed in 0..200 {
            let plan = Plan::draw(seed, Duration::from_secs(60), Ground::Loopback);
            let mut stack = vec![bundle(1)];
            for (_, step) in &plan.admin {
                match step {
                    AdminStep::SwitchTo(to) => {
                        assert_ne!(stack.last(), Some(to), "seed {seed}");
                        stack.push(to.clone());
                    }
                    AdminStep::RollBack(_) => {
                        stack.pop();
                        assert!(!stack.is_empty(), "seed {seed}");
                    }
                }
            }
        }
    }
}
