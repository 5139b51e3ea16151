//! Namespaces and their quotas over HTTP.

use std::time::Duration;

use pinrail_client::v1;
use pinrail_node::telemetry;
use pinrail_proto::reason;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Scene;
use crate::nodes::{SOON, agent_named, start};

#[tokio::test]
async fn a_quota_refuses_more_says_why_and_is_shown_with_its_use() {
    telemetry::init_metrics();
    let scene = Scene::idle().await;
    let (http, client) = (&scene.http, &scene.client);
    let before = http.get("/v1/namespaces/default").await.json();
    assert_eq!(before["used"]["agents"], 1, "{before}");
    assert_eq!(before["quotas"], json!({}), "no quota is set");
    let quotas = v1::NamespaceAmounts { open_runs: Some(2), agents: Some(1), ..Default::default() };
    let request = v1::UpdateNamespaceRequest {
        namespace: "default".into(),
        quotas: Some(quotas),
        ..Default::default()
    };
    client.namespaces().update(request.clone()).await.expect("quotas are set");
    let again = client.namespaces().update(request).await.expect("they are so already");
    assert!(again.already, "{again:?}");

    let create = v1::CreateAgentRequest { agent_id: "billing".into(), ..Default::default() };
    let refused = client.agents().create(create).await.expect_err("there is no room");
    assert!(refused.is_rejected_with(&reason::QUOTA_EXCEEDED), "{refused}");
    start(client, "r1").await;
    start(client, "r2").await;
    let runs = "/v1/agents/support/runs";
    let refused = http.post(runs, &json!({ "run_id": "r3" })).await;
    let problem = refused.json();
    assert_eq!((refused.status, &problem["reason"]), (429, &json!("QUOTA_EXCEEDED")), "{problem}");
    let metadata = &problem["metadata"];
    assert_eq!(
        (&metadata["quota"], &metadata["of"], &metadata["used"], &metadata["limit"]),
        (&json!("open_runs"), &json!("namespace default"), &json!("2"), &json!("2"))
    );
    let all = http.get("/v1/namespaces").await.json();
    assert_eq!(all["namespaces"][0]["used"]["open_runs"], 2, "{all}");
    let published = async {
        let used = "pinrail_quota_used{namespace=\"default\",quota=\"open_runs\"} 2";
        let limit = "pinrail_quota_limit{namespace=\"default\",quota=\"agents\"} 1";
        loop {
            let page = http.get("/metrics").await;
            assert_eq!(page.status, 200, "{page:?}");
            if page.body.contains(used) && page.body.contains(limit) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, published).await.expect("the metrics say so");

    // What ends makes room.
    assert_eq!(http.post(&format!("{runs}/r1/cancel"), &json!({})).await.status, 200);
    assert_eq!(http.post(runs, &json!({ "run_id": "r3" })).await.status, 202);
    // Without a quota nothing is refused.
    let unlimited = v1::UpdateNamespaceRequest {
        namespace: "default".into(),
        unlimited: vec![v1::Quota::OpenRuns.into(), v1::Quota::Agents.into()],
        ..Default::default()
    };
    client.namespaces().update(unlimited).await.expect("quotas are taken away");
    assert_eq!(http.post(runs, &json!({ "run_id": "r4" })).await.status, 202);
    agent_named(client, "billing").await;
    scene.close().await;
}
