//! Writes: a command out of a request, and the answer out of its outcome.

use std::time::Duration;

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, AgentRef};
use pinrail_proto::v1::WriteOptions;
use tonic::Status;

use super::{Node, error, validate};

/// Writes of one node's callers that may be under way, so that a follower too holds a bounded number of payloads. Less
/// than what the leader lets wait: the driver's own proposals find room.
pub(super) const IN_FLIGHT: usize = 4_096;
/// When to come again after a refusal.
const AGAIN: Duration = Duration::from_millis(50);

/// Names an agent in a command.
pub(super) fn agent_ref(namespace: &str, agent_id: &str) -> Result<Option<AgentRef>, Status> {
    validate::namespace(namespace)?;
    validate::agent(agent_id)?;
    Ok(Some(AgentRef { namespace: namespace.to_owned(), agent_id: agent_id.to_owned() }))
}

impl Node {
    /// Proposes for a caller: OVERLOADED, and nothing written, when too many writes are under way at this node.
    pub(super) async fn write(
        &self,
        options: Option<WriteOptions>,
        kind: Kind,
        timeout: Duration,
    ) -> Result<(Answer, u64), Status> {
        let _room = self.writes.try_acquire().map_err(|_| error::overloaded(AGAIN))?;
        self.propose(options, kind, timeout).await
    }

    /// Proposes and gives the answer with its revision; a rejection becomes a status.
    pub(super) async fn propose(
        &self,
        options: Option<WriteOptions>,
        kind: Kind,
        timeout: Duration,
    ) -> Result<(Answer, u64), Status> {
        let options = options.unwrap_or_default();
        validate::options(&options)?;
        let request_id = options.request_id.clone();
        let header = log::Header {
            request_id: options.request_id,
            actor: options.actor,
            reason: options.reason,
            expected_revision: options.expected_revision,
            dry_run: options.dry_run,
        };
        let command = log::Command { header: Some(header), kind: Some(kind) };
        let proposed = self.replica.propose(command, timeout).await;
        let outcome = proposed.map_err(|error| error::propose(error, &request_id))?;
        match outcome.result {
            Some(Answer::Rejection(rejection)) => {
                Err(error::rejected(&rejection, outcome.revision))
            }
            Some(answer) => Ok((answer, outcome.revision)),
            None => Err(mismatch()),
        }
    }
}

/// The state machine gave another kind of answer than the command has: a bug, and never a user's fault.
pub(super) fn mismatch() -> Status {
    tracing::error!("a command got an answer of another kind");
    Status::internal("the answer is of another kind than the request")
}
