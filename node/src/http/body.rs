//! Bodies of requests over HTTP: what each operation takes, as JSON.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use pinrail_proto::v1;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::call::{api_span, word};
use super::problem::Problem;

/// A JSON body. None at all is the same as `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
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

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let data = json_bytes(request, state).await?;
        Ok(Self(v1::Payload { content_type: "application/json".to_owned(), data }))
    }
}

async fn json_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let of_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    let data = Bytes::from_request(request, state).await;
    let data = data.map_err(|error| Problem::unread(error.status(), error.body_text()))?;
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
    #[serde(deserialize_with = "api_span")]
    pub(super) max_age: Option<prost_types::Duration>,
    #[serde(deserialize_with = "api_span")]
    pub(super) delay: Option<prost_types::Duration>,
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
    #[serde(deserialize_with = "word")]
    pub(super) outcome: v1::Outcome,
    #[serde(default)]
    output: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) failure: Option<Failure>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
}

/// What a run used that is executed elsewhere.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Usage {
    models: Vec<ModelUsage>,
    tools: Vec<ToolUsage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelUsage {
    model: String,
    #[serde(default)]
    served_model: String,
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    cost_micros: u64,
    #[serde(default = "once")]
    calls: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolUsage {
    tool: String,
    /// `read_only`, `idempotent` or `destructive`; a tool that does not say may have done anything.
    #[serde(default)]
    side_effects: String,
    #[serde(default = "once")]
    calls: u64,
}

fn once() -> u64 {
    1
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

/// `POST …/score`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    pub(super) score_permille: u32,
    #[serde(default, deserialize_with = "word")]
    pub(super) source: v1::ScoreSource,
    #[serde(default)]
    pub(super) comment: String,
}

/// `POST …/cancel`, `…/keep`, `…/pause`, `…/resume`, `…/retry`.
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
    #[serde(deserialize_with = "word")]
    pub(super) in_flight: v1::InFlight,
    pub(super) reason: String,
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

impl From<Usage> for v1::Usage {
    fn from(usage: Usage) -> Self {
        let model = |it: ModelUsage| v1::ModelUsage {
            model: it.model,
            served_model: it.served_model,
            input_tokens: it.input_tokens,
            output_tokens: it.output_tokens,
            cost_micros: it.cost_micros,
            calls: it.calls,
        };
        let tool = |it: ToolUsage| v1::ToolUsage {
            tool: it.tool,
            side_effects: it.side_effects,
            calls: it.calls,
            ..v1::ToolUsage::default()
        };
        let Usage { models, tools } = usage;
        Self {
            models: models.into_iter().map(model).collect(),
            tools: tools.into_iter().map(tool).collect(),
        }
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
