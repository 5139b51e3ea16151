//! Which member to ask next: the leader where it is known, else round-robin, with a memory of what failed.
//! Pure bookkeeping: it opens no connection and reads no clock.

use tokio::time::{Duration, Instant};
use tonic::transport::Channel;

use crate::config::MAX_ENDPOINTS;

/// How long a member is left alone after its first failure; it doubles.
const PENALTY_FIRST: Duration = Duration::from_millis(250);
/// Longest time that a member is left alone.
const PENALTY_MAX: Duration = Duration::from_secs(5);

/// One member as the client knows it.
#[derive(Debug)]
struct Member {
    address: String,
    /// Given by the caller, so never forgotten.
    seed: bool,
    channel: Option<Channel>,
    failures: u32,
    left_alone_until: Option<Instant>,
}

/// The members, and where the leader is.
#[derive(Debug)]
pub(crate) struct Pool {
    members: Vec<Member>,
    next: usize,
    leader: Option<String>,
}

impl Pool {
    pub(crate) fn new(seeds: Vec<String>) -> Pool {
        let mut pool = Pool { members: Vec::new(), next: 0, leader: None };
        for seed in seeds {
            pool.add(seed, true);
        }
        pool
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The address to ask: never one of `avoid` while another is left.
    pub(crate) fn pick(&mut self, now: Instant, prefer_leader: bool, avoid: &[String]) -> String {
        if prefer_leader
            && let Some(leader) = &self.leader
            && !avoid.contains(leader)
            && self.find(leader).is_some_and(|member| member.usable(now))
        {
            return leader.clone();
        }
        let count = self.members.len();
        let order = (0..count).map(|i| (self.next + i) % count);
        let best = order.min_by_key(|index| {
            let member = &self.members[*index];
            let wait = member.left_alone_until.filter(|until| *until > now);
            (avoid.contains(&member.address), wait)
        });
        let index = best.expect("a pool has at least one seed");
        self.next = (index + 1) % count;
        self.members[index].address.clone()
    }

    pub(crate) fn channel(&self, address: &str) -> Option<Channel> {
        self.find(address).and_then(|member| member.channel.clone())
    }

    pub(crate) fn set_channel(&mut self, address: &str, channel: Channel) {
        if let Some(member) = self.find_mut(address) {
            member.channel = Some(channel);
        }
    }

    pub(crate) fn succeeded(&mut self, address: &str) {
        if let Some(member) = self.find_mut(address) {
            member.failures = 0;
            member.left_alone_until = None;
        }
    }

    /// Leaves the member alone for a while; it is no leader to us until somebody says so again.
    pub(crate) fn failed(&mut self, now: Instant, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
        if let Some(member) = self.find_mut(address) {
            let penalty = PENALTY_FIRST.saturating_mul(1 << member.failures.min(8));
            member.failures = member.failures.saturating_add(1);
            member.left_alone_until = Some(now + penalty.min(PENALTY_MAX));
        }
    }

    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub(crate) fn set_leader(&mut self, address: Option<String>) {
        if let Some(address) = &address {
            self.add(address.clone(), false);
        }
        self.leader = address;
    }

    /// Replaces what was learned; seeds stay.
    pub(crate) fn learned(&mut self, addresses: &[String]) {
        self.members.retain(|member| member.seed || addresses.contains(&member.address));
        for address in addresses {
            self.add(address.clone(), false);
        }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    fn add(&mut self, address: String, seed: bool) {
        if self.find(&address).is_some() || self.members.len() >= MAX_ENDPOINTS {
            return;
        }
        self.members.push(Member {
            address,
            seed,
            channel: None,
            failures: 0,
            left_alone_until: None,
        });
    }

    fn find(&self, address: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.address == address)
    }

    fn find_mut(&mut self, address: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.address == address)
    }
}

impl Member {
    fn usable(&self, now: Instant) -> bool {
        self.left_alone_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(vec!["a:1".into(), "b:1".into(), "c:1".into()])
    }

    #[test]
    fn members_take_turns() {
        let (mut pool, now) = (pool(), Instant::now());
        let picked: Vec<_> = (0..4).map(|_| pool.pick(now, false, &[])).collect();
        assert_eq!(picked, ["a:1", "b:1", "c:1", "a:1"]);
    }

    #[test]
    fn the_leader_is_asked_first_until_it_fails() {
        let (mut pool, now) = (pool(), Instant::now());
        pool.set_leader(Some("c:1".into()));
        assert_eq!(pool.pick(now, true, &[]), "c:1");
        pool.failed(now, "c:1");
        assert_ne!(pool.pick(now, true, &[]), "c:1");
        assert_eq!(pool.leader(), None);
    }

    #[test]
    fn a_failed_member_is_left_alone_and_comes_back() {
        let (mut pool, now) = (pool(), Instant::now());
        pool.failed(now, "a:1");
        let picked: Vec<_> = (0..4).map(|_| pool.pick(now, false, &[])).collect();
        assert!(!picked.contains(&"a:1".to_owned()), "{picked:?}");
        let later = now + PENALTY_FIRST;
        assert!((0..3).any(|_| pool.pick(later, false, &[]) == "a:1"));
    }

    #[test]
    fn when_all_failed_the_one_that_is_due_first_is_asked() {
        let (mut pool, now) = (pool(), Instant::now());
        for address in ["a:1", "b:1", "b:1", "c:1", "c:1"] {
            pool.failed(now, address);
        }
        assert_eq!(pool.pick(now, true, &[]), "a:1");
    }

    #[test]
    fn learned_members_come_and_go_and_seeds_stay() {
        let mut pool = pool();
        pool.learned(&["d:1".into(), "a:1".into()]);
        assert_eq!(pool.addresses(), ["a:1", "b:1", "c:1", "d:1"]);
        pool.learned(&[]);
        assert_eq!(pool.addresses(), ["a:1", "b:1", "c:1"]);
    }
}
