//! Memory over HTTP.

use serde_json::{Value as Json, json};

use super::{Http, Scene};
use crate::nodes::switch_to;

const MEMORY: &str = "/v1/agents/support/memory";

/// Writes to the live bundle's memory; answers the revision.
async fn put(http: &Http, key: &str, value: &Json) -> u64 {
    let answer = http.ask("PUT", &format!("{MEMORY}/{key}"), &[], Some(value)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["revision"].as_u64().expect("a number")
}

fn keys(page: &Json, list: &str) -> Vec<String> {
    let all = page[list].as_array().expect("a list").iter();
    all.map(|it| it["key"].as_str().expect("a key").to_owned()).collect()
}

#[tokio::test]
async fn a_key_is_written_read_and_deleted() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let value = format!("{MEMORY}/user/77/prefs");
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
    let history = http.get("/v1/agents/support/memory-history/user/77/prefs").await.json();
    let versions = history["versions"].as_array().expect("a list");
    assert_eq!(versions.len(), 2, "the deletion and the value before it: {history}");
    assert_eq!(versions[1]["value"], json!({ "a": 1 }));
    scene.close().await;
}

#[tokio::test]
async fn memory_is_listed_in_pages_and_two_bundles_are_compared() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    for key in ["user/1", "user/2", "user/3", "notes"] {
        put(http, key, &json!("old")).await;
    }
    let path = format!("{MEMORY}?prefix=user/&page_size=2");
    let first = http.get(&path).await.json();
    assert_eq!(keys(&first, "versions"), ["user/1", "user/2"]);
    let token = first["next_page_token"].as_str().expect("there is another page");
    let second = http.get(&format!("{path}&page_token={token}&keys_only=true")).await.json();
    assert_eq!(keys(&second, "versions"), ["user/3"]);
    assert_eq!(second["versions"][0]["value"], Json::Null, "only keys");

    switch_to(&scene.client, "v2").await;
    put(http, "user/2", &json!("new")).await;
    let diff = http.get("/v1/agents/support/memory-diff?from=v1&to=v2").await.json();
    assert_eq!(keys(&diff, "differences"), ["user/2"], "{diff}");
    let to_live = http.get("/v1/agents/support/memory-diff?from=v1").await.json();
    assert_eq!(keys(&to_live, "differences"), ["user/2"], "the live bundle is meant: {to_live}");
    let same = http.get("/v1/agents/support/memory-diff?from=v1&prefix=notes").await.json();
    assert_eq!(same["differences"], json!([]));
    let wrong = http.get("/v1/agents/support/memory-diff?from=layer:x").await;
    assert_eq!((wrong.status, &wrong.json()["reason"]), (400, &json!("INVALID_REQUEST")));
    scene.close().await;
}

#[tokio::test]
async fn a_watcher_of_memory_goes_on_where_it_was_left() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let path = "/v1/agents/support/memory-changes?prefix=user/";
    put(http, "notes", &json!(0)).await;
    let first = put(http, "user/1", &json!(1)).await;
    let mut stream = http.events(path, &[]).await;
    let told = stream.next_of("change").await;
    assert_eq!(keys(&told.data, "versions"), ["user/1"], "another prefix is not told: {told:?}");
    assert_eq!(told.data["versions"][0]["revision"], first);
    // As it happens.
    put(http, "user/2", &json!(2)).await;
    let told = stream.next_of("change").await;
    assert_eq!(told.data["versions"][0]["value"], 2);
    drop(stream);

    let third = put(http, "user/3", &json!(3)).await;
    let mut stream = http.events(path, &[("last-event-id", &told.id)]).await;
    let told = stream.next_of("change").await;
    assert_eq!(keys(&told.data, "versions"), ["user/3"], "nothing again, nothing missed: {told:?}");
    drop(stream);
    // The same without a header.
    let mut stream = http.events(&format!("{path}&after_revision={}", third - 1), &[]).await;
    assert_eq!(keys(&stream.next_of("change").await.data, "versions"), ["user/3"]);
    drop(stream);
    let wrong = http.ask("GET", path, &[("last-event-id", "x")], None).await;
    assert_eq!((wrong.status, &wrong.json()["reason"]), (400, &json!("INVALID_REQUEST")));
    scene.close().await;
}
