//! WorkerService: the workers' pull streams, who is connected, and drains. Only the leader knows workers, so a follower
//! relays a whole stream or call to it. Knows no rule: [`Dispatch`] judges.
//!
//! A stream ends with UNAVAILABLE when this node leads no more; the new leader's address, when it is known, is in the
//! trailer `pinrail-leader`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use pinrail_proto::limits::{API_MESSAGE_BYTES, ASSIGNMENT_BYTES};
use pinrail_proto::v1::worker_service_client::WorkerServiceClient;
use pinrail_proto::v1::worker_service_server::{self, WorkerServiceServer};
use pinrail_proto::v1::{self, work_request, work_response};
use pinrail_proto::{log, reason};
use tokio::time::timeout;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use super::Node;
use super::error;
use crate::driver::{Dispatch, DrainError, OpenError, SessionEnd, WorkerStream};
use crate::env::Net;
use crate::raft::PeerInfo;

/// Set by a follower that relays, to its own name: a leader that is none any more must not relay again.
const RELAYED_BY: &str = "pinrail-relayed-by";
/// Trailer with the gRPC address of the leader.
const LEADER: &str = "pinrail-leader";
/// From the opening of a stream to its introduction.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A relayed unary call.
const RELAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Leaders whose connection is kept.
const CHANNELS: usize = 16;

type Answers = Pin<Box<dyn Stream<Item = Result<v1::WorkResponse, Status>> + Send>>;

/// See the module.
#[derive(Clone)]
pub struct WorkerService {
    node: Node,
    /// This node's name.
    name: String,
    net: Arc<dyn Net>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl std::fmt::Debug for WorkerService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerService").finish_non_exhaustive()
    }
}

impl WorkerService {
    /// `net` leads to the other members.
    #[must_use]
    pub fn new(node: Node, net: Arc<dyn Net>) -> Self {
        let name = node.replica.status().node;
        Self { node, name, net, channels: Arc::default() }
    }

    /// With the API's limits on messages.
    #[must_use]
    pub fn server(self) -> WorkerServiceServer<Self> {
        WorkerServiceServer::new(self)
            .max_decoding_message_size(API_MESSAGE_BYTES)
            .max_encoding_message_size(ASSIGNMENT_BYTES)
    }

    fn dispatch(&self) -> &Dispatch {
        &self.node.dispatch
    }

    /// The leader to relay to: not this node, and not again.
    async fn relay_to(&self, metadata: &MetadataMap) -> Result<PeerInfo, Status> {
        let no_leader = || no_leader(self.dispatch().leader().as_ref());
        if metadata.contains_key(RELAYED_BY) {
            return Err(no_leader());
        }
        self.node.other_leader().await.ok_or_else(no_leader)
    }

    fn client(&self, leader: &PeerInfo) -> WorkerServiceClient<Channel> {
        let address = leader.grpc_address.clone();
        let known = self.channels.lock().get(&address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = self.net.connect(&address);
                let mut channels = self.channels.lock();
                if channels.len() >= CHANNELS {
                    channels.clear();
                }
                channels.insert(address, channel.clone());
                channel
            }
        };
        WorkerServiceClient::new(channel)
            .max_decoding_message_size(ASSIGNMENT_BYTES)
            .max_encoding_message_size(API_MESSAGE_BYTES)
    }

    fn mark<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(name) = MetadataValue::try_from(self.name.as_str()) {
            request.metadata_mut().insert(RELAYED_BY, name);
        }
        request
    }

    /// Passes a worker's stream on to the leader, until either end or the leadership is over.
    async fn relay(
        &self,
        leader: PeerInfo,
        inbound: Streaming<v1::WorkRequest>,
    ) -> Result<Answers, Status> {
        let mut client = self.client(&leader);
        // An error of the worker's side ends the stream to the leader.
        let requests = inbound.take_while(|request| std::future::ready(request.is_ok()));
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        let answers = client.work(self.mark(requests)).await?.into_inner();
        let mut leadership = self.node.replica.leadership();
        leadership.mark_unchanged();
        let over = async move {
            while leadership.changed().await.is_ok() {
                let now = leadership.borrow_and_update().leader.clone();
                if now.as_ref().map(|now| now.node_id) != Some(leader.node_id) {
                    return no_leader(now.as_ref());
                }
            }
            no_leader(None)
        };
        Ok(Box::pin(until(answers, over)))
    }

    async fn serve(
        &self,
        node: &str,
        mut inbound: Streaming<v1::WorkRequest>,
    ) -> Result<Answers, Status> {
        let first = timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the worker did not introduce itself"))??;
        let Some(v1::WorkRequest { sequence, message: Some(work_request::Message::Hello(hello)) }) =
            first
        else {
            return Err(refused("the first message of a worker's stream is its hello"));
        };
        let (welcome, session) = self.dispatch().open(&hello, node).map_err(|why| match why {
            OpenError::NotLeader { leader } => no_leader(leader.as_ref()),
            OpenError::Refused(rejection) => error::rejected(&rejection, 0),
            OpenError::Read(why) => error::read(why),
        })?;
        let inbox = session.inbox();
        tokio::spawn(async move {
            while let Ok(Some(request)) = inbound.message().await {
                if !inbox.receive(request).await {
                    break;
                }
            }
            inbox.close();
        });
        let message = Some(work_response::Message::Welcome(Box::new(welcome)));
        let welcome = v1::WorkResponse { sequence, message };
        Ok(Box::pin(stream::iter([Ok(welcome)]).chain(answers(session, self.dispatch().clone()))))
    }
}

#[tonic::async_trait]
impl worker_service_server::WorkerService for WorkerService {
    type WorkStream = Answers;

    async fn work(
        &self,
        request: Request<Streaming<v1::WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        if !self.dispatch().leads() {
            let leader = self.relay_to(request.metadata()).await?;
            return Ok(Response::new(self.relay(leader, request.into_inner()).await?));
        }
        let by = request.metadata().get(RELAYED_BY).and_then(|name| name.to_str().ok());
        let node = by.unwrap_or(&self.name).to_owned();
        Ok(Response::new(self.serve(&node, request.into_inner()).await?))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let it = request.get_ref();
        let namespace = namespace(&it.namespace);
        if let Some(workers) = self.dispatch().workers(namespace, &it.agent_id, &it.bundle_id) {
            let revision =
                self.dispatch().check_agent(namespace, &it.agent_id).map_err(error::read)?;
            return Ok(Response::new(v1::ListWorkersResponse { workers, revision }));
        }
        let leader = self.relay_to(request.metadata()).await?;
        let call = self.mark(request.into_inner());
        let mut client = self.client(&leader);
        let answer = timeout(RELAY_TIMEOUT, client.list_workers(call)).await;
        answer.map_err(|_| no_leader(None))?.map_err(relayed)
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let it = request.get_ref();
        let namespace = namespace(&it.namespace);
        match self.dispatch().drain_worker(namespace, &it.agent_id, &it.worker_id) {
            Ok(worker) => {
                return Ok(Response::new(v1::DrainWorkerResponse { worker: Some(worker) }));
            }
            Err(DrainError::NotFound) => {
                self.dispatch().check_agent(namespace, &it.agent_id).map_err(error::read)?;
                let message = format!("agent {} has no live worker {}", it.agent_id, it.worker_id);
                return Err(error::rejected(&rejection(reason::WORKER_NOT_FOUND, message), 0));
            }
            Err(DrainError::NotLeader { .. }) => {}
        }
        let leader = self.relay_to(request.metadata()).await?;
        let call = self.mark(request.into_inner());
        let mut client = self.client(&leader);
        // Whether a leader that did not answer drained the worker is not known; doing it again is the same.
        let answer = timeout(RELAY_TIMEOUT, client.drain_worker(call)).await;
        answer.map_err(|_| no_leader(None))?.map_err(relayed)
    }
}

/// Everything for the worker, and at the end why.
fn answers(
    session: WorkerStream,
    dispatch: Dispatch,
) -> impl Stream<Item = Result<v1::WorkResponse, Status>> + Send {
    stream::unfold(Some((session, dispatch)), |open| async move {
        let (mut session, dispatch) = open?;
        match session.next().await {
            Some(response) => Some((Ok(response), Some((session, dispatch)))),
            None => session.end().map(|why| (Err(ended(&why, &dispatch)), None)),
        }
    })
}

fn ended(why: &SessionEnd, dispatch: &Dispatch) -> Status {
    match why {
        SessionEnd::NotLeader => no_leader(dispatch.leader().as_ref()),
        SessionEnd::TooSlow => {
            let message = "the worker does not read its stream".to_owned();
            error::rejected(&rejection(reason::OVERLOADED, message), 0)
        }
        SessionEnd::Replaced => Status::aborted("another stream has the same worker id"),
        SessionEnd::Silent => Status::deadline_exceeded("no heartbeat for three intervals"),
    }
}

/// Passes a stream through until `over` says why it has to end.
fn until(
    answers: Streaming<v1::WorkResponse>,
    over: impl Future<Output = Status> + Send + 'static,
) -> impl Stream<Item = Result<v1::WorkResponse, Status>> + Send {
    stream::unfold(Some((answers, Box::pin(over))), |open| async move {
        let (mut answers, mut over) = open?;
        tokio::select! {
            message = answers.message() => match message {
                Ok(Some(response)) => Some((Ok(response), Some((answers, over)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            },
            status = &mut over => Some((Err(status), None)),
        }
    })
}

fn no_leader(leader: Option<&PeerInfo>) -> Status {
    let mut status = error::no_leader(leader);
    if let Some(address) = leader.and_then(|l| MetadataValue::try_from(&l.grpc_address).ok()) {
        status.metadata_mut().insert(LEADER, address);
    }
    status
}

/// What a leader refused stays as it is; that it could not be reached means that none is known.
fn relayed(status: Status) -> Status {
    if status.get_details_error_info().is_some() { status } else { no_leader(None) }
}

fn refused(message: &str) -> Status {
    error::rejected(&rejection(reason::INVALID_REQUEST, message.to_owned()), 0)
}

fn rejection(reason: reason::Reason, message: String) -> log::Rejection {
    log::Rejection { reason: reason.name.to_owned(), message, metadata: BTreeMap::new() }
}

fn namespace(name: &str) -> &str {
    if name.is_empty() { "default" } else { name }
}
