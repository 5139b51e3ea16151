//! Bad input at a real node: each is answered with its documented code and reason, and changes no row but the
//! cluster's own counters. What the state machine decides by itself has scripts of its own; here the door counts too.

use std::future::Future;

use bytes::{Buf as _, BufMut as _, Bytes};
use pinrail_client::{Client, Error, v1};
use pinrail_proto::limits;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message;
use pinrail_state_machine::key::{Kind, RowKey};
use pinrail_state_machine::store::{KeyRange, Order, Row};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::nodes::{Nodes, SOON, Stream, agent, hello, start};

/// One node with an agent `support`, its live bundle `v1`, and a run `r` whose step a worker holds.
struct Scene {
    nodes: Nodes,
    client: Client,
    worker: Stream,
    step: Box<v1::Assignment>,
}

impl Scene {
    async fn set() -> Self {
        let nodes = Nodes::start(1).await;
        let client = nodes.client();
        agent(&client).await;
        let mut worker = Stream::open(&nodes.endpoint(0), hello("w")).await.expect("it is let in");
        worker.next().await;
        worker.say(0, Request::Credit(v1::Credit { slots: 1 })).await;
        start(&client, "r").await;
        let (_, Message::Assignment(step)) = worker.next().await else { panic!("no assignment") };
        Self { nodes, client, worker, step }
    }

    /// All rows but the cluster's own, which counts every command.
    fn rows(&self) -> Vec<Row> {
        let all = KeyRange {
            start: RowKey::from_slice(&[Kind::Cluster as u8 + 1]),
            end: RowKey::from_slice(&[u8::MAX]),
        };
        let replica = &self.nodes.servers[0].as_ref().expect("it runs").replica;
        replica.read(|read| read.scan(&all, Order::Ascending, usize::MAX)).expect("it reads")
    }

    /// A connection that sends what it is given.
    async fn grpc(&self) -> Grpc<Channel> {
        let endpoint = format!("http://{}", self.nodes.endpoint(0));
        let channel = Channel::from_shared(endpoint).expect("an address").connect().await;
        let mut grpc = Grpc::new(channel.expect("it listens"));
        grpc.ready().await.expect("the connection is well");
        grpc
    }

    /// The call must be refused like this, and store nothing.
    async fn refused<T: std::fmt::Debug>(
        &self,
        what: &str,
        expected: (Code, &str),
        call: impl Future<Output = Result<T, Error>>,
    ) {
        let before = self.rows();
        let error = call.await.expect_err(what);
        let Error::Rejected { reason, code, .. } = &error else { panic!("{what}: {error:?}") };
        assert_eq!((Code::from_i32(*code), reason.as_str()), expected, "{what}: {error:?}");
        assert_eq!(self.rows(), before, "{what} stored something");
    }

    /// The same over the worker's stream.
    async fn refused_to_worker(&mut self, what: &str, expected: (Code, &str), message: Request) {
        let before = self.rows();
        self.worker.say(77, message).await;
        let refused = loop {
            match self.worker.next().await {
                (77, Message::Refused(refused)) => break refused,
                (77, other) => panic!("{what}: {other:?}"),
                (_, _) => {}
            }
        };
        let found = (Code::from_i32(refused.code), refused.reason.as_str());
        assert_eq!(found, expected, "{what}: {refused:?}");
        assert_eq!(self.rows(), before, "{what} stored something");
    }
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("it says its reason");
    assert_eq!(info.domain, "pinrail");
    info.reason
}

fn json(text: impl Into<Bytes>) -> Option<v1::Payload> {
    Some(v1::Payload { content_type: "application/json".into(), data: text.into() })
}

fn run(change: impl FnOnce(&mut v1::StartRunRequest)) -> v1::StartRunRequest {
    let mut request = v1::StartRunRequest {
        agent_id: "support".into(),
        run_id: "new".into(),
        input: json("1"),
        ..Default::default()
    };
    change(&mut request);
    request
}

fn bundle(bundle_id: &str, commit: &str, snapshot: &str) -> v1::CreateBundleRequest {
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "m".into(),
        snapshot: snapshot.into(),
        ..Default::default()
    };
    v1::CreateBundleRequest {
        agent_id: "support".into(),
        bundle_id: bundle_id.into(),
        manifest: Some(v1::BundleManifest {
            code: Some(v1::CodePart { git_commit: commit.into(), ..Default::default() }),
            models: [("default".to_owned(), model)].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory(key: &str, value: Option<v1::Payload>) -> v1::PutMemoryRequest {
    v1::PutMemoryRequest {
        agent_id: "support".into(),
        key: key.into(),
        value,
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let scene = Scene::set().await;
    let (client, code) = (&scene.client, Code::NotFound);
    let no_agent = (code, "AGENT_NOT_FOUND");
    let nobody = run(|run| run.agent_id = "nobody".into());
    scene.refused("a start of no agent", no_agent, client.runs().start(nobody)).await;
    let show = v1::GetAgentRequest { agent_id: "nobody".into(), ..Default::default() };
    scene.refused("a read of no agent", no_agent, client.agents().get(show)).await;
    let no_bundle = (code, "BUNDLE_NOT_FOUND");
    let switch = v1::SwitchRequest {
        agent_id: "support".into(),
        bundle_id: "v9".into(),
        ..Default::default()
    };
    scene.refused("a switch to no bundle", no_bundle, client.releases().switch(switch)).await;
    let explicit = run(|run| run.bundle_id = "v9".into());
    scene.refused("a start on no bundle", no_bundle, client.runs().start(explicit)).await;
    let cancel = v1::CancelRunRequest {
        agent_id: "support".into(),
        run_id: "no-run".into(),
        ..Default::default()
    };
    scene
        .refused("a cancel of no run", (code, "RUN_NOT_FOUND"), client.runs().cancel(cancel))
        .await;
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn a_bundle_is_pinned_and_immutable() {
    let scene = Scene::set().await;
    let client = &scene.client;
    for alias in ["latest", "stable", ""] {
        let floating = bundle("v2", "abc", alias);
        let expected = (Code::InvalidArgument, "MODEL_NOT_PINNED");
        scene.refused("a floating model", expected, client.bundles().create(floating)).await;
    }
    let other = bundle("v1", "def", "1");
    let expected = (Code::AlreadyExists, "BUNDLE_CONFLICT");
    scene.refused("other content", expected, client.bundles().create(other)).await;
    let same = client.bundles().create(bundle("v1", "abc", "1")).await.expect("the same again");
    assert!(same.already, "{same:?}");
    let missing = v1::CreateBundleRequest { manifest: None, ..bundle("v2", "abc", "1") };
    let expected = (Code::InvalidArgument, "INVALID_MANIFEST");
    scene.refused("no manifest", expected, client.bundles().create(missing)).await;
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let scene = Scene::set().await;
    let (client, too_large) = (&scene.client, (Code::InvalidArgument, "LIMIT_EXCEEDED"));
    let large = || json(format!("\"{}\"", "x".repeat(limits::PAYLOAD_BYTES)));
    let input = run(|run| run.input = large());
    scene.refused("an input", too_large, client.runs().start(input)).await;
    let value = memory("k", large());
    scene.refused("a memory value", too_large, client.memory().put(value)).await;
    let labels = run(|run| {
        run.labels = (0..=limits::LABELS).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    });
    scene.refused("labels", too_large, client.runs().start(labels)).await;
    // Beyond the size of any message the library says it before it sends, the node before it reads.
    let huge = run(|run| run.input = json(vec![b' '; limits::API_MESSAGE_BYTES]));
    scene.refused("a message", too_large, client.runs().start(huge.clone())).await;
    let mut grpc = scene.grpc().await;
    let path = "/pinrail.v1.RunService/StartRun".parse().expect("a path");
    let request = tonic::Request::new(Bytes::from(huge.encode_to_vec()));
    let status = grpc.unary(request, path, Raw).await.expect_err("it is not read");
    assert_eq!((status.code(), reason(&status).as_str()), too_large, "{status:?}");
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn a_wrong_expectation_changes_nothing() {
    let scene = Scene::set().await;
    let client = &scene.client;
    let update = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy::default()),
        options: Some(v1::WriteOptions { expected_revision: 999, ..Default::default() }),
        ..Default::default()
    };
    let expected = (Code::Aborted, "REVISION_MISMATCH");
    scene.refused("an update", expected, client.agents().update(update)).await;
    let put = v1::PutMemoryRequest { expected_key_revision: Some(999), ..memory("k", json("1")) };
    scene.refused("a memory write", expected, client.memory().put(put)).await;
    let switch = v1::SwitchRequest {
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        expected_epoch: 99,
        ..Default::default()
    };
    let expected = (Code::Aborted, "ROUTE_CHANGED");
    scene.refused("a switch", expected, client.releases().switch(switch)).await;
    let again = v1::StartRunRequest { run_id: "r".into(), input: json("2"), ..run(|_| {}) };
    let expected = (Code::AlreadyExists, "RUN_EXISTS");
    scene.refused("a run with another input", expected, client.runs().start(again)).await;
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn a_stale_token_is_refused_in_every_call_of_a_lease() {
    let mut scene = Scene::set().await;
    let stale = (Code::Aborted, "LEASE_STALE");
    let token = scene.step.token.map(|token| v1::StepToken {
        revision: token.revision + 1,
        incarnation: token.incarnation,
    });
    let (run_id, step) = ("r".to_owned(), scene.step.step);
    let complete = v1::CompleteStep {
        run_id: run_id.clone(),
        step,
        token,
        outcome: Some(v1::complete_step::Outcome::Done(v1::Payload::default())),
        ..Default::default()
    };
    scene.refused_to_worker("a completion", stale, Request::Complete(complete)).await;
    let fail = v1::FailStep {
        run_id: run_id.clone(),
        step,
        token,
        failure: Some(v1::Failure { reason: "X".into(), ..Default::default() }),
        ..Default::default()
    };
    scene.refused_to_worker("a failure", stale, Request::Fail(fail)).await;
    let checkpoint = v1::RecordCheckpoint {
        run_id,
        step,
        token,
        checkpoint: Some(v1::Checkpoint { name: "c".into(), value: json("1"), order: 1 }),
        usage: None,
    };
    scene.refused_to_worker("a checkpoint", stale, Request::Checkpoint(checkpoint)).await;
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn a_worker_of_other_code_is_not_let_in() {
    let scene = Scene::set().await;
    let before = scene.rows();
    let other = v1::WorkerHello { code: "def".into(), ..hello("x") };
    let refused = Stream::open(&scene.nodes.endpoint(0), other).await.err().expect("it is refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), "BUNDLE_MISMATCH");
    assert_eq!(scene.rows(), before);
    scene.nodes.stop_all().await;
}

#[tokio::test]
async fn malformed_values_are_refused() {
    let scene = Scene::set().await;
    let (client, bad) = (&scene.client, (Code::InvalidArgument, "INVALID_REQUEST"));
    let input = run(|run| run.input = json("{\"a\":"));
    scene.refused("input that is no JSON", bad, client.runs().start(input)).await;
    scene
        .refused("a value that is no JSON", bad, client.memory().put(memory("k", json("]"))))
        .await;
    for duration in [seconds(0), seconds(-1), seconds(i64::MIN), seconds(i64::MAX)] {
        let start = run(|run| run.max_age = duration);
        scene.refused("a max-age", bad, client.runs().start(start)).await;
        let put = v1::PutMemoryRequest { ttl: duration, ..memory("k", json("1")) };
        scene.refused("a ttl", bad, client.memory().put(put)).await;
    }
    for duration in [seconds(-1), seconds(i64::MAX)] {
        let runs = v1::RunPolicy { max_age: duration, ..Default::default() };
        let policy = v1::Policy { runs: Some(runs), ..Default::default() };
        let create = v1::CreateAgentRequest {
            agent_id: "other".into(),
            policy: Some(policy),
            ..Default::default()
        };
        let error = client.agents().create(create).await.expect_err("a policy's max-age");
        let Error::Rejected { reason, code, .. } = &error else { panic!("{error:?}") };
        assert_eq!(Code::from_i32(*code), Code::InvalidArgument, "{error:?}");
        assert!(["INVALID_POLICY", "INVALID_REQUEST"].contains(&reason.as_str()), "{error:?}");
    }
    let bad_id = (Code::InvalidArgument, "INVALID_ID");
    for name in ["", "a b", ".a", "a/b", "ä", &"x".repeat(64)] {
        let start = run(|run| run.agent_id = name.into());
        scene.refused("an agent's name", bad_id, client.runs().start(start)).await;
    }
    for id in ["a\0b", "a\nb", &"x".repeat(257)] {
        let start = run(|run| run.run_id = id.into());
        scene.refused("a run id", bad_id, client.runs().start(start)).await;
    }
    scene.nodes.stop_all().await;
}

/// Sends bytes as they are.
#[derive(Debug, Default, Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[tokio::test]
async fn ids_that_are_no_utf8_and_messages_that_do_not_decode_are_refused() {
    let scene = Scene::set().await;
    let mut grpc = scene.grpc().await;
    let before = scene.rows();
    // Field 2, the agent, with two bytes that are no UTF-8; and a length that runs past the end.
    for body in [&b"\x12\x02\xff\xfe"[..], b"\x12\x7fx"] {
        for method in ["RunService/StartRun", "AgentService/GetAgent", "MemoryService/PutMemory"] {
            grpc.ready().await.expect("the connection is well");
            let path = format!("/pinrail.v1.{method}").parse().expect("a path");
            let mut request = tonic::Request::new(Bytes::from_static(body));
            request.set_timeout(SOON);
            let status = grpc.unary(request, path, Raw).await.expect_err("it is refused");
            assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status:?}");
            assert_eq!(reason(&status), "INVALID_REQUEST", "{method}");
        }
    }
    assert_eq!(scene.rows(), before);
    scene.nodes.stop_all().await;
}
