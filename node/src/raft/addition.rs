//! What the leader's work adds to a caller's command on its way into the log. The log knows no workers: it asks who does,
//! and tells what became of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pinrail_proto::log as pb;

use super::replica::{ProposeError, Replica};

/// A command with what was added to it.
pub struct Added {
    pub command: Bytes,
    pub heard: Heard,
}

impl std::fmt::Debug for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Added").field("bytes", &self.command.len()).finish_non_exhaustive()
    }
}

/// Hears the command's outcome. None: it is not known, or nothing was written.
pub type Heard = Box<dyn FnOnce(Option<&pb::Outcome>) + Send>;

/// Sees an encoded command before it is proposed. None: there is nothing to add.
pub type Adder = Arc<dyn Fn(&Bytes) -> Option<Added> + Send + Sync>;

impl Replica {
    /// Lets commands of callers pass by `adder` at this node while it leads. The first one stays.
    pub fn set_adder(&self, adder: Adder) {
        // It is set once, by the driver that begins with the replica.
        let _ = self.inner.adder.set(adder);
    }

    /// Proposes commands of callers at this node, which must lead.
    ///
    /// # Errors
    /// See [`ProposeError`]: all but `Unknown` say that nothing was written.
    pub(super) async fn propose_for_callers(
        &self,
        mut commands: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Vec<pb::Outcome>, ProposeError> {
        let mut hear = Vec::new();
        if let Some(adder) = self.inner.adder.get() {
            for (at, command) in commands.iter_mut().enumerate() {
                if let Some(added) = adder(command) {
                    *command = added.command;
                    hear.push((at, added.heard));
                }
            }
        }
        if hear.is_empty() {
            return self.propose_here(commands, timeout).await;
        }
        let replica = self.clone();
        // A task of its own: what was added is heard of even when the caller has gone.
        let proposed = tokio::spawn(async move {
            let outcomes = replica.propose_here(commands, timeout).await;
            for (at, heard) in hear {
                heard(outcomes.as_ref().ok().and_then(|outcomes| outcomes.get(at)));
            }
            outcomes
        });
        let stopped = |_| ProposeError::Unknown { why: "the node stopped".to_owned() };
        proposed.await.map_err(stopped)?
    }
}
