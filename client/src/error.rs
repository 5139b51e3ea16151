//! What can go wrong for a caller, in the only four shapes that matter: refused, not reached, fate unknown, asked wrongly.
//!
//! A refusal is the cluster's own word. Whatever else happened to a write is never reported as a refusal.

use std::collections::BTreeMap;

use pinrail_proto::{reason, v1};

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cluster decided against it; nothing changed. The same call gives the same answer until something else changes.
    #[error("{reason}: {message}")]
    Rejected {
        /// A name of `pinrail_proto::reason`, or of a gRPC code when the answer came from somewhere else.
        reason: String,
        /// gRPC status code.
        code: i32,
        /// For people.
        message: String,
        /// What the reason carries: nearest names, limits, sizes.
        metadata: BTreeMap<String, String>,
        /// Revision that it was decided at; 0 when it was refused before it was proposed.
        revision: u64,
    },
    /// No member could do it in time, and surely none did.
    #[error("{reason}: {message}")]
    Unavailable {
        /// `NO_LEADER`, `NO_QUORUM`, `OVERLOADED`, `NOT_BOOTSTRAPPED` or `UNREACHABLE`.
        reason: String,
        /// For people.
        message: String,
    },
    /// Whether the write was done is not known. Asking again with the same id is safe where there is one.
    #[error("whether the write was done is not known: {message}")]
    Unknown {
        /// Request or run id to ask again with; empty when the call has none.
        request_id: String,
        /// The last thing that went wrong.
        message: String,
    },
    /// The call was wrong before anything was sent.
    #[error("{message}")]
    Invalid {
        /// Which value, and the rule that it breaks.
        message: String,
    },
    /// The run that was waited for is over, and not completed.
    #[error("run {run_id} ended {}: {message}", state.as_str_name().trim_start_matches("RUN_STATE_").to_lowercase())]
    RunEnded {
        /// The run.
        run_id: String,
        /// Failed, cancelled or expired.
        state: v1::RunState,
        /// The failure's reason, or why it was ended.
        reason: String,
        /// For people.
        message: String,
    },
}

/// Reason of [`Error::Unavailable`] when no member could be reached.
pub const UNREACHABLE: &str = "UNREACHABLE";

impl Error {
    /// A mistake of the caller.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid { message: message.into() }
    }

    /// The stable name of what happened, where there is one.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Error::Rejected { reason, .. }
            | Error::Unavailable { reason, .. }
            | Error::RunEnded { reason, .. } => reason,
            Error::Unknown { .. } => reason::OUTCOME_UNKNOWN.name,
            Error::Invalid { .. } => reason::INVALID_REQUEST.name,
        }
    }

    /// Whether the cluster refused it with this reason.
    #[must_use]
    pub fn is_rejected_with(&self, reason: &reason::Reason) -> bool {
        matches!(self, Error::Rejected { reason: name, .. } if name == reason.name)
    }
}

impl From<pinrail_proto::id::IdError> for Error {
    fn from(error: pinrail_proto::id::IdError) -> Error {
        Error::invalid(error.to_string())
    }
}
