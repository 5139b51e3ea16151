//! The OpenAPI document: what it says is served, and nothing else.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::Scene;

#[tokio::test]
async fn every_operation_of_the_document_is_served() {
    let scene = Scene::idle().await;
    let http = &scene.http;
    let document = http.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let at = path.replace("{agent}", "support").replace("{namespace}", "default");
        let at = at.replace("{run}", "r").replace("{bundle}", "v1");
        let at = at.replace("{key}", "k").replace("{signal}", "s");
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            let id = &operation["operationId"];
            let ask = async |query: &str| {
                let at = format!("{at}{query}");
                let body = (method != "get").then(|| json!({}));
                let verb = method.to_uppercase();
                let asked = async {
                    // A stream goes on for ever; a refusal of it is short.
                    if method == "get" && http.head(&at).await.head.contains("event-stream") {
                        return None;
                    }
                    Some(http.ask(&verb, &at, &[], body.as_ref()).await)
                };
                timeout(Duration::from_secs(10), asked).await.expect("it answers")
            };
            if let Some(answer) = ask("").await {
                assert!(!answer.body.contains("nothing is here"), "{id} is not served");
                assert_ne!(answer.status, 405, "{id} has another method");
            }
            // Each parameter that is named is taken, and no other one.
            let unknown = ask("?nonsense=1").await.expect("it is refused");
            assert!(
                unknown.body.contains("nonsense") && unknown.status == 400,
                "{id}: {unknown:?}"
            );
            for param in operation["parameters"].as_array().expect("a list") {
                if param["in"] != "query" {
                    continue;
                }
                let name = param["name"].as_str().expect("a name");
                let schema = &param["schema"];
                let value = match schema["type"].as_str() {
                    Some("boolean") => "true",
                    Some("integer") => "1",
                    // Durations, names and pairs at once, as far as their form goes.
                    _ => match (schema["enum"][0].as_str(), name) {
                        (Some(word), _) => word,
                        (None, "labels") => "a%3Db",
                        (None, _) => "1s",
                    },
                };
                if let Some(answer) = ask(&format!("?{name}={value}")).await {
                    let of_query = ["the query", "query string"];
                    let refused = of_query.iter().any(|part| answer.body.contains(part));
                    assert!(!refused, "{id} {name}: {answer:?}");
                }
            }
        }
    }
    assert_eq!(operations, 32);
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    scene.close().await;
}
