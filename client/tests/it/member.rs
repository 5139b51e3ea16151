//! A member that listens on a real port and answers as the test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use pinrail_client::{Client, Config};
use pinrail_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use pinrail_proto::v1::release_service_server::{ReleaseService, ReleaseServiceServer};
use pinrail_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use pinrail_proto::v1::{self, work_request, work_response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Nothing in these tests takes this long.
pub(crate) const SOON: Duration = Duration::from_secs(10);

type Answer = Arc<dyn Fn(v1::SwitchRequest) -> Result<v1::SwitchResponse, Status> + Send + Sync>;
type Responses = Pin<Box<dyn Stream<Item = Result<v1::WorkResponse, Status>> + Send>>;

/// A member while it lives.
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    /// What it says of the cluster.
    pub(crate) status: Arc<Mutex<v1::GetClusterStatusResponse>>,
    streams: mpsc::Receiver<WorkerStream>,
    serving: JoinHandle<()>,
}

/// One pull stream, from the member's side.
pub(crate) struct WorkerStream {
    pub(crate) requests: Streaming<v1::WorkRequest>,
    pub(crate) responses: mpsc::Sender<Result<v1::WorkResponse, Status>>,
}

struct Script {
    switch: Answer,
    status: Arc<Mutex<v1::GetClusterStatusResponse>>,
    streams: mpsc::Sender<WorkerStream>,
}

impl Member {
    /// A member that answers switches like this.
    pub(crate) async fn switching(
        answer: impl Fn(v1::SwitchRequest) -> Result<v1::SwitchResponse, Status> + Send + Sync + 'static,
    ) -> Member {
        Member::start(Arc::new(answer), v1::GetClusterStatusResponse::default()).await
    }

    /// A member that hands its pull streams to the test.
    pub(crate) async fn pulled() -> Member {
        let refuse: Answer = Arc::new(|_| Err(Status::unimplemented("not in this test")));
        Member::start(refuse, v1::GetClusterStatusResponse::default()).await
    }

    pub(crate) async fn start(switch: Answer, status: v1::GetClusterStatusResponse) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (sender, streams) = mpsc::channel(16);
        let status = Arc::new(Mutex::new(status));
        let script = Script { switch, status: Arc::clone(&status), streams: sender };
        let script = Arc::new(script);
        let server = Server::builder()
            .add_service(ReleaseServiceServer::from_arc(Arc::clone(&script)))
            .add_service(ClusterServiceServer::from_arc(Arc::clone(&script)))
            .add_service(WorkerServiceServer::from_arc(script))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(async move {
            server.await.expect("it serves until it is dropped");
        });
        Member { address, status, streams, serving }
    }

    /// The next pull stream.
    pub(crate) async fn greeted(&mut self) -> WorkerStream {
        let stream = timeout(SOON, self.streams.recv()).await.expect("a stream comes");
        stream.expect("the member lives")
    }

    /// Whether a pull stream has come.
    pub(crate) fn was_greeted(&mut self) -> bool {
        self.streams.try_recv().is_ok()
    }

    /// The next pull stream, with its hello taken and answered.
    pub(crate) async fn welcome(&mut self) -> (WorkerStream, v1::WorkerHello) {
        self.welcome_to(tools()).await
    }

    /// The same, with this manifest.
    pub(crate) async fn welcome_to(
        &mut self,
        manifest: v1::BundleManifest,
    ) -> (WorkerStream, v1::WorkerHello) {
        let mut stream = self.greeted().await;
        let (_, message) = stream.next().await;
        let work_request::Message::Hello(hello) = message else { panic!("{message:?}") };
        stream
            .say(
                0,
                work_response::Message::Welcome(Box::new(v1::Welcome {
                    heartbeat_interval: Some(pinrail_proto::time::duration(50)),
                    bundle: Some(v1::Bundle {
                        bundle_id: hello.bundle_id.clone(),
                        manifest: Some(manifest),
                        ..Default::default()
                    }),
                    ..Default::default()
                })),
            )
            .await;
        (stream, hello)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl WorkerStream {
    /// The next message that is no heartbeat.
    pub(crate) async fn next(&mut self) -> (u64, work_request::Message) {
        loop {
            let (sequence, message) = self.next_of_all().await;
            if !matches!(message, work_request::Message::Heartbeat(_)) {
                return (sequence, message);
            }
        }
    }

    pub(crate) async fn next_of_all(&mut self) -> (u64, work_request::Message) {
        let request = timeout(SOON, self.requests.next()).await.expect("a message comes");
        let request = request.expect("the worker is there").expect("the stream works");
        (request.sequence, request.message.expect("a message that is known"))
    }

    /// Whether the worker ended the stream; heartbeats are passed over.
    pub(crate) async fn ends(&mut self) -> bool {
        loop {
            match timeout(SOON, self.requests.next()).await.expect("it ends") {
                Some(Ok(request)) => match request.message {
                    Some(work_request::Message::Heartbeat(_)) => {}
                    Some(_) | None => return false,
                },
                Some(Err(_)) | None => return true,
            }
        }
    }

    pub(crate) async fn say(&self, sequence: u64, message: work_response::Message) {
        let response = v1::WorkResponse { sequence, message: Some(message) };
        self.responses.send(Ok(response)).await.expect("the worker is there");
    }

    pub(crate) async fn done(&self, sequence: u64, closed: bool) {
        self.say(
            sequence,
            work_response::Message::Done(v1::Done { revision: 9, closed, ..v1::Done::default() }),
        )
        .await;
    }
}

/// One tool that only reads, one that destroys, and one that does but has a stub.
fn tools() -> v1::BundleManifest {
    let schema = r#"{"type":"object","required":["q"],"properties":{"q":{"type":"string"}}}"#;
    let tool = |side_effects: v1::SideEffects, stub: &str| v1::ToolPart {
        version: "1".into(),
        input_schema_json: schema.into(),
        output_schema_json: r#"{"type":"integer"}"#.into(),
        side_effects: side_effects.into(),
        stub_json: stub.into(),
    };
    let tools = [
        ("look", v1::SideEffects::ReadOnly, "5"),
        ("wipe", v1::SideEffects::Destructive, ""),
        ("send", v1::SideEffects::Destructive, "4"),
    ];
    let tools = tools.map(|(name, class, stub)| (name.to_owned(), tool(class, stub))).into();
    v1::BundleManifest { tools, ..Default::default() }
}

/// A client of these members that learns no others.
pub(crate) fn client(members: &[&Member]) -> Client {
    client_of(members.iter().map(|member| member.address))
}

/// The same, by their addresses.
pub(crate) fn client_of(addresses: impl IntoIterator<Item = SocketAddr>) -> Client {
    let endpoints = addresses.into_iter().map(|address| address.to_string()).collect();
    let config = Config { endpoints, ..Config::default() };
    Client::builder(config).learn_members(false).build().expect("the endpoints are valid")
}

/// A client that learns of the other members from this one.
pub(crate) fn learning(seed: &Member) -> Client {
    let config = Config { endpoints: vec![seed.address.to_string()], ..Config::default() };
    Client::new(config).expect("the endpoint is valid")
}

/// A status with one of our reasons.
pub(crate) fn status(code: Code, reason: &str) -> Status {
    let metadata = [("revision".to_owned(), "5".to_owned())];
    Status::with_error_details(
        code,
        "why",
        ErrorDetails::with_error_info(reason, "pinrail", metadata),
    )
}

/// Calls that no test makes.
macro_rules! unasked {
    ($($method:ident($request:ident) -> $answer:ty;)*) => {
        $(fn $method<'a: 'f, 'f>(
            &'a self,
            _: Request<v1::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$answer>, Status>> + Send + 'f>>
        where
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("not in this test")) })
        })*
    };
}

#[tonic::async_trait]
impl ReleaseService for Script {
    type WatchReleaseStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchReleaseResponse, Status>> + Send>>;

    unasked! {
        plan_release(PlanReleaseRequest) -> v1::PlanReleaseResponse;
        start_release(StartReleaseRequest) -> v1::StartReleaseResponse;
        get_release(GetReleaseRequest) -> v1::GetReleaseResponse;
        list_releases(ListReleasesRequest) -> v1::ListReleasesResponse;
        watch_release(WatchReleaseRequest) -> Self::WatchReleaseStream;
        promote_release(PromoteReleaseRequest) -> v1::PromoteReleaseResponse;
        hold_release(HoldReleaseRequest) -> v1::HoldReleaseResponse;
        resume_release(ResumeReleaseRequest) -> v1::ResumeReleaseResponse;
        abort_release(AbortReleaseRequest) -> v1::AbortReleaseResponse;
        extend_quarantine(ExtendQuarantineRequest) -> v1::ExtendQuarantineResponse;
        recycle_bundle(RecycleBundleRequest) -> v1::RecycleBundleResponse;
    }

    async fn switch(
        &self,
        request: Request<v1::SwitchRequest>,
    ) -> Result<Response<v1::SwitchResponse>, Status> {
        (self.switch)(request.into_inner()).map(Response::new)
    }

    async fn rollback(
        &self,
        _: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        // Slow for ever: for calls whose fate stays unknown.
        std::future::pending().await
    }
}

#[tonic::async_trait]
impl WorkerService for Script {
    type WorkStream = Responses;

    async fn work(
        &self,
        request: Request<Streaming<v1::WorkRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (responses, receiver) = mpsc::channel(64);
        let stream = WorkerStream { requests: request.into_inner(), responses };
        self.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        Err(status(Code::Unavailable, "NO_LEADER"))
    }

    async fn drain_worker(
        &self,
        _: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl ClusterService for Script {
    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        Ok(Response::new(self.status.lock().clone()))
    }

    async fn get_cluster_health(
        &self,
        _: Request<v1::GetClusterHealthRequest>,
    ) -> Result<Response<v1::GetClusterHealthResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn add_member(
        &self,
        _: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        // The connection breaks somewhere on the way.
        Err(Status::unavailable("gone"))
    }

    async fn remove_member(
        &self,
        _: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    type SaveSnapshotStream = tokio_stream::Empty<Result<v1::SaveSnapshotResponse, Status>>;

    async fn save_snapshot(
        &self,
        _: Request<v1::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_content_hash(
        &self,
        _: Request<v1::GetContentHashRequest>,
    ) -> Result<Response<v1::GetContentHashResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
