//! The API as a stranger uses it: plain generated stubs, one attempt a call, no retry of its own.
//!
//! [`perform()`] turns a [`Call`](crate::history::Call) into one RPC and its answer into an
//! [`Outcome`](crate::history::Outcome); [`setup`] makes agents and bundles; [`final_read`] collects what a verdict
//! needs; [`agree`] compares what members say of their states. It takes channels, so that real sockets and a simulated network serve it alike.

pub mod agree;
pub mod convert;
pub mod final_read;
mod perform;
pub mod setup;

use std::time::Duration;

use anyhow::{Result, anyhow};
use pinrail_proto::v1;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

pub use perform::perform;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_millis(500);
/// What an answer may hold at most: a page of a list.
const MESSAGE_BYTES: usize = 32 << 20;

/// A channel to an address that connects when it is first used, and again after it broke.
///
/// # Errors
/// When the address is none.
pub fn channel(address: &str) -> Result<Channel> {
    #[cfg(feature = "simulation")]
    if turmoil::in_simulation() {
        return Ok(simulated_channel(address));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_timeout(CONNECT).tcp_nodelay(true).connect_lazy())
}

/// A channel over the simulated network.
#[cfg(feature = "simulation")]
pub(crate) fn simulated_channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .unwrap_or_else(|_| Endpoint::from_static("http://invalid.invalid:1"));
    let dial = |uri: http::Uri| async move {
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(0));
        let dialled = turmoil::net::TcpStream::connect((host, port));
        // A lost packet of the handshake would hang for ever: the simulated network does not repeat it.
        let stream = tokio::time::timeout(CONNECT, dialled).await??;
        Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
    };
    endpoint
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(dial))
}

/// Generated clients over one channel.
#[derive(Debug, Clone)]
pub struct Stubs {
    pub agents: v1::agent_service_client::AgentServiceClient<Channel>,
    pub bundles: v1::bundle_service_client::BundleServiceClient<Channel>,
    pub runs: v1::run_service_client::RunServiceClient<Channel>,
    pub pins: v1::pin_service_client::PinServiceClient<Channel>,
    pub releases: v1::release_service_client::ReleaseServiceClient<Channel>,
    pub memory: v1::memory_service_client::MemoryServiceClient<Channel>,
    pub cluster: v1::cluster_service_client::ClusterServiceClient<Channel>,
    pub events: v1::event_service_client::EventServiceClient<Channel>,
}

impl Stubs {
    #[must_use]
    pub fn new(channel: &Channel) -> Self {
        let channel = || channel.clone();
        Self {
            agents: v1::agent_service_client::AgentServiceClient::new(channel())
                .max_decoding_message_size(MESSAGE_BYTES),
            bundles: v1::bundle_service_client::BundleServiceClient::new(channel())
                .max_decoding_message_size(MESSAGE_BYTES),
            runs: v1::run_service_client::RunServiceClient::new(channel())
                .max_decoding_message_size(MESSAGE_BYTES),
            pins: v1::pin_service_client::PinServiceClient::new(channel())
                .max_decoding_message_size(MESSAGE_BYTES),
            releases: v1::release_service_client::ReleaseServiceClient::new(channel()),
            memory: v1::memory_service_client::MemoryServiceClient::new(channel())
                .max_decoding_message_size(MESSAGE_BYTES),
            cluster: v1::cluster_service_client::ClusterServiceClient::new(channel()),
            events: v1::event_service_client::EventServiceClient::new(channel())
                .max_decoding_message_size(MESSAGE_BYTES),
        }
    }
}

/// The nodes of a cluster, in the order of their members list.
#[derive(Debug, Clone)]
pub struct Nodes {
    channels: Vec<Channel>,
}

impl Nodes {
    /// # Errors
    /// When an address is none.
    pub fn connect<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        Ok(Self { channels: addresses.into_iter().map(channel).collect::<Result<_>>()? })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    #[must_use]
    pub fn channel(&self, node: usize) -> &Channel {
        &self.channels[node % self.channels.len()]
    }

    #[must_use]
    pub fn stubs(&self, node: usize) -> Stubs {
        Stubs::new(self.channel(node))
    }
}

/// A request with a deadline that the server is told too.
pub fn request<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The reason of a refusal, when the status carries one of ours.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "pinrail").then_some(info.reason)
}

/// Repeats a call that is safe to repeat, at one node after the other, until it answers or the time is over.
///
/// # Errors
/// The last refusal or failure, when the time is over or the refusal is a definite one.
pub async fn until_ok<T, F, Fut>(nodes: &Nodes, within: Duration, mut call: F) -> Result<T>
where
    F: FnMut(Stubs) -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let deadline = tokio::time::Instant::now() + within;
    let mut node = 0;
    loop {
        let attempt = tokio::time::timeout(Duration::from_secs(5), call(nodes.stubs(node)));
        let error = match attempt.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => {
                if !is_worth_a_retry(&status) {
                    return Err(anyhow!("{}", describe(&status)));
                }
                describe(&status)
            }
            Err(_) => "no answer within 5 s".to_owned(),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(anyhow!("no node did it within {within:?}: {error}"));
        }
        node += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the same call may succeed a moment later.
#[must_use]
pub fn is_worth_a_retry(status: &Status) -> bool {
    use tonic::Code;
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::ResourceExhausted => true,
        Code::FailedPrecondition => reason(status).is_some_and(|reason| reason == "STALE_READ"),
        _ => false,
    }
}

/// A status in one line.
#[must_use]
pub fn describe(status: &Status) -> String {
    let reason = reason(status).unwrap_or_default();
    format!("{:?} {reason}: {}", status.code(), status.message())
}
