//! The few messages of etcd's gRPC API that are sent, by the field numbers of its `rpc.proto`, over channels like those of our
//! own client: what differs between the two sides is the server.

use bytes::Bytes;
use futures::stream::Stream;
use pinrail_client::connection;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    /// Answered from the state of the member that is asked.
    #[prost(bool, tag = "7")]
    pub(super) serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Found {
    #[prost(int64, tag = "4")]
    pub(super) count: i64,
}

/// The key was created at a revision: 0 says that it is not there.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Compare {
    /// 1: its creation.
    #[prost(int32, tag = "2")]
    pub(super) target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) key: Bytes,
    /// Set even when it is 0: it is one of several.
    #[prost(int64, optional, tag = "5")]
    pub(super) create_revision: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Then {
    #[prost(message, optional, tag = "2")]
    pub(super) put: Option<Put>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Transaction {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<Then>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Done {
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
}

/// For requests without fields, and for answers of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Head {
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, optional, tag = "1")]
    pub(super) head: Option<Head>,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    /// 0: none.
    #[prost(uint64, tag = "4")]
    pub(super) leader: u64,
}

/// Opens one watch.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Watch {
    #[prost(message, optional, tag = "1")]
    pub(super) create: Option<CreateWatch>,
}

/// Of one key, from now on.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateWatch {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Changes {
    /// The watch is there.
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Change>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Change {
    #[prost(message, optional, tag = "2")]
    pub(super) now: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
}

/// Methods.
pub(super) const PUT: &str = "/etcdserverpb.KV/Put";
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const TRANSACTION: &str = "/etcdserverpb.KV/Txn";
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(super) const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// A channel as our client has them.
pub(super) fn channel(address: &str) -> anyhow::Result<Channel> {
    Ok(connection::channel(Endpoint::from_shared(format!("http://{address}"))?))
}

/// One call.
///
/// # Errors
/// What the server answers, or that it does not.
pub(super) async fn call<Q, R>(
    channel: &Channel,
    method: &'static str,
    request: Q,
) -> Result<R, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let codec: ProstCodec<Q, R> = ProstCodec::default();
    let path = PathAndQuery::from_static(method);
    let mut client = ready(channel).await?;
    Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
}

/// A stream of answers to a stream of requests.
///
/// # Errors
/// What the server answers, or that it does not.
pub(super) async fn stream<Q, R>(
    channel: &Channel,
    method: &'static str,
    requests: impl Stream<Item = Q> + Send + 'static,
) -> Result<Streaming<R>, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let codec: ProstCodec<Q, R> = ProstCodec::default();
    let path = PathAndQuery::from_static(method);
    let mut client = ready(channel).await?;
    Ok(client.streaming(Request::new(requests), path, codec).await?.into_inner())
}

async fn ready(channel: &Channel) -> Result<Grpc<Channel>, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client)
}
