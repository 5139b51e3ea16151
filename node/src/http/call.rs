//! All that a call over HTTP says but its body: its path, its query and its headers, taken apart in one place.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use pinrail_proto::json::{self, Worded};
use pinrail_proto::trace::TraceParent;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::{time, v1};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use tonic::Request;

use super::openapi::Operation;
use super::problem::Problem;
use crate::service::Node;

/// A call without `timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Makes a repeat of a write safe: the request id of the other faces of the API.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const ACTOR: &str = "pinrail-actor";
const LAST_EVENT_ID: &str = "last-event-id";
const TRACE_PARENT: &str = "traceparent";

/// A call, and the node that it is made to. What is wrong in its form is refused in our own words.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) node: Node,
    pub(super) query: Params,
    path: Names,
    headers: HeaderMap,
}

/// What stands in paths.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Names {
    namespace: String,
    agent: String,
    bundle: String,
    run: String,
    signal: String,
    key: String,
}

/// What queries say. Which of it an operation takes, and what it means, stands in the OpenAPI document.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    namespace: String,
    #[serde(deserialize_with = "span")]
    timeout: Option<Duration>,
    local: bool,
    #[serde(deserialize_with = "span")]
    wait: Option<Duration>,
    pub(super) chunks: bool,
    pub(super) key: String,
    pub(super) bundle: String,
    run: String,
    from: String,
    to: String,
    pub(super) late: bool,
    pub(super) prefix: String,
    pub(super) keys_only: bool,
    pub(super) at_revision: u64,
    after_revision: u64,
    pub(super) expected_revision: Option<u64>,
    #[serde(deserialize_with = "span")]
    ttl: Option<Duration>,
    #[serde(deserialize_with = "word")]
    pub(super) state: v1::RunState,
    #[serde(deserialize_with = "word")]
    pub(super) kind: v1::RunKind,
    #[serde(deserialize_with = "pairs")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "span")]
    older_than: Option<Duration>,
    pub(super) waiting_for: String,
    pub(super) open: bool,
    #[serde(deserialize_with = "word")]
    pub(super) by: v1::CostBy,
    pub(super) r#type: String,
    pub(super) page_size: u32,
    pub(super) page_token: String,
}

impl FromRequestParts<Node> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, node).await;
        let Path(path) = path.map_err(|error| Problem::bad(error.body_text()))?;
        let named: Vec<(String, String)> = query(parts, node).await?;
        let operation = parts.extensions.get::<&Operation>();
        let takes = operation.map_or(&[][..], |operation| operation.params);
        if let Some((name, _)) = named.iter().find(|(name, _)| !takes.contains(&name.as_str())) {
            let takes = takes.join(", ");
            return Err(Problem::bad(format!("the query: {name:?} is none of {takes}")));
        }
        let query = query(parts, node).await?;
        Ok(Self { node: node.clone(), query, path, headers: parts.headers.clone() })
    }
}

async fn query<T: DeserializeOwned>(parts: &mut Parts, node: &Node) -> Result<T, Problem> {
    let query = Query::from_request_parts(parts, node).await;
    query.map(|Query(query)| query).map_err(|error| Problem::bad(error.body_text()))
}

impl Call {
    /// Empty: `default`.
    pub(super) fn namespace(&self) -> String {
        self.query.namespace.clone()
    }

    /// The namespace that the path names.
    pub(super) fn named_namespace(&self) -> String {
        self.path.namespace.clone()
    }

    pub(super) fn agent(&self) -> String {
        self.path.agent.clone()
    }

    /// The bundle that the path names.
    pub(super) fn bundle(&self) -> String {
        self.path.bundle.clone()
    }

    pub(super) fn run(&self) -> String {
        self.path.run.clone()
    }

    pub(super) fn signal(&self) -> String {
        self.path.signal.clone()
    }

    /// Of memory.
    pub(super) fn key(&self) -> String {
        self.path.key.clone()
    }

    /// The message with the call's deadline.
    pub(super) fn with<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.query.timeout.unwrap_or(TIMEOUT));
        request
    }

    pub(super) fn read(&self) -> Option<v1::ReadOptions> {
        let consistency = v1::Consistency::Local.into();
        self.query.local.then_some(v1::ReadOptions { consistency, min_revision: 0 })
    }

    /// What every write may carry beside its own fields.
    pub(super) fn write(&self, reason: String) -> v1::WriteOptions {
        let (request_id, actor) = (self.header(IDEMPOTENCY_KEY), self.header(ACTOR));
        let (request_id, actor) = (request_id.to_owned(), actor.to_owned());
        v1::WriteOptions { request_id, actor, reason, ..v1::WriteOptions::default() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The caller's span. The standard says to pass over what is none.
    pub(super) fn trace_parent(&self) -> String {
        let given = self.header(TRACE_PARENT);
        if given.parse::<TraceParent>().is_ok() { given.to_owned() } else { String::new() }
    }

    pub(super) fn wait(&self) -> Option<prost_types::Duration> {
        self.query.wait.map(duration)
    }

    pub(super) fn ttl(&self) -> Option<prost_types::Duration> {
        self.query.ttl.map(duration)
    }

    pub(super) fn older_than(&self) -> Option<prost_types::Duration> {
        self.query.older_than.map(duration)
    }

    /// Where a stream goes on: behind the last event that its reader got, or else where the query says.
    pub(super) fn resume(&self) -> Result<u64, Problem> {
        match self.header(LAST_EVENT_ID) {
            "" => Ok(self.query.after_revision),
            id => id.parse().map_err(|_| Problem::bad(format!("Last-Event-ID: {id:?}"))),
        }
    }

    /// Whose memory.
    pub(super) fn scope(&self) -> Result<Option<v1::MemoryScope>, Problem> {
        let scope = match (self.query.bundle.as_str(), self.query.run.as_str()) {
            (bundle, "") => Scope::BundleId(bundle.to_owned()),
            ("", run) => Scope::RunId(run.to_owned()),
            (_, _) => return Err(Problem::bad("bundle and run: only one of them")),
        };
        Ok(Some(v1::MemoryScope { scope: Some(scope) }))
    }

    /// The two sides of a difference.
    pub(super) fn sides(&self) -> Result<[Option<v1::MemoryScope>; 2], Problem> {
        Ok([side("from", &self.query.from)?, side("to", &self.query.to)?])
    }
}

/// A bundle, `layer:N`, or `run:ID`.
fn side(what: &str, text: &str) -> Result<Option<v1::MemoryScope>, Problem> {
    let scope = match text.split_once(':') {
        Some(("layer", number)) => number.parse().map(Scope::Layer).map_err(|_| {
            Problem::bad(format!("{what}: {text:?}: a layer is layer:N with its number"))
        })?,
        Some(("run", run)) => Scope::RunId(run.to_owned()),
        Some(_) | None => Scope::BundleId(text.to_owned()),
    };
    Ok(Some(v1::MemoryScope { scope: Some(scope) }))
}

fn duration(span: Duration) -> prost_types::Duration {
    time::duration(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// A duration as people write it: `30s`.
fn span<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(text)?;
    let parsed = humantime::parse_duration(&text);
    parsed.map(Some).map_err(|error| D::Error::custom(format!("{error}; for example 30s")))
}

/// The same in a body, for the API.
pub(super) fn api_span<'de, D: Deserializer<'de>>(
    text: D,
) -> Result<Option<prost_types::Duration>, D::Error> {
    Ok(span(text)?.map(duration))
}

/// An enum's value by its word.
pub(super) fn word<'de, D: Deserializer<'de>, E: Worded>(text: D) -> Result<E, D::Error> {
    json::parse(&String::deserialize(text)?).map_err(D::Error::custom)
}

/// `key=value`, separated by commas.
fn pairs<'de, D: Deserializer<'de>>(text: D) -> Result<BTreeMap<String, String>, D::Error> {
    let text = String::deserialize(text)?;
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(D::Error::custom(format!("{text:?} is no key=value"))),
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(pair).collect()
}
