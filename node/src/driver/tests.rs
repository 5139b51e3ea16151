//! The leader's work on a real node: workers pull, report, vanish and come back; what is due happens.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1::work_response::Message;
use pinrail_proto::{log, time};
use prost::Message as _;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::env::Env;
use crate::raft::ReplicaConfig;

mod continued;

/// Long enough for anything that happens at once, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);
const LEASE_MS: u64 = 1_000;

struct Node {
    replica: Replica,
    dispatch: Dispatch,
    _data: TempDir,
}

async fn node() -> Node {
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let config = ReplicaConfig {
        cluster: "test".into(),
        node: "n0".into(),
        data: data.path().join("n0"),
        peer_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        peer_advertise: None,
        grpc_advertise: "127.0.0.1:1".into(),
        members: vec![],
        join: vec![],
        heartbeat_ms: 50,
        election_min_ms: 150,
        election_max_ms: 300,
        snapshot_log_bytes: 64 << 20,
        keep_entries: 1_000,
        memory: 256 << 20,
    };
    let replica = Replica::start(config, Env::real()).await.expect("it starts");
    let dispatch = Dispatch::start(replica.clone());
    let node = Node { replica, dispatch, _data: data };
    node.leads().await;
    let lease = Some(time::duration(LEASE_MS));
    let backoff = Some(v1::Backoff { initial: Some(time::duration(1)), ..Default::default() });
    let steps = Some(v1::StepPolicy { lease, backoff, ..Default::default() });
    let policy = Some(v1::Policy { steps, ..Default::default() });
    node.must(Kind::CreateAgent(Box::new(log::CreateAgent { agent: agent(), policy }))).await;
    for bundle in ["v1", "v2"] {
        let (agent, bundle_id) = (agent(), bundle.to_owned());
        let manifest = Some(manifest(bundle));
        node.must(Kind::CreateBundle(log::CreateBundle { agent, bundle_id, manifest })).await;
    }
    node.switch("v1").await;
    node
}

impl Node {
    async fn leads(&self) {
        let mut leadership = self.replica.leadership();
        let here = timeout(SOON, leadership.wait_for(|now| now.here)).await;
        here.expect("it leads in time").expect("the replica lives");
        while !self.dispatch.leads() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn must(&self, kind: Kind) -> Answer {
        let command = log::Command { header: None, kind: Some(kind) };
        let outcome = self.replica.propose(command, SOON).await.expect("it is written");
        match outcome.result {
            Some(Answer::Rejection(rejection)) => panic!("{rejection:?}"),
            Some(answer) => answer,
            None => panic!("an outcome has a result"),
        }
    }

    async fn switch(&self, bundle: &str) {
        let bundle_id = bundle.to_owned();
        let switch = log::Switch { agent: agent(), bundle_id, ..Default::default() };
        self.must(Kind::Switch(switch)).await;
    }

    async fn start(&self, run: &str, max_age_ms: u64) {
        let start = log::StartRun {
            agent: agent(),
            run_id: run.into(),
            input: Some(v1::Payload::default()),
            max_age_ms,
            kind: v1::RunKind::Live.into(),
            ..Default::default()
        };
        self.must(Kind::StartRun(start)).await;
    }

    async fn worker(&self, worker: &str, bundle: &str, slots: u32) -> WorkerStream {
        self.open(&hello(worker, bundle, slots)).await
    }

    async fn open(&self, hello: &v1::WorkerHello) -> WorkerStream {
        let (_, stream) = self.dispatch.open(hello, "n0").expect("it is let in");
        say(&stream, 0, Request::Credit(v1::Credit { slots: hello.slots })).await;
        stream
    }

    fn state(&self, run: &str) -> v1::RunState {
        let run = self.replica.read(|read| Ok(query::run(read, "", "support", run)));
        run.expect("the state can be read").expect("the run exists").state()
    }

    async fn ends(&self, run: &str, state: v1::RunState) {
        let ended = async {
            while self.state(run) != state {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = timeout(SOON, ended).await;
        ended.unwrap_or_else(|_| panic!("{run} is {:?}", self.state(run)));
    }
}

use pinrail_proto::v1::work_request::Message as Request;

fn agent() -> Option<log::AgentRef> {
    Some(log::AgentRef { namespace: "default".into(), agent_id: "support".into() })
}

fn manifest(code: &str) -> v1::BundleManifest {
    let code = Some(v1::CodePart { git_commit: code.into(), ..Default::default() });
    let model = v1::ModelPart {
        provider: "p".into(),
        name: "m".into(),
        snapshot: "1".into(),
        ..Default::default()
    };
    v1::BundleManifest {
        code,
        models: [("default".to_owned(), model)].into(),
        ..Default::default()
    }
}

fn hello(worker: &str, bundle: &str, slots: u32) -> v1::WorkerHello {
    v1::WorkerHello {
        agent_id: "support".into(),
        bundle_id: bundle.into(),
        worker_id: worker.into(),
        code: bundle.into(),
        slots,
        ..Default::default()
    }
}

async fn say(stream: &WorkerStream, sequence: u64, message: Request) {
    let request = v1::WorkRequest { sequence, message: Some(message) };
    assert!(stream.inbox().receive(request).await, "the session lives");
}

async fn next(stream: &mut WorkerStream) -> Message {
    let response = timeout(SOON, stream.next()).await.expect("a message in time");
    response.and_then(|response| response.message).expect("the stream goes on")
}

async fn assignment(stream: &mut WorkerStream) -> v1::Assignment {
    match next(stream).await {
        Message::Assignment(assignment) => *assignment,
        other => panic!("{other:?}"),
    }
}

async fn done(stream: &mut WorkerStream) -> v1::Done {
    match next(stream).await {
        Message::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

fn complete(of: &v1::Assignment, next: Option<&str>) -> Request {
    use v1::complete_step::Outcome;
    let outcome = match next {
        Some(name) => Outcome::Next(v1::NextStep { name: name.into(), input: None }),
        None => Outcome::Done(v1::Payload::default()),
    };
    Request::Complete(v1::CompleteStep {
        run_id: of.run_id.clone(),
        step: of.step,
        token: of.token,
        outcome: Some(outcome),
        usage: None,
        lease_next: next.is_some(),
        memory: Vec::new(),
    })
}

fn held(of: &v1::Assignment) -> v1::HeldStep {
    v1::HeldStep { token: of.token, run_id: of.run_id.clone(), step: of.step }
}

/// Keeps telling that these leases are held.
fn keep_alive(stream: &WorkerStream, of: &[&v1::Assignment]) -> tokio::task::AbortHandle {
    let inbox = stream.inbox();
    let held: Vec<_> = of.iter().map(|of| held(of)).collect();
    let beat = async move {
        loop {
            let heartbeat =
                v1::Heartbeat { held_digest: 1, held: held.clone(), ..Default::default() };
            let message = Some(Request::Heartbeat(heartbeat));
            inbox.receive(v1::WorkRequest { sequence: 0, message }).await;
            sleep(Duration::from_millis(LEASE_MS / 4)).await;
        }
    };
    tokio::spawn(beat).abort_handle()
}

#[tokio::test]
async fn a_run_goes_from_step_to_step_on_one_worker() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    node.start("r", 0).await;
    let first = assignment(&mut worker).await;
    assert_eq!((first.run_id.as_str(), first.attempt, first.bundle_id.as_str()), ("r", 1, "v1"));
    say(&worker, 7, complete(&first, Some("second"))).await;
    assert!(!done(&mut worker).await.closed);
    let second = assignment(&mut worker).await;
    assert_eq!((second.step, second.name.as_str()), (2, "second"));
    say(&worker, 8, complete(&second, None)).await;
    assert!(done(&mut worker).await.closed);
    assert_eq!(node.state("r"), v1::RunState::Completed);
}

impl Node {
    /// Starts a run; the revision of its start.
    async fn start_with(&self, start: log::StartRun) -> u64 {
        let start = log::StartRun { agent: agent(), input: Some(v1::Payload::default()), ..start };
        let command = log::Command { header: None, kind: Some(Kind::StartRun(start)) };
        let outcome = self.replica.propose(command, SOON).await.expect("it is written");
        assert!(matches!(outcome.result, Some(Answer::StartRun(_))), "{outcome:?}");
        outcome.revision
    }

    fn revision(&self) -> u64 {
        self.replica.read(query::position).expect("the state can be read").revision
    }
}

#[tokio::test]
async fn a_start_that_finds_a_worker_waiting_is_one_command_with_the_first_lease() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    let run = |id: &str| log::StartRun { run_id: id.into(), ..Default::default() };
    for number in 0..3 {
        let before = node.revision();
        let started = node.start_with(run(&format!("r{number}"))).await;
        let first = assignment(&mut worker).await;
        assert_eq!(first.token.expect("it has one").revision, started);
        assert_eq!((started, node.revision()), (before + 1, before + 1), "one command");
        say(&worker, 1, complete(&first, None)).await;
        assert!(done(&mut worker).await.closed);
        say(&worker, 0, Request::Credit(v1::Credit { slots: 1 })).await;
    }
    // The slot is taken: the next run waits for it, and gets it by a command of its own.
    let started = node.start_with(run("held")).await;
    let held = assignment(&mut worker).await;
    assert_eq!(held.token.expect("it has one").revision, started);
    let waits = node.start_with(run("waits")).await;
    assert_eq!(node.state("waits"), v1::RunState::Queued);
    say(&worker, 1, complete(&held, None)).await;
    assert!(done(&mut worker).await.closed);
    say(&worker, 0, Request::Credit(v1::Credit { slots: 1 })).await;
    let late = assignment(&mut worker).await;
    assert_eq!(late.run_id, "waits");
    assert!(late.token.expect("it has one").revision > waits);
}

#[tokio::test]
async fn a_start_again_leases_nothing_and_its_worker_stays_free() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 2).await;
    let run = |id: &str| log::StartRun { run_id: id.into(), ..Default::default() };
    node.start_with(run("r")).await;
    let first = assignment(&mut worker).await;
    node.start_with(run("r")).await;
    let slots = Slots { workers: 1, slots: 2, free: 1 };
    assert_eq!(node.dispatch.slots(1, "v1"), Some(slots));
    say(&worker, 1, complete(&first, None)).await;
    assert!(done(&mut worker).await.closed);
    node.start_with(run("r")).await;
    assert_eq!(node.dispatch.slots(1, "v1"), Some(slots), "no credit came for the other slot");
}

#[tokio::test]
async fn a_guess_that_was_wrong_gives_the_slot_back_and_the_run_waits_as_any_other() {
    let node = node().await;
    let mut blue = node.worker("blue", "v1", 1).await;
    let mut green = node.worker("green", "v2", 1).await;
    // The switch is in the same entry, before a start that was looked at before it.
    let start = log::StartRun {
        agent: agent(),
        run_id: "r".into(),
        input: Some(v1::Payload::default()),
        ..Default::default()
    };
    let encode =
        |kind| Bytes::from(log::Command { header: None, kind: Some(kind) }.encode_to_vec());
    let added = start::adder(Arc::downgrade(&node.dispatch.inner))(&encode(Kind::StartRun(start)));
    let added = added.expect("blue waits");
    assert_eq!(node.dispatch.slots(1, "v1").map(|slots| slots.free), Some(0), "it is reserved");
    node.switch("v2").await;
    let outcomes = node.replica.propose_here(vec![added.command], SOON).await.expect("written");
    (added.heard)(outcomes.first());
    assert_eq!(assignment(&mut green).await.run_id, "r");
    assert_eq!(node.dispatch.slots(1, "v1").map(|slots| slots.free), Some(1));
    // What nobody heard of is no slot lost either.
    let start = log::StartRun { agent: agent(), run_id: "s".into(), ..Default::default() };
    let start = log::StartRun { bundle_id: "v1".into(), ..start };
    let added = start::adder(Arc::downgrade(&node.dispatch.inner))(&encode(Kind::StartRun(start)));
    (added.expect("blue waits").heard)(None);
    let explicit =
        log::StartRun { run_id: "t".into(), bundle_id: "v1".into(), ..Default::default() };
    let started = node.start_with(explicit).await;
    let got = assignment(&mut blue).await;
    assert_eq!((got.run_id.as_str(), got.token.map(|t| t.revision)), ("t", Some(started)));
}

#[tokio::test]
async fn a_worker_of_other_code_or_of_no_bundle_is_refused() {
    let node = node().await;
    let reason = |hello: v1::WorkerHello| match node.dispatch.open(&hello, "n0") {
        Err(OpenError::Refused(rejection)) => rejection.reason,
        other => panic!("{other:?}"),
    };
    let other_code = v1::WorkerHello { code: "abc".into(), ..hello("w", "v1", 1) };
    assert_eq!(reason(other_code), "BUNDLE_MISMATCH");
    assert_eq!(reason(hello("w", "v9", 1)), "BUNDLE_NOT_FOUND");
    let no_agent = v1::WorkerHello { agent_id: "nobody".into(), ..hello("w", "v1", 1) };
    assert_eq!(reason(no_agent), "AGENT_NOT_FOUND");
    let no_code = v1::WorkerHello { code: String::new(), ..hello("w", "v1", 1) };
    let (welcome, _stream) = node.dispatch.open(&no_code, "n0").expect("it may come in");
    assert!(!welcome.verified);
}

#[tokio::test]
async fn steps_stay_on_the_bundle_of_their_run_through_a_switch() {
    let node = node().await;
    node.start("old", 0).await;
    node.switch("v2").await;
    node.start("new", 0).await;
    let mut second = node.worker("w2", "v2", 4).await;
    let got = assignment(&mut second).await;
    assert_eq!((got.run_id.as_str(), got.bundle_id.as_str()), ("new", "v2"));
    let mut first = node.worker("w1", "v1", 4).await;
    let got = assignment(&mut first).await;
    assert_eq!((got.run_id.as_str(), got.bundle_id.as_str()), ("old", "v1"));
}

#[tokio::test]
async fn a_step_longer_than_three_leases_completes_while_its_worker_is_heard_of() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    node.start("r", 0).await;
    let step = assignment(&mut worker).await;
    let beats = keep_alive(&worker, &[&step]);
    sleep(Duration::from_millis(LEASE_MS * 7 / 2)).await;
    say(&worker, 1, complete(&step, None)).await;
    assert!(done(&mut worker).await.closed);
    beats.abort();
}

#[tokio::test]
async fn a_step_whose_worker_is_gone_is_leased_again_and_the_late_completion_refused() {
    let node = node().await;
    let mut gone = node.worker("gone", "v1", 1).await;
    node.start("r", 0).await;
    let lost = assignment(&mut gone).await;
    drop(gone);
    let mut other = node.worker("other", "v1", 1).await;
    let beats = keep_alive(&other, &[]);
    let again = assignment(&mut other).await;
    assert_eq!((again.run_id.as_str(), again.attempt), ("r", 2));
    beats.abort();
    let beats = keep_alive(&other, &[&again]);
    say(&other, 5, complete(&lost, None)).await;
    match next(&mut other).await {
        Message::Refused(refused) => assert_eq!(refused.reason, "LEASE_STALE"),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.state("r"), v1::RunState::Running);
    beats.abort();
}

#[tokio::test]
async fn a_worker_that_comes_back_keeps_its_leases() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 2).await;
    node.start("a", 0).await;
    let a = assignment(&mut worker).await;
    node.start("b", 0).await;
    let b = assignment(&mut worker).await;
    drop(worker);
    let back = v1::WorkerHello { held: vec![held(&a)], ..hello("w", "v1", 2) };
    let mut worker = node.open(&back).await;
    let beats = keep_alive(&worker, &[&a]);
    // What it does not hold any more is taken back at once and goes to the next free slot: its own.
    let mut messages = vec![next(&mut worker).await, next(&mut worker).await];
    messages.retain(|message| matches!(message, Message::Assignment(_)));
    let Some(Message::Assignment(again)) = messages.pop() else { panic!("no assignment") };
    assert_eq!((again.run_id.as_str(), again.attempt), ("b", 2));
    assert_ne!(again.token, b.token);
    say(&worker, 1, complete(&a, None)).await;
    assert!(done(&mut worker).await.closed, "its old token is good");
    beats.abort();
}

#[tokio::test]
async fn a_cancelled_run_is_told_to_its_worker() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    node.start("r", 0).await;
    let step = assignment(&mut worker).await;
    node.must(Kind::CancelRun(log::CancelRun { agent: agent(), run_id: "r".into() })).await;
    match next(&mut worker).await {
        Message::Cancel(cancel) => {
            assert_eq!(cancel.token, step.token);
            assert!(!cancel.lease_lost);
            assert_eq!(cancel.reason(), v1::EndReason::Requested);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_due_happens_without_anybody_asking() {
    let node = node().await;
    let batch: Vec<Bytes> = (0..600)
        .map(|i| log::StartRun {
            agent: agent(),
            run_id: format!("r{i}"),
            input: Some(v1::Payload::default()),
            max_age_ms: 1_500,
            kind: v1::RunKind::Live.into(),
            ..Default::default()
        })
        .map(|start| log::Command { header: None, kind: Some(Kind::StartRun(start)) })
        .map(|command| Bytes::from(command.encode_to_vec()))
        .collect();
    for commands in batch.chunks(100) {
        node.replica.propose_here(commands.to_vec(), SOON).await.expect("they are written");
    }
    assert_eq!(node.state("r599"), v1::RunState::Queued);
    for i in (0..600).rev() {
        node.ends(&format!("r{i}"), v1::RunState::Expired).await;
    }
}

#[tokio::test]
async fn a_paused_agent_hands_out_nothing_until_it_goes_on() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    let pause = log::PauseAgent { agent: agent(), ..Default::default() };
    node.must(Kind::PauseAgent(pause)).await;
    node.start("r", 0).await;
    assert!(timeout(Duration::from_millis(400), worker.next()).await.is_err());
    let resume = log::ResumeAgent { agent: agent(), ..Default::default() };
    node.must(Kind::ResumeAgent(resume)).await;
    assert_eq!(assignment(&mut worker).await.run_id, "r");
}

#[tokio::test]
async fn connected_workers_are_known_and_can_be_drained() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 3).await;
    let list = node.dispatch.workers("default", "support", "v1").expect("this node leads");
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].slots, list[0].free_slots), (3, 3));
    let slots = Slots { workers: 1, slots: 3, free: 3 };
    assert_eq!(node.dispatch.slots(1, "v1"), Some(slots));
    node.dispatch.drain_worker("default", "support", "w").expect("it is connected");
    assert!(matches!(next(&mut worker).await, Message::Drain(_)));
    node.start("r", 0).await;
    assert!(timeout(Duration::from_millis(300), worker.next()).await.is_err());
    let nobody = node.dispatch.drain_worker("default", "support", "x");
    assert!(matches!(nobody, Err(DrainError::NotFound)));
}

#[tokio::test]
async fn a_node_that_ends_ends_its_streams() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    node.dispatch.close();
    assert!(timeout(SOON, worker.next()).await.expect("in time").is_none());
    assert_eq!(worker.end(), Some(SessionEnd::NotLeader));
}
