//! The post between members: it hands on every message, and now and then once more a copy of an old one of Raft's, when newer ones
//! have long been there. Raft is to be safe with messages that come twice and out of order; a connection alone never does that.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

use crate::api::simulated_channel;
use crate::workload::client::rng;

/// The part of the messages that a copy of comes, in thousandths, in one seed or another.
const COPIED: [u32; 4] = [0, 0, 20, 200];
/// A copy comes so much later at most.
const LATE_MS: u64 = 3_000;
/// What is copied, and the method that takes the copy: one message of a stream is a call of its own.
const METHODS: [(&str, &str); 6] = [
    ("Append", "Heartbeat"),
    ("Heartbeat", "Heartbeat"),
    ("Vote", "Vote"),
    ("PreVote", "PreVote"),
    ("TransferLeader", "TransferLeader"),
    ("OfferSnapshot", "OfferSnapshot"),
];
/// Bytes before a message: whether it is compressed, and how long it is.
const PREFIX: usize = 5;
/// What a connection to the post holds.
const BUFFER: usize = 64 << 10;

/// One node's post.
#[derive(Debug, Clone)]
pub(super) struct Post {
    copied_permille: u32,
    dice: Arc<Mutex<StdRng>>,
    /// Copies that a member has answered.
    copies: Arc<AtomicU64>,
}

impl Post {
    /// What a seed says of copies, and a node's own luck.
    pub(super) fn of(seed: u64, own: u64, copies: Arc<AtomicU64>) -> Self {
        let copied_permille = COPIED[rng(seed, u32::MAX - 20).random_range(0..COPIED.len())];
        Self { copied_permille, dice: Arc::new(Mutex::new(rng(own, u32::MAX - 21))), copies }
    }

    /// A channel to another node by way of the post, which is on this node: what parts the two parts it from the other node, too.
    pub(super) fn channel(&self, address: &str) -> Channel {
        let onward = simulated_channel(address);
        if self.copied_permille == 0 {
            return onward;
        }
        let post = self.clone();
        let dial = move |_: Uri| {
            let (near, far) = tokio::io::duplex(BUFFER);
            let (post, onward) = (post.clone(), onward.clone());
            tokio::spawn(async move {
                let answer = move |request| post.clone().hand_on(onward.clone(), request);
                let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(far), hyper::service::service_fn(answer));
                // Whoever was connected to it sees its end.
                let _ = serve.await;
            });
            std::future::ready(Ok::<_, Infallible>(TokioIo::new(near)))
        };
        Endpoint::from_static("http://post").connect_with_connector_lazy(tower::service_fn(dial))
    }

    async fn hand_on(
        self,
        onward: Channel,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let mut copier = self.copier(&onward, &head.uri, &head.headers);
        let body = body.map_frame(move |frame| {
            if let (Some(copier), Some(data)) = (&mut copier, frame.data_ref()) {
                copier.see(data);
            }
            frame
        });
        let answer = call(onward, Request::from_parts(head, Body::new(body))).await;
        Ok(answer.unwrap_or_else(|error| Status::unavailable(error.to_string()).into_http()))
    }

    /// None: calls of this method are never copied.
    fn copier(&self, onward: &Channel, uri: &Uri, headers: &HeaderMap) -> Option<Copier> {
        let (service, method) = uri.path().rsplit_once('/')?;
        let (_, taken_by) = METHODS.iter().find(|(name, _)| *name == method)?;
        let path: Uri = format!("http://post{service}/{taken_by}").parse().ok()?;
        let mut headers = headers.clone();
        headers.remove(http::header::CONTENT_LENGTH);
        let seen = BytesMut::new();
        Some(Copier { post: self.clone(), onward: onward.clone(), path, headers, seen })
    }
}

/// Sends copies of the messages of one call.
struct Copier {
    post: Post,
    onward: Channel,
    path: Uri,
    headers: HeaderMap,
    /// The beginning of a message whose end has not been seen.
    seen: BytesMut,
}

impl Copier {
    fn see(&mut self, data: &[u8]) {
        self.seen.extend_from_slice(data);
        while let Some(message) = whole(&mut self.seen) {
            let mut dice = self.post.dice.lock();
            if dice.random_ratio(self.post.copied_permille, 1_000) {
                let late = Duration::from_millis(dice.random_range(1..LATE_MS));
                tokio::spawn(self.copy(message, late));
            }
        }
    }

    fn copy(&self, message: Bytes, late: Duration) -> impl Future<Output = ()> + use<> {
        let mut request = Request::new(Body::new(Full::new(message)));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        let (onward, copies) = (self.onward.clone(), Arc::clone(&self.post.copies));
        async move {
            tokio::time::sleep(late).await;
            // Nobody else waits for an answer to a copy.
            if call(onward, request).await.is_ok() {
                copies.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Takes the first message with its prefix, if it is there as a whole.
fn whole(seen: &mut BytesMut) -> Option<Bytes> {
    let mut prefix = seen.get(..PREFIX)?;
    prefix.advance(1);
    let length = usize::try_from(prefix.get_u32()).ok()?;
    (seen.len() >= PREFIX + length).then(|| seen.split_to(PREFIX + length).freeze())
}

async fn call(
    mut onward: Channel,
    request: Request<Body>,
) -> Result<Response<Body>, tonic::transport::Error> {
    onward.ready().await?.call(request).await
}
