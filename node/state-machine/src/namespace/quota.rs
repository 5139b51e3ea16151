//! Quotas of a namespace: what its agents may have together. Agents are always counted, the rest only while there is a
//! quota of it, so that a namespace without one pays no row for a start, an end or a write. When a quota is set, the
//! agents' own counters are summed up once: at most [`limits::AGENTS_PER_NAMESPACE`] rows.

use pinrail_proto::log::{AgentRecord, NamespaceRecord};
use pinrail_proto::v1::{self, NamespaceAmounts};
use pinrail_proto::{limits, reason};

use crate::event::{self, With as _};
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::Txn;

/// What there can be a quota of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    OpenRuns,
    Agents,
    MemoryBytes,
    Bundles,
}

use Quota::{Agents, Bundles, MemoryBytes, OpenRuns};

pub(crate) const ALL: [Quota; 4] = [OpenRuns, Agents, MemoryBytes, Bundles];

impl Quota {
    /// Reads the number of a `v1::Quota`.
    pub(super) fn parse(number: i32) -> Option<Self> {
        ALL.into_iter().find(|quota| quota.wire() as i32 == number)
    }

    fn wire(self) -> v1::Quota {
        match self {
            OpenRuns => v1::Quota::OpenRuns,
            Agents => v1::Quota::Agents,
            MemoryBytes => v1::Quota::MemoryBytes,
            Bundles => v1::Quota::Bundles,
        }
    }

    /// The name of its field.
    fn word(self) -> &'static str {
        match self {
            OpenRuns => "open_runs",
            Agents => "agents",
            MemoryBytes => "memory_bytes",
            Bundles => "bundles",
        }
    }

    /// Its bit of [`NamespaceRecord::near`].
    fn bit(self) -> u32 {
        1 << (self.wire() as u32)
    }

    pub(crate) fn of(self, amounts: Option<&NamespaceAmounts>) -> Option<u64> {
        let amounts = amounts?;
        match self {
            OpenRuns => amounts.open_runs,
            Agents => amounts.agents,
            MemoryBytes => amounts.memory_bytes,
            Bundles => amounts.bundles,
        }
    }

    pub(super) fn slot(self, amounts: &mut NamespaceAmounts) -> &mut Option<u64> {
        match self {
            OpenRuns => &mut amounts.open_runs,
            Agents => &mut amounts.agents,
            MemoryBytes => &mut amounts.memory_bytes,
            Bundles => &mut amounts.bundles,
        }
    }

    /// What one agent has of it.
    pub(crate) fn of_agent(self, agent: &AgentRecord) -> u64 {
        match self {
            OpenRuns => agent.open_runs,
            // A drill's own route is no agent that users know, though what is on it takes room.
            Agents => u64::from(agent.drill_of == 0),
            MemoryBytes => agent.memory_bytes,
            Bundles => agent.bundles,
        }
    }

    /// What a namespace uses, and its limit; `None`: it has no such quota.
    fn use_of(self, record: &NamespaceRecord) -> Option<(u64, u64)> {
        let limit = self.of(record.quotas.as_ref())?;
        let used = match self {
            Agents => record.agents,
            OpenRuns | MemoryBytes | Bundles => self.of(record.used.as_ref()).unwrap_or(0),
        };
        Some((used, limit))
    }

    /// Whether so much use is to be warned of.
    pub(crate) fn is_near(used: u64, limit: u64) -> bool {
        percent_of(used, 100) >= percent_of(limit, limits::QUOTA_NEAR_PERCENT)
    }

    /// Whether use has fallen so far that coming near again is worth another event.
    pub(crate) fn is_far(used: u64, limit: u64) -> bool {
        percent_of(used, 100) < percent_of(limit, limits::QUOTA_FAR_PERCENT)
    }

    /// Whether the event of coming near was written.
    pub(crate) fn was_near(self, record: &NamespaceRecord) -> bool {
        record.near & self.bit() != 0
    }
}

fn percent_of(amount: u64, percent: u64) -> u128 {
    u128::from(amount) * u128::from(percent)
}

/// Refuses more than there may be; `of` says of whose quota.
pub(crate) fn exceeded(of: &str, quota: Quota, used: u64, limit: u64) -> Stop {
    let word = quota.word();
    let what = word.replace('_', " ");
    reject(reason::QUOTA_EXCEEDED, format!("{of} has {used} of {limit} {what}"))
        .with("of", of)
        .with("quota", word)
        .with("used", used)
        .with("limit", limit)
}

/// # Errors
/// `QUOTA_EXCEEDED` when the namespace has no room for so much more.
pub(crate) fn admit(txn: &Txn<'_>, namespace: &str, quota: Quota, more: u64) -> Result<(), Stop> {
    let record = super::lend(txn.read(), namespace)?;
    fits(&record, namespace, quota, more)
}

pub(super) fn fits(
    record: &NamespaceRecord,
    namespace: &str,
    quota: Quota,
    more: u64,
) -> Result<(), Stop> {
    match quota.use_of(record) {
        Some((used, limit)) if used.saturating_add(more) > limit => {
            Err(exceeded(&format!("namespace {namespace}"), quota, used, limit))
        }
        Some(_) | None => Ok(()),
    }
}

/// Counts something of an agent in.
pub(crate) fn add(
    txn: &mut Txn<'_>,
    namespace: &str,
    quota: Quota,
    amount: u64,
) -> Result<(), Stop> {
    count(txn, namespace, quota, |used| used.saturating_add(amount))
}

/// Counts something of an agent out.
pub(crate) fn take(
    txn: &mut Txn<'_>,
    namespace: &str,
    quota: Quota,
    amount: u64,
) -> Result<(), Stop> {
    count(txn, namespace, quota, |used| used.saturating_sub(amount))
}

fn count(
    txn: &mut Txn<'_>,
    namespace: &str,
    quota: Quota,
    change: impl Fn(u64) -> u64,
) -> Result<(), Stop> {
    let mut record = super::lend(txn.read(), namespace)?;
    let Some((used, _)) = quota.use_of(&record) else { return Ok(()) };
    *quota.slot(record.used.get_or_insert_default()) = Some(change(used));
    watch(txn, namespace, &mut record, quota);
    super::save(txn, namespace, &record);
    Ok(())
}

/// Lets counters follow a change of quotas: those of new ones begin, those without one end. The caller saves the
/// record.
pub(super) fn settle(
    txn: &mut Txn<'_>,
    namespace: &str,
    record: &mut NamespaceRecord,
) -> Result<(), Fault> {
    let before = record.used.take();
    let mut sums = None;
    for quota in [OpenRuns, MemoryBytes, Bundles] {
        if quota.of(record.quotas.as_ref()).is_none() {
            continue;
        }
        let used = match quota.of(before.as_ref()) {
            Some(used) => Some(used),
            None if sums.is_some() => quota.of(sums.as_ref()),
            None => quota.of(Some(sums.insert(sum(txn.read(), namespace)?))),
        };
        *quota.slot(record.used.get_or_insert_default()) = used;
    }
    for quota in ALL {
        watch(txn, namespace, record, quota);
    }
    Ok(())
}

/// Says that a quota is nearly used up: once, until use has fallen well below. The caller saves the record.
pub(super) fn watch(
    txn: &mut Txn<'_>,
    namespace: &str,
    record: &mut NamespaceRecord,
    quota: Quota,
) {
    let was_near = quota.was_near(record);
    match quota.use_of(record) {
        Some((used, limit)) if was_near && Quota::is_far(used, limit) => {
            record.near &= !quota.bit();
        }
        Some((used, limit)) if !was_near && Quota::is_near(used, limit) => {
            record.near |= quota.bit();
            let mut near = event::of("namespace.quota_near");
            namespace.clone_into(&mut near.namespace);
            txn.event(near.with("quota", quota.word()).with("used", used).with("limit", limit));
        }
        Some(_) => {}
        None => record.near &= !quota.bit(),
    }
}

/// What all agents of a namespace have.
pub(crate) fn sum(read: &dyn Read, namespace: &str) -> Result<NamespaceAmounts, Fault> {
    let names = Key::new(Kind::AgentName).text(namespace).range();
    let mut sums = NamespaceAmounts::default();
    for quota in ALL {
        *quota.slot(&mut sums) = Some(0);
    }
    for (key, number) in read.scan(&names, Order::Ascending, usize::MAX)? {
        let number = number
            .as_ref()
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| Fault(format!("row {} has no number", hex::encode(&key))))?;
        let agent = crate::agent::by_number(read, number)?.unwrap_or_default();
        for quota in ALL {
            let sum = quota.slot(&mut sums);
            *sum = sum.map(|sum| sum.saturating_add(quota.of_agent(&agent)));
        }
    }
    Ok(sums)
}
