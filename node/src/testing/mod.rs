//! Nodes in this process, for tests of agents and for our own: real storage in a temporary folder, real sockets on free ports, and
//! a clock that can be put forward. Feature `testing`.
//!
//! It knows no client: a test brings `pinrail_client` and connects it to [`Cluster::endpoints`].

pub mod decoded;
mod ports;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::config::{Member, ServerConfig};
use crate::env::{Clock, Env};
use crate::server::Server;

pub use ports::free_port;

/// How long nodes may take to agree on a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// One node, or several that replicate. Call [`Cluster::stop_all`] at the end; its folder goes with it.
#[derive(Debug)]
pub struct Cluster {
    _data: TempDir,
    /// By index; `None`: stopped.
    pub servers: Vec<Option<Server>>,
    ahead: Arc<AtomicU64>,
}

impl Cluster {
    /// Starts so many nodes and waits until they have a leader.
    ///
    /// # Panics
    /// When a node does not start, or no leader is elected in time.
    pub async fn start(count: usize) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let ahead = Arc::new(AtomicU64::new(0));
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let member = |(index, port): (usize, &u16)| Member {
            name: name(index),
            peer: format!("127.0.0.1:{port}"),
        };
        let members: Vec<Member> = ports.iter().enumerate().map(member).collect();
        let mut servers = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let folder = data.path().join(name(index));
            let mut config = ServerConfig::local("test", &name(index), &folder, 0);
            config.listen.peer.set_port(*port);
            if count > 1 {
                config.members.clone_from(&members);
            }
            let mut env = Env::real();
            env.clock = Arc::new(Ahead { clock: env.clock, by_ms: Arc::clone(&ahead) });
            servers.push(Some(Server::start(config, env).await.expect("a node starts")));
        }
        let cluster = Self { _data: data, servers, ahead };
        cluster.leader().await;
        cluster
    }

    /// The nodes that run, with their indexes.
    pub fn live(&self) -> impl Iterator<Item = (usize, &Server)> {
        self.servers.iter().enumerate().filter_map(|(i, server)| Some((i, server.as_ref()?)))
    }

    /// The node that does the leader's work, once all agree on it.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + LEADER_WITHIN;
        loop {
            let here: Vec<usize> =
                self.live().filter(|(_, s)| s.dispatch.leads()).map(|(i, _)| i).collect();
            let known = |server: &Server| {
                let leader = server.replica.leadership().borrow().leader.clone();
                leader.is_some_and(|leader| here.iter().any(|i| leader.name == name(*i)))
            };
            if here.len() == 1 && self.live().all(|(_, server)| known(server)) {
                return here[0];
            }
            assert!(Instant::now() < deadline, "no leader in time: {here:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where the nodes that run are reached by gRPC.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.live().map(|(_, server)| server.grpc_addr.to_string()).collect()
    }

    /// Where one of them is.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn endpoint(&self, index: usize) -> String {
        self.servers[index].as_ref().expect("it runs").grpc_addr.to_string()
    }

    /// Puts the cluster's time forward: whatever is due until then comes, within a second or so. Leases do not end by it,
    /// since they are counted in time that passes.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Stops one node in order.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn stop(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").shutdown().await;
    }

    /// Stops what runs still.
    pub async fn stop_all(mut self) {
        for index in 0..self.servers.len() {
            if self.servers[index].is_some() {
                self.stop(index).await;
            }
        }
    }
}

fn name(index: usize) -> String {
    format!("n{index}")
}

/// The machine's clock, put forward.
#[derive(Debug)]
struct Ahead {
    clock: Arc<dyn Clock>,
    by_ms: Arc<AtomicU64>,
}

impl Clock for Ahead {
    fn boot_ms(&self) -> u64 {
        self.clock.boot_ms() + self.by_ms.load(Ordering::Relaxed)
    }

    fn wall_ms(&self) -> u64 {
        self.clock.wall_ms() + self.by_ms.load(Ordering::Relaxed)
    }
}
