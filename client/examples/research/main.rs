//! A research agent: answers questions over a directory of documents, and shows what changes from bundle to bundle.
//!
//! ```text
//! pinrail agent create research -f client/examples/research/agent.toml
//! pinrail bundle create research v1 -f client/examples/research/bundle-v1.toml
//! cargo run --release -p pinrail-client --example research -- --bundle v1 [DOCUMENTS]
//! pinrail switch research v1
//! pinrail run start research --input '{"question":"Why must a failed fsync not be retried?"}' --wait
//! ```
//! Without DOCUMENTS it knows the small corpus beside this file. Steps: plan → retrieve → read → answer. Bundle v2 has
//! another prompt (it cites sources), another index (windows of sentences) and another version of the search tool.
//!
//! A model is asked when `RESEARCH_MODEL_URL` names an OpenAI-compatible endpoint (`http://127.0.0.1:11434/v1`; with
//! `RESEARCH_MODEL` and `RESEARCH_MODEL_KEY`). Without one, an embedded extractive answerer works with no network.
//!
//! Inputs: `question`, `user` (remembers the last topics), and two that simulate a slow document: `think_ms` makes the
//! read step take so long, `never_end` makes it last until the run is cancelled (with `stubborn`, it does not listen).

mod agent;
mod chat;
mod corpus;
mod extract;
mod step_log;
#[cfg(all(test, feature = "cli"))]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use pinrail_client::worker::{WorkerBuilder, shutdown_signal};
use pinrail_client::{Client, Config, Worker, config};

use crate::agent::Agent;
use crate::chat::Chat;
use crate::corpus::Library;
use crate::step_log::StepLog;

/// A worker of the research agent.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory of .md and .txt documents; without it, the corpus that comes with the example.
    documents: Option<PathBuf>,
    /// The agent to work for.
    #[arg(long, default_value = "research")]
    agent: String,
    /// The bundle to serve; default: PINRAIL_BUNDLE.
    #[arg(long)]
    bundle: Option<String>,
    /// What this program was built from; default: PINRAIL_CODE, else nothing is said.
    #[arg(long)]
    code: Option<String>,
    /// Members of the cluster, comma-separated; default: PINRAIL_ENDPOINT.
    #[arg(long)]
    endpoint: Option<String>,
    /// Steps at once.
    #[arg(long, default_value_t = 8)]
    slots: u32,
    /// Unique among live workers; default: made up.
    #[arg(long)]
    worker_id: Option<String>,
    /// How long steps may go on after SIGTERM, in seconds; then they are handed back.
    #[arg(long, default_value_t = 10)]
    shutdown_grace: u64,
    /// Appends one JSON line for each step that is executed: run, step, attempt, bundle, own code, time.
    #[arg(long)]
    log: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let filter = config::variable("RUST_LOG").unwrap_or_else(|| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let worker = worker(&arguments)?;
    worker.run_until(shutdown_signal()).await.context("the worker ended")
}

fn worker(arguments: &Arguments) -> anyhow::Result<WorkerBuilder> {
    let mut config = Config::from_env()?;
    if let Some(list) = &arguments.endpoint {
        config.endpoints = config::split_endpoints(list);
    }
    let library = match &arguments.documents {
        Some(directory) => Library::read(directory)?,
        None => Library::embedded(),
    };
    let bundle = arguments.bundle.clone().or_else(config::worker_bundle);
    let bundle = bundle.context("--bundle or PINRAIL_BUNDLE must name the bundle to serve")?;
    let code = arguments.code.clone().or_else(config::worker_code);
    let log = StepLog::open(arguments.log.as_deref(), &bundle, code.as_deref())?;
    let agent = Arc::new(Agent { library, chat: Chat::from_env()?, log });

    let mut worker = Worker::builder(Client::new(config)?)
        .agent(&arguments.agent)
        .bundle(bundle)
        .slots(arguments.slots)
        .shutdown_grace(std::time::Duration::from_secs(arguments.shutdown_grace))
        .shadow_safe();
    if let Some(code) = code {
        worker = worker.code(code);
    }
    if let Some(worker_id) = &arguments.worker_id {
        worker = worker.worker_id(worker_id);
    }
    Ok(agent::serve(worker, &agent))
}
