//! What is refused over HTTP: one form, with a reason.

use pinrail_proto::limits;
use serde_json::json;

use super::{Answer, Scene};

fn is_problem(answer: &Answer, status: u16, reason: &str) {
    assert!(answer.head.contains("application/problem+json"), "{answer:?}");
    let json = answer.json();
    assert_eq!((answer.status, &json["reason"]), (status, &json!(reason)), "{answer:?}");
    assert_eq!(json["status"], json!(status));
    assert_eq!(json["type"], json!(format!("urn:pinrail:reason:{reason}")));
}

#[tokio::test]
async fn refusals_are_problem_details() {
    let scene = Scene::open().await;
    let http = &scene.http;
    let runs = "/v1/agents/support/runs";
    is_problem(&http.get(&format!("{runs}/none")).await, 404, "RUN_NOT_FOUND");
    is_problem(&http.get("/v1/agents/nobody/status").await, 404, "AGENT_NOT_FOUND");
    is_problem(&http.get("/v1/agents/a%20b/status").await, 400, "INVALID_ID");
    is_problem(&http.get("/v1/nothing").await, 404, "INVALID_REQUEST");
    is_problem(&http.post(runs, &json!({"inptu": 1})).await, 400, "INVALID_REQUEST");
    is_problem(&http.post(runs, &json!({"max_age": "-1s"})).await, 400, "INVALID_REQUEST");
    is_problem(&http.post(runs, &json!({"max_age": "0s"})).await, 400, "INVALID_REQUEST");
    is_problem(&http.get(&format!("{runs}?stat=x")).await, 400, "INVALID_REQUEST");
    is_problem(&http.get(&format!("{runs}?state=x")).await, 400, "INVALID_REQUEST");
    is_problem(&http.get(&format!("{runs}/r/events")).await, 404, "RUN_NOT_FOUND");
    is_problem(&http.get(&format!("{runs}?labels=x")).await, 400, "INVALID_REQUEST");
    is_problem(&http.get("/v1/agents/support/costs?by=day").await, 400, "INVALID_REQUEST");
    is_problem(&http.get("/v1/namespaces/nowhere").await, 404, "NAMESPACE_NOT_FOUND");
    is_problem(&http.ask("PATCH", runs, &[], None).await, 405, "INVALID_REQUEST");
    let large = json!({ "input": "x".repeat(limits::API_MESSAGE_BYTES) });
    is_problem(&http.post(runs, &large).await, 413, "LIMIT_EXCEEDED");
    // What a page of another site may send without asking is no JSON.
    let plain = [("content-type", "text/plain")];
    is_problem(&http.ask("POST", runs, &plain, Some(&json!({}))).await, 415, "INVALID_REQUEST");
    scene.close().await;
}
