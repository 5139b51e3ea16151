//! The worker process of `chaos demo-release`: see `pinrail_chaos_tests::demo_release`.

use clap::Parser;
use pinrail_chaos_tests::demo_release::{Manner, serve};

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    agent: String,
    #[arg(long)]
    bundle: String,
    /// Members of the cluster, comma-separated.
    #[arg(long)]
    endpoints: String,
    #[command(flatten)]
    manner: Manner,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let it = Arguments::parse();
    serve(&it.agent, &it.bundle, &it.endpoints, it.manner).await
}
