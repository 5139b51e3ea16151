//! Connections that say nothing, half of something or far too much: everybody else is served meanwhile.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use pinrail_client::{Client, Config, v1};
use pinrail_node::testing::free_port;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::binary::{Running, config};
use crate::nodes::{Nodes, SOON, agent};

/// The most that a call of somebody else may take, on a machine that does other things too.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("tests send less");
    let mut frame = BytesMut::new();
    frame.put_slice(&length.to_be_bytes()[1..]);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.freeze()
}

/// Somebody else calls: a read and a write, each in time.
async fn served(client: &Client, what: &str) {
    for round in 0..20 {
        let read = v1::GetAgentRequest { agent_id: "support".into(), ..Default::default() };
        let read = timeout(SERVED_WITHIN, client.agents().get(read)).await;
        read.expect(what).expect("it is read");
        let put = v1::PutMemoryRequest {
            agent_id: "support".into(),
            key: format!("k{round}"),
            value: Some(v1::Payload { data: "v".into(), ..Default::default() }),
            ..Default::default()
        };
        let put = timeout(SERVED_WITHIN, client.memory().put(put)).await;
        put.expect(what).expect("it is written");
    }
}

/// Sends a beginning, and then the same again and again until the node has heard enough; reads nothing.
async fn flood(endpoint: &str, beginning: &[u8], again: &[u8]) {
    const TIMES: usize = 200_000;
    let mut socket = TcpStream::connect(endpoint).await.expect("it listens");
    socket.write_all(beginning).await.expect("it is taken");
    let many = again.repeat(1_000);
    for _ in 0..TIMES / 1_000 {
        // The node reads no more, or has closed it.
        let Ok(Ok(())) = timeout(Duration::from_secs(1), socket.write_all(&many)).await else {
            return;
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_or_half_keep_nobody_waiting() {
    const IDLE: usize = 500;
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let own = rustix::process::getrlimit(Resource::Nofile);
    let more = Rlimit { current: own.maximum, ..own };
    rustix::process::setrlimit(Resource::Nofile, more).expect("up to the hard limit is allowed");
    let beginnings: [&[u8]; 5] =
        [b"", &PREFACE[..10], PREFACE, b"GET / HTTP/1.1\r\nHost: a\r\n", b"\x16\x03\x01\x02\x00"];
    let mut idle = Vec::new();
    for beginning in beginnings.iter().cycle().take(IDLE) {
        let mut socket = TcpStream::connect(nodes.endpoint(0)).await.expect("it listens");
        socket.write_all(beginning).await.expect("it is taken");
        idle.push(socket);
    }
    served(&client, "beside idle connections").await;
    // A client that comes behind them is let in.
    served(&nodes.client(), "behind idle connections").await;
    drop(idle);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_keep_nobody_waiting() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    // `:method: POST`, and no end of the headers.
    let open = [&hello[..], &frame(1, 0, 1, b"\x83")].concat();
    let (settings, ping) = (frame(SETTINGS, 0, 0, b""), frame(PING, 0, 0, b"12345678"));
    // Literal, never indexed: `a: b`.
    let headers = frame(CONTINUATION, 0, 1, b"\x10\x01a\x01b");
    let empty = frame(CONTINUATION, 0, 1, b"");
    let floods: [(&str, &[u8], &[u8]); 4] = [
        ("SETTINGS", &hello, &settings),
        ("PING", &hello, &ping),
        ("CONTINUATION", &open, &headers),
        ("empty CONTINUATION", &open, &empty),
    ];
    for (what, beginning, again) in floods {
        let endpoint = nodes.endpoint(0);
        let (beginning, again) = (beginning.to_vec(), again.to_vec());
        let flood = tokio::spawn(async move { flood(&endpoint, &beginning, &again).await });
        served(&client, what).await;
        flood.await.expect("it ends");
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_opened_and_reset_keep_nobody_waiting() {
    const STREAMS: usize = 20_000;
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let endpoint = nodes.endpoint(0);
    let resets = tokio::spawn(async move {
        let socket = TcpStream::connect(&endpoint).await.expect("it listens");
        let (send, connection) = h2::client::handshake(socket).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        for _ in 0..STREAMS {
            // The node may close the connection, and is right to.
            let Ok(mut send) = send.clone().ready().await else { return };
            let request = http::Request::post("http://node/pinrail.v1.WorkerService/Work")
                .header("content-type", "application/grpc")
                .body(())
                .expect("it is well formed");
            let Ok((_, mut body)) = send.send_request(request, false) else { return };
            body.send_reset(h2::Reason::CANCEL);
        }
    });
    served(&client, "beside resets").await;
    resets.await.expect("it ends");
    served(&client, "behind resets").await;
    nodes.stop_all().await;
}

/// Descriptors of a process.
fn descriptors(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_file_descriptors_serves_again_when_it_has_some() {
    const LEFT: u64 = 20;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (grpc, http) = (free_port(), free_port());
    let toml = config("c", &folder.path().join("data"), grpc, http);
    let mut node = Running::start(&toml, folder.path(), http);
    let endpoint = format!("127.0.0.1:{grpc}");
    let client = || {
        let config =
            Config { endpoints: vec![endpoint.clone()], timeout: SOON, ..Config::default() };
        Client::new(config).expect("it is well formed")
    };
    let first = client();
    agent(&first).await;
    let pid = node.0.id();
    let limit = descriptors(pid) + LEFT;
    let its = Pid::from_raw(i32::try_from(pid).expect("Linux has no larger ones"));
    let few = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(its, Resource::Nofile, few).expect("it is ours");
    let mut idle = Vec::new();
    for _ in 0..4 * LEFT {
        idle.push(TcpStream::connect(&endpoint).await.expect("the kernel takes it"));
    }
    let deadline = Instant::now() + SOON;
    while descriptors(pid) < limit {
        assert!(Instant::now() < deadline, "it has descriptors left");
        sleep(Duration::from_millis(10)).await;
    }
    // Who was connected before is served all the while.
    served(&first, "without descriptors").await;
    drop(idle);
    agent_is_read(&client()).await;
    assert!(node.0.try_wait().expect("it is ours").is_none(), "it ended");
}

/// By a client that has to connect first.
async fn agent_is_read(client: &Client) {
    let read = v1::GetAgentRequest { agent_id: "support".into(), ..Default::default() };
    timeout(SOON, client.agents().get(read)).await.expect("in time").expect("it is read");
}
