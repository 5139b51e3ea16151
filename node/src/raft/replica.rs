//! The handle to this member's part of the replicated state.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::type_config::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use pinrail_proto::log as pb;
use pinrail_proto::peer;
use pinrail_state_machine::store::{Fault, Read};
use prost::Message as _;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::env::Env;
use crate::storage::{DataDir, Identity, Snapshot};

use super::addition::Adder;
use super::cluster_time::ClusterTime;
use super::lead::Leadership;
use super::log_end;
use super::log_store::LogStore;
use super::membership::Contact;
use super::network::Network;
use super::proposer::Proposer;
use super::read::Reads;
use super::state_machine::{AppliedAt, AppliedBatch, StateMachine, StateShared, read};
use super::status::MemberStatus;
use super::types::TypeConfig;

/// Wait before a proposal is tried at another leader.
const AGAIN: Duration = Duration::from_millis(20);

/// How to find a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerInfo {
    pub node_id: u64,
    pub name: String,
    pub grpc_address: String,
    pub peer_address: String,
}

/// Why a proposal has no outcome. Only with [`Self::Unknown`] it may have been written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    #[error("no leader is known")]
    NoLeader,
    #[error("no majority of the members answers")]
    NoQuorum,
    #[error("this node does not lead")]
    NotLeader { leader: Option<PeerInfo> },
    #[error("too much is waiting; try again in {retry_after:?}")]
    Overloaded { retry_after: Duration },
    #[error("whether it was written is not known: {why}")]
    Unknown { why: String },
    #[error("the command has {size} bytes; at most {limit} are allowed")]
    TooLarge { size: usize, limit: usize },
    #[error("the node is stopping")]
    Stopping,
}

/// Why a read has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("no leader is known")]
    NoLeader,
    #[error("no majority of the members answers")]
    NoQuorum,
    #[error("this node has applied revision {applied_revision} only")]
    Stale { applied_revision: u64 },
    #[error("the store cannot be read")]
    Fault(#[from] Fault),
    #[error("the node is stopping")]
    Stopping,
    #[error("{}", .0.message)]
    Rejected(pb::Rejection),
}

/// Cheap to clone; the member ends with [`Replica::shutdown`].
#[derive(Clone)]
pub struct Replica {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) env: Env,
    pub(super) identity: Identity,
    pub(super) raft: Raft<TypeConfig, StateMachine>,
    pub(super) log: LogStore,
    pub(super) state: Arc<StateShared>,
    pub(super) network: Network,
    pub(super) time: Arc<ClusterTime>,
    pub(super) proposer: Proposer,
    pub(super) adder: OnceLock<Adder>,
    pub(super) reads: Reads,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) peer_addr: std::net::SocketAddr,
    /// Where clients find this node.
    pub(super) grpc_address: String,
    pub(super) contacts: Mutex<BTreeMap<u64, Contact>>,
    /// When this node last knew of a leader.
    pub(super) leader_seen: Mutex<Option<Instant>>,
    /// Whether the log was empty when the node started.
    pub(super) started_empty: bool,
    /// Whether this member may vote and acknowledge: it remembers what it said, or has never said anything.
    pub(super) admitted: AtomicBool,
    /// The cluster went on without this member.
    pub(super) given_up: AtomicBool,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Mutex<JoinSet<()>>,
    /// Held as long as the replica lives.
    pub(super) directory: Mutex<Option<DataDir>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

impl Replica {
    /// Proposes a command, through the leader wherever that is.
    ///
    /// # Errors
    /// See [`ProposeError`]: all but `Unknown` say that nothing was written.
    pub async fn propose(
        &self,
        command: pb::Command,
        timeout: Duration,
    ) -> Result<pb::Outcome, ProposeError> {
        let command = Bytes::from(pinrail_proto::encode(&command));
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let tried = self.propose_once(command.clone(), left).await;
            let error = match tried {
                Ok(outcome) => return Ok(outcome),
                Err(error @ (ProposeError::NoLeader | ProposeError::NotLeader { .. })) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() + AGAIN >= deadline || self.inner.stop.is_cancelled() {
                return Err(match error {
                    ProposeError::NotLeader { .. } => ProposeError::NoLeader,
                    error => error,
                });
            }
            sleep(AGAIN).await;
        }
    }

    async fn propose_once(
        &self,
        command: Bytes,
        timeout: Duration,
    ) -> Result<pb::Outcome, ProposeError> {
        let leader = self.inner.leadership.borrow().leader.clone().ok_or(ProposeError::NoLeader)?;
        let outcomes = if leader.node_id == self.inner.identity.node_id {
            self.propose_for_callers(vec![command], timeout).await?
        } else {
            self.propose_at(&leader, command, timeout).await?
        };
        outcomes
            .into_iter()
            .next()
            .ok_or_else(|| ProposeError::Unknown { why: "an empty answer".to_owned() })
    }

    /// Proposes commands at this node, which must lead. They go into one log entry, as they are.
    ///
    /// # Errors
    /// See [`ProposeError`]: all but `Unknown` say that nothing was written.
    pub async fn propose_here(
        &self,
        commands: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Vec<pb::Outcome>, ProposeError> {
        match self.inner.proposer.propose(commands, timeout).await {
            Err(ProposeError::NotLeader { .. }) => {
                let leader = self.inner.leadership.borrow().leader.clone();
                Err(ProposeError::NotLeader { leader })
            }
            other => other,
        }
    }

    async fn propose_at(
        &self,
        leader: &PeerInfo,
        command: Bytes,
        timeout: Duration,
    ) -> Result<Vec<pb::Outcome>, ProposeError> {
        use peer::propose_response::Result as Outcome;
        let request = peer::ProposeRequest {
            sender: Some(self.inner.network.sender(leader.node_id)),
            commands: vec![command],
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let mut client = self.inner.network.kept_client(&leader.peer_address);
        // A little longer than the leader waits itself, so that its own word comes first.
        let answer = tokio::time::timeout(timeout + AGAIN * 5, client.propose(request)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(failed_call(&status)),
            Err(_) => return Err(unknown("the leader did not answer in time")),
        };
        match answer.result {
            Some(Outcome::Outcomes(outcomes)) => outcomes
                .outcomes
                .into_iter()
                .map(|o| pb::Outcome::decode(o).map_err(|e| unknown(&e.to_string())))
                .collect(),
            Some(Outcome::NotLeader(_)) => Err(ProposeError::NotLeader { leader: None }),
            Some(Outcome::Unknown(why)) => Err(ProposeError::Unknown { why }),
            Some(Outcome::OverloadedRetryMs(ms)) => {
                Err(ProposeError::Overloaded { retry_after: Duration::from_millis(ms) })
            }
            None => Err(unknown("the leader's answer was empty")),
        }
    }

    /// Proposes a command and waits until this node has applied what came of it.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn propose_and_see(
        &self,
        command: pb::Command,
        timeout: Duration,
    ) -> Result<pb::Outcome, String> {
        let outcome = self.propose(command, timeout).await.map_err(|error| error.to_string())?;
        let seen = self.wait_revision(outcome.revision, timeout).await;
        seen.map_err(|error| error.to_string()).map(|()| outcome)
    }

    /// Has a member propose a command as if one of its own callers had asked, and waits until that member has applied what
    /// came of it: so is seen where a start at that member leads.
    ///
    /// # Errors
    /// Why not, in words; the command may have been carried out.
    pub async fn relay(
        &self,
        member: &MemberStatus,
        command: pb::Command,
        timeout: Duration,
    ) -> Result<pb::Outcome, String> {
        if member.node_id == self.inner.identity.node_id {
            return self.propose_and_see(command, timeout).await;
        }
        let request = peer::RelayRequest {
            sender: Some(self.inner.network.sender(member.node_id)),
            command: command.encode_to_vec().into(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let mut client = self.inner.network.kept_client(&member.peer_address);
        let answer = tokio::time::timeout(timeout + AGAIN * 5, client.relay(request)).await;
        let answer = answer
            .map_err(|_| "it did not answer in time".to_owned())?
            .map_err(|status| status.message().to_owned())?
            .into_inner();
        if answer.error.is_empty() {
            pb::Outcome::decode(answer.outcome).map_err(|error| error.to_string())
        } else {
            Err(answer.error)
        }
    }

    /// Returns once reads at this node see every write that was acknowledged anywhere before the call.
    ///
    /// # Errors
    /// [`ReadError::NoLeader`] when no leader with a majority answers in time.
    pub async fn barrier(&self, timeout: Duration) -> Result<(), ReadError> {
        let deadline = Instant::now() + timeout;
        let index = self.inner.reads.index(self, deadline).await?;
        self.wait_index(index, deadline).await
    }

    pub(super) async fn wait_index(&self, index: u64, deadline: Instant) -> Result<(), ReadError> {
        let mut applied = self.applied();
        let waited = timeout_at(deadline, applied.wait_for(|at| at.log_index >= index)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::Stale { applied_revision: self.applied().borrow().revision }),
        }
    }

    /// Waits until this node has applied a revision.
    ///
    /// # Errors
    /// [`ReadError::Stale`] when it has not within `timeout`.
    pub async fn wait_revision(&self, revision: u64, timeout: Duration) -> Result<(), ReadError> {
        let mut applied = self.applied();
        let waited =
            tokio::time::timeout(timeout, applied.wait_for(|at| at.revision >= revision)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::Stale { applied_revision: self.applied().borrow().revision }),
        }
    }

    /// Shows one moment of this node's state.
    ///
    /// # Errors
    /// A fault of the reader or the store.
    pub fn read<T>(
        &self,
        reader: impl FnOnce(&dyn Read) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        Ok(read(&*self.inner.state.engine, reader)?)
    }

    /// As [`Replica::read`], and quicker where it is of what commands were about lately. Nothing is applied meanwhile.
    ///
    /// # Errors
    /// A fault of the reader or the store.
    pub(crate) fn read_latest<T>(
        &self,
        reader: impl FnOnce(&dyn Read) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        Ok(self.inner.state.read_with_records(reader)?)
    }

    /// What is applied, as it is applied. Who lags behind reads the state anew.
    #[must_use]
    pub fn feed(&self) -> broadcast::Receiver<Arc<AppliedBatch>> {
        self.inner.state.feed.subscribe()
    }

    #[must_use]
    pub fn applied(&self) -> watch::Receiver<AppliedAt> {
        self.inner.state.applied.subscribe()
    }

    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The stamp that the leader would give now, in milliseconds of cluster time.
    #[must_use]
    pub fn cluster_time_ms(&self) -> u64 {
        self.inner.time.stamp_ms().max(self.inner.state.applied.borrow().now_ms)
    }

    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Where the peer service listens.
    #[must_use]
    pub fn peer_addr(&self) -> std::net::SocketAddr {
        self.inner.peer_addr
    }

    /// Index of the last entry that the newest snapshot holds; 0: there is none.
    pub(super) fn snapshot_index(&self) -> u64 {
        let newest = self.inner.state.snapshot.lock();
        let meta = newest.as_ref().and_then(|snapshot| snapshot.manifest.meta.as_ref());
        meta.and_then(|meta| meta.last_log_id).map_or(0, |last| last.index)
    }

    /// Takes a snapshot now.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn trigger_snapshot(&self) -> Result<(), ReadError> {
        self.inner.raft.trigger().snapshot().await.map_err(|_| ReadError::Stopping)
    }

    /// A snapshot of this node with every write that was acknowledged anywhere before the call.
    ///
    /// # Errors
    /// As [`Self::barrier`]; [`ReadError::Stale`] when none was made in time.
    pub async fn fresh_snapshot(&self, timeout: Duration) -> Result<Snapshot, ReadError> {
        let deadline = Instant::now() + timeout;
        self.barrier(timeout).await?;
        let wanted = self.applied().borrow().log_index;
        let mut metrics = self.inner.raft.metrics();
        loop {
            let before = metrics.borrow_and_update().snapshot;
            let newest = self.inner.state.snapshot.lock().clone();
            let last = newest.as_ref().and_then(|it| it.manifest.meta.as_ref()?.last_log_id);
            if let (Some(snapshot), Some(last)) = (newest, last)
                && last.index >= wanted
            {
                return Ok(snapshot);
            }
            // One that is under way already is awaited in its place, and may not come so far: then it is asked for again.
            self.trigger_snapshot().await?;
            let newer = async {
                while metrics.borrow_and_update().snapshot == before {
                    metrics.changed().await.map_err(|_| ReadError::Stopping)?;
                }
                Ok(())
            };
            timeout_at(deadline, newer).await.unwrap_or_else(|_| {
                let applied_revision = self.applied().borrow().revision;
                Err(ReadError::Stale { applied_revision })
            })?;
        }
    }

    /// Ends this member: no more proposals, everything applied is flushed, no thread of it goes on. The data
    /// directory is free once the last handle is dropped.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not end in order");
        }
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        self.inner.log.close().await;
        let engine = Arc::clone(&self.inner.state.engine);
        if let Err(error) = self.inner.env.blocking(move || engine.flush()).await {
            tracing::warn!(%error, "the state could not be flushed; the log has it");
        }
        let directory = self.inner.directory.lock().take();
        if let Some(Err(error)) = directory.map(|it| log_end::note(&it, &self.inner.log)) {
            tracing::warn!(%error, "where the log ends could not be written down");
        }
    }

    /// Whether its log was empty when it started.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.inner.started_empty
    }

    pub(super) fn raft(&self) -> &Raft<TypeConfig, StateMachine> {
        &self.inner.raft
    }

    pub(super) fn state(&self) -> &Arc<StateShared> {
        &self.inner.state
    }

    pub(super) fn time(&self) -> &Arc<ClusterTime> {
        &self.inner.time
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.inner.identity
    }
}

fn unknown(why: &str) -> ProposeError {
    ProposeError::Unknown { why: why.to_owned() }
}

/// A call that did not even reach the leader has written nothing; of any other that is not known.
fn failed_call(status: &tonic::Status) -> ProposeError {
    match status.code() {
        tonic::Code::PermissionDenied => ProposeError::NotLeader { leader: None },
        tonic::Code::Unavailable if is_connect_error(status) => ProposeError::NoLeader,
        _ => unknown(status.message()),
    }
}

fn is_connect_error(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let refused = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            return true;
        }
        source = error.source();
    }
    false
}
