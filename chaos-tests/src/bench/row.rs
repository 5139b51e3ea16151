//! What is compared, and the ratios that are wanted: ours to the peer's, in the same run.

use pinrail_client::bench::Workload;
use tokio::time::Duration;

use super::{etcd, postgres, restate};

/// What a peer does in our workload's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Etcd(etcd::Call),
    Postgres(postgres::Call),
    Restate(restate::Call),
    Own(Own),
}

/// What we do on the other side of a row that has no peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// A write that a majority has: a run is started.
    Start,
    /// Steps, while few runs are open.
    StepAmongFew,
}

/// The ratios that are wanted. Latencies are compared with the peer's of the same name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wanted {
    /// Operations in a second: at least so many times the peer's.
    pub(super) goal: Option<f64>,
    /// What it is a failure to miss.
    pub(super) must: Option<f64>,
    /// Latency that half of all operations keep: at most so much of the peer's.
    pub(super) p50: Option<f64>,
    /// Latency that 99 in 100 keep, likewise.
    pub(super) p99: Option<f64>,
    /// CPU time of the servers for one operation, likewise.
    pub(super) cpu: Option<f64>,
}

/// A comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Ours.
    pub(super) clients: usize,
    /// Of the peer, where they are not as many.
    pub(super) peer_clients: Option<usize>,
    /// Of both sides, in a second; none: a client asks again when it has its answer.
    pub(super) rate: Option<f64>,
    /// As many runs are open as the options say, while ours is measured.
    pub(super) among_many: bool,
    /// Both sides are measured for so long at least, whatever the options say.
    pub(super) least: Duration,
    pub(super) ours: Workload,
    pub(super) peer: Peer,
    pub(super) wanted: Wanted,
}

const NOTHING: Wanted = Wanted { goal: None, must: None, p50: None, p99: None, cpu: None };

/// What most rows are like.
const PLAIN: Row = Row {
    name: "start",
    clients: 64,
    peer_clients: None,
    rate: None,
    among_many: false,
    least: Duration::ZERO,
    ours: Workload::Start,
    peer: Peer::Etcd(etcd::Call::Transaction),
    wanted: NOTHING,
};

/// A step may take 1.3 times as long.
const FLAT: f64 = 1.0 / 1.3;

/// Nothing but operations in a second.
const fn faster(goal: f64) -> Wanted {
    Wanted { goal: Some(goal), ..NOTHING }
}

/// All of them. PostgreSQL is one node, which replicates nothing: a start there shows what replication costs a single caller.
pub(super) const ROWS: &[Row] = &[
    Row { clients: 1, wanted: Wanted { p99: Some(0.6), ..faster(1.5) }, ..PLAIN },
    Row {
        wanted: Wanted { must: Some(2.0), p99: Some(0.4), cpu: Some(0.35), ..faster(3.0) },
        ..PLAIN
    },
    Row { clients: 256, wanted: faster(3.0), ..PLAIN },
    Row {
        name: "put",
        ours: Workload::Put,
        peer: Peer::Etcd(etcd::Call::Put),
        wanted: faster(3.0),
        ..PLAIN
    },
    Row {
        name: "read",
        ours: Workload::Read,
        peer: Peer::Etcd(etcd::Call::Get),
        wanted: faster(1.5),
        ..PLAIN
    },
    Row {
        name: "lookup",
        clients: 256,
        ours: Workload::Lookup,
        peer: Peer::Etcd(etcd::Call::Serializable),
        wanted: faster(1.5),
        ..PLAIN
    },
    // A router looks up pins for its own callers, and asks only for those that it does not keep.
    Row {
        name: "cached",
        clients: 256,
        ours: Workload::Cached,
        peer: Peer::Etcd(etcd::Call::Serializable),
        wanted: faster(20.0),
        ..PLAIN
    },
    // A worker's stream carries many steps at once, where etcd takes a caller for each write.
    Row {
        name: "step",
        clients: 1_024,
        peer_clients: Some(64),
        ours: Workload::Step,
        wanted: Wanted { must: Some(6.0), ..faster(15.0) },
        ..PLAIN
    },
    Row {
        name: "run",
        ours: Workload::Run,
        peer: Peer::Restate(restate::Call::One),
        wanted: Wanted { p50: Some(0.1), ..faster(10.0) },
        ..PLAIN
    },
    Row {
        name: "chain",
        ours: Workload::Chain,
        peer: Peer::Restate(restate::Call::Ten),
        wanted: Wanted { must: Some(10.0), ..faster(20.0) },
        ..PLAIN
    },
    Row {
        name: "job",
        ours: Workload::Run,
        peer: Peer::Postgres(postgres::Call::Job),
        wanted: faster(5.0),
        ..PLAIN
    },
    Row { clients: 1, peer: Peer::Postgres(postgres::Call::Insert), wanted: faster(0.45), ..PLAIN },
    Row {
        name: "watch",
        clients: 100,
        rate: Some(50.0),
        ours: Workload::Watch,
        peer: Peer::Etcd(etcd::Call::Watch),
        wanted: Wanted { p50: Some(0.7), p99: Some(0.7), ..NOTHING },
        ..PLAIN
    },
    // As many of both in a second: a write of a cluster that is idle in between takes longer than one that follows another.
    Row {
        name: "dispatch",
        clients: 1,
        rate: Some(100.0),
        ours: Workload::Dispatch,
        peer: Peer::Own(Own::Start),
        wanted: Wanted { p50: Some(1.5), ..NOTHING },
        ..PLAIN
    },
    Row {
        name: "flat",
        among_many: true,
        // All members merge tables for some seconds of each 20 to 30: a shorter look has that merge in it, as each that comes
        // right behind a fill does, or none.
        least: Duration::from_secs(30),
        ours: Workload::Step,
        peer: Peer::Own(Own::StepAmongFew),
        wanted: Wanted { must: Some(FLAT), cpu: Some(1.3), ..faster(FLAT) },
        ..PLAIN
    },
];

impl Row {
    /// As many as ours, unless it says otherwise.
    pub(super) fn peer_clients(&self) -> usize {
        self.peer_clients.unwrap_or(self.clients)
    }

    /// Of both sides: `64`, or `1024/64`.
    pub(super) fn both_clients(&self) -> String {
        match self.peer_clients {
            None => self.clients.to_string(),
            Some(theirs) => format!("{}/{theirs}", self.clients),
        }
    }
}

impl Peer {
    /// The system, and what it does.
    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::Etcd(etcd::Call::Transaction) => "etcd txn",
            Peer::Etcd(etcd::Call::Put) => "etcd put",
            Peer::Etcd(etcd::Call::Get) => "etcd get",
            Peer::Etcd(etcd::Call::Serializable) => "etcd serializable get",
            Peer::Etcd(etcd::Call::Watch) => "etcd watch",
            Peer::Postgres(postgres::Call::Insert) => "PostgreSQL insert",
            Peer::Postgres(postgres::Call::Job) => "PostgreSQL job",
            Peer::Restate(restate::Call::One) => "Restate, 1 step",
            Peer::Restate(restate::Call::Ten) => "Restate, 10 steps",
            Peer::Own(Own::Start) => "own start",
            Peer::Own(Own::StepAmongFew) => "own, few runs open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_the_clients_of_the_peer_where_they_are_not_as_many() {
        let step = ROWS.iter().find(|row| row.name == "step").expect("it is compared");
        assert_eq!((step.both_clients().as_str(), step.peer_clients()), ("1024/64", 64));
        assert_eq!((PLAIN.both_clients().as_str(), PLAIN.peer_clients()), ("64", 64));
    }
}
