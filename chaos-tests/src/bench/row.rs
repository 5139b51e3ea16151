//! What is compared, and the ratios that are wanted: ours to the peer's, in the same run.

use pinrail_client::bench::Workload;

use super::{etcd, postgres};

/// What a peer does in our workload's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Etcd(etcd::Call),
    Postgres(postgres::Call),
}

/// A comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Ours.
    pub(super) clients: usize,
    /// Of the peer, where they are not as many.
    pub(super) peer_clients: Option<usize>,
    pub(super) ours: Workload,
    pub(super) peer: Peer,
    /// Operations in a second: at least so many times the peer's.
    pub(super) goal: f64,
    /// What it is a failure to miss.
    pub(super) must: Option<f64>,
    /// Latency that 99 in 100 operations keep: at most so much of the peer's.
    pub(super) p99: Option<f64>,
    /// CPU time of the servers for one operation: at most so much of the peer's.
    pub(super) cpu: Option<f64>,
}

/// Without any bound but the goal.
const PLAIN: Row = Row {
    name: "",
    clients: 64,
    peer_clients: None,
    ours: Workload::Start,
    peer: Peer::Etcd(etcd::Call::Transaction),
    goal: 1.0,
    must: None,
    p99: None,
    cpu: None,
};

/// All of them. PostgreSQL is one node, which replicates nothing: a start there shows what replication costs a single caller.
pub(super) const ROWS: [Row; 9] = [
    Row { name: "start", clients: 1, goal: 1.5, p99: Some(0.6), ..PLAIN },
    Row { name: "start", goal: 3.0, must: Some(2.0), p99: Some(0.4), cpu: Some(0.35), ..PLAIN },
    Row { name: "start", clients: 256, goal: 3.0, ..PLAIN },
    Row { name: "put", ours: Workload::Put, peer: Peer::Etcd(etcd::Call::Put), goal: 3.0, ..PLAIN },
    Row {
        name: "read",
        ours: Workload::Read,
        peer: Peer::Etcd(etcd::Call::Get),
        goal: 1.5,
        ..PLAIN
    },
    Row {
        name: "lookup",
        clients: 256,
        ours: Workload::Lookup,
        peer: Peer::Etcd(etcd::Call::Serializable),
        goal: 1.5,
        ..PLAIN
    },
    // A worker's stream carries many steps at once, where etcd takes a caller for each write.
    Row {
        name: "step",
        clients: 1_024,
        peer_clients: Some(64),
        ours: Workload::Step,
        goal: 15.0,
        must: Some(6.0),
        ..PLAIN
    },
    Row {
        name: "job",
        ours: Workload::Run,
        peer: Peer::Postgres(postgres::Call::Job),
        goal: 5.0,
        ..PLAIN
    },
    Row {
        name: "start",
        clients: 1,
        peer: Peer::Postgres(postgres::Call::Insert),
        goal: 0.45,
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
            Peer::Postgres(postgres::Call::Insert) => "PostgreSQL insert",
            Peer::Postgres(postgres::Call::Job) => "PostgreSQL job",
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
