//! Requests over HTTP: what stands in the query, in headers and in bodies, as the messages of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request as HttpRequest};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use pinrail_proto::v1;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tonic::Request;

use super::problem::Problem;

/// A call without `timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Makes a repeat of a write safe: the request id of the other faces of the API.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the query may say. Which of it an operation reads stands in the OpenAPI document.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Params {
    pub(super) namespace: String,
    /// How long the whole call may take.
    timeout: Option<String>,
    /// How long to wait for a run's end.
    wait: Option<String>,
    /// Answer from this node's own state, without a quorum.
    local: bool,
    pub(super) chunks: bool,
    pub(super) key: String,
    pub(super) bundle: String,
    pub(super) run: String,
    pub(super) at_revision: u64,
    pub(super) expected_revision: Option<u64>,
    ttl: Option<String>,
}

impl Params {
    /// The message with the call's deadline.
    pub(super) fn call<T>(&self, message: T) -> Result<Request<T>, Problem> {
        let mut request = Request::new(message);
        let timeout = self.timeout.as_deref().map(|text| span("timeout", text)).transpose()?;
        request.set_timeout(timeout.unwrap_or(TIMEOUT));
        Ok(request)
    }

    pub(super) fn read(&self) -> Option<v1::ReadOptions> {
        let consistency = v1::Consistency::Local.into();
        self.local.then_some(v1::ReadOptions { consistency, min_revision: 0 })
    }

    pub(super) fn wait(&self) -> Result<Option<prost_types::Duration>, Problem> {
        duration("wait", self.wait.as_deref())
    }

    pub(super) fn ttl(&self) -> Result<Option<prost_types::Duration>, Problem> {
        duration("ttl", self.ttl.as_deref())
    }

    /// Where memory is read and written.
    pub(super) fn scope(&self) -> Result<Option<v1::MemoryScope>, Problem> {
        use v1::memory_scope::Scope;
        let scope = match (self.bundle.as_str(), self.run.as_str()) {
            (bundle, "") => Scope::BundleId(bundle.to_owned()),
            ("", run) => Scope::RunId(run.to_owned()),
            (_, _) => return Err(Problem::bad("bundle and run: only one of them")),
        };
        Ok(Some(v1::MemoryScope { scope: Some(scope) }))
    }
}

/// What a list may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Page {
    namespace: String,
    timeout: Option<String>,
    local: bool,
    state: String,
    kind: String,
    /// `key=value`, separated by commas.
    labels: String,
    older_than: Option<String>,
    bundle: String,
    open: bool,
    page_size: u32,
    page_token: String,
}

impl Page {
    pub(super) fn into_request(
        self,
        agent_id: String,
    ) -> Result<(Params, v1::ListRunsRequest), Problem> {
        let Self { namespace, timeout, local, .. } = self;
        let params = Params { namespace: namespace.clone(), timeout, local, ..Params::default() };
        let state = match self.state.as_str() {
            "" => v1::RunState::Unspecified,
            word => v1::RunState::from_str_name(&format!("RUN_STATE_{}", word.to_uppercase()))
                .ok_or_else(|| Problem::bad(format!("state: there is no state {word:?}")))?,
        };
        let kind = match self.kind.as_str() {
            "" => v1::RunKind::Unspecified,
            word => v1::RunKind::from_str_name(&format!("RUN_KIND_{}", word.to_uppercase()))
                .ok_or_else(|| Problem::bad(format!("kind: there is no kind {word:?}")))?,
        };
        let labels = self.labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let halves = pair.split_once('=');
            let halves = halves.map(|(key, value)| (key.to_owned(), value.to_owned()));
            halves.ok_or_else(|| Problem::bad(format!("labels: {pair:?} is no key=value")))
        });
        let labels = labels.collect::<Result<_, _>>()?;
        let request = v1::ListRunsRequest {
            namespace,
            agent_id,
            state: state.into(),
            bundle_id: self.bundle,
            open: self.open,
            kind: kind.into(),
            labels,
            older_than: duration("older_than", self.older_than.as_deref())?,
            page_size: self.page_size,
            page_token: self.page_token,
            read: params.read(),
        };
        Ok((params, request))
    }
}

fn span(what: &str, text: &str) -> Result<Duration, Problem> {
    let parsed = humantime::parse_duration(text);
    parsed.map_err(|error| Problem::bad(format!("{what}: {error}; for example 30s")))
}

/// A duration as people write them.
pub(super) fn duration(
    what: &str,
    text: Option<&str>,
) -> Result<Option<prost_types::Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let millis = u64::try_from(span(what, text)?.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(pinrail_proto::time::duration(millis)))
}

/// What every write may carry beside its own fields.
pub(super) fn write_options(headers: &HeaderMap, reason: String) -> v1::WriteOptions {
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    v1::WriteOptions {
        request_id: text(IDEMPOTENCY_KEY),
        actor: text("pinrail-actor"),
        reason,
        ..v1::WriteOptions::default()
    }
}

/// The query, refused in our own words.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(it)| Self(it)).map_err(|error| Problem::bad(error.body_text()))
    }
}

/// A JSON body. None at all is the same as `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Problem> {
        let data = json_bytes(request, state).await?;
        let text: &[u8] = if data.is_empty() { b"{}" } else { &data };
        let parsed = serde_json::from_slice(text);
        parsed.map(Self).map_err(|error| Problem::bad(format!("the body: {error}")))
    }
}

/// A body that is a value of a user's: any JSON.
#[derive(Debug)]
pub(super) struct AnyJson(pub(super) v1::Payload);

impl<S: Send + Sync> FromRequest<S> for AnyJson {
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Problem> {
        let data = json_bytes(request, state).await?;
        Ok(Self(v1::Payload { content_type: "application/json".to_owned(), data }))
    }
}

async fn json_bytes<S: Send + Sync>(request: HttpRequest, state: &S) -> Result<Bytes, Problem> {
    let of_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    let data = Bytes::from_request(request, state).await;
    let data = data.map_err(|error| Problem::bad(error.body_text()))?;
    if !of_json && !data.is_empty() {
        return Err(Problem::no_json());
    }
    Ok(data)
}

/// `POST …/runs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Start {
    pub(super) run_id: String,
    input: Option<Box<RawValue>>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) entry: String,
    pub(super) max_age: Option<String>,
    pub(super) delay: Option<String>,
    pub(super) session: String,
    pub(super) repinnable: Option<bool>,
    pub(super) restart_step: Option<bool>,
    pub(super) priority: u32,
    pub(super) fairness_key: String,
    pub(super) callback: String,
    pub(super) parent: String,
    pub(super) bundle: String,
    pub(super) reason: String,
}

/// `POST …/finish`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finish {
    pub(super) outcome: Outcome,
    #[serde(default)]
    output: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Completed,
    Failed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Failure {
    reason: String,
    message: String,
}

/// `POST …/signals/NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Signal {
    value: Option<Box<RawValue>>,
    pub(super) reason: String,
}

/// `POST …/cancel`, `…/keep`, `…/retry`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Why {
    pub(super) reason: String,
}

/// `POST …/rollback`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rollback {
    pub(super) from: String,
    pub(super) in_flight: Option<InFlight>,
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InFlight {
    Keep,
    Cancel,
    Restart,
}

impl From<InFlight> for v1::InFlight {
    fn from(in_flight: InFlight) -> Self {
        match in_flight {
            InFlight::Keep => Self::Keep,
            InFlight::Cancel => Self::Cancel,
            InFlight::Restart => Self::Restart,
        }
    }
}

impl Start {
    pub(super) fn input(&self) -> Option<v1::Payload> {
        payload(self.input.as_deref())
    }
}

impl Finish {
    pub(super) fn output(&self) -> Option<v1::Payload> {
        payload(self.output.as_deref())
    }
}

impl Signal {
    pub(super) fn value(&self) -> Option<v1::Payload> {
        payload(self.value.as_deref())
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        let Failure { reason, message } = failure;
        Self { reason, message, ..Self::default() }
    }
}

/// The bytes as they were sent: numbers keep every digit.
fn payload(value: Option<&RawValue>) -> Option<v1::Payload> {
    value.map(|value| v1::Payload {
        content_type: "application/json".to_owned(),
        data: Bytes::copy_from_slice(value.get().as_bytes()),
    })
}
