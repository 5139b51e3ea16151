//! The worker process of the chaos tests: see `pinrail_chaos_tests::worker`.

use clap::Parser;
use pinrail_chaos_tests::worker::{Config, serve};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    serve(Arguments::parse().config).await
}
