//! The agent of the demonstration: one step, which takes the time and costs the money that it is told.

use std::time::Duration;

use pinrail_client::worker::{Next, StepContext, StepResult, ToolsSeen, Usage, shutdown_signal};
use pinrail_client::{Client, Config, Worker, config};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The agent's tool.
pub(super) const TOOL: &str = "search";

/// What the tool takes: as the bundles say, or more than they know of.
pub(super) fn arguments(drifted: bool) -> Value {
    let required: &[&str] = if drifted { &["query", "region"] } else { &["query"] };
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": { "query": text, "region": text },
        "required": required,
    })
}

/// What a bundle's runs are like.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Manner {
    /// How long a run takes.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub takes: Duration,
    /// What a run costs, in millionths.
    #[arg(long)]
    pub costs_micros: u64,
    /// Runs go on until they are cancelled.
    #[arg(long)]
    pub hangs: bool,
    /// The tool wants more than the bundle knows of.
    #[arg(long)]
    pub drifted: bool,
}

/// Serves a bundle until SIGTERM.
///
/// # Errors
/// When the cluster refuses the worker for good.
pub async fn serve(
    agent: &str,
    bundle: &str,
    endpoints: &str,
    manner: Manner,
) -> anyhow::Result<()> {
    let endpoints = config::split_endpoints(endpoints);
    let client = Client::new(Config { endpoints, ..Config::from_env()? })?;
    let step = move |ctx: StepContext, ask: Value| async move {
        sleep(manner.takes).await;
        let (model, cost_micros) = ("default".to_owned(), manner.costs_micros);
        ctx.report(Usage { model, cost_micros, ..Usage::default() });
        if manner.hangs {
            std::future::pending::<()>().await;
        }
        Ok(Next::done(json!({ "answer": ask["question"] }))) as StepResult<Next>
    };
    let seen = ToolsSeen::new();
    seen.set(TOOL, &arguments(manner.drifted), None);
    let worker = Worker::builder(client)
        .agent(agent)
        .bundle(bundle)
        .slots(256)
        .shutdown_grace(Duration::from_secs(1))
        .shadow_safe()
        .tools_seen(&seen)
        .step("main", step);
    Ok(worker.run_until(shutdown_signal()).await?)
}
