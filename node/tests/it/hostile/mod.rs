//! Hostile input at every method of the API, found by reflection: a method that is added is covered, or a test fails.
//!
//! Each call must be answered, with what the API documents: never INTERNAL or UNKNOWN, never a hung call, a panic or the
//! end of the node. A refusal names its reason, and stores nothing.

mod case;
mod connections;
mod request;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use pinrail_client::{Client, v1};
use pinrail_proto::reason;
use pinrail_state_machine::key::{Kind, RowKey};
use pinrail_state_machine::store::{KeyRange, Order};
use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::nodes::{Nodes, agent_named, hello};

use case::Case;
use wire::{Answer, Wire, framed};

/// Calls that are under way at once.
const AT_ONCE: usize = 256;
/// Time passes while calls are made again, and rows change by it; what a call changes changes each time.
const LOOKS: usize = 5;

/// A connection for each method.
type Wires = BTreeMap<String, Wire>;

/// One hostile call.
#[derive(Clone)]
struct Call {
    method: MethodDescriptor,
    case: Case,
    /// Behind a hello that is taken.
    introduced: bool,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let introduced = if self.introduced { ", behind a hello" } else { "" };
        write!(f, "{}: {}{introduced}", self.method.full_name(), self.case)
    }
}

impl Call {
    fn agent(&self) -> String {
        agent_of(&self.method)
    }

    fn frames(&self) -> Bytes {
        let frame = self.case.frame(&self.method.input(), &self.agent());
        if !self.introduced {
            return frame;
        }
        // Two streams of one worker are another matter.
        static WORKERS: AtomicU64 = AtomicU64::new(0);
        let worker = format!("w-{}", WORKERS.fetch_add(1, Ordering::Relaxed));
        let hello = v1::WorkRequest {
            sequence: 1,
            message: Some(v1::work_request::Message::Hello(v1::WorkerHello {
                agent_id: self.agent(),
                ..hello(&worker)
            })),
        };
        let mut frames = BytesMut::from(framed(&hello.encode_to_vec()));
        frames.extend_from_slice(&frame);
        frames.freeze()
    }

    async fn make(&self, wire: &Wire) -> Result<Answer, String> {
        let service = self.method.parent_service().full_name();
        wire.call(&format!("/{service}/{}", self.method.name()), self.frames()).await
    }
}

/// Each method has an agent to itself: what is legal may change it.
fn agent_of(method: &MethodDescriptor) -> String {
    format!("{}-{}", method.parent_service().name(), method.name())
}

/// Every method of package `pinrail.v1`.
fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(pinrail_proto::DESCRIPTORS).expect("it is the build's own");
    let services = pool.services().filter(|service| service.package_name() == "pinrail.v1");
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn calls(method: &MethodDescriptor) -> Vec<Call> {
    let call = |introduced| move |case| Call { method: method.clone(), case, introduced };
    let mut calls: Vec<Call> = case::all(&method.input()).into_iter().map(call(false)).collect();
    if method.is_client_streaming() {
        let introduced = case::all(&method.input()).into_iter();
        let hello = |case: &Case| case.field().is_some_and(|field| field.name() == "hello");
        calls.extend(introduced.filter(|case| !hello(case)).map(call(true)));
    }
    calls
}

/// What is wrong with an answer.
fn judge(call: &Call, answer: &Result<Answer, String>) -> Result<(), String> {
    let answer = answer.as_ref().map_err(String::clone)?;
    if call.method.is_client_streaming() {
        for message in wire::messages(&answer.data) {
            let message = v1::WorkResponse::decode(message).map_err(|error| error.to_string())?;
            if let Some(v1::work_response::Message::Refused(it)) = message.message {
                documented(Code::from_i32(it.code), &it.reason)?;
            }
        }
    }
    let Some(status) = &answer.status else { return Ok(()) };
    if status.code() == Code::Ok {
        return match call.case.must() {
            // A worker's stream that is introduced is closed without a word, as its worker would close it.
            Some(must) if !call.introduced => Err(format!("it is taken: {}", must.name)),
            Some(_) | None => Ok(()),
        };
    }
    let reason = reason_of(status).ok_or_else(|| format!("no reason: {status:?}"))?;
    documented(status.code(), &reason)?;
    match call.case.must() {
        Some(must) if must.name != reason => Err(format!("not {}: {status:?}", must.name)),
        Some(_) | None => Ok(()),
    }
}

fn reason_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "pinrail").then_some(info.reason)
}

/// A refusal's code is the one of its reason, and both say that the caller is to blame.
fn documented(code: Code, reason: &str) -> Result<(), String> {
    let known = reason::find(reason).ok_or_else(|| format!("an unknown reason: {reason}"))?;
    if known.code != i32::from(code) {
        return Err(format!("{reason} came with {code:?}"));
    }
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::PermissionDenied => Ok(()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Err(format!("{reason} came with {code:?}")),
    }
}

fn is_refused(answer: &Result<Answer, String>) -> bool {
    let status = answer.as_ref().ok().and_then(|answer| answer.status.as_ref());
    status.is_some_and(|status| status.code() != Code::Ok)
}

fn is_stale(answer: &Result<Answer, String>) -> bool {
    let status = answer.as_ref().ok().and_then(|answer| answer.status.as_ref());
    status.and_then(reason_of).is_some_and(|reason| reason == reason::STALE_READ.name)
}

async fn made(wires: &Wires, calls: Vec<Call>) -> Vec<(Call, Result<Answer, String>)> {
    let made = calls.into_iter().map(|call| {
        let wire = wires[call.method.full_name()].clone();
        let made = tokio::spawn(async move {
            let answer = call.make(&wire).await;
            (call, answer)
        });
        async { made.await.expect("it does not panic") }
    });
    stream::iter(made).buffer_unordered(AT_ONCE).collect().await
}

/// All rows but the cluster's own, which counts every command.
fn rows(nodes: &Nodes) -> BTreeMap<Bytes, Bytes> {
    let all = KeyRange {
        start: RowKey::from_slice(&[Kind::Cluster as u8 + 1]),
        end: RowKey::from_slice(&[u8::MAX]),
    };
    let replica = &nodes.servers[0].as_ref().expect("it runs").replica;
    let rows = replica.read(|read| read.scan(&all, Order::Ascending, usize::MAX));
    rows.expect("it reads").into_iter().collect()
}

/// Panics of any thread from here on: a task that ends by one ends silently.
fn panics() -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (said, before) = (Arc::clone(&seen), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        said.lock().expect("nobody panics with it").push(panic.to_string());
        before(panic);
    }));
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_refuses_what_is_hostile_and_stores_nothing() {
    let panics = panics();
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let namespace = v1::CreateNamespaceRequest { namespace: "spare".into(), ..Default::default() };
    client.namespaces().create(namespace).await.expect("a namespace");
    let methods = methods();
    for method in &methods {
        scene(&client, &agent_of(method)).await;
    }
    // Of one method each: what a connection is closed for is no concern of the others.
    let mut wires = BTreeMap::new();
    for method in &methods {
        wires.insert(method.full_name().to_owned(), Wire::connect(&nodes.endpoint(0)).await);
    }
    let mut wrong: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut refused: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    for (call, answer) in made(&wires, methods.iter().flat_map(calls).collect()).await {
        if let Err(why) = judge(&call, &answer) {
            wrong.entry(why).or_default().insert(call.to_string());
        }
        // A read that waits for a revision in vain is slow, and stores nothing.
        if is_refused(&answer) && !is_stale(&answer) {
            refused.entry(call.method.full_name().to_owned()).or_default().push(call);
        }
    }
    for method in &methods {
        let calls = refused.remove(method.full_name()).unwrap_or_default();
        if calls.is_empty() {
            wrong.entry("nothing is refused".into()).or_default().insert(method.full_name().into());
        }
        if let Some(changed) = changed_by(&nodes, &wires, calls).await {
            wrong.entry(changed).or_default().insert(method.full_name().to_owned());
        }
    }
    let panics = std::mem::take(&mut *panics.lock().expect("nobody panics with it"));
    assert!(wrong.is_empty() && panics.is_empty(), "{wrong:#?}\n{panics:#?}");
    scene(&client, "afterwards").await;
    nodes.stop_all().await;
}

/// An agent with a live bundle and a run.
async fn scene(client: &Client, agent: &str) {
    agent_named(client, agent).await;
    let start = v1::StartRunRequest {
        agent_id: agent.to_owned(),
        run_id: "r".into(),
        input: Some(v1::Payload { content_type: "application/json".into(), data: "1".into() }),
        ..Default::default()
    };
    client.runs().start(start).await.expect("the run starts");
}

/// A row that calls changed that are refused, if there is one. What was taken meanwhile, since others had made room for it,
/// may change some.
async fn changed_by(nodes: &Nodes, wires: &Wires, mut refused: Vec<Call>) -> Option<String> {
    let mut changed = None;
    for _ in 0..LOOKS {
        let before = rows(nodes);
        let answers = made(wires, refused).await;
        let after = rows(nodes);
        if before == after {
            return None;
        }
        let differs = |key: &&Bytes| before.get(*key) != after.get(*key);
        let row = before.keys().chain(after.keys()).find(differs);
        let row = row.map_or_else(String::new, |key| key.escape_ascii().to_string());
        let all_refused = answers.iter().all(|(_, answer)| is_refused(answer));
        changed = all_refused.then(|| format!("refused calls changed row {row}"));
        refused = answers.into_iter().filter(|(_, it)| is_refused(it)).map(|(it, _)| it).collect();
    }
    changed
}
