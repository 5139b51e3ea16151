//! The agent that `pinrail dev` brings along: two bundles of it that greet differently, and workers for both.

use std::collections::BTreeMap;

use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_client::{Client, Worker, v1};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Its name.
pub(crate) const AGENT: &str = "hello";
/// Its bundles; the first goes live.
const BUNDLES: [(&str, &str, &str); 2] = [
    ("v1", "Hello, {name}.", "greet"),
    ("v2", "Good to see you, {name}!", "greet by name, warmly"),
];
const PROMPT: &str = "greeting";

#[derive(Debug, Deserialize)]
struct Ask {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Draft {
    name: String,
    /// How often this name was greeted before, by this bundle or those before it.
    before: u64,
}

/// Creates what is missing. What is there already stays as it is.
pub(crate) async fn seed(client: &Client) -> pinrail_client::Result<()> {
    let agent = client
        .agents()
        .create(v1::CreateAgentRequest {
            agent_id: AGENT.into(),
            policy: Some(v1::Policy {
                description: "brought along by pinrail dev".into(),
                ..Default::default()
            }),
            ..Default::default()
        })
        .await?;
    for (bundle_id, greeting, message) in BUNDLES {
        let manifest = Some(manifest(bundle_id, greeting, message));
        let request = v1::CreateBundleRequest {
            agent_id: AGENT.into(),
            bundle_id: bundle_id.into(),
            manifest,
            ..Default::default()
        };
        client.bundles().create(request).await?;
    }
    let route = agent.agent.and_then(|agent| agent.route).unwrap_or_default();
    if route.live_bundle_id.is_empty() {
        let request = v1::SwitchRequest {
            agent_id: AGENT.into(),
            bundle_id: BUNDLES[0].0.into(),
            ..Default::default()
        };
        client.releases().switch(request).await?;
    }
    Ok(())
}

fn manifest(bundle_id: &str, greeting: &str, message: &str) -> v1::BundleManifest {
    let model = v1::ModelPart {
        provider: "none".into(),
        name: "template".into(),
        snapshot: "1".into(),
        ..Default::default()
    };
    let prompt = v1::PromptPart { text: greeting.into(), ..Default::default() };
    v1::BundleManifest {
        entry: "plan".into(),
        code: Some(v1::CodePart { git_commit: code(bundle_id), ..Default::default() }),
        prompts: BTreeMap::from([(PROMPT.to_owned(), prompt)]),
        models: BTreeMap::from([("default".to_owned(), model)]),
        steps: ["plan", "greet"].map(|step| (step.to_owned(), v1::StepPolicy::default())).into(),
        message: message.into(),
        ..Default::default()
    }
}

/// What the workers are built from: this binary.
fn code(bundle_id: &str) -> String {
    format!("pinrail-{}-hello-{bundle_id}", env!("CARGO_PKG_VERSION"))
}

/// Works for both bundles until `stop`.
pub(crate) fn work(
    client: &Client,
    stop: &CancellationToken,
) -> JoinSet<pinrail_client::Result<()>> {
    let mut workers = JoinSet::new();
    for (bundle_id, _, _) in BUNDLES {
        let (client, stop) = (client.clone(), stop.clone());
        workers.spawn(async move {
            Worker::builder(client)
                .agent(AGENT)
                .bundle(bundle_id)
                .code(code(bundle_id))
                .worker_id(format!("dev-{bundle_id}"))
                .step("plan", plan)
                .step("greet", greet)
                .run_until(stop.cancelled_owned())
                .await
        });
    }
    workers
}

async fn plan(ctx: StepContext, ask: Ask) -> StepResult<Next> {
    let name = ask.name.filter(|name| !name.is_empty()).unwrap_or_else(|| "you".to_owned());
    let before: Option<u64> = ctx.memory().get(["greeted", name.as_str()]).await?;
    Ok(Next::step("greet", Draft { name, before: before.unwrap_or(0) }))
}

async fn greet(ctx: StepContext, draft: Draft) -> StepResult<Next> {
    let greeting = ctx.bundle().prompt(PROMPT).map(|prompt| prompt.text.clone());
    let text = greeting.unwrap_or_default().replace("{name}", &draft.name);
    ctx.memory().put(["greeted", draft.name.as_str()], &(draft.before + 1)).await?;
    Ok(Next::done(serde_json::json!({
        "text": text,
        "bundle": ctx.bundle().id(),
        "greeted_before": draft.before,
    })))
}
