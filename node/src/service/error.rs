//! The one place that maps what went wrong to a gRPC status: the code that the field expects, `ErrorInfo` with the
//! domain `pinrail` and a reason, `RetryInfo` where waiting helps.

use std::collections::HashMap;
use std::time::Duration;

use pinrail_proto::log::Rejection;
use pinrail_proto::reason::{self, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::raft::{MemberError, PeerInfo, ProposeError, ReadError};

const DOMAIN: &str = "pinrail";
/// When to come again if nothing better is known.
const RETRY: Duration = Duration::from_millis(50);

/// A refusal decided at apply; `revision` 0: it was refused before it was proposed.
pub(crate) fn rejected(rejection: &Rejection, revision: u64) -> Status {
    let Some(reason) = reason::find(&rejection.reason) else {
        return Status::internal(format!("{}: {}", rejection.reason, rejection.message));
    };
    let mut metadata: HashMap<String, String> =
        rejection.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    if revision != 0 {
        metadata.insert("revision".to_owned(), revision.to_string());
    }
    status(reason, &rejection.message, metadata)
}

/// A refusal at the door.
pub(crate) fn refuse(reason: Reason, message: impl Into<String>) -> Status {
    status(&reason, &message.into(), HashMap::new())
}

fn status(reason: &Reason, message: &str, metadata: HashMap<String, String>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.name, DOMAIN, metadata);
    let waiting_helps = [reason::OVERLOADED, reason::NO_LEADER, reason::NO_QUORUM];
    if waiting_helps.contains(reason) {
        details.set_retry_info(Some(RETRY));
    }
    Status::with_error_details(Code::from_i32(reason.code), message, details)
}

pub(crate) fn read(error: ReadError) -> Status {
    match error {
        ReadError::NoLeader => no_leader(None),
        ReadError::NoQuorum => {
            refuse(reason::NO_QUORUM, "no majority of the members answers; local reads still work")
        }
        ReadError::Stale { applied_revision } => {
            let message = format!("this node has applied revision {applied_revision} only");
            let metadata = HashMap::from([("revision".to_owned(), applied_revision.to_string())]);
            status(&reason::STALE_READ, &message, metadata)
        }
        ReadError::Fault(fault) => {
            tracing::error!(%fault, "a read failed");
            Status::data_loss("the store of this node cannot be read; ask another one")
        }
        ReadError::Stopping => refuse(reason::NO_LEADER, "the node is stopping"),
        ReadError::Rejected(rejection) => rejected(&rejection, 0),
    }
}

/// Why a write has no answer. `request_id` is what makes asking again safe; empty: nothing does.
pub(crate) fn propose(error: ProposeError, request_id: &str) -> Status {
    match error {
        ProposeError::NoLeader => no_leader(None),
        ProposeError::NotLeader { leader } => no_leader(leader.as_ref()),
        ProposeError::NoQuorum => {
            refuse(reason::NO_QUORUM, "no majority of the members answers; nothing was written")
        }
        ProposeError::Overloaded { retry_after } => overloaded(retry_after),
        ProposeError::Unknown { why } => unknown(&why, request_id),
        ProposeError::TooLarge { size, limit } => {
            let message = format!(
                "the request becomes a command of {size} bytes; at most {limit} are allowed"
            );
            refuse(reason::LIMIT_EXCEEDED, message)
        }
        ProposeError::Stopping => {
            refuse(reason::NO_LEADER, "the node is stopping; nothing was written")
        }
    }
}

pub(crate) fn unknown(why: &str, request_id: &str) -> Status {
    let metadata = match request_id {
        "" => HashMap::new(),
        id => HashMap::from([("request_id".to_owned(), id.to_owned())]),
    };
    status(&reason::OUTCOME_UNKNOWN, &format!("whether it was done is not known: {why}"), metadata)
}

pub(crate) fn overloaded(retry_after: Duration) -> Status {
    again("too much is waiting; nothing was written", retry_after)
}

/// More starts than `limits.runs_per_second` of server.toml allows.
pub(super) fn too_fast(retry_after: Duration) -> Status {
    again("this node's limit of runs per second is reached; nothing was written", retry_after)
}

fn again(message: &str, retry_after: Duration) -> Status {
    let mut details =
        ErrorDetails::with_error_info(reason::OVERLOADED.name, DOMAIN, HashMap::new());
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// Nothing was written; the leader's address, if it is known, is in the details.
pub(crate) fn no_leader(leader: Option<&PeerInfo>) -> Status {
    let (message, metadata) = match leader {
        None => ("no leader is known; nothing was written".to_owned(), HashMap::new()),
        Some(leader) => (
            format!("{} leads; nothing was written", leader.name),
            HashMap::from([
                ("leader".to_owned(), leader.name.clone()),
                ("leader_grpc_address".to_owned(), leader.grpc_address.clone()),
            ]),
        ),
    };
    status(&reason::NO_LEADER, &message, metadata)
}

pub(crate) fn member(error: MemberError) -> Status {
    match error {
        MemberError::Rejected(rejection) => rejected(&rejection, 0),
        MemberError::NotLeader { leader } => no_leader(leader.as_ref()),
        MemberError::Unknown { why } => unknown(&why, ""),
        MemberError::Unavailable => {
            refuse(reason::NO_QUORUM, "the node is stopping, or no majority of the members answers")
        }
    }
}
