//! The one layer that measures: every call, by method and code.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};

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
            let answer = answer.await?;
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
