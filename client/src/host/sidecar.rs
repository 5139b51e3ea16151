//! A server beside the host: each step is POSTed to it, and its answer is the outcome. Plain HTTP/1.1, meant for
//! loopback: a connection for each request, no redirects.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Result};
use crate::worker::{Next, StepContext, StepError, StepResult};

use super::callback;
use super::outcome::PROTOCOL;
use super::peer::LINE;
use super::protocol::Outcome;
use super::session::Session;
use super::socket::Sockets;
use super::step::{cancel, step};

/// Reason of an attempt whose server did not answer, or answered with an error.
const HTTP_FAILED: &str = "HTTP_FAILED";
/// Where servers' own tracing looks for it.
const TRACE_PARENT: &str = "traceparent";
/// A server on the same machine takes a connection at once, or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may take to come up before the host gives up; and between two looks.
const UP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);
/// For a server to take the news that a step must stop.
const TELL: Duration = Duration::from_secs(5);
/// What an error shows of an answer.
const SHOWN: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Sidecar {
    uri: Uri,
    address: String,
    sockets: Sockets,
}

/// What the server said.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl Sidecar {
    pub(super) fn new(url: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("--url {url:?}: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("a sidecar is reached by http://, on this machine"));
        }
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { address, uri, sockets: Sockets::new()? })
    }

    /// Waits until the server takes connections.
    pub(super) async fn up(&self) -> Result<()> {
        let deadline = Instant::now() + UP;
        loop {
            match self.connect().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(Error::invalid(error.to_string()));
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Has the step done by the server. Dropped before the answer, the connection is closed.
    pub(super) async fn serve(&self, context: StepContext, input: Value) -> StepResult<Next> {
        let failed = |error| StepError::retry(error).with_reason(HTTP_FAILED);
        let socket = self.sockets.next();
        let listener = socket.listen().map_err(failed)?;
        let asked = step(&context, input, Some(&socket));
        let session = Arc::new(Session::new(context.clone()));
        let answer = tokio::select! {
            answer = self.post(&asked, context.trace_parent()) => answer.map_err(failed)?,
            never = self.tell_of_cancel(&context) => match never {},
            never = callback::serve(&listener, &session) => match never {},
        };
        answer.into_outcome()?.into_next()
    }

    /// Passes on that the step must stop, and never ends. A server that does not want to know may answer as it likes.
    async fn tell_of_cancel(&self, context: &StepContext) -> Infallible {
        let reason = context.cancelled().await;
        let told = timeout(TELL, self.post(&cancel(context, reason), None)).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::info!(run = context.run_id(), "the server was not told of the cancel");
        }
        std::future::pending().await
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connected = timeout(CONNECT, TcpStream::connect(&self.address)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.address)))
    }

    async fn post<T: Serialize>(
        &self,
        message: &T,
        trace_parent: Option<String>,
    ) -> io::Result<Answer> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(parent) = trace_parent {
            request = request.header(TRACE_PARENT, parent);
        }
        let request = request
            .body(Full::new(Bytes::from(serde_json::to_vec(message)?)))
            .map_err(io::Error::other)?;
        let named = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("{} did not answer: {error}", self.address))
        };
        let response = sender.send_request(request).await.map_err(|error| named(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LINE).collect().await.map_err(|error| named(&error))?;
        let after = head.headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok());
        let retry_after = after.and_then(|it| it.trim().parse().ok()).map(Duration::from_secs);
        Ok(Answer { status: head.status, retry_after, body: body.to_bytes() })
    }
}

impl Answer {
    fn into_outcome(self) -> StepResult<Outcome> {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN)]).into_owned();
        let message = format!("{}: {}", self.status, shown.trim());
        if self.status.is_success() {
            let none =
                || StepError::fatal(PROTOCOL, format!("the answer is no outcome: {message}"));
            return Outcome::parse(&self.body)?.ok_or_else(none);
        }
        if !may_pass(self.status) {
            return Err(StepError::fatal(HTTP_FAILED, message));
        }
        let error = match self.retry_after {
            Some(after) => StepError::retry_after(after, message),
            None => StepError::retry(message),
        };
        Err(error.with_reason(HTTP_FAILED))
    }
}

/// Whether the same request may be answered otherwise later.
fn may_pass(status: StatusCode) -> bool {
    let soon = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || soon.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> StepResult<Outcome> {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, retry_after: None, body: Bytes::from_static(body.as_bytes()) }
            .into_outcome()
    }

    #[test]
    fn what_may_pass_is_tried_again_and_the_rest_is_not() {
        assert!(answer(200, r#"{"done":1}"#).is_ok());
        for (status, body, reason, again) in [
            (200, "hello", PROTOCOL, false),
            (204, "", PROTOCOL, false),
            (200, r#"{"finished":1}"#, PROTOCOL, false),
            (302, "", HTTP_FAILED, false),
            (404, "no such page", HTTP_FAILED, false),
            (408, "", HTTP_FAILED, true),
            (429, "", HTTP_FAILED, true),
            (500, "{}", HTTP_FAILED, true),
            (503, r#"{"done":1}"#, HTTP_FAILED, true),
        ] {
            let error = answer(status, body).expect_err("no outcome");
            assert_eq!((error.reason(), error.is_retryable()), (reason, again), "{status} {body}");
        }
    }

    #[test]
    fn only_plain_http_is_spoken() {
        assert_eq!(Sidecar::new("http://[::1]:8000/a").expect("fine").address, "[::1]:8000");
        assert_eq!(Sidecar::new("http://localhost").expect("fine").address, "localhost:80");
        for wrong in ["", "localhost:80", "https://localhost/", "/pinrail", "http:///x"] {
            assert!(Sidecar::new(wrong).is_err(), "{wrong}");
        }
    }
}
