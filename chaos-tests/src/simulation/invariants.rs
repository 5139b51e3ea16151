//! What must hold of the members' disks at every moment, not only in what clients see at the end.
//!
//! Of Raft ([In Search of an Understandable Consensus Algorithm](https://raft.github.io/raft.pdf), figure 3): *Log Matching*, and of
//! *Election Safety* what openraft's order of terms and members needs of it: a majority has given its vote to who leads, and will
//! remember. Of the product: every promise that a single moment of a member's state can show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use pinrail_node::storage::memory::Disk;
use pinrail_proto::log as pb;
use prost::Message as _;

use super::world::name;

/// A state is looked through as a whole; entries and votes are with every step.
const STATES_EVERY: Duration = Duration::from_secs(2);
/// One bug shows at every look; these tell of it.
const KEPT: usize = 5;

/// What has been seen so far, and what was wrong with it.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// Terms and members of leaders, and the highest that each disk has kept.
    leaders: BTreeSet<(u64, u64)>,
    voted: Vec<(u64, u64)>,
    /// Place of an entry, term and member of the leader that made it, to the entry.
    entries: BTreeMap<(u64, u64, u64), Bytes>,
    states_at: Duration,
    broken: Vec<String>,
}

impl Invariants {
    /// Looks at what has changed since the last look.
    ///
    /// # Errors
    /// When something on a disk is none of the node's formats.
    pub(super) fn look(&mut self, disks: &[Disk], now: Duration) -> Result<()> {
        self.voted.resize(disks.len(), (0, 0));
        for (voted, disk) in self.voted.iter_mut().zip(disks) {
            let kept = disk.synced_vote().map(vote).transpose()?.unwrap_or_default();
            *voted = (*voted).max(candidate(kept));
        }
        for (node, disk) in disks.iter().enumerate() {
            let written = disk.take_written();
            for bytes in written.votes {
                self.a_majority_voted_for_the_leader(vote(bytes)?);
            }
            for (index, entry) in written.entries {
                self.same_entry_everywhere(node, index, entry)?;
            }
        }
        if now >= self.states_at + STATES_EVERY {
            self.states_at = now;
            self.promises_hold(disks)?;
        }
        Ok(())
    }

    /// Looks through all states once more and says what was wrong at any time.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(super) fn end(mut self, disks: &[Disk]) -> Result<Vec<String>> {
        self.promises_hold(disks)?;
        Ok(self.broken)
    }

    fn a_majority_voted_for_the_leader(&mut self, vote: pb::Vote) {
        let leader = candidate(vote);
        if !vote.committed || !self.leaders.insert(leader) {
            return;
        }
        let voters = self.voted.iter().filter(|voted| **voted >= leader).count();
        let (members, (term, id)) = (self.voted.len(), leader);
        self.expect(voters > members / 2, || {
            format!("{id} leads term {term}; of {members} members {voters} have kept a vote for it")
        });
    }

    fn same_entry_everywhere(&mut self, node: usize, index: u64, entry: Bytes) -> Result<()> {
        let log_id = pb::Entry::decode(entry.clone()).context("an entry")?.log_id;
        let leader = log_id.and_then(|id| id.leader_id).unwrap_or_default();
        let place = (index, leader.term, leader.node_id);
        let known = self.entries.entry(place).or_insert_with(|| entry.clone()).clone();
        self.expect(known == entry, || {
            let (term, name) = (leader.term, name(node));
            format!("{name} has another entry {index} of term {term} than another member")
        });
        Ok(())
    }

    fn promises_hold(&mut self, disks: &[Disk]) -> Result<()> {
        for (node, disk) in disks.iter().enumerate() {
            let broken = disk.broken_promises().with_context(|| name(node))?;
            for promise in broken {
                self.expect(false, || format!("the state of {}: {promise}", name(node)));
            }
        }
        Ok(())
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.len() < KEPT {
            self.broken.push(what());
        }
    }
}

fn vote(bytes: Bytes) -> Result<pb::Vote> {
    pb::Vote::decode(bytes).context("a vote")
}

/// Term and member, in the order in which a member prefers them.
fn candidate(vote: pb::Vote) -> (u64, u64) {
    let leader = vote.leader_id.unwrap_or_default();
    (leader.term, leader.node_id)
}
