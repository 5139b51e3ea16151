//! What an error says about the fate of a call, and whether asking again is safe. Knows no service and no connection.
//!
//! The rule: a call is repeated when it surely was not done, or when doing it twice is the same as doing it once.
//! Anything else stays unknown; unknown never becomes rejected.

use std::collections::BTreeMap;
use std::time::Duration;

use pinrail_proto::reason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::{Error, UNREACHABLE};

/// Domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "pinrail";
/// Response metadata in which a member that does not lead says where the leader is.
const LEADER: &str = "pinrail-leader";
/// Wait before the second attempt; it doubles.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(25);
/// Longest wait between attempts.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long a first attempt may take when another may follow; it doubles with each.
pub(crate) const ATTEMPT_FIRST: Duration = Duration::from_secs(2);
/// How long any attempt may take at least, however many members share the time of a call.
pub(crate) const ATTEMPT_LEAST: Duration = Duration::from_millis(250);

/// What doing a call twice would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing.
    Read,
    /// The cluster tells a repeat from a new call, by an id, a token or its content.
    Safe,
    /// It would be done twice.
    Once,
}

/// What a failed attempt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The cluster decided.
    Refused(Error),
    /// It was not done; another attempt is safe whatever the call.
    NotDone {
        /// What to answer when there is no more time.
        error: Error,
        /// How long the cluster asks to wait.
        after: Option<Duration>,
        /// Where the leader is, if the answer said so.
        leader: Option<String>,
        /// The member itself did not answer.
        unreachable: bool,
    },
    /// Nobody knows.
    Unknown {
        /// What went wrong.
        message: String,
    },
}

/// Judges a failed attempt.
#[must_use]
pub fn judge(status: &Status) -> Verdict {
    if let Some(info) = status.get_details_error_info().filter(|info| info.domain == DOMAIN) {
        let metadata: BTreeMap<String, String> = info.metadata.into_iter().collect();
        let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        return judge_reason(info.reason, metadata, status, after);
    }
    if never_sent(status) {
        return Verdict::NotDone {
            error: Error::Unavailable { reason: UNREACHABLE.to_owned(), message: describe(status) },
            after: None,
            leader: None,
            unreachable: true,
        };
    }
    match status.code() {
        // What broke between us and the answer, or a bug behind it.
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss
        | Code::Ok => Verdict::Unknown { message: describe(status) },
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Verdict::Refused(Error::Rejected {
            reason: code_name(status.code()),
            code: status.code() as i32,
            message: status.message().to_owned(),
            metadata: BTreeMap::new(),
            revision: 0,
        }),
    }
}

fn judge_reason(
    name: String,
    metadata: BTreeMap<String, String>,
    status: &Status,
    after: Option<Duration>,
) -> Verdict {
    let message = status.message().to_owned();
    if name == reason::OUTCOME_UNKNOWN.name {
        return Verdict::Unknown { message };
    }
    if is_transient(&name) {
        let leader = leader(status);
        let error = Error::Unavailable { reason: name, message };
        return Verdict::NotDone { error, after, leader, unreachable: false };
    }
    let revision = metadata.get("revision").and_then(|text| text.parse().ok()).unwrap_or(0);
    Verdict::Refused(Error::Rejected {
        reason: name,
        code: status.code() as i32,
        message,
        metadata,
        revision,
    })
}

/// `host:port` of the leader, as the member that answered knows it.
fn leader(status: &Status) -> Option<String> {
    status.metadata().get(LEADER)?.to_str().ok().map(str::to_owned)
}

/// Reasons that say "nothing was written, try again".
pub(crate) fn is_transient(name: &str) -> bool {
    [reason::NO_LEADER, reason::NO_QUORUM, reason::NOT_BOOTSTRAPPED, reason::OVERLOADED]
        .iter()
        .any(|reason| reason.name == name)
}

/// Whether the connection failed before anything of the request could leave.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The message with the last cause, which says most ("connection refused").
fn describe(status: &Status) -> String {
    let mut last = None;
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        last = Some(error.to_string());
        source = error.source();
    }
    match last {
        Some(cause) if !status.message().contains(&cause) => {
            format!("{}: {cause}", status.message())
        }
        Some(_) | None => status.message().to_owned(),
    }
}

/// `NOT_FOUND` for `NotFound`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// What to wait before attempt `failed + 1`, without jitter.
pub(crate) fn backoff(failed: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << failed.min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn pinrail(code: Code, reason: &str) -> Status {
        let metadata = [("revision".to_owned(), "7".to_owned())];
        let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        Status::with_error_details(code, "why", details)
    }

    #[test]
    fn a_refusal_is_final_and_keeps_its_revision() {
        let verdict = judge(&pinrail(Code::Aborted, "LEASE_STALE"));
        let Verdict::Refused(Error::Rejected { reason, revision, .. }) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!((reason.as_str(), revision), ("LEASE_STALE", 7));
    }

    #[test]
    fn reasons_that_wrote_nothing_are_safe_to_repeat() {
        for reason in ["NO_LEADER", "NO_QUORUM", "OVERLOADED", "NOT_BOOTSTRAPPED"] {
            let verdict = judge(&pinrail(Code::Unavailable, reason));
            assert!(matches!(verdict, Verdict::NotDone { .. }), "{reason}: {verdict:?}");
        }
    }

    #[test]
    fn the_leader_is_taken_from_the_answer() {
        let mut status = pinrail(Code::Unavailable, "NO_LEADER");
        status.metadata_mut().insert(LEADER, "n2:7420".parse().expect("ASCII"));
        let verdict = judge(&status);
        let Verdict::NotDone { leader, unreachable, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((leader.as_deref(), unreachable), (Some("n2:7420"), false));
    }

    #[test]
    fn unknown_is_never_turned_into_rejected() {
        let unknown = judge(&pinrail(Code::DeadlineExceeded, "OUTCOME_UNKNOWN"));
        assert!(matches!(unknown, Verdict::Unknown { .. }), "{unknown:?}");
        for code in [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Internal] {
            let verdict = judge(&Status::new(code, "broken"));
            assert!(matches!(verdict, Verdict::Unknown { .. }), "{code:?}: {verdict:?}");
        }
    }

    #[test]
    fn codes_without_a_reason_are_named_after_the_code() {
        let verdict = judge(&Status::unimplemented("no such method"));
        let Verdict::Refused(error) = verdict else { panic!("{verdict:?}") };
        assert_eq!(error.reason(), "UNIMPLEMENTED");
    }

    #[tokio::test]
    async fn a_refused_connection_was_never_sent() {
        // A port that was just free: nothing listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        drop(listener);
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .expect("an address is a URI")
            .connect_lazy();
        let mut client =
            pinrail_proto::v1::cluster_service_client::ClusterServiceClient::new(channel);
        let status = client
            .get_cluster_status(pinrail_proto::v1::GetClusterStatusRequest {})
            .await
            .expect_err("nobody listens");
        let verdict = judge(&status);
        assert!(matches!(verdict, Verdict::NotDone { unreachable: true, .. }), "{verdict:?}");
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        assert_eq!(backoff(0), BACKOFF_FIRST);
        assert!(backoff(2) > backoff(1));
        assert_eq!(backoff(40), BACKOFF_MAX);
    }
}
