//! Injects the faults of a storm and heals them as simulated time goes by.

use std::time::Duration;

use pinrail_node::storage::memory::Disk;

use super::storm::{Kind, PlannedFault, Storm};
use super::world;
use crate::history::{Fault, FaultKind, Recorder};

/// A leader that crashes at an entry is down for so long.
const DOWN: Duration = Duration::from_millis(1_500);
/// What a message may take in good weather and on a slow link.
pub(super) const QUICK: Duration = Duration::from_millis(8);
const SLOW: Duration = Duration::from_millis(150);

pub(super) struct Weather<'a> {
    storm: &'a Storm,
    disks: &'a [Disk],
    recorder: &'a Recorder,
    next: usize,
    /// Faults that last, with the moments when they began and end.
    active: Vec<(Duration, Duration, PlannedFault)>,
    /// Who writes the entry with this index first crashes.
    crash_at: Option<u64>,
}

impl<'a> Weather<'a> {
    pub(super) fn new(
        storm: &'a Storm,
        disks: &'a [Disk],
        recorder: &'a Recorder,
        crash_at: Option<u64>,
    ) -> Self {
        Self { storm, disks, recorder, next: 0, active: Vec::new(), crash_at }
    }

    /// Does what is due now. Faults are planned from `begin` on.
    pub(super) fn blow(&mut self, sim: &mut turmoil::Sim<'_>, begin: Duration) {
        let now = sim.elapsed();
        let (over, active) = self.active.drain(..).partition(|(_, until, _)| now >= *until);
        self.active = active;
        let over: Vec<(Duration, Duration, PlannedFault)> = over;
        for (since, _, fault) in over {
            self.heal(sim, &fault, since, now);
        }
        let Some(fault) = self.at_its_index(now).or_else(|| self.planned(now, begin)) else {
            return;
        };
        // One that is down already cannot fail once more.
        let down = |node: &usize| {
            self.active.iter().any(|(_, _, it)| it.kind.ends_node() && it.nodes.contains(node))
        };
        if fault.kind.ends_node() && fault.nodes.iter().any(down) {
            return;
        }
        self.strike(sim, &fault);
        self.active.push((now, now + fault.lasts, fault));
    }

    /// The next fault of the plan, when its time has come.
    fn planned(&mut self, now: Duration, begin: Duration) -> Option<PlannedFault> {
        let fault = self.storm.faults.get(self.next).filter(|fault| now >= begin + fault.at)?;
        self.next += 1;
        Some(fault.clone())
    }

    /// The crash of the node that has just written the awaited entry.
    fn at_its_index(&mut self, now: Duration) -> Option<PlannedFault> {
        let index = self.crash_at?;
        let node = self.disks.iter().position(|disk| disk.last_index() >= index)?;
        self.crash_at = None;
        let kind = Kind::Crash { torn_permille: 0 };
        Some(PlannedFault { at: now, lasts: DOWN, kind, nodes: vec![node] })
    }

    fn strike(&self, sim: &mut turmoil::Sim<'_>, fault: &PlannedFault) {
        match fault.kind {
            Kind::Crash { torn_permille } => {
                for node in &fault.nodes {
                    sim.crash(world::name(*node));
                    self.disks[*node].crash(torn_permille);
                }
            }
            Kind::Disk(failure) => {
                for node in &fault.nodes {
                    self.disks[*node].fail(failure);
                }
            }
            Kind::Partition => self.each_link(fault, |one, other| sim.partition(one, other)),
            Kind::Deaf => self.each_link(fault, |one, other| sim.partition_oneway(other, one)),
            Kind::Mute => self.each_link(fault, |one, other| sim.partition_oneway(one, other)),
            Kind::Hold => self.each_link(fault, |one, other| sim.hold(one, other)),
            Kind::Slow => self.each_link(fault, |one, other| {
                sim.set_link_max_message_latency(one, other, SLOW);
            }),
        }
    }

    fn heal(
        &self,
        sim: &mut turmoil::Sim<'_>,
        fault: &PlannedFault,
        since: Duration,
        now: Duration,
    ) {
        match fault.kind {
            Kind::Crash { .. } => {
                for node in &fault.nodes {
                    sim.bounce(world::name(*node));
                }
            }
            Kind::Disk(_) => {
                for node in &fault.nodes {
                    // The process of a node whose disk fails has ended; it may not have used it yet.
                    sim.crash(world::name(*node));
                    self.disks[*node].crash(1_000);
                    self.disks[*node].repair();
                    sim.bounce(world::name(*node));
                }
            }
            Kind::Partition | Kind::Deaf | Kind::Mute => {
                self.each_link(fault, |one, other| sim.repair(one, other));
            }
            Kind::Hold => self.each_link(fault, |one, other| sim.release(one, other)),
            Kind::Slow => self.each_link(fault, |one, other| {
                sim.set_link_max_message_latency(one, other, QUICK);
            }),
        }
        let since_us = micros(since);
        self.recorder.record_fault(Fault {
            kind: self.recorded_as(fault),
            nodes: fault.nodes.clone(),
            injected_us: since_us,
            effective_us: Some(since_us),
            healed_us: micros(now),
        });
    }

    /// Nobody looks who leads: each may have hit the leader.
    fn recorded_as(&self, fault: &PlannedFault) -> FaultKind {
        match fault.kind {
            Kind::Crash { .. } if fault.nodes.len() == self.storm.nodes => FaultKind::LostWrites,
            Kind::Crash { .. } => FaultKind::KillLeader,
            Kind::Disk(_) => FaultKind::FailDisk,
            Kind::Partition | Kind::Deaf | Kind::Mute => FaultKind::Partition,
            Kind::Hold | Kind::Slow => FaultKind::SlowNetwork,
        }
    }

    /// Links between the members that a fault hits and the others, those first.
    fn each_link(&self, fault: &PlannedFault, mut act: impl FnMut(String, String)) {
        for one in &fault.nodes {
            for other in (0..self.storm.nodes).filter(|other| !fault.nodes.contains(other)) {
                act(world::name(*one), world::name(other));
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
