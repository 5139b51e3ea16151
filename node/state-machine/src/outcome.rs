//! What a command comes to: an answer or a rejection, the same on every replica; or a fault, which stops the node.

use pinrail_proto::log;
use pinrail_proto::reason::Reason;

use crate::effect::Effect;
use crate::store::Fault;

/// Why a verb stopped.
#[derive(Debug, Clone)]
pub enum Stop {
    /// An expected "no". Data, part of the answer, identical everywhere; nothing was changed.
    Rejected(log::Rejection),
    /// This node cannot go on.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Builds a rejection; `?` turns it into a [`Stop`].
#[must_use]
pub fn reject(reason: Reason, message: impl Into<String>) -> Stop {
    Stop::Rejected(log::Rejection {
        reason: reason.name.to_owned(),
        message: message.into(),
        metadata: std::collections::BTreeMap::new(),
    })
}

impl Stop {
    /// Adds a fact that programs can read.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        if let Self::Rejected(rejection) = &mut self {
            rejection.metadata.insert(key.to_owned(), value.to_string());
        }
        self
    }
}

/// One command's answer and what a leader has to do about it.
#[derive(Debug, Clone)]
pub struct Applied {
    pub outcome: log::Outcome,
    pub effects: Vec<Effect>,
}
