//! Who leads, and what all members agree on.

use std::time::Duration;

use anyhow::Result;
use pinrail_proto::v1;

use super::Cluster;
use crate::api::agree::{Agreement, Status};

impl Cluster {
    /// A member's status, when it answers.
    pub async fn status(&self, node: usize) -> Option<Status> {
        self.nodes.status(node).await
    }

    /// The member that says of itself that it leads, in the newest term.
    pub async fn leader(&self) -> Option<usize> {
        let up = (0..self.members.len()).filter(|node| self.members[*node].is_up());
        let asked = up.map(async |node| (node, self.status(node).await));
        let answers = futures::future::join_all(asked).await;
        answers
            .into_iter()
            .filter_map(|(node, status)| Some((status?, node)))
            .filter(|(status, node)| status.leader == self.members[*node].name)
            .max_by_key(|(status, _)| status.term)
            .map(|(_, node)| node)
    }

    /// A member that is up and does not lead.
    pub async fn follower(&self) -> Option<usize> {
        let leader = self.leader().await?;
        (0..self.members.len()).find(|node| *node != leader && self.members[*node].is_up())
    }

    /// Waits until all members are at the same applied index, and demands that their hashes are equal there.
    ///
    /// # Errors
    /// When they differ, or do not come together in time.
    pub async fn agree(&self, within: Duration) -> Result<Agreement> {
        self.nodes.agree(within).await
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
        self.nodes.content_hash(node, min_applied_index).await
    }
}
