//! Runs over HTTP.

use pinrail_client::v1;
use serde_json::{Value as Json, json};

use super::Scene;

const RUNS: &str = "/v1/agents/support/runs";

#[tokio::test]
async fn a_run_is_started_awaited_watched_and_found() {
    let scene = Scene::open().await;
    let http = &scene.http;
    let ended = http.post(&format!("{RUNS}?wait=20s"), &json!({"run_id": "r1", "input": 21})).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    assert!(ended.head.contains("pinrail-bundle: v1"), "{ended:?}");
    assert_eq!(
        (&ended.json()["state"], &ended.json()["output"]),
        (&json!("completed"), &json!(42))
    );

    let run = http.get(&format!("{RUNS}/r1?wait=1s")).await.json();
    assert_eq!((&run["input"], &run["pin"]["bundle_id"]), (&json!(21), &json!("v1")));
    let pin = http.get(&format!("{RUNS}/r1/pin")).await;
    assert!(pin.head.contains("pinrail-bundle: v1") && pin.status == 200, "{pin:?}");
    let page = http.get(&format!("{RUNS}?state=completed&page_size=10")).await.json();
    assert_eq!(page["runs"][0]["run_id"], "r1");

    // The stream ends with the run, and says nothing new to a reader that has it all.
    let watched = http.get(&format!("{RUNS}/r1/events")).await;
    assert!(watched.head.contains("text/event-stream"), "{watched:?}");
    assert!(watched.body.contains("event: end"), "{watched:?}");
    let id = watched.body.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    let resumed =
        http.ask("GET", &format!("{RUNS}/r1/events"), &[("last-event-id", id)], None).await;
    assert!(!resumed.body.contains("data:"), "{resumed:?}");

    scene.close().await;
}

#[tokio::test]
async fn an_idempotency_key_starts_one_run_and_a_wait_that_is_over_leaves_202() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let start = async |key: &str, span: u8| {
        // A client that is traced makes each attempt under a span of its own.
        let trace = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000{span:02x}-01");
        let headers = [("idempotency-key", key), ("traceparent", trace.as_str())];
        let path = format!("{RUNS}?wait=50ms");
        http.ask("POST", &path, &headers, Some(&json!({"input": 1}))).await
    };
    let (one, again, other) = (start("k1", 1).await, start("k1", 2).await, start("k2", 3).await);
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
    scene.close().await;
}

#[tokio::test]
async fn runs_are_listed_by_filters_in_pages() {
    let scene = Scene::open().await;
    let http = &scene.http;
    for number in 1..=5 {
        let task = if number % 2 == 1 { "odd" } else { "even" };
        let body =
            json!({ "run_id": format!("r{number}"), "input": number, "labels": { "task": task } });
        let ended = http.post(&format!("{RUNS}?wait=20s"), &body).await;
        assert_eq!(ended.status, 200, "{ended:?}");
    }
    let mut odd = Vec::new();
    let mut token = String::new();
    loop {
        let filters = "state=completed&bundle=v1&kind=live&labels=task%3Dodd&page_size=2";
        let page = http.get(&format!("{RUNS}?{filters}&page_token={token}")).await.json();
        let runs = page["runs"].as_array().expect("a list");
        assert!(runs.len() <= 2, "{page}");
        odd.extend(runs.iter().map(|run| run["run_id"].clone()));
        match page["next_page_token"].as_str() {
            None | Some("") => break,
            Some(next) => next.clone_into(&mut token),
        }
    }
    assert_eq!(odd, ["r5", "r3", "r1"], "the newest first");
    for nothing in ["open=true", "state=failed", "older_than=1h", "labels=task%3Dodd,task2%3Dx"] {
        let page = http.get(&format!("{RUNS}?{nothing}")).await.json();
        assert_eq!(page["runs"], json!([]), "{nothing}");
    }
    let steps = http.get(&format!("{RUNS}/r1/steps")).await.json();
    assert_eq!(
        (&steps["steps"][0]["name"], &steps["steps"][0]["state"], &steps["steps"][1]),
        (&json!("main"), &json!("completed"), &Json::Null)
    );
    scene.close().await;
}

#[tokio::test]
async fn a_run_is_paused_goes_on_and_is_scored() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let started = http.post(RUNS, &json!({ "run_id": "r1", "input": 1 })).await;
    assert_eq!((started.status, &started.json()["state"]), (202, &json!("queued")), "{started:?}");
    let paused = http.post(&format!("{RUNS}/r1/pause"), &json!({ "reason": "look first" })).await;
    assert_eq!((paused.status, &paused.json()["state"]), (200, &json!("paused")), "{paused:?}");
    let resumed = http.post(&format!("{RUNS}/r1/resume"), &json!({})).await;
    assert_eq!((resumed.status, &resumed.json()["state"]), (200, &json!("queued")), "{resumed:?}");
    let cancelled = http.post(&format!("{RUNS}/r1/cancel"), &json!({})).await;
    assert_eq!(cancelled.json()["state"], "cancelled");
    let score = json!({ "score_permille": 400, "source": "human", "comment": "too long" });
    let path = format!("{RUNS}/r1/score");
    let (scored, again) = (http.post(&path, &score).await, http.post(&path, &score).await);
    assert_eq!((scored.status, again.status), (200, 200), "{scored:?}");
    assert_eq!(
        (&scored.json()["bundle_id"], &again.json()["already"]),
        (&json!("v1"), &json!(true))
    );
    scene.close().await;
}

#[tokio::test]
async fn who_executes_runs_elsewhere_says_what_they_used() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let elsewhere =
        v1::RunPolicy { execution: v1::Execution::External.into(), ..v1::RunPolicy::default() };
    let request = v1::UpdateAgentRequest {
        agent_id: "support".into(),
        policy: Some(v1::Policy { runs: Some(elsewhere), ..Default::default() }),
        ..Default::default()
    };
    scene.client.agents().update(request).await.expect("the policy is changed");
    let started = http.post(RUNS, &json!({"run_id": "r1"})).await;
    assert_eq!(started.status, 202, "{started:?}");
    let wrong = json!({"outcome": "completed", "usage": {"models": [{"tokens": 3}]}});
    assert_eq!(http.post(&format!("{RUNS}/r1/finish"), &wrong).await.status, 400);
    let usage = json!({
        "models": [{"model": "default", "input_tokens": 9, "cost_micros": 70}],
        "tools": [{"tool": "refund", "side_effects": "destructive"}],
    });
    let end = json!({"outcome": "completed", "output": 1, "usage": usage});
    let ended = http.post(&format!("{RUNS}/r1/finish"), &end).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    let run = http.get(&format!("{RUNS}/r1")).await.json();
    let (models, tools) = (&run["usage"]["models"][0], &run["usage"]["tools"][0]);
    assert_eq!((&models["cost_micros"], &models["calls"]), (&json!(70), &json!(1)), "{run}");
    assert_eq!((&tools["tool"], &tools["calls"]), (&json!("refund"), &json!(1)), "{run}");
    scene.close().await;
}
