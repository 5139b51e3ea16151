//! What a member answers to the others.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest,
    VoteRequest,
};
use parking_lot::Mutex;
use pinrail_proto::log as log_pb;
use pinrail_proto::peer as pb;
use pinrail_proto::peer::peer_service_server::PeerService;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use crate::storage::Incoming;

use super::network::last_of;
use super::replica::{ProposeError, ReadError, Replica};
use super::types::{
    TypeConfig, get_entry, get_log_id, get_snapshot_meta, get_vote, put_log_id, put_vote,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type OpenraftSnapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, crate::storage::Snapshot>;

/// The longest that a proposal of a follower may take here, whatever it asks for.
const PROPOSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct PeerServer {
    replica: Replica,
    /// One snapshot at a time is received.
    incoming: Arc<Mutex<Option<Incoming>>>,
}

impl PeerServer {
    pub(super) fn new(replica: Replica) -> Self {
        Self { replica, incoming: Arc::default() }
    }

    /// A node of another cluster, or one that means another node, is refused before anything is read.
    fn check(&self, sender: Option<&pb::Sender>) -> Result<(), Status> {
        let sender = sender.ok_or_else(|| Status::invalid_argument("the sender is missing"))?;
        let identity = self.replica.identity();
        if sender.cluster_id != identity.cluster.as_bytes() {
            return Err(Status::permission_denied("this node belongs to another cluster"));
        }
        if sender.to != identity.node_id {
            return Err(Status::permission_denied("another node was meant"));
        }
        Ok(())
    }

    /// The same, and Raft's own calls are only for a member that may answer them.
    fn check_raft(&self, sender: Option<&pb::Sender>) -> Result<(), Status> {
        self.check(sender)?;
        if !self.replica.is_admitted() {
            return Err(Status::unavailable("this member does not take part yet"));
        }
        Ok(())
    }
}

fn append_request(request: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entries = request.entries.into_iter().map(get_entry).collect::<Result<_, _>>();
    Ok(AppendEntriesRequest {
        vote: get_vote(request.vote),
        prev_log_id: request.prev_log_id.map(get_log_id),
        entries: entries.map_err(|error| Status::data_loss(error.to_string()))?,
        leader_commit: request.leader_commit.map(get_log_id),
    })
}

fn vote_request(request: pb::VoteRequest) -> VoteRequest<TypeConfig> {
    VoteRequest {
        vote: get_vote(request.vote),
        last_log_id: request.last_log_id.map(get_log_id),
        leadership_transfer: request.leader_transfer,
    }
}

fn vote_response(response: &openraft::raft::VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(put_vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(put_log_id),
    }
}

fn append_response(result: openraft::raft::StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as Outcome;
    let (result, log_id, vote) = match result {
        Ok(log_id) => (Outcome::Success, log_id, None),
        Err(StreamAppendError::Conflict(at)) => (Outcome::Conflict, Some(at), None),
        Err(StreamAppendError::HigherVote(vote)) => (Outcome::HigherVote, None, Some(vote)),
    };
    pb::AppendResponse {
        result: result.into(),
        log_id: log_id.as_ref().map(put_log_id),
        vote: vote.as_ref().map(put_vote),
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type AppendStream = Answers<pb::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let server = Self { replica: self.replica.clone(), incoming: Arc::clone(&self.incoming) };
        let raft = self.replica.raft().clone();
        // An idle stream would hold the storage of a member that has stopped for as long as the leader holds the stream.
        let stopped_here = self.replica.inner.stop.clone().cancelled_owned();
        // A broken or foreign request ends the stream; the leader opens another.
        let requests = tokio_stream::StreamExt::map_while(request.into_inner(), move |request| {
            let request = request.ok()?;
            server.check_raft(request.sender.as_ref()).ok()?;
            server.replica.time().observe(request.stamp_ms);
            append_request(request).ok()
        });
        let requests = requests.take_until(stopped_here).boxed();
        let answers = raft.stream_append(requests).map(|answer| match answer {
            Ok(result) => Ok(append_response(result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let request = request.into_inner();
        self.check_raft(request.sender.as_ref())?;
        self.replica.time().observe(request.stamp_ms);
        let request = append_request(request)?;
        let (prev, last) = (request.prev_log_id, last_of(&request));
        let answer = self.replica.raft().append_entries(request).await.map_err(stopped)?;
        if matches!(answer, AppendEntriesResponse::Conflict) && prev.is_none() {
            return Err(Status::internal("a conflict at the log's beginning"));
        }
        Ok(Response::new(append_response(answer.into_stream_result(prev, last))))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check_raft(request.sender.as_ref())?;
        let answer = self.replica.raft().vote(vote_request(request)).await.map_err(stopped)?;
        Ok(Response::new(vote_response(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check_raft(request.sender.as_ref())?;
        let answer = self.replica.raft().pre_vote(vote_request(request)).await.map_err(stopped)?;
        Ok(Response::new(vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.check_raft(request.sender.as_ref())?;
        let from = get_vote(request.from_leader);
        let last = request.last_log_id.map(get_log_id);
        let request = TransferLeaderRequest::new(from, request.to_node, last);
        let answer = self.replica.raft().handle_transfer_leader(request).await.map_err(stopped)?;
        answer.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(pb::TransferLeaderResponse {}))
    }

    async fn offer_snapshot(
        &self,
        request: Request<pb::OfferSnapshotRequest>,
    ) -> Result<Response<pb::OfferSnapshotResponse>, Status> {
        let request = request.into_inner();
        self.check_raft(request.sender.as_ref())?;
        let manifest = request.manifest.ok_or_else(|| Status::invalid_argument("no manifest"))?;
        let engine = Arc::clone(&self.replica.state().engine);
        let prepared = self.replica.env().blocking(move || {
            let incoming = engine.receive(manifest)?;
            let missing = incoming.missing()?;
            Ok::<_, std::io::Error>((incoming, missing))
        });
        let (incoming, missing) = prepared.await.map_err(stopped)?;
        *self.incoming.lock() = Some(incoming);
        Ok(Response::new(pb::OfferSnapshotResponse { missing }))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SendSnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let header = chunks.message().await?.and_then(|first| first.header);
        let header =
            header.ok_or_else(|| Status::invalid_argument("the first chunk has no header"))?;
        self.check_raft(header.sender.as_ref())?;
        let offered = self.incoming.lock().take();
        let mut incoming = offered
            .filter(|incoming| Some(&incoming.manifest) == header.manifest.as_ref())
            .ok_or_else(|| Status::failed_precondition("the snapshot was not offered"))?;
        while let Some(chunk) = chunks.message().await? {
            incoming.write(&chunk.file, chunk.offset, &chunk.data).map_err(stopped)?;
        }
        let engine = Arc::clone(&self.replica.state().engine);
        let received = self.replica.env().blocking(move || engine.received(incoming)).await;
        let snapshot = received.map_err(|error| Status::data_loss(error.to_string()))?;
        let meta = get_snapshot_meta(snapshot.manifest.meta.clone()).map_err(stopped)?;
        let vote = get_vote(header.vote);
        let installed =
            self.replica.raft().install_full_snapshot(vote, OpenraftSnapshot { meta, snapshot });
        let answer = installed.await.map_err(stopped)?;
        Ok(Response::new(pb::SendSnapshotResponse { vote: Some(put_vote(&answer.vote)) }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        use pb::propose_response::Result as Outcome;
        let request = request.into_inner();
        self.check(request.sender.as_ref())?;
        let timeout = Duration::from_millis(request.timeout_ms).min(PROPOSE);
        let result = match self.replica.propose_for_callers(request.commands, timeout).await {
            Ok(outcomes) => {
                let encode = |outcome: &log_pb::Outcome| outcome.encode_to_vec().into();
                Outcome::Outcomes(pb::Outcomes { outcomes: outcomes.iter().map(encode).collect() })
            }
            Err(ProposeError::NotLeader { leader }) => Outcome::NotLeader(pb::NotLeader {
                leader_id: leader.map_or(0, |leader| leader.node_id),
            }),
            Err(ProposeError::NoLeader | ProposeError::NoQuorum | ProposeError::Stopping) => {
                Outcome::NotLeader(pb::NotLeader { leader_id: 0 })
            }
            Err(ProposeError::Overloaded { retry_after }) => Outcome::OverloadedRetryMs(
                u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
            ),
            Err(ProposeError::Unknown { why }) => Outcome::Unknown(why),
            Err(error @ ProposeError::TooLarge { .. }) => {
                return Err(Status::invalid_argument(error.to_string()));
            }
        };
        Ok(Response::new(pb::ProposeResponse { result: Some(result) }))
    }

    async fn relay(
        &self,
        request: Request<pb::RelayRequest>,
    ) -> Result<Response<pb::RelayResponse>, Status> {
        let request = request.into_inner();
        self.check(request.sender.as_ref())?;
        let timeout = Duration::from_millis(request.timeout_ms).min(PROPOSE);
        let command = log_pb::Command::decode(request.command)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = match self.replica.propose_and_see(command, timeout).await {
            Ok(outcome) => {
                pb::RelayResponse { outcome: outcome.encode_to_vec().into(), error: String::new() }
            }
            Err(error) => pb::RelayResponse { outcome: Bytes::new(), error },
        };
        Ok(Response::new(answer))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        use pb::read_index_response::Result as Outcome;
        self.check(request.into_inner().sender.as_ref())?;
        let result = match self.replica.read_index_here().await {
            Ok(index) => Outcome::Index(index),
            Err(ReadError::NoLeader) => Outcome::NotLeader(pb::NotLeader { leader_id: 0 }),
            Err(error) => return Err(stopped(error)),
        };
        Ok(Response::new(pb::ReadIndexResponse { result: Some(result) }))
    }

    async fn identify(
        &self,
        request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyResponse>, Status> {
        Ok(Response::new(self.replica.identify(request.into_inner().from_node_id)))
    }
}
