//! A worker of the agent `{{agent}}`: it serves one bundle, the one that PINRAIL_BUNDLE names.

mod agent;

use pinrail_client::worker::shutdown_signal;
use pinrail_client::{Client, Worker};

#[tokio::main]
async fn main() -> pinrail_client::Result<()> {
    let client = Client::connect_from_env().await?;
    let worker = Worker::builder(client).agent("{{agent}}").slots(8);
    agent::steps(worker).run_until(shutdown_signal()).await
}
