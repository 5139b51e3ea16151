//! The one layer around every call: measures it by method and code, and gives a message that cannot be read a reason of
//! ours (tonic answers INTERNAL, which a client has to take for a broken server and asks again).

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use pinrail_proto::reason;
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::error::refuse;

/// How long calls take, until the answer's head; labels `method` and `code`.
const SECONDS: &str = "pinrail_rpc_seconds";

#[derive(Debug, Clone, Default)]
pub struct MeasureLayer {}

impl<S> Layer<S> for MeasureLayer {
    type Service = Measure<S>;

    fn layer(&self, inner: S) -> Measure<S> {
        Measure { inner }
    }
}

#[derive(Debug, Clone)]
pub struct Measure<S> {
    inner: S,
}

impl<S, B, A> Service<Request<B>> for Measure<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let began = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            refuse_unread(answer.headers_mut());
            let code = answer
                .headers()
                .get("grpc-status")
                .and_then(|code| code.to_str().ok())
                .unwrap_or("0")
                .to_owned();
            let took = began.elapsed();
            tracing::debug!(method, code, ?took, "call");
            // Only known methods become labels: anybody can ask for others.
            if method.starts_with("pinrail.v1.") && code != "12" {
                metrics::histogram!(SECONDS, "method" => method, "code" => code).record(took);
            }
            Ok(answer)
        })
    }
}

/// Gives a call that was refused by the codec the code and the reason that we document. It never reached a handler:
/// nothing was done.
fn refuse_unread(headers: &mut HeaderMap) {
    /// How errors begin that tonic gives a call whose message is none: of prost's decoder, of a frame that is broken or
    /// ends too soon, of a call without a message.
    const UNREAD: [&str; 4] = [
        "failed to decode Protobuf message",
        "protocol error: received message with",
        "Unexpected EOF decoding stream",
        "Missing request message",
    ];
    /// How tonic says that a message is beyond the size that we set.
    const OVERSIZE: &str = "Error, decoded message length too large";
    let Some(status) = Status::from_header_map(headers) else { return };
    let reason = match status.code() {
        Code::Internal if UNREAD.iter().any(|begin| status.message().starts_with(begin)) => {
            reason::INVALID_REQUEST
        }
        Code::OutOfRange if status.message().starts_with(OVERSIZE) => reason::LIMIT_EXCEEDED,
        _ => return,
    };
    // It only fails for metadata that is no ASCII, and a reason has none.
    let _ = refuse(reason, status.message()).add_header(headers);
}
