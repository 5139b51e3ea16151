//! Agents over HTTP: lists, status, route, rollback, costs, events.

use serde_json::json;

use super::Scene;
use crate::nodes::agent_named;

#[tokio::test]
async fn route_status_and_rollback_answer() {
    let scene = Scene::open().await;
    let http = &scene.http;
    let agent = "/v1/agents/support";
    let route = http.get(&format!("{agent}/route?key=u1")).await;
    assert_eq!((route.status, &route.json()["bundle_id"]), (200, &json!("v1")));
    assert_eq!(http.get(&format!("{agent}/status?local=true")).await.status, 200);

    let nothing = http.post(&format!("{agent}/rollback"), &json!({"from": "v1"})).await;
    assert_eq!((nothing.status, &nothing.json()["reason"]), (409, &json!("NOTHING_TO_ROLL_BACK")));
    scene.close().await;
}

#[tokio::test]
async fn agents_and_bundles_are_listed_in_pages() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    agent_named(&scene.client, "billing").await;
    let first = http.get("/v1/agents?page_size=1").await.json();
    assert_eq!(first["agents"][0]["agent_id"], "billing");
    let token = first["next_page_token"].as_str().expect("there is another page");
    let second = http.get(&format!("/v1/agents?page_size=1&page_token={token}")).await.json();
    assert_eq!(second["agents"][0]["agent_id"], "support");
    let bundles = http.get("/v1/agents/support/bundles").await.json();
    let bundle = &bundles["bundles"][0];
    assert_eq!((&bundle["bundle_id"], &bundle["state"]), (&json!("v1"), &json!("live")));
    let bundle = http.get("/v1/agents/support/bundles/v1").await.json();
    assert_eq!(bundle["manifest"]["models"]["default"]["name"], "m");
    let missing = http.get("/v1/agents/support/bundles/v9").await;
    assert_eq!((missing.status, &missing.json()["reason"]), (404, &json!("BUNDLE_NOT_FOUND")));
    scene.close().await;
}

#[tokio::test]
async fn costs_are_summed_up() {
    let scene = Scene::open().await;
    let http = &scene.http;
    for number in [20, 30] {
        let path = "/v1/agents/support/runs?wait=20s";
        assert_eq!(http.post(path, &json!({ "input": number })).await.status, 200);
    }
    let costs = http.get("/v1/agents/support/costs?by=model").await.json();
    let line = &costs["costs"][0];
    assert_eq!((&line["model"], &line["input_tokens"]), (&json!("m"), &json!(50)), "{costs}");
    assert_eq!((&costs["total"]["cost_micros"], &costs["currency"]), (&json!(10), &json!("USD")));
    let runs = http.get("/v1/agents/support/costs?by=run&page_size=1").await.json();
    assert_eq!(runs["costs"][0]["input_tokens"], 30, "the newest first: {runs}");
    let token = runs["next_page_token"].as_str().expect("there is another page");
    let path = format!("/v1/agents/support/costs?by=run&page_size=1&page_token={token}");
    assert_eq!(http.get(&path).await.json()["costs"][0]["input_tokens"], 20);
    scene.close().await;
}

#[tokio::test]
async fn events_of_an_agent_go_on_where_they_were_left() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let path = "/v1/agents/support/events?type=memory.";
    let value = "/v1/agents/support/memory/k";
    let put = async |number: u32| {
        let put = http.ask("PUT", value, &[], Some(&json!(number))).await;
        put.json()["revision"].as_u64().expect("a number")
    };
    let first = put(1).await;
    let mut stream = http.events(path, &[]).await;
    let told = stream.next_of("events").await;
    assert_eq!(told.data["events"][0]["revision"], first, "{told:?}");
    assert_eq!(told.data["events"][0]["type"], "memory.written");
    drop(stream);
    let second = put(2).await;
    let mut stream = http.events(path, &[("last-event-id", &told.id)]).await;
    let told = stream.next_of("events").await;
    assert_eq!(told.data["events"][0]["revision"], second, "nothing again, nothing missed");
    drop(stream);
    scene.close().await;
}

#[tokio::test]
async fn pins_of_an_agent_are_listed_and_followed() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let runs = "/v1/agents/support/runs";
    let started = http.post(runs, &json!({ "run_id": "r1" })).await;
    assert_eq!(started.status, 202);
    let mut stream = http.events("/v1/agents/support/pins", &[]).await;
    let listed = stream.next_of("pins").await;
    assert_eq!(listed.data["pins"][0]["run_id"], "r1", "{listed:?}");
    assert_eq!(listed.data["pins"][0]["bundle_id"], "v1");
    drop(stream);
    assert_eq!(http.post(&format!("{runs}/r1/cancel"), &json!({})).await.status, 200);
    let mut stream = http.events("/v1/agents/support/pins", &[("last-event-id", &listed.id)]).await;
    let told = stream.next_of("pins").await;
    let pin = &told.data["pins"][0];
    assert_eq!((&pin["run_id"], pin["open"].as_bool()), (&json!("r1"), Some(false)), "{told:?}");
    drop(stream);
    scene.close().await;
}
