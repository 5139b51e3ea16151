//! Trying a hook by hand: one event that is in no stream, sent at once, and what came of it.

use std::time::Duration;

use pinrail_proto::log::Rejection;
use pinrail_proto::{time, v1};
use pinrail_state_machine::query;
use tokio::time::Instant;

use super::lane::Outcome;
use super::{judge, message};
use crate::driver::Dispatch;
use crate::driver::state::ask;
use crate::raft::{PeerInfo, ReadError};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    pub delivered: bool,
    /// HTTP status; 0: there was no answer.
    pub status: u16,
    pub error: String,
    pub took: Duration,
    pub signed: bool,
    /// What was sent.
    pub body: String,
}

/// Why it was not tried.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<PeerInfo> },
    #[error("{}", .0.message)]
    Refused(Rejection),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Dispatch {
    /// Sends an event `hook.test` from here, which must be the leader: it is the one that sends all others.
    ///
    /// # Errors
    /// When this node does not lead, or there is no such hook. That the receiver does not answer is no error.
    pub async fn test_hook(
        &self,
        namespace: &str,
        agent_id: &str,
        hook: &str,
    ) -> Result<Tested, TestError> {
        if !self.leads() {
            return Err(TestError::NotLeader { leader: self.leader() });
        }
        let replica = &self.inner.replica;
        let read = ask(replica, |read| {
            Ok((query::hook(read, namespace, agent_id, hook)?, query::cluster(read)?))
        });
        let (status, cluster) = match read {
            Ok(read) => read,
            Err(ReadError::Rejected(rejection)) => return Err(TestError::Refused(rejection)),
            Err(error) => return Err(error.into()),
        };
        let hook = status.hook.unwrap_or_default();
        let event = v1::Event {
            revision: cluster.revision,
            at: time::timestamp(replica.cluster_time_ms()),
            r#type: "hook.test".to_owned(),
            namespace: if namespace.is_empty() { "default" } else { namespace }.to_owned(),
            agent_id: agent_id.to_owned(),
            attributes: [("hook".to_owned(), hook.name.clone())].into(),
            ..v1::Event::default()
        };
        let unique = replica.env().random_u64();
        let message = message::of_test(&cluster.cluster, unique, &event);
        let began = Instant::now();
        let outcome = match self.post(&hook.url, &hook.secret, &message).await {
            Ok(answer) => judge(&answer),
            Err(error) => super::failed(0, error.to_string(), None),
        };
        let (delivered, status, error) = match outcome {
            Outcome::Delivered { status } => (true, status, String::new()),
            Outcome::Failed { status, error, .. } => (false, status, error),
            Outcome::Gone => (false, 0, String::new()),
        };
        Ok(Tested {
            delivered,
            status,
            error,
            took: began.elapsed(),
            signed: !hook.secret.is_empty(),
            body: String::from_utf8_lossy(&message.body).into_owned(),
        })
    }
}
