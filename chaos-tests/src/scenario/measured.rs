//! What the measuring scenarios share: a cluster, a client of it, and runs started many at a time.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::stream::{self, StreamExt as _};
use pinrail_client::{Client, Config};
use pinrail_proto::v1;

use crate::cluster::Cluster;

/// Calls under way at the same time.
const AT_ONCE: usize = 256;
/// A busy cluster may let a call wait for so long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs on a page.
const PAGE: u32 = 1_000;

/// A client that knows all members.
pub(super) fn client(cluster: &Cluster) -> Result<Client> {
    let endpoints = cluster.members.iter().map(|member| member.grpc.clone()).collect();
    Ok(Client::new(Config { endpoints, timeout: TIMEOUT, ..Config::default() })?)
}

/// Makes a bundle live.
pub(super) async fn go_live(client: &Client, agent: &str, bundle_id: &str) -> Result<()> {
    let (agent_id, bundle_id) = (agent.to_owned(), bundle_id.to_owned());
    let request = v1::SwitchRequest { agent_id, bundle_id, ..v1::SwitchRequest::default() };
    client.releases().switch(request).await?;
    Ok(())
}

/// Does something for each number, many at a time.
pub(super) async fn each<F, Fut>(count: usize, act: F) -> Result<()>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = pinrail_client::Result<()>>,
{
    let mut acts = stream::iter(0..count).map(act).buffer_unordered(AT_ONCE);
    while let Some(done) = acts.next().await {
        if let Err(error) = done {
            bail!("a call failed: {error}");
        }
    }
    Ok(())
}

pub(super) async fn start(
    client: &Client,
    agent: &str,
    run_id: String,
) -> pinrail_client::Result<()> {
    let agent_id = agent.to_owned();
    let request = v1::StartRunRequest { agent_id, run_id, ..v1::StartRunRequest::default() };
    client.runs().start(request).await.map(drop)
}

/// All runs of an agent that a list gives, page by page.
pub(super) async fn runs(client: &Client, wanted: v1::ListRunsRequest) -> Result<Vec<v1::Run>> {
    let mut all = Vec::new();
    let mut request = v1::ListRunsRequest { page_size: PAGE, ..wanted };
    loop {
        let page = client.runs().list(request.clone()).await?;
        all.extend(page.runs);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}
