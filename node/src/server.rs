//! One node, put together: replica, driver, services, HTTP; and taken apart again in an order that loses nothing.
//!
//! ```text
//!   start     take the ports of gRPC and HTTP, so that one in use is said before anything else happens
//!             replica (opens the data directory, peer service) -> caught up -> driver -> services -> HTTP
//!   shutdown  hand the leadership over -> end worker streams and listeners -> end the replica: everything is flushed
//! ```
//! Runs in production and in the simulation alike: whatever differs comes in as [`Env`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Profile, ServerConfig};
use crate::driver::Dispatch;
use crate::env::Env;
use crate::http;
use crate::raft::{MemberConfig, Replica, ReplicaConfig, StartError};
use crate::service::{self, Node};

/// How long a member that starts may take no calls, at most.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long another member may take to take the leadership over at a shutdown.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long calls that are under way may take to end at a shutdown.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{what} cannot listen on {address}: {error}")]
    Listen { what: &'static str, address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Replica(#[from] StartError),
}

/// A running node. Dropping it does not end the replica; [`Server::shutdown`] does.
#[derive(Debug)]
pub struct Server {
    pub grpc_addr: SocketAddr,
    pub http_addr: SocketAddr,
    pub peer_addr: SocketAddr,
    pub replica: Replica,
    pub dispatch: Dispatch,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts a node. When it returns, it answers; whether a leader is known by then is another question.
    ///
    /// # Errors
    /// A port in use; a data directory of another cluster, or in use by another process, or damaged.
    pub async fn start(config: ServerConfig, env: Env) -> Result<Self, ServerError> {
        let listen = |what: &'static str, address: SocketAddr| {
            let listening = env.net.listen(address);
            async move { listening.await.map_err(|error| ServerError::Listen { what, address, error }) }
        };
        let grpc = listen("gRPC", config.listen.grpc).await?;
        let http = listen("HTTP", config.listen.http).await?;
        let (grpc_addr, http_addr) = (grpc.local_addr, http.local_addr);
        let replica = Replica::start(replica_config(&config, grpc_addr), env.clone()).await?;
        let peer_addr = replica.peer_addr();
        caught_up(&replica).await;
        let dispatch = Dispatch::start(replica.clone());
        let node = Node::new(replica.clone(), dispatch.clone(), &config);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (services, over) = (service::router(node.clone()), stop.clone());
        tasks.spawn(async move {
            let over = over.cancelled_owned();
            if let Err(error) = services.serve_with_incoming_shutdown(grpc.incoming, over).await {
                tracing::error!(%error, "gRPC is served no more");
            }
        });
        let over = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = http::run(http, node, over).await {
                tracing::error!(%error, "HTTP is served no more");
            }
        });
        let (cluster, node) = (config.cluster, config.node);
        tracing::info!(cluster, node, %grpc_addr, %http_addr, %peer_addr, "node started");
        Ok(Self { grpc_addr, http_addr, peer_addr, replica, dispatch, stop, tasks })
    }

    /// Ends the node: another member leads first, if there is one; calls under way end; everything applied is flushed.
    pub async fn shutdown(mut self) {
        if self.replica.leadership().borrow().here {
            self.hand_over().await;
        }
        self.dispatch.close();
        self.stop.cancel();
        let ended = timeout(LAST_CALLS, async { while self.tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::debug!("calls were still under way");
        }
        self.tasks.shutdown().await;
        self.replica.shutdown().await;
        tracing::info!("node ended");
    }

    async fn hand_over(&self) {
        let others =
            self.replica.status().members.iter().filter(|m| m.voter && m.reachable).count();
        if others < 2 {
            return;
        }
        match timeout(HAND_OVER, self.replica.transfer_leader(None)).await {
            Ok(Ok(leader)) => {
                tracing::info!(leader = leader.name, "the leadership was handed over")
            }
            Ok(Err(error)) => tracing::info!(%error, "the leadership was not handed over"),
            Err(_) => tracing::info!("the leadership was not handed over in time"),
        }
    }
}

/// A member that was there before takes no calls until it knows what the others know: whoever called it meanwhile would wait
/// for that, instead of asking another member. Without a majority it takes them after a moment, for those who ask what it
/// knows itself.
async fn caught_up(replica: &Replica) {
    if replica.is_new() {
        return;
    }
    if let Err(error) = replica.barrier(CATCH_UP).await {
        tracing::info!(%error, "takes calls though it may be behind");
    }
}

/// What the replica of a node with this configuration is told.
#[must_use]
pub fn replica_config(config: &ServerConfig, grpc_addr: SocketAddr) -> ReplicaConfig {
    let (heartbeat_ms, election_min_ms, election_max_ms) = match config.raft.profile {
        Profile::Dedicated => (50, 150, 300),
        Profile::Shared => (100, 300, 600),
    };
    let member = |member: &crate::config::Member| MemberConfig {
        name: member.name.clone(),
        peer_address: member.peer.clone(),
    };
    ReplicaConfig {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        data: config.data.clone(),
        peer_listen: config.listen.peer,
        peer_advertise: config.advertise.peer.clone(),
        grpc_advertise: config.advertise.grpc.clone().unwrap_or_else(|| grpc_addr.to_string()),
        members: config.members.iter().map(member).collect(),
        join: config.join.clone(),
        heartbeat_ms,
        election_min_ms,
        election_max_ms,
        snapshot_log_bytes: config.raft.snapshot_log,
        keep_entries: config.raft.keep_entries,
        memory: config.limits.memory,
    }
}
