//! A worker of our own over the bare protocol: it writes down what it executes before it does so, resends what was
//! not answered, and can be stuck on purpose. One process serves one bundle; `chaos-worker` is its program.
//!
//! It knows the worker protocol and nothing of the client library, whose mistakes it must not share.

mod journal;
mod link;
mod processes;
mod step;

pub use journal::{Journal, read_journals};
pub use processes::Workers;
pub use step::Work;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

/// What a worker process is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// gRPC addresses, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub endpoints: Vec<String>,
    #[arg(long)]
    pub agent: String,
    #[arg(long)]
    pub bundle: String,
    /// What this process was built from: it logs this, whatever the server says.
    #[arg(long)]
    pub code: String,
    #[arg(long)]
    pub worker_id: String,
    #[arg(long, default_value_t = 16)]
    pub slots: u32,
    /// Where its lines go.
    #[arg(long)]
    pub journal: PathBuf,
}

/// Serves until the process ends.
///
/// # Errors
/// When the journal cannot be written, or the server refuses this worker for good.
pub async fn serve(config: Config) -> Result<()> {
    let journal = Arc::new(Journal::open(&config)?);
    link::Link::new(config, journal).run().await
}
