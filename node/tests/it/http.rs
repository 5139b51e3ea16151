//! The API as JSON over HTTP, at a real node: every operation of the OpenAPI document, and what is refused.

use std::time::Duration;

use pinrail_client::Worker;
use pinrail_client::worker::{Next, StepContext, StepResult};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Json>,
    ) -> Answer {
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
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("in time").expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = if head.contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_owned()
        };
        Answer { status, head: head.to_owned(), body }
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

async fn double(_: StepContext, number: u64) -> StepResult<Next> {
    Ok(Next::done(2 * number))
}

/// A node with an agent, a live bundle and a worker, and the way to it.
async fn scene() -> (Nodes, Http, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(client)
        .agent("support")
        .bundle("v1")
        .code("abc")
        .step("main", double)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(async move { worker.await.expect("it ends well") });
    let http = Http(nodes.servers[0].as_ref().expect("it runs").http_addr.to_string());
    (nodes, http, stop, worker)
}

#[tokio::test]
async fn a_run_is_started_awaited_watched_and_found() {
    let (nodes, http, stop, worker) = scene().await;
    let runs = "/v1/agents/support/runs";
    let ended = http.post(&format!("{runs}?wait=20s"), &json!({"run_id": "r1", "input": 21})).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    assert!(ended.head.contains("pinrail-bundle: v1"), "{ended:?}");
    assert_eq!(
        (&ended.json()["state"], &ended.json()["output"]),
        (&json!("completed"), &json!(42))
    );

    let run = http.get(&format!("{runs}/r1?wait=1s")).await.json();
    assert_eq!((&run["input"], &run["pin"]["bundle_id"]), (&json!(21), &json!("v1")));
    let pin = http.get(&format!("{runs}/r1/pin")).await;
    assert!(pin.head.contains("pinrail-bundle: v1") && pin.status == 200, "{pin:?}");
    let page = http.get(&format!("{runs}?state=completed&page_size=10")).await.json();
    assert_eq!(page["runs"][0]["run_id"], "r1");

    // The stream ends with the run, and says nothing new to a reader that has it all.
    let watched = http.get(&format!("{runs}/r1/events")).await;
    assert!(watched.head.contains("text/event-stream"), "{watched:?}");
    assert!(watched.body.contains("event: end"), "{watched:?}");
    let id = watched.body.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    let resumed =
        http.ask("GET", &format!("{runs}/r1/events"), &[("last-event-id", id)], None).await;
    assert!(!resumed.body.contains("data:"), "{resumed:?}");

    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic");
    nodes.stop_all().await;
}

#[tokio::test]
async fn an_idempotency_key_starts_one_run_and_a_wait_that_is_over_leaves_202() {
    let (nodes, http, stop, worker) = scene().await;
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic");
    let start = async |key: &str| {
        let headers = [("idempotency-key", key)];
        let path = "/v1/agents/support/runs?wait=50ms";
        http.ask("POST", path, &headers, Some(&json!({"input": 1}))).await
    };
    let (one, again, other) = (start("k1").await, start("k1").await, start("k2").await);
    assert_eq!((one.status, again.status, other.status), (202, 202, 202), "{one:?}");
    assert_eq!(one.json()["run_id"], again.json()["run_id"]);
    assert_ne!(one.json()["run_id"], other.json()["run_id"]);
    let run_id = one.json()["run_id"].as_str().expect("a text").to_owned();
    let signal = format!("/v1/agents/support/runs/{run_id}/signals/approved");
    let kept = http.post(&signal, &json!({"value": {"by": "ada"}})).await;
    assert_eq!((kept.status, &kept.json()["delivered"]), (200, &json!(false)), "{kept:?}");
    let retry = format!("/v1/agents/support/runs/{run_id}/retry");
    let refused = http.post(&retry, &json!({})).await;
    assert_eq!(&refused.json()["reason"], &json!("RUN_NOT_PAUSED"), "{refused:?}");
    let cancel = format!("/v1/agents/support/runs/{run_id}/cancel");
    let cancelled = http.post(&cancel, &json!({"reason": "not needed"})).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    nodes.stop_all().await;
}

#[tokio::test]
async fn route_status_memory_and_rollback_answer() {
    let (nodes, http, stop, worker) = scene().await;
    let agent = "/v1/agents/support";
    let route = http.get(&format!("{agent}/route?key=u1")).await;
    assert_eq!((route.status, &route.json()["bundle_id"]), (200, &json!("v1")));
    assert_eq!(http.get(&format!("{agent}/status?local=true")).await.status, 200);

    let value = format!("{agent}/memory/user/77/prefs");
    let missing = http.get(&value).await;
    assert_eq!((missing.status, &missing.json()["found"]), (404, &json!(false)));
    let put =
        http.ask("PUT", &format!("{value}?expected_revision=0"), &[], Some(&json!({"a": 1}))).await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(http.get(&value).await.json()["version"]["value"], json!({"a": 1}));
    let conflict =
        http.ask("PUT", &format!("{value}?expected_revision=0"), &[], Some(&json!(2))).await;
    assert_eq!((conflict.status, &conflict.json()["reason"]), (409, &json!("REVISION_MISMATCH")));
    assert_eq!(http.ask("DELETE", &value, &[], None).await.status, 200);
    assert_eq!(http.get(&value).await.status, 404);

    let nothing = http.post(&format!("{agent}/rollback"), &json!({"from": "v1"})).await;
    assert_eq!((nothing.status, &nothing.json()["reason"]), (409, &json!("NOTHING_TO_ROLL_BACK")));
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic");
    nodes.stop_all().await;
}

#[tokio::test]
async fn refusals_are_problem_details() {
    let (nodes, http, stop, worker) = scene().await;
    let runs = "/v1/agents/support/runs";
    let problem = |answer: &Answer, status: u16, reason: &str| {
        assert!(answer.head.contains("application/problem+json"), "{answer:?}");
        let json = answer.json();
        assert_eq!((answer.status, &json["reason"]), (status, &json!(reason)), "{answer:?}");
        assert_eq!(json["status"], json!(status));
        assert_eq!(json["type"], json!(format!("urn:pinrail:reason:{reason}")));
    };
    problem(&http.get(&format!("{runs}/none")).await, 404, "RUN_NOT_FOUND");
    problem(&http.get("/v1/agents/nobody/status").await, 404, "AGENT_NOT_FOUND");
    problem(&http.get("/v1/agents/a%20b/status").await, 400, "INVALID_ID");
    problem(&http.get("/v1/nothing").await, 404, "INVALID_REQUEST");
    problem(&http.post(runs, &json!({"inptu": 1})).await, 400, "INVALID_REQUEST");
    problem(&http.post(runs, &json!({"max_age": "-1s"})).await, 400, "INVALID_REQUEST");
    problem(&http.post(runs, &json!({"max_age": "0s"})).await, 400, "INVALID_REQUEST");
    problem(&http.get(&format!("{runs}?stat=x")).await, 400, "INVALID_REQUEST");
    problem(&http.get(&format!("{runs}?state=x")).await, 400, "INVALID_REQUEST");
    problem(&http.get(&format!("{runs}/r/events")).await, 404, "RUN_NOT_FOUND");
    // What a page of another site may send without asking is no JSON.
    let plain = [("content-type", "text/plain")];
    problem(&http.ask("POST", runs, &plain, Some(&json!({}))).await, 415, "INVALID_REQUEST");
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic");
    nodes.stop_all().await;
}

#[tokio::test]
async fn every_operation_of_the_document_is_served() {
    let (nodes, http, stop, worker) = scene().await;
    let document = http.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let mut operations = 0;
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            let of_run = path.replace("{agent}", "support").replace("{run}", "r");
            let at = of_run.replace("{key}", "k").replace("{signal}", "s");
            let body = (method != "get").then(|| json!({}));
            let verb = method.to_uppercase();
            let asked = http.ask(&verb, &at, &[], body.as_ref());
            let answer = timeout(Duration::from_secs(10), asked).await.expect("it answers");
            let id = &operation["operationId"];
            assert!(!answer.body.contains("nothing is here"), "{id} is not served");
            assert_ne!(answer.status, 405, "{id} has another method");
            // Each parameter that is named is taken: an unknown one would be refused.
            for param in operation["parameters"].as_array().expect("a list") {
                if param["in"] == "query" && method == "get" {
                    let value = if param["schema"]["type"] == "string" { "1s" } else { "0" };
                    let value = if param["schema"]["type"] == "boolean" { "true" } else { value };
                    let name = param["name"].as_str().expect("a name");
                    let answer = http.get(&format!("{at}?{name}={value}")).await;
                    assert!(!answer.body.contains("unknown field"), "{id} {name}: {answer:?}");
                }
            }
        }
    }
    assert_eq!(operations, 16);
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic");
    nodes.stop_all().await;
}
