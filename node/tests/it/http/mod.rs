//! The API as JSON over HTTP, at a real node. Here: a client as small as it can be, and the scene of the tests.

mod agent;
mod document;
mod memory;
mod namespace;
mod problem;
mod run;

use pinrail_client::worker::{Next, StepContext, StepResult, Usage};
use pinrail_client::{Client, Worker};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::nodes::{Nodes, SOON, agent};

/// An answer, as far as the tests look at it.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = if head.contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_owned()
        };
        Self { status, head: head.to_owned(), body }
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

struct Http(String);

impl Http {
    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None).await
    }

    async fn post(&self, path: &str, body: &Json) -> Answer {
        self.ask("POST", path, &[], Some(body)).await
    }

    /// An answer that ends.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Json>,
    ) -> Answer {
        let mut stream = self.begin(method, path, headers, body).await;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("in time").expect("UTF-8");
        Answer::of(&answer)
    }

    /// Only the head of an answer that may go on for ever.
    async fn head(&self, path: &str) -> Answer {
        let mut stream = self.begin("GET", path, &[], None).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(SOON, stream.read_u8()).await.expect("in time").expect("a head");
            answer.push(byte);
        }
        Answer::of(&String::from_utf8(answer).expect("UTF-8"))
    }

    /// Server-sent events.
    async fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let stream = self.begin("GET", path, headers, None).await;
        Events { stream: BufReader::new(stream) }
    }

    async fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Json>,
    ) -> TcpStream {
        let body = body.map(Json::to_string);
        let mut all = vec![("host", "x"), ("connection", "close")];
        all.extend(headers);
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        let head: String = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = body.unwrap_or_default();
        let length = body.len();
        let text =
            format!("{method} {path} HTTP/1.1\r\n{head}content-length: {length}\r\n\r\n{body}");
        let mut stream = TcpStream::connect(&self.0).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        stream
    }
}

/// A stream that is read event by event.
struct Events {
    stream: BufReader<TcpStream>,
}

#[derive(Debug, Default)]
struct Event {
    name: String,
    id: String,
    data: Json,
}

impl Events {
    async fn next(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            let read = timeout(SOON, self.stream.read_line(&mut line));
            let read = read.await.expect("in time").expect("UTF-8");
            assert_ne!(read, 0, "the stream ended: {event:?}");
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => event.data = serde_json::from_str(data).expect("JSON"),
                Some(_) => {}
                // Between two events, and between two chunks of the transfer.
                None if event.name.is_empty() || event.data.is_null() => {}
                None => return event,
            }
        }
    }

    /// The next event of this name.
    async fn next_of(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.name == name {
                return event;
            }
        }
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    body
}

async fn double(context: StepContext, number: u64) -> StepResult<Next> {
    let usage =
        Usage { model: "m".into(), input_tokens: number, cost_micros: 5, ..Usage::default() };
    context.report(usage);
    Ok(Next::done(2 * number))
}

/// A node with an agent and a live bundle, perhaps a worker, and the way to it.
struct Scene {
    nodes: Nodes,
    client: Client,
    http: Http,
    worker: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Scene {
    /// Without a worker.
    async fn idle() -> Self {
        let nodes = Nodes::start(1).await;
        let client = nodes.client();
        agent(&client).await;
        let http = Http(nodes.servers[0].as_ref().expect("it runs").http_addr.to_string());
        Self { nodes, client, http, worker: None }
    }

    async fn open() -> Self {
        let scene = Self::idle().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = Worker::builder(scene.client.clone())
            .agent("support")
            .bundle("v1")
            .code("abc")
            .step("main", double)
            .run_until(async { drop(stopped.await) });
        let worker = tokio::spawn(async move { worker.await.expect("it ends well") });
        Self { worker: Some((stop, worker)), ..scene }
    }

    async fn close(self) {
        if let Some((stop, worker)) = self.worker {
            stop.send(()).expect("the worker works");
            worker.await.expect("it does not panic");
        }
        self.nodes.stop_all().await;
    }
}
