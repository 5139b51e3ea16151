//! Who leads, and who follows.

use super::Cluster;

impl Cluster {
    /// The member that says of itself that it leads, in the newest term.
    pub async fn leader(&self) -> Option<usize> {
        let up = (0..self.members.len()).filter(|node| self.members[*node].is_up());
        let asked = up.map(async |node| (node, self.nodes.status(node).await));
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
}
