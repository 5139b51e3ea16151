//! One pull stream to one member: opened, introduced, welcomed.

use pinrail_proto::limits::{API_MESSAGE_BYTES, ASSIGNMENT_BYTES};
use pinrail_proto::v1::worker_service_client::WorkerServiceClient;
use pinrail_proto::v1::{self, work_request, work_response};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::retry::{Verdict, is_transient, judge};

/// Messages that wait for the stream to take them; what does not fit stays in the outbox.
const OUTBOUND: usize = 256;
/// From the first byte to the welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// An open stream. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: String,
    pub(crate) outbound: mpsc::Sender<v1::WorkRequest>,
    pub(crate) inbound: Streaming<v1::WorkResponse>,
}

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The cluster does not want this worker.
    Refused(Error),
    /// The member lives and cannot do it now: no leader, or the leader is elsewhere.
    NotNow { error: Error, leader: Option<String> },
    /// The member did not answer as it should; another one may.
    Failed(Error),
}

/// Opens a stream to the leader, or to another member where nobody can say who that is: it would pass everything on, both ways, as
/// long as the stream lasts.
pub(crate) async fn open(
    client: Client,
    hello: v1::WorkerHello,
) -> Result<(Link, v1::Welcome), OpenError> {
    client.connection().find_leader().await;
    let (address, channel) = client.connection().pick(true, &[]).map_err(OpenError::Refused)?;
    let late = || OpenError::Failed(unavailable("no welcome in time".to_owned()));
    let result = timeout(WELCOME_TIMEOUT, greet(address.clone(), channel, hello)).await;
    let result = result.unwrap_or_else(|_| Err(late()));
    match &result {
        Ok(_) | Err(OpenError::Refused(_)) => client.connection().succeeded(&address),
        Err(OpenError::NotNow { leader, .. }) => client.connection().redirected(leader.as_deref()),
        Err(OpenError::Failed(error)) => client.connection().failed(&address, &error.to_string()),
    }
    result
}

async fn greet(
    address: String,
    channel: tonic::transport::Channel,
    hello: v1::WorkerHello,
) -> Result<(Link, v1::Welcome), OpenError> {
    let (outbound, requests) = mpsc::channel(OUTBOUND);
    let hello = v1::WorkRequest { sequence: 0, message: Some(work_request::Message::Hello(hello)) };
    outbound.try_send(hello).expect("a new channel has room for the first message");
    let mut stub = WorkerServiceClient::new(channel)
        .max_decoding_message_size(ASSIGNMENT_BYTES)
        .max_encoding_message_size(API_MESSAGE_BYTES);
    let inbound =
        stub.work(ReceiverStream::new(requests)).await.map_err(|status| failed(&status))?;
    let mut inbound = inbound.into_inner();
    let first = inbound.message().await.map_err(|status| failed(&status))?;
    match first.and_then(|response| response.message) {
        Some(work_response::Message::Welcome(welcome)) => {
            Ok((Link { address, outbound, inbound }, *welcome))
        }
        Some(work_response::Message::Refused(refused)) => Err(refusal(refused)),
        Some(
            work_response::Message::Assignment(_)
            | work_response::Message::Done(_)
            | work_response::Message::Unknown(_)
            | work_response::Message::Cancel(_)
            | work_response::Message::Drain(_),
        )
        | None => Err(OpenError::Failed(unavailable("the stream did not begin well".to_owned()))),
    }
}

fn failed(status: &tonic::Status) -> OpenError {
    match judge(status) {
        Verdict::Refused(error) => OpenError::Refused(error),
        Verdict::NotDone { error, leader, unreachable: false, .. } => {
            OpenError::NotNow { error, leader }
        }
        Verdict::NotDone { error, .. } => OpenError::Failed(error),
        Verdict::Unknown { message } => OpenError::Failed(unavailable(message)),
    }
}

fn refusal(refused: v1::Refused) -> OpenError {
    if is_transient(&refused.reason) {
        let error = Error::Unavailable { reason: refused.reason, message: refused.message };
        return OpenError::NotNow { error, leader: None };
    }
    OpenError::Refused(Error::Rejected {
        reason: refused.reason,
        code: refused.code,
        message: refused.message,
        metadata: refused.metadata,
        revision: refused.revision,
    })
}

fn unavailable(message: String) -> Error {
    Error::Unavailable { reason: crate::error::UNREACHABLE.to_owned(), message }
}
