//! Single numbers of each side: memory, and times that are not those of a load.

use std::fmt;

use serde_json::{Value as Json, json};

/// What is weighed or timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// Memory of a node that holds nothing.
    Idle,
    /// Memory of a node that holds many open runs, or keys.
    Full,
    /// From the start of such a node until it has everything.
    Restart,
    /// From the end of the leader to the next acknowledged write.
    Failover,
    /// Until a switch is acknowledged under load, with many pins on the bundle that is left.
    Switch,
    /// Until a rollback is, likewise.
    Rollback,
}

/// Amounts that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Memory,
    Failover,
    Moves,
}

impl Group {
    pub(super) const ALL: [Group; 3] = [Group::Memory, Group::Failover, Group::Moves];

    /// The row's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Group::Memory => "memory",
            Group::Failover => "failover",
            Group::Moves => "moves",
        }
    }
}

/// What it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// In the amount's unit.
    AtMost(f64),
    /// So much of etcd's.
    OfEtcd(f64),
}

impl Amount {
    pub(super) const ALL: [Amount; 6] = [
        Amount::Idle,
        Amount::Full,
        Amount::Restart,
        Amount::Failover,
        Amount::Switch,
        Amount::Rollback,
    ];

    /// What it is measured with.
    pub(super) fn group(self) -> Group {
        match self {
            Amount::Idle | Amount::Full | Amount::Restart => Group::Memory,
            Amount::Failover => Group::Failover,
            Amount::Switch | Amount::Rollback => Group::Moves,
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Amount::Idle => "memory of an idle node, MiB",
            Amount::Full => "memory of a full node, MiB",
            Amount::Restart => "restart of a full node, s",
            Amount::Failover => "SIGKILL of the leader to the next write, s",
            Amount::Switch => "switch under load, p99, s",
            Amount::Rollback => "rollback under load, p99, s",
        }
    }

    pub(super) fn bound(self) -> Bound {
        match self {
            Amount::Idle => Bound::AtMost(80.0),
            Amount::Full | Amount::Restart => Bound::OfEtcd(0.5),
            Amount::Failover => Bound::OfEtcd(0.55),
            Amount::Switch | Amount::Rollback => Bound::AtMost(0.1),
        }
    }

    /// Whether it is a failure to miss it.
    fn is_must(self) -> bool {
        self == Amount::Failover
    }
}

/// An amount of each side, by round.
#[derive(Debug)]
pub(super) struct Weighed {
    pub(super) amount: Amount,
    pub(super) ours: Vec<f64>,
    /// None where etcd is not here, or does no such thing.
    pub(super) etcd: Vec<f64>,
}

impl Weighed {
    pub(super) fn new(amount: Amount) -> Self {
        Self { amount, ours: Vec::new(), etcd: Vec::new() }
    }

    fn ratio(&self) -> Option<f64> {
        let (ours, etcd) = (median(&self.ours)?, median(&self.etcd)?);
        (etcd > 0.0).then(|| ours / etcd)
    }

    /// Whether it is within its bound; none where that cannot be said.
    fn is_met(&self) -> Option<bool> {
        match self.amount.bound() {
            Bound::AtMost(most) => Some(median(&self.ours)? <= most),
            Bound::OfEtcd(most) => Some(self.ratio()? <= most),
        }
    }

    /// Whether it has what it is a failure to miss.
    pub(super) fn has_its_must(&self) -> bool {
        !self.amount.is_must() || self.is_met() != Some(false)
    }

    fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) if self.amount.is_must() => "missed MUST",
            Some(false) => "missed",
            None => "skipped: PINRAIL_ETCD names no etcd program",
        }
    }

    pub(super) fn json(&self) -> Json {
        let (kind, most) = match self.amount.bound() {
            Bound::AtMost(most) => ("at_most", most),
            Bound::OfEtcd(most) => ("of_etcd_at_most", most),
        };
        json!({
            "row": self.amount.group().name(),
            "amount": self.amount.about(),
            "ratio": self.ratio(),
            "wanted": { kind: most },
            "verdict": self.verdict(),
            "ours": { "median": median(&self.ours), "rounds": self.ours },
            "etcd": { "median": median(&self.etcd), "rounds": self.etcd },
        })
    }

    /// The names of what [`Weighed::line`] shows.
    pub(super) fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<8} {:<43} {:>23} {:>23} {:>6} {:>12}  verdict",
            "row", "amount", "ours (range)", "etcd (range)", "ratio", "at most"
        )
    }

    pub(super) fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = match self.amount.bound() {
            Bound::AtMost(most) => most.to_string(),
            Bound::OfEtcd(most) => format!("{most} of etcd"),
        };
        writeln!(
            f,
            "{:<8} {:<43} {:>23} {:>23} {:>6} {most:>12}  {}",
            self.amount.group().name(),
            self.amount.about(),
            spread(&self.ours),
            spread(&self.etcd),
            self.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            self.verdict()
        )
    }
}

/// Of an even number the lower of the two in the middle: a value that was measured.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// Median and range.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    median(values)
        .map_or_else(|| "-".to_owned(), |median| format!("{median:.3} ({least:.3}..{most:.3})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(amount: Amount, ours: &[f64], etcd: &[f64]) -> Weighed {
        Weighed { amount, ours: ours.to_vec(), etcd: etcd.to_vec() }
    }

    #[test]
    fn a_bound_of_our_own_needs_no_peer() {
        let it = weighed(Amount::Idle, &[79.0, 90.0, 70.0], &[]);
        assert_eq!((it.verdict(), it.ratio()), ("met", None));
        assert_eq!(weighed(Amount::Idle, &[81.0], &[50.0]).verdict(), "missed");
        let it = weighed(Amount::Switch, &[0.1], &[]);
        assert_eq!((it.verdict(), it.json()["wanted"]["at_most"].as_f64()), ("met", Some(0.1)));
    }

    #[test]
    fn a_bound_of_etcds_is_by_the_medians_and_skipped_without_it() {
        let it = weighed(Amount::Full, &[300.0, 290.0, 700.0], &[600.0, 610.0, 900.0]);
        assert_eq!(it.verdict(), "met");
        let it = weighed(Amount::Restart, &[3.0], &[4.0]);
        assert_eq!((it.verdict(), it.has_its_must()), ("missed", true));
        let it = weighed(Amount::Restart, &[3.0], &[]);
        assert!(it.verdict().starts_with("skipped"), "{}", it.verdict());
    }

    #[test]
    fn only_failover_is_a_failure_to_miss() {
        let slow = weighed(Amount::Failover, &[0.6], &[1.0]);
        assert_eq!((slow.verdict(), slow.has_its_must()), ("missed MUST", false));
        assert!(weighed(Amount::Failover, &[0.5], &[1.0]).has_its_must());
        assert!(weighed(Amount::Failover, &[0.6], &[]).has_its_must(), "nothing to compare with");
    }
}
