//! Reads: as fresh as was asked, from one moment of this node's state.

use std::time::Duration;

use pinrail_proto::reason;
use pinrail_proto::v1::{self, Consistency};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, Position};
use pinrail_state_machine::store::Read;
use tokio::time::Instant;
use tonic::{Request, Status};

use super::{Node, error};

/// A call without a deadline of its own gets this one.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// No call may take longer here, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(60);

/// What is kept of a call's time, so that our own word comes before the caller gives up.
const FOR_THE_ANSWER: Duration = Duration::from_millis(250);

/// How long a call may take: what its `grpc-timeout` says, within limits. A little is kept for the answer.
pub(super) fn timeout_of<T>(request: &Request<T>) -> Duration {
    let asked = request
        .metadata()
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse);
    let timeout = asked.unwrap_or(DEFAULT_TIMEOUT).min(LONGEST);
    timeout.saturating_sub((timeout / 5).min(FOR_THE_ANSWER))
}

/// `grpc-timeout`: digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3_600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl Node {
    /// Answers a query at the freshness that the options ask for, with the revision that it was answered at.
    pub(super) async fn query<T>(
        &self,
        options: Option<&v1::ReadOptions>,
        timeout: Duration,
        query: impl FnOnce(&dyn Read) -> Result<T, Stop>,
    ) -> Result<(T, Position), Status> {
        self.freshen(options, timeout).await?;
        self.query_now(query)
    }

    async fn freshen(
        &self,
        options: Option<&v1::ReadOptions>,
        timeout: Duration,
    ) -> Result<(), Status> {
        let deadline = Instant::now() + timeout;
        let options = options.cloned().unwrap_or_default();
        if Consistency::try_from(options.consistency).is_err() {
            return Err(error::refuse(
                reason::INVALID_REQUEST,
                "the consistency is not one that exists",
            ));
        }
        match options.consistency() {
            Consistency::Local => {}
            Consistency::Unspecified | Consistency::Linearizable => {
                self.replica.barrier(timeout).await.map_err(error::read)?;
            }
        }
        if options.min_revision != 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.replica.wait_revision(options.min_revision, left);
            waited.await.map_err(error::read)?;
        }
        Ok(())
    }

    /// Answers a query from this node's state as it is.
    pub(super) fn query_now<T>(
        &self,
        query: impl FnOnce(&dyn Read) -> Result<T, Stop>,
    ) -> Result<(T, Position), Status> {
        let answer = self.replica.read(|read| {
            let position = query::position(read)?;
            match query(read) {
                Ok(answer) => Ok(Ok((answer, position))),
                Err(Stop::Rejected(rejection)) => Ok(Err((rejection, position))),
                Err(Stop::Fault(fault)) => Err(fault),
            }
        });
        match answer.map_err(error::read)? {
            Ok(answer) => Ok(answer),
            Err((rejection, position)) => Err(error::rejected(&rejection, position.revision)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        for bad in ["", "S", "-1S", "1x", "S1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
