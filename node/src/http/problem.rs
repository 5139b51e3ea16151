//! Errors as RFC 9457 problem details, with the reason that every other face of the API gives.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pinrail_proto::limits;
use pinrail_proto::reason::{self, Reason};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::service::error::refuse;

/// What went wrong, as it goes out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Box<Details>,
    retry_after_seconds: Option<u64>,
}

/// The members of RFC 9457 and ours: `reason`, `help` and what the reason carries.
#[derive(Debug, Serialize)]
struct Details {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    reason: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    help: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl Problem {
    /// A mistake in the request's form.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        refuse(reason::INVALID_REQUEST, message).into()
    }

    /// A body that does not say that it is JSON. A browser may send one to another site without asking it first, so
    /// that none is taken keeps web pages from writing to a node on the same machine.
    pub(super) fn no_json() -> Self {
        Self::bad("the body must be of type application/json")
            .with(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }

    /// A body that could not be read: what is too large has its own reason.
    pub(super) fn unread(status: StatusCode, message: String) -> Self {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let most = format!("the body: more than {} bytes", limits::API_MESSAGE_BYTES);
                Self::from(refuse(reason::LIMIT_EXCEEDED, most)).with(status)
            }
            _ => Self::bad(message),
        }
    }

    /// A path that takes other methods.
    pub(super) fn no_method() -> Self {
        Self::bad("the path takes other methods; /openapi.json lists them")
            .with(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// A path that the router does not know.
    pub(super) fn no_path() -> Self {
        Self::bad("nothing is here; /openapi.json lists every path").with(StatusCode::NOT_FOUND)
    }

    fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self.body.status = status.as_u16();
        self.body.title = status.canonical_reason().unwrap_or_default().to_owned();
        self
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&*self.body).expect("texts and numbers become JSON")
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let (name, metadata) = match info {
            Some(info) => (info.reason, info.metadata.into_iter().collect()),
            None => (format!("{:?}", status.code()).to_uppercase(), BTreeMap::new()),
        };
        let help = reason::find(&name).map_or("", |reason: &Reason| reason.help);
        let code = http_status(status.code());
        let body = Box::new(Details {
            r#type: format!("urn:pinrail:reason:{name}"),
            title: code.canonical_reason().unwrap_or_default().to_owned(),
            status: code.as_u16(),
            detail: status.message().to_owned(),
            reason: name,
            help,
            metadata,
        });
        // Whole seconds is all that the header can say.
        Self { status: code, body, retry_after_seconds: retry.map(|wait| wait.as_secs().max(1)) }
    }
}

/// As google.rpc.Code maps to HTTP, but that a refusal by the state of things is a conflict, and a request for what is
/// not kept any more finds that it is gone.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::OutOfRange => StatusCode::GONE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
