//! Whole nodes in one process: any of them takes a worker, and a worker outlives its leader.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Config, Worker, v1};
use pinrail_node::config::ServerConfig;
use pinrail_node::env::Env;
use pinrail_node::server::{Server, ServerError};
use pinrail_node::testing::Cluster;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message;
use pinrail_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A cluster, and a client of it.
pub(crate) struct Nodes(Cluster);

impl Deref for Nodes {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.0
    }
}

impl Nodes {
    pub(crate) async fn start(count: usize) -> Self {
        Self(Cluster::start(count).await)
    }

    pub(crate) fn client(&self) -> Client {
        client(self.endpoints())
    }

    /// A client that knows one node only.
    pub(crate) fn client_of(&self, index: usize) -> Client {
        client(vec![self.endpoint(index)])
    }

    pub(crate) async fn stop_all(self) {
        self.0.stop_all().await;
    }
}

fn client(endpoints: Vec<String>) -> Client {
    let config = Config { endpoints, timeout: SOON, ..Config::default() };
    Client::new(config).expect("it is well formed")
}

pub(crate) async fn agent(client: &Client) {
    agent_named(client, "support").await;
}

/// An agent with one live bundle `v1`.
pub(crate) async fn agent_named(client: &Client, name: &str) {
    let agent_id = || name.to_owned();
    let request = v1::CreateAgentRequest { agent_id: agent_id(), ..Default::default() };
    client.agents().create(request).await.expect("the agent is created");
    let code = v1::CodePart { git_commit: "abc".into(), ..Default::default() };
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "m".into(),
        snapshot: "1".into(),
        ..Default::default()
    };
    let manifest = v1::BundleManifest {
        code: Some(code),
        models: [("default".to_owned(), model)].into(),
        ..Default::default()
    };
    let request = v1::CreateBundleRequest {
        agent_id: agent_id(),
        bundle_id: "v1".into(),
        manifest: Some(manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("the bundle is created");
    let request =
        v1::SwitchRequest { agent_id: agent_id(), bundle_id: "v1".into(), ..Default::default() };
    client.releases().switch(request).await.expect("it goes live");
}

/// Another bundle of the agent with the same content, which goes live.
pub(crate) async fn switch_to(client: &Client, bundle_id: &str) {
    let request = v1::GetBundleRequest {
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        ..Default::default()
    };
    let first = client.bundles().get(request).await.expect("it is read").bundle;
    let request = v1::CreateBundleRequest {
        agent_id: "support".into(),
        bundle_id: bundle_id.into(),
        manifest: first.and_then(|bundle| bundle.manifest),
        ..Default::default()
    };
    client.bundles().create(request).await.expect("another bundle");
    // Whether it has workers yet is not what these tests are about.
    let request = v1::SwitchRequest {
        agent_id: "support".into(),
        bundle_id: bundle_id.into(),
        force: true,
        options: Some(v1::WriteOptions { reason: "test".into(), ..Default::default() }),
        ..Default::default()
    };
    client.releases().switch(request).await.expect("it goes live");
}

pub(crate) async fn start(client: &Client, run_id: &str) {
    let request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: run_id.into(),
        input: Some(v1::Payload { content_type: "application/json".into(), data: "1".into() }),
        ..Default::default()
    };
    client.runs().start(request).await.expect("the run starts");
}

/// A worker's stream as bare as it is on the wire.
pub(crate) struct Stream {
    to: mpsc::Sender<v1::WorkRequest>,
    from: Streaming<v1::WorkResponse>,
}

impl Stream {
    pub(crate) async fn open(
        endpoint: &str,
        hello: v1::WorkerHello,
    ) -> Result<Self, tonic::Status> {
        let channel = Channel::from_shared(format!("http://{endpoint}")).expect("an address");
        let channel = channel.connect().await.expect("it listens");
        let (to, requests) = mpsc::channel(16);
        let hello = v1::WorkRequest { sequence: 1, message: Some(Request::Hello(hello)) };
        to.send(hello).await.expect("there is room");
        let answers = WorkerServiceClient::new(channel).work(ReceiverStream::new(requests)).await?;
        Ok(Self { to, from: answers.into_inner() })
    }

    pub(crate) async fn say(&self, sequence: u64, message: Request) {
        let request = v1::WorkRequest { sequence, message: Some(message) };
        self.to.send(request).await.expect("the stream is open");
    }

    pub(crate) async fn next(&mut self) -> (u64, Message) {
        let response = timeout(SOON, self.from.message()).await.expect("a message in time");
        let response = response.expect("the stream is well").expect("the stream goes on");
        (response.sequence, response.message.expect("it says something"))
    }

    /// Completes a step of the run `open`, and gives why that is refused.
    pub(crate) async fn completes_in_vain(&mut self, step: &v1::Assignment) -> v1::Refused {
        let complete = v1::CompleteStep {
            run_id: "open".into(),
            step: step.step,
            token: step.token,
            outcome: Some(v1::complete_step::Outcome::Done(v1::Payload::default())),
            ..Default::default()
        };
        self.say(9, Request::Complete(complete)).await;
        loop {
            match self.next().await {
                (9, Message::Refused(why)) => return why,
                (9, other) => panic!("it is not refused: {other:?}"),
                _ => {}
            }
        }
    }
}

pub(crate) fn hello(worker: &str) -> v1::WorkerHello {
    v1::WorkerHello {
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        worker_id: worker.into(),
        code: "abc".into(),
        slots: 2,
        ..Default::default()
    }
}

#[tokio::test]
async fn any_node_takes_a_worker_and_knows_it() {
    let nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let leader = nodes.leader().await;
    let follower = (leader + 1) % 3;
    let mut stream =
        Stream::open(&nodes.endpoint(follower), hello("w")).await.expect("it is let in");
    let (sequence, welcome) = stream.next().await;
    assert!(matches!(welcome, Message::Welcome(ref w) if w.verified), "{welcome:?}");
    assert_eq!(sequence, 1);
    stream.say(0, Request::Credit(v1::Credit { slots: 2 })).await;
    start(&client, "r").await;
    let (_, Message::Assignment(step)) = stream.next().await else { panic!("no assignment") };
    assert_eq!((step.run_id.as_str(), step.bundle_id.as_str()), ("r", "v1"));
    for (index, _) in nodes.live() {
        let channel = Channel::from_shared(format!("http://{}", nodes.endpoint(index)))
            .expect("an address")
            .connect()
            .await
            .expect("it listens");
        let request = v1::ListWorkersRequest { agent_id: "support".into(), ..Default::default() };
        let answer = WorkerServiceClient::new(channel).list_workers(request).await;
        let workers = answer.expect("every node answers").into_inner().workers;
        assert_eq!(workers.len(), 1, "asked at n{index}");
        assert_eq!((workers[0].held, workers[0].free_slots), (1, 1));
        assert_eq!(workers[0].node, format!("n{follower}"));
    }
    let done = v1::complete_step::Outcome::Done(v1::Payload::default());
    let complete = v1::CompleteStep {
        run_id: "r".into(),
        step: step.step,
        token: step.token,
        outcome: Some(done),
        ..Default::default()
    };
    stream.say(9, Request::Complete(complete)).await;
    let (sequence, answer) = stream.next().await;
    assert!(matches!(answer, Message::Done(ref done) if done.closed), "{answer:?}");
    assert_eq!(sequence, 9);
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_worker_that_may_not_come_in_is_told_why_at_any_node() {
    let nodes = Nodes::start(3).await;
    agent(&nodes.client()).await;
    for (index, _) in nodes.live() {
        let wrong = |change: fn(&mut v1::WorkerHello)| {
            let mut hello = hello("w");
            change(&mut hello);
            let endpoint = nodes.endpoint(index);
            async move { Stream::open(&endpoint, hello).await.err().expect("it is refused").code() }
        };
        let other_code = wrong(|hello| hello.code = "def".into()).await;
        assert_eq!(other_code, tonic::Code::FailedPrecondition);
        let no_bundle = wrong(|hello| hello.bundle_id = "v9".into()).await;
        assert_eq!(no_bundle, tonic::Code::NotFound);
        let no_name = wrong(|hello| hello.agent_id = "a b".into()).await;
        assert_eq!(no_name, tonic::Code::InvalidArgument);
    }
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_leadership_and_names_the_next_leader() {
    let nodes = Nodes::start(3).await;
    agent(&nodes.client()).await;
    let leader = nodes.leader().await;
    let mut stream = Stream::open(&nodes.endpoint(leader), hello("w")).await.expect("it is let in");
    stream.next().await;
    let to = format!("n{}", (leader + 1) % 3);
    let replica = nodes.servers[leader].as_ref().expect("it runs").replica.clone();
    replica.transfer_leader(Some(&to)).await.expect("the leadership moves");
    let status = timeout(SOON, stream.from.message()).await.expect("it ends in time");
    let status = status.expect_err("it ends with a status");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let next = nodes.leader().await;
    assert_eq!(format!("n{next}"), to);
    if let Some(hint) = status.metadata().get("pinrail-leader") {
        assert_eq!(hint.to_str().ok(), Some(nodes.endpoint(next).as_str()));
    }
    nodes.stop_all().await;
}

async fn count(ctx: StepContext, to: u32) -> StepResult<Next> {
    Ok(if ctx.step() < 3 { Next::step("main", to + 1) } else { Next::done(to) })
}

#[tokio::test]
async fn workers_and_runs_outlive_the_leader() {
    let mut nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", count)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    for i in 0..5 {
        let sum: u32 = client.run("support", i).await.expect("it completes");
        assert_eq!(sum, i + 2);
    }
    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    for i in 0..5 {
        let sum: u32 = client.run("support", i).await.expect("it completes under the next leader");
        assert_eq!(sum, i + 2);
    }
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic").expect("it ends well");
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_member_that_is_down_is_not_called_without_a_pause() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.leader().await;
    let down = (leader + 1) % 3;
    let peer = nodes.servers[down].as_ref().expect("it runs").peer_addr;
    nodes.stop(down).await;
    let listener = tokio::net::TcpListener::bind(peer).await.expect("its port is free again");
    agent(&nodes.client()).await;
    let mut calls = 0;
    let count = async {
        loop {
            // Taken and dropped at once: the caller sees an error.
            drop(listener.accept().await);
            calls += 1;
        }
    };
    assert!(
        timeout(Duration::from_secs(3), count).await.is_err(),
        "it counts until the time is over"
    );
    // Heartbeats come every 50 ms, on a connection of their own; appends and questions are rarer.
    assert!(calls < 300, "{calls} connections in 3 s");
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_and_named() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("it is bound");
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let mut config = ServerConfig::local("test", "n0", &data.path().join("n0"), 0);
    config.listen.http = address;
    let error = Server::start(config, Env::real()).await.expect_err("the port is in use");
    assert!(matches!(error, ServerError::Listen { what: "HTTP", .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_stopped_node_starts_again_where_it_was() {
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let config = ServerConfig::local("test", "n0", &data.path().join("n0"), 0);
    for round in 0..2 {
        let server = Server::start(config.clone(), Env::real()).await.expect("it starts");
        let client = client(vec![server.grpc_addr.to_string()]);
        if round == 0 {
            agent(&client).await;
            start(&client, "r").await;
        }
        let request = v1::GetRunRequest {
            agent_id: "support".into(),
            run_id: "r".into(),
            ..Default::default()
        };
        let run = client.runs().get(request).await.expect("the run is there").run;
        assert_eq!(run.expect("it is in the answer").state(), v1::RunState::Queued);
        server.shutdown().await;
    }
}
