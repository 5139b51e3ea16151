//! What members say of their state, and whether they agree.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pinrail_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use super::{Nodes, request};

const ASK: Duration = Duration::from_millis(400);
const HASH: Duration = Duration::from_secs(30);

/// One member's own view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub leader: String,
    pub term: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub last_log_index: u64,
    pub state_hash: String,
    pub revision: u64,
}

/// What all members agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    pub applied_index: u64,
    pub state_hash: String,
    pub content_hash: String,
    pub keys: u64,
}

impl Nodes {
    /// A member's status, when it answers.
    pub async fn status(&self, node: usize) -> Option<Status> {
        let mut stubs = self.stubs(node);
        let asked = stubs.cluster.get_cluster_status(request(v1::GetClusterStatusRequest {}, ASK));
        let answer = timeout(ASK, asked).await.ok()?.ok()?.into_inner();
        Some(Status {
            leader: answer.leader,
            term: answer.term,
            applied_index: answer.applied_index,
            snapshot_index: answer.snapshot_index,
            last_log_index: answer.last_log_index,
            state_hash: answer.state_hash,
            revision: answer.revision,
        })
    }

    /// The cluster's feature level, as a member sees it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn feature_level(&self, node: usize) -> Result<u32> {
        let mut stubs = self.stubs(node);
        let asked = request(v1::GetClusterStatusRequest {}, HASH);
        Ok(stubs.cluster.get_cluster_status(asked).await?.into_inner().feature_level)
    }

    /// Waits until all members are at the same applied index, and demands that their state hashes and their
    /// content hashes are equal there.
    ///
    /// # Errors
    /// When they differ, or do not come together in time.
    pub async fn agree(&self, within: Duration) -> Result<Agreement> {
        let deadline = Instant::now() + within;
        loop {
            let asked = (0..self.len()).map(|node| self.status(node));
            let all: Vec<Option<Status>> = futures::future::join_all(asked).await;
            if let Some(status) = same_index(&all) {
                if all.iter().flatten().any(|other| other.state_hash != status.state_hash) {
                    bail!("state hashes differ at the same applied index: {all:#?}");
                }
                if let Some(agreement) = self.content(status.applied_index).await? {
                    return Ok(agreement);
                }
            }
            if Instant::now() > deadline {
                bail!("the members did not come together within {within:?}: {all:#?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Content hashes of all members at one index; none when the state moved on meanwhile.
    async fn content(&self, index: u64) -> Result<Option<Agreement>> {
        let mut answers = Vec::new();
        for node in 0..self.len() {
            answers.push(self.content_hash(node, index).await?);
        }
        let Some(first) = answers.first() else { return Ok(None) };
        if answers.iter().any(|it| it.applied_index != first.applied_index) {
            return Ok(None);
        }
        if answers.iter().any(|it| {
            (&it.content_hash, &it.state_hash) != (&first.content_hash, &first.state_hash)
        }) {
            bail!("hashes differ at the same applied index: {answers:#?}");
        }
        Ok(Some(Agreement {
            applied_index: first.applied_index,
            state_hash: first.state_hash.clone(),
            content_hash: first.content_hash.clone(),
            keys: first.keys,
        }))
    }

    /// One member's content hash once it has applied an index.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn content_hash(
        &self,
        node: usize,
        min_applied_index: u64,
    ) -> Result<v1::GetContentHashResponse> {
        let message = v1::GetContentHashRequest { min_applied_index };
        let mut stubs = self.stubs(node);
        let answer = timeout(HASH, stubs.cluster.get_content_hash(request(message, HASH)));
        let answer = answer.await.context("no content hash in time")?;
        Ok(answer.with_context(|| format!("content hash of node {node}"))?.into_inner())
    }
}

/// The members' status when all answered with the same applied index.
fn same_index(all: &[Option<Status>]) -> Option<&Status> {
    let first = all.first()?.as_ref()?;
    let same =
        |it: &Option<Status>| it.as_ref().is_some_and(|it| it.applied_index == first.applied_index);
    all.iter().all(same).then_some(first)
}
