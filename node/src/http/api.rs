//! The API as JSON over HTTP: thin shells around the same service functions that gRPC calls. They decide nothing. Each
//! file of a noun has its operations, with what the OpenAPI document says of them; the router is made of these.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures::{Stream, StreamExt as _};
use pinrail_proto::{json, limits};
use prost::Name;
use tonic::Status;

use super::openapi::{self, Operation};
use super::problem::Problem;
use super::{agent, bundle, memory, namespace, run};
use crate::service::Node;

/// In the answers that are about one bundle, so that a proxy need not read them.
const BUNDLE: HeaderName = HeaderName::from_static("pinrail-bundle");
/// Comments on a quiet stream, so that proxies do not end it.
const QUIET: Duration = Duration::from_secs(15);

pub(super) type Answer = Result<Response, Problem>;

/// All that can be asked for.
pub(super) fn operations() -> impl Iterator<Item = &'static Operation> {
    let nouns = [
        namespace::OPERATIONS,
        agent::OPERATIONS,
        bundle::OPERATIONS,
        run::OPERATIONS,
        memory::OPERATIONS,
    ];
    nouns.into_iter().flatten()
}

/// All paths below `/v1`, and the document that describes them.
pub(super) fn router(node: Node) -> Router {
    let mut router = Router::new().route("/openapi.json", get(document));
    for operation in operations() {
        let serve = (operation.serve)().layer(Extension(operation));
        router = router.route(operation.path, serve);
    }
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(limits::API_MESSAGE_BYTES))
        .with_state(node)
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document())
}

async fn nothing_here() -> Problem {
    Problem::no_path()
}

async fn no_such_method() -> Problem {
    Problem::no_method()
}

/// The message with status 200.
pub(super) fn shown<M: Name>(message: &M) -> Response {
    shown_as(StatusCode::OK, message)
}

pub(super) fn shown_as<M: Name>(status: StatusCode, message: &M) -> Response {
    let body = json::of(message).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(super) fn on_bundle(mut response: Response, bundle_id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(bundle_id) {
        response.headers_mut().insert(BUNDLE, value);
    }
    response
}

/// Server-sent events of a stream of messages. `told` gives the name of a message's event, and the revision that its
/// reader has it all up to; 0: none, so that who comes back begins behind an earlier one.
pub(super) fn streamed<M: Name + Send + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    told: fn(&M) -> (&'static str, u64),
) -> Response {
    let event = move |message: Result<M, Status>| {
        Ok::<Event, Infallible>(match message {
            Ok(message) => {
                let (name, revision) = told(&message);
                let event = Event::default().event(name).data(json::of(&message).to_string());
                if revision == 0 { event } else { event.id(revision.to_string()) }
            }
            Err(status) => Event::default().event("error").data(Problem::from(status).to_json()),
        })
    };
    Sse::new(messages.map(event)).keep_alive(KeepAlive::new().interval(QUIET)).into_response()
}
