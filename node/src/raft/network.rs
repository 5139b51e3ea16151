//! Connections to the other members: one for appends, one for heartbeats (a large append must not delay them),
//! one for snapshots.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use pinrail_proto::limits;
use pinrail_proto::peer as pb;
use pinrail_proto::peer::peer_service_client::PeerServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::env::Env;
use crate::storage::{Snapshot, stop_damaged};

use super::acknowledged::Acknowledged;
use super::cluster_time::ClusterTime;
use super::types::{
    LogId, PeerNode, TypeConfig, Vote, get_log_id, get_vote, put_entry, put_log_id, put_vote,
};
use super::unanswered::Unanswered;

/// A vote or a hand-over that takes longer counts as lost.
const CALL: Duration = Duration::from_millis(500);
/// An append that is not answered for so long counts as lost.
const APPEND_IDLE: Duration = Duration::from_secs(2);
/// Bytes of a snapshot in one message.
const CHUNK: usize = 512 << 10;

type RpcError = RPCError<TypeConfig>;
type OpenraftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Snapshot>;

/// Makes connections.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(super) env: Env,
    pub(super) cluster: String,
    pub(super) node_id: u64,
    pub(super) time: Arc<ClusterTime>,
    pub(super) acknowledged: Arc<Acknowledged>,
    /// Connections for everything but Raft's own calls, which have theirs.
    pub(super) clients: Arc<Mutex<BTreeMap<String, PeerServiceClient<Channel>>>>,
}

/// One connection to one member.
#[derive(Debug)]
pub(crate) struct Peer {
    network: Network,
    target: u64,
    node: PeerNode,
    client: PeerServiceClient<Channel>,
    /// Appends of this connection are heartbeats: one call each.
    heartbeat: bool,
}

impl Network {
    /// A client to an address, kept and shared.
    pub(super) fn kept_client(&self, address: &str) -> PeerServiceClient<Channel> {
        let mut clients = self.clients.lock();
        clients.entry(address.to_owned()).or_insert_with(|| self.client(address)).clone()
    }

    fn client(&self, address: &str) -> PeerServiceClient<Channel> {
        PeerServiceClient::new(self.env.net.connect(address))
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES)
    }

    /// A member got files that are not what the manifest says. If they are so here, nobody can ever catch up by them, and the
    /// state may share them: the node stops.
    async fn must_be_whole(&self, snapshot: Snapshot) {
        let verified = self.env.blocking(move || snapshot.files.verify(&snapshot.manifest)).await;
        if let Err(error) = verified {
            stop_damaged("snapshot", &error);
        }
    }

    pub(super) fn sender(&self, to: u64) -> pb::Sender {
        pb::Sender { cluster_id: self.cluster.clone().into_bytes().into(), from: self.node_id, to }
    }

    fn peer(&self, target: u64, node: &PeerNode, heartbeat: bool) -> Peer {
        let client = self.client(&node.peer_address);
        Peer { network: self.clone(), target, node: node.clone(), client, heartbeat }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, true)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, false)
    }
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(
            [20, 50, 100, 200].into_iter().chain(std::iter::repeat(200)).map(Duration::from_millis),
        ))
    }
}

fn put_append(
    network: &Network,
    target: u64,
    request: &AppendEntriesRequest<TypeConfig>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        sender: Some(network.sender(target)),
        vote: Some(put_vote(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(put_log_id),
        entries: request.entries.iter().map(put_entry).collect(),
        leader_commit: request.leader_commit.as_ref().map(put_log_id),
        stamp_ms: network.time.stamp_ms(),
    }
}

fn get_append(response: pb::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    use openraft::raft::StreamAppendError;
    use pb::append_response::Result as Outcome;
    match response.result() {
        Outcome::Success | Outcome::PartialSuccess => Ok(Ok(response.log_id.map(get_log_id))),
        Outcome::Conflict => {
            let at = response.log_id.map(get_log_id);
            Ok(Err(StreamAppendError::Conflict(
                at.ok_or_else(|| lost("a conflict without its place"))?,
            )))
        }
        Outcome::HigherVote => Ok(Err(StreamAppendError::HigherVote(get_vote(response.vote)))),
        Outcome::Unspecified => Err(lost("an append was answered without a result")),
    }
}

/// Answers to appends of one leadership, without those of a member that has forgotten what it acknowledged.
#[derive(Debug, Clone)]
struct Answers {
    acknowledged: Arc<Acknowledged>,
    target: u64,
    directory: String,
    vote: Vote,
}

impl Answers {
    fn take(
        &self,
        response: pb::AppendResponse,
    ) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        let answer = get_append(response)?;
        if self.acknowledged.hear(self.target, &self.directory, &self.vote, &answer) {
            Ok(answer)
        } else {
            Err(forgetful().into())
        }
    }
}

impl Peer {
    /// A member that has forgotten what it acknowledged is neither sent nor asked anything.
    fn must_remember(&self) -> Result<(), Unreachable<TypeConfig>> {
        let acknowledged = &self.network.acknowledged;
        if self.node.forgot || acknowledged.has_forgotten(self.target, &self.node.directory) {
            return Err(forgetful());
        }
        Ok(())
    }

    fn answers(&self, vote: Vote) -> Answers {
        let acknowledged = Arc::clone(&self.network.acknowledged);
        Answers { acknowledged, target: self.target, directory: self.node.directory.clone(), vote }
    }
}

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let network = self.network.clone();
        let target = self.target;
        Box::pin(async move {
            self.must_remember()?;
            if self.heartbeat {
                let Some(request) = input.next().await else {
                    return Ok(futures::stream::empty().boxed());
                };
                let answers = self.answers(request.vote);
                let request = put_append(&network, target, &request);
                let answer = timeout(option.hard_ttl(), self.client.heartbeat(request)).await;
                let answer =
                    answer.map_err(|_| lost("a heartbeat was not answered"))?.map_err(call)?;
                return Ok(futures::stream::iter([answers.take(answer.into_inner())]).boxed());
            }
            // openraft waits between attempts where it makes the requests: one is taken before the stream is opened, or
            // a member that is down would be called again and again without a pause.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let taken = self.answers(first.vote);
            let requests = futures::stream::iter([first]).chain(input);
            let unanswered = Unanswered::default();
            let answered = unanswered.clone();
            let requests = requests.map(move |request| {
                unanswered.sent(last_of(&request));
                put_append(&network, target, &request)
            });
            let opened = timeout(APPEND_IDLE, self.client.append(requests)).await;
            let answers =
                opened.map_err(|_| lost("an append stream was not opened"))?.map_err(call)?;
            let answers = answers.into_inner().map(move |answer| taken.take(answer.map_err(call)?));
            let heard = answers.filter(move |answer| {
                std::future::ready(match answer {
                    Ok(Ok(matching)) => answered.is_heard(*matching),
                    Ok(Err(_)) | Err(_) => true,
                })
            });
            Ok(heard.boxed())
        })
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.must_remember()?;
        let request = put_vote_request(&self.network, self.target, &request);
        let answer = timeout(CALL, self.client.vote(request)).await;
        Ok(get_vote_response(
            answer.map_err(|_| lost("a vote was not answered"))?.map_err(call)?.into_inner(),
        ))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.must_remember()?;
        let request = put_vote_request(&self.network, self.target, &request);
        let answer = timeout(CALL, self.client.pre_vote(request)).await;
        Ok(get_vote_response(
            answer.map_err(|_| lost("a pre-vote was not answered"))?.map_err(call)?.into_inner(),
        ))
    }
}

fn put_vote_request(
    network: &Network,
    to: u64,
    request: &VoteRequest<TypeConfig>,
) -> pb::VoteRequest {
    pb::VoteRequest {
        sender: Some(network.sender(to)),
        vote: Some(put_vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(put_log_id),
        leader_transfer: request.leadership_transfer,
    }
}

fn get_vote_response(response: pb::VoteResponse) -> VoteResponse<TypeConfig> {
    VoteResponse {
        vote: get_vote(response.vote),
        vote_granted: response.granted,
        last_log_id: response.last_log_id.map(get_log_id),
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.must_remember()?;
        let request = pb::TransferLeaderRequest {
            sender: Some(self.network.sender(self.target)),
            from_leader: Some(put_vote(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log_id: request.last_log_id().map(put_log_id),
        };
        let answer = timeout(CALL, self.client.transfer_leader(request)).await;
        answer.map_err(|_| lost("a hand-over was not answered"))?.map_err(call)?;
        Ok(Ok(()))
    }
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = Snapshot;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: OpenraftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot.snapshot) => Ok(sent?),
        }
    }
}

impl Peer {
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, Unreachable<TypeConfig>> {
        let gone = |status: tonic::Status| Unreachable::from_string(status.to_string());
        self.must_remember()?;
        let offer = pb::OfferSnapshotRequest {
            sender: Some(self.network.sender(self.target)),
            vote: Some(put_vote(&vote)),
            manifest: Some(snapshot.manifest.clone()),
        };
        let missing = self.client.offer_snapshot(offer).await.map_err(gone)?.into_inner().missing;
        tracing::info!(to = self.target, files = missing.len(), "sends a snapshot");
        let header = pb::SnapshotHeader {
            sender: Some(self.network.sender(self.target)),
            vote: Some(put_vote(&vote)),
            manifest: Some(snapshot.manifest.clone()),
        };
        let first = pb::SnapshotChunk { header: Some(header), ..pb::SnapshotChunk::default() };
        let chunks = futures::stream::iter([first]).chain(chunks(snapshot.clone(), missing));
        match self.client.send_snapshot(chunks).await {
            Ok(answer) => Ok(SnapshotResponse::new(get_vote(answer.into_inner().vote))),
            Err(status) => {
                if status.code() == tonic::Code::DataLoss {
                    self.network.must_be_whole(snapshot).await;
                }
                Err(gone(status))
            }
        }
    }
}

/// Reads files piece by piece as the connection takes them. A file that cannot be read ends the stream: the
/// receiver finds it missing.
fn chunks(
    snapshot: Snapshot,
    missing: Vec<String>,
) -> impl Stream<Item = pb::SnapshotChunk> + Send + 'static {
    let start = (snapshot, missing.into_iter(), None::<(String, u64)>);
    futures::stream::unfold(start, |(snapshot, mut names, current)| async move {
        let (file, offset) = match current {
            Some(current) => current,
            None => (names.next()?, 0),
        };
        let data = snapshot.files.read(&file, offset, CHUNK).ok()?;
        let next = (data.len() == CHUNK).then(|| (file.clone(), offset + data.len() as u64));
        let chunk = pb::SnapshotChunk { header: None, file, offset, data };
        Some((chunk, (snapshot, names, next)))
    })
}

fn call(status: tonic::Status) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(status.to_string()))
}

fn forgetful() -> Unreachable<TypeConfig> {
    Unreachable::from_string("it has forgotten what it acknowledged")
}

fn lost(what: &str) -> RpcError {
    RPCError::Network(NetworkError::from_string(what))
}

/// Last log id of a request, for the answer to it.
pub(super) fn last_of(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}
