//! The start of a replica: directory, storage, peer service, Raft, and the tasks around it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use openraft::Raft;
use openraft::errors::Fatal;
use parking_lot::Mutex;
use pinrail_proto::limits;
use pinrail_proto::peer::peer_service_server::PeerServiceServer;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::env::{Env, Listener};
use crate::storage::{DataDir, DataDirError, Identity};

use super::cluster_time::ClusterTime;
use super::lead::{self, Leadership};
use super::log_store::LogStore;
use super::network::Network;
use super::peer_service::PeerServer;
use super::proposer::Proposer;
use super::read::{self, Reads};
use super::replica::{Inner, Replica};
use super::settings::{ReplicaConfig, raft_config};
use super::state_machine::StateMachine;
use super::{bootstrap, feature_level, log_end, membership, recover, restore, runtime};

/// Why a node does not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Directory(#[from] DataDirError),
    #[error("the peer service cannot listen on {address}: {error}")]
    Listen { address: std::net::SocketAddr, error: io::Error },
    #[error("the {what} cannot be opened: {error}")]
    Storage { what: &'static str, error: io::Error },
    #[error(
        "the {what} in {path} is damaged: {error}. This member must not vote or serve: remove it from the cluster, start it \
         with an empty data directory and `join` in server.toml, and add it again: docs/RECOVERY.md"
    )]
    Damaged { what: &'static str, path: PathBuf, error: String },
    #[error("the settings of Raft do not fit together: {0}")]
    Settings(String),
    #[error("Raft does not start: {0}")]
    Raft(String),
}

/// The number of a member that forms the cluster follows from its name, so that the members know each other's
/// before they have met. Never 0.
pub(super) fn founding_node_id(cluster: &str, node: &str) -> u64 {
    let digest = Sha256::digest(format!("{cluster}\0{node}"));
    digest.first_chunk::<8>().map_or(1, |head| u64::from_be_bytes(*head)).max(1)
}

impl Replica {
    /// Opens the data directory, starts the peer service and Raft, and forms or joins the cluster in the
    /// background.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: ReplicaConfig, env: Env) -> Result<Self, StartError> {
        if !env.threads {
            runtime::seed(env.random_u64());
        }
        let settings =
            raft_config(&config).map_err(|error| StartError::Settings(error.to_string()))?;
        let listener = env.net.listen(config.peer_listen).await;
        let listener =
            listener.map_err(|error| StartError::Listen { address: config.peer_listen, error })?;
        let (mut identity, mut directory) = take_directory(&config, &env)?;
        let failed = |what| failed(what, &config.data);
        let mut log = env.engines.open_log(&config.data).map_err(failed("log"))?;
        if let Some(directory) = &mut directory {
            recover::finish(&config.data, directory, &mut *log).map_err(failed("recovery"))?;
            identity.clone_from(&directory.identity);
        }
        let engine = env.engines.open_state(&config.data, config.memory);
        let engine = engine.map_err(failed("state"))?;
        restore::take_over(&config, identity.node_id, env.clock.wall_ms(), &mut *log, &*engine)
            .map_err(failed("backup"))?;
        let log = LogStore::open(log, &env).map_err(failed("log"))?;
        let (machine, state) = StateMachine::open(engine, &env).map_err(failed("state"))?;
        state.must_reach(log.purged()).map_err(failed("state"))?;
        if let Some(directory) = &directory {
            let (vote, last) = log.end();
            log_end::verify(directory, vote, last).map_err(failed("log"))?;
            directory.forget_end().map_err(failed("log"))?;
        }

        let time = Arc::new(ClusterTime::new(Arc::clone(&env.clock)));
        let network = Network {
            env: env.clone(),
            cluster: config.cluster.clone(),
            node_id: identity.node_id,
            time: Arc::clone(&time),
            acknowledged: Arc::default(),
            clients: Arc::default(),
        };
        let started_empty = log.is_empty();
        let built =
            Raft::build(identity.node_id, settings, network.clone(), log.clone(), machine).await;
        let raft = built.map_err(|error| match error {
            Fatal::StorageError(error) => StartError::Damaged {
                what: "log or state",
                path: config.data.clone(),
                error: error.to_string(),
            },
            error @ (Fatal::Panicked | Fatal::Stopped) => StartError::Raft(error.to_string()),
        })?;
        let (reads, rounds) = Reads::new();
        let replica = Self {
            inner: Arc::new(Inner {
                proposer: Proposer::start(raft.clone(), Arc::clone(&time)),
                adder: OnceLock::new(),
                identity,
                raft,
                log,
                state,
                network,
                time,
                reads,
                leadership: watch::Sender::new(Leadership::default()),
                peer_addr: listener.local_addr,
                grpc_address: config.grpc_advertise.clone(),
                contacts: Mutex::default(),
                leader_seen: Mutex::default(),
                started_empty,
                admitted: AtomicBool::new(!started_empty),
                given_up: AtomicBool::new(false),
                stop: CancellationToken::new(),
                tasks: Mutex::new(JoinSet::new()),
                directory: Mutex::new(directory),
                env,
            }),
        };
        replica.begin(listener, rounds, config);
        Ok(replica)
    }

    /// Starts everything that goes on by itself.
    fn begin(
        &self,
        listener: Listener,
        rounds: tokio::sync::mpsc::Receiver<read::Waiter>,
        config: ReplicaConfig,
    ) {
        let mut tasks = self.inner.tasks.lock();
        tasks.spawn(serve(self.clone(), listener));
        self.raft().run();
        tasks.spawn(lead::watch(self.clone()));
        tasks.spawn(lead::supervise(self.clone()));
        tasks.spawn(lead::take_snapshots(self.clone(), config.snapshot_log_bytes));
        tasks.spawn(read::run(self.clone(), rounds));
        tasks.spawn(membership::watch_contacts(self.clone()));
        tasks.spawn(feature_level::raise(self.clone()));
        tasks.spawn(membership::register(self.clone()));
        tasks.spawn(bootstrap::form(self.clone(), config));
    }
}

/// Tells damage, which has a way out of its own, from a disk that is full or may not be read.
fn failed(what: &'static str, data: &Path) -> impl Fn(io::Error) -> StartError {
    move |error| {
        let text = error.to_string();
        if error.kind() == io::ErrorKind::InvalidData || text.starts_with("Corruption") {
            StartError::Damaged { what, path: data.to_owned(), error: text }
        } else {
            StartError::Storage { what, error }
        }
    }
}

fn take_directory(
    config: &ReplicaConfig,
    env: &Env,
) -> Result<(Identity, Option<DataDir>), StartError> {
    let node_id = if config.founds() {
        founding_node_id(&config.cluster, &config.node)
    } else {
        // A node that joins later gets a number that nobody had before.
        env.random_u64().max(1)
    };
    let (cluster, node) = (config.cluster.clone(), config.node.clone());
    let directory = format!("{:032x}", env.random_u128());
    let wanted = Identity { cluster, node, node_id, directory };
    if !env.engines.is_durable() {
        return Ok((Identity { directory: String::new(), ..wanted }, None));
    }
    let directory = DataDir::open(&config.data, &wanted)?;
    Ok((directory.identity.clone(), Some(directory)))
}

async fn serve(replica: Replica, listener: Listener) {
    let stop = replica.inner.stop.clone();
    let service = PeerServiceServer::new(PeerServer::new(replica))
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES);
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(service)
        .serve_with_incoming_shutdown(listener.incoming, async move { stop.cancelled().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the peer service has ended");
    }
}
