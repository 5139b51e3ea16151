//! The cluster itself: who is in it, how it is, and changes of its members.

use pinrail_proto::v1;
use pinrail_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::time::timeout;
use tonic::Streaming;

use crate::client::Client;
use crate::config::normalize_endpoint;
use crate::connection::Call;
use crate::error::{Error, Result, UNREACHABLE};
use crate::retry::{Repeat, Verdict, judge};
use crate::service::send;

/// `ClusterService`.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'c> {
    pub(super) client: &'c Client,
}

/// A member as it answers itself.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it knows.
    pub status: v1::GetClusterStatusResponse,
    /// Seconds since 1970 by its own clock, if the answer said so.
    pub wall_s: Option<u64>,
}

/// Of an HTTP date: `Sat, 28 Nov 2026 08:30:54 GMT`.
fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, _] = words.as_slice() else { return None };
    let number = |word: &str| word.parse::<u64>().ok();
    let month = MONTHS.find(*month).filter(|_| month.len() == 3)? as u64 / 3 + 1;
    let (day, year) = (number(day)?, number(year)?);
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    // Years that begin in March, so that the odd day is the last one.
    let (year, month) =
        if month < 3 { (year.checked_sub(1)?, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some((days.checked_sub(719_469)?) * 86_400 + hour * 3_600 + minute * 60 + second)
}

impl Cluster<'_> {
    /// What some member knows; needs no leader.
    ///
    /// # Errors
    /// `Unavailable` when no member answers.
    pub async fn status(&self) -> Result<v1::GetClusterStatusResponse> {
        let call = self.client.call_for(Repeat::Read, String::new());
        let call = Call { prefer_leader: false, ..call };
        let request = v1::GetClusterStatusRequest {};
        send!(self.client, call, ClusterServiceClient::get_cluster_status, request)
    }

    /// What this member knows, asked once.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    pub async fn status_of(&self, endpoint: &str) -> Result<v1::GetClusterStatusResponse> {
        self.seen(endpoint).await.map(|seen| seen.status)
    }

    /// The same, and what this member's clock is.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    pub async fn seen(&self, endpoint: &str) -> Result<Seen> {
        let channel = self.client.connection().channel(&normalize_endpoint(endpoint)?)?;
        let mut stub = ClusterServiceClient::new(channel);
        let asked = stub.get_cluster_status(v1::GetClusterStatusRequest {});
        let unreachable = |message: String| Error::Unavailable {
            reason: UNREACHABLE.to_owned(),
            message: format!("{endpoint}: {message}"),
        };
        match timeout(self.client.config().timeout, asked).await {
            Ok(Ok(answer)) => {
                let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
                let wall_s = date.and_then(seconds_of);
                Ok(Seen { status: answer.into_inner(), wall_s })
            }
            Ok(Err(status)) => Err(match judge(&status) {
                Verdict::Refused(error) => error,
                Verdict::NotDone { error, .. } => unreachable(error.to_string()),
                Verdict::Unknown { message } => unreachable(message),
            }),
            Err(_) => Err(unreachable("no answer in time".to_owned())),
        }
    }

    /// A quorum read, a probe that commits, and alarms.
    ///
    /// # Errors
    /// `Unavailable` when no member answers.
    pub async fn health(&self) -> Result<v1::GetClusterHealthResponse> {
        let call = self.client.call_for(Repeat::Read, String::new());
        let request = v1::GetClusterHealthRequest {};
        send!(self.client, call, ClusterServiceClient::get_cluster_health, request)
    }

    /// Adds a member. Not repeated when its fate is unknown: `status` shows whether it was done.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn add_member(&self, request: v1::AddMemberRequest) -> Result<v1::AddMemberResponse> {
        let call = self.client.call_for(Repeat::Once, String::new());
        send!(self.client, call, ClusterServiceClient::add_member, request)
    }

    /// Removes a member. Not repeated when its fate is unknown: `status` shows whether it was done.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn remove_member(
        &self,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::RemoveMemberResponse> {
        let call = self.client.call_for(Repeat::Once, String::new());
        send!(self.client, call, ClusterServiceClient::remove_member, request)
    }

    /// Hands the leadership over. Not repeated when its fate is unknown.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn transfer_leader(
        &self,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse> {
        let call = self.client.call_for(Repeat::Once, String::new());
        send!(self.client, call, ClusterServiceClient::transfer_leader, request)
    }

    /// A backup of one member with all that was acknowledged before the call: first what it is, then its bytes;
    /// [`crate::backup::save`] makes a file of it. The client's timeout is for its first message only.
    ///
    /// # Errors
    /// Those of [`crate::Error`]; those of the stream when it breaks off.
    pub async fn save_snapshot(&self) -> Result<Streaming<v1::SaveSnapshotResponse>> {
        let call = self.client.call_for(Repeat::Read, String::new());
        let call = Call { prefer_leader: false, hold: call.timeout, ..call };
        let request = v1::SaveSnapshotRequest {};
        send!(self.client, call, ClusterServiceClient::save_snapshot, request)
    }

    /// Content hash of one member's state, by a full scan; the client's timeout must be long enough.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn content_hash(
        &self,
        request: v1::GetContentHashRequest,
    ) -> Result<v1::GetContentHashResponse> {
        let call = self.client.call_for(Repeat::Read, String::new());
        let call = Call { prefer_leader: false, hold: call.timeout, ..call };
        send!(self.client, call, ClusterServiceClient::get_content_hash, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_from_1970() {
        for (date, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Sat, 28 Nov 2026 08:30:54 GMT", 1_795_854_654),
        ] {
            assert_eq!(seconds_of(date), Some(seconds), "{date}");
        }
        for date in ["", "Sat", "Sat, 28 Foo 2026 08:30:54 GMT", "now"] {
            assert_eq!(seconds_of(date), None, "{date}");
        }
    }
}
