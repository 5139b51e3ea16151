//! A release's changes.

use std::time::Duration;

use pinrail_proto::v1;
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, Position};
use pinrail_state_machine::store::Read;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::super::Node;
use super::{Answers, Then, Watched, follow};

/// A release now, then after each change, until its end.
pub(in super::super) async fn release(
    node: Node,
    it: v1::WatchReleaseRequest,
    timeout: Duration,
) -> Result<Answers<v1::WatchReleaseResponse>, Status> {
    follow(node, Release { it, agent: 0, seen: 0 }, timeout).await
}

struct Release {
    it: v1::WatchReleaseRequest,
    /// Its number, once the first look has found it.
    agent: u32,
    seen: u64,
}

impl Watched for Release {
    type Found = (u32, v1::Release);
    type Answer = v1::WatchReleaseResponse;

    fn look(&self, read: &dyn Read) -> Result<(u32, v1::Release), Stop> {
        let v1::WatchReleaseRequest { namespace, agent_id, release_id } = &self.it;
        let agent = query::agent_number(read, namespace, agent_id)?;
        Ok((agent, query::release(read, namespace, agent_id, release_id)?))
    }

    fn tell(
        &mut self,
        (agent, release): (u32, v1::Release),
        at: Position,
    ) -> (Option<v1::WatchReleaseResponse>, Then) {
        let then = if release.ended_at.is_some() { Then::End } else { Then::Wait };
        self.agent = agent;
        // From here on that one, whatever is started beside it.
        self.it.release_id.clone_from(&release.release_id);
        if release.revision <= self.seen {
            return (None, then);
        }
        self.seen = release.revision;
        let answer = v1::WatchReleaseResponse { release: Some(release), revision: at.revision };
        (Some(answer), then)
    }

    /// Route, release or policy of the agent changed.
    fn is_concerned(&self, batch: &AppliedBatch) -> bool {
        batch
            .effects()
            .any(|effect| matches!(effect, Effect::AgentChanged { agent } if *agent == self.agent))
    }
}
