//! The API as JSON over HTTP: thin shells around the same service functions that gRPC calls. They decide nothing.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{Stream, StreamExt as _};
use pinrail_proto::trace::TraceParent;
use pinrail_proto::v1::agent_service_server::AgentService as _;
use pinrail_proto::v1::memory_service_server::MemoryService as _;
use pinrail_proto::v1::pin_service_server::PinService as _;
use pinrail_proto::v1::release_service_server::ReleaseService as _;
use pinrail_proto::v1::run_service_server::RunService as _;
use pinrail_proto::{id, json, limits, v1};
use prost::Name;

use super::openapi;
use super::problem::Problem;
use super::request::{
    AnyJson, Asked, Body, Finish, Outcome, Page, Params, Rollback, Signal, Start, Why, duration,
    write_options,
};
use crate::service::{Agents, Memories, Node, Pins, Releases, Runs};

/// In the answers that are about one bundle, so that a proxy need not read them.
const BUNDLE: HeaderName = HeaderName::from_static("pinrail-bundle");
const LAST_EVENT_ID: &str = "last-event-id";
const TRACE_PARENT: &str = "traceparent";
/// Comments on a quiet stream, so that proxies do not end it.
const QUIET: Duration = Duration::from_secs(15);

type Answer = Result<Response, Problem>;
type OfAgent = Path<String>;
type OfRun = Path<(String, String)>;

/// All paths below `/v1`, and the document that describes them.
pub(super) fn router(node: Node) -> Router {
    Router::new()
        .route("/openapi.json", get(document))
        .route("/v1/agents/{agent}/status", get(status))
        .route("/v1/agents/{agent}/route", get(route))
        .route("/v1/agents/{agent}/rollback", post(rollback))
        .route("/v1/agents/{agent}/runs", get(list).post(start))
        .route("/v1/agents/{agent}/runs/{run}", get(show))
        .route("/v1/agents/{agent}/runs/{run}/events", get(events))
        .route("/v1/agents/{agent}/runs/{run}/pin", get(pin))
        .route("/v1/agents/{agent}/runs/{run}/cancel", post(cancel))
        .route("/v1/agents/{agent}/runs/{run}/signals/{signal}", post(signal))
        .route("/v1/agents/{agent}/runs/{run}/retry", post(retry))
        .route("/v1/agents/{agent}/runs/{run}/finish", post(finish))
        .route("/v1/agents/{agent}/runs/{run}/keep", post(keep))
        .route(
            "/v1/agents/{agent}/memory/{*key}",
            get(memory_get).put(memory_put).delete(memory_delete),
        )
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(limits::API_MESSAGE_BYTES))
        .with_state(node)
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document())
}

async fn nothing_here() -> Problem {
    Problem::no_path()
}

fn shown<M: Name>(status: StatusCode, message: &M) -> Response {
    let body = json::of(message).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn on_bundle(mut response: Response, bundle_id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(bundle_id) {
        response.headers_mut().insert(BUNDLE, value);
    }
    response
}

async fn status(
    State(node): State<Node>,
    Path(agent_id): OfAgent,
    Asked(params): Asked<Params>,
) -> Answer {
    let request = v1::GetAgentStatusRequest {
        namespace: params.namespace.clone(),
        agent_id,
        read: params.read(),
    };
    let answer = Agents(node).get_agent_status(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn route(
    State(node): State<Node>,
    Path(agent_id): OfAgent,
    Asked(params): Asked<Params>,
) -> Answer {
    let request = v1::ResolveRouteRequest {
        namespace: params.namespace.clone(),
        agent_id,
        key: params.key.clone(),
        read: params.read(),
    };
    let answer = Pins(node).resolve_route(params.call(request)?).await?.into_inner();
    Ok(on_bundle(shown(StatusCode::OK, &answer), &answer.bundle_id))
}

async fn rollback(
    State(node): State<Node>,
    Path(agent_id): OfAgent,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Rollback>,
) -> Answer {
    let request = v1::RollbackRequest {
        namespace: params.namespace.clone(),
        agent_id,
        from_bundle_id: body.from,
        in_flight: body.in_flight.map_or(v1::InFlight::Unspecified, Into::into).into(),
        options: Some(write_options(&headers, body.reason)),
        from_inferred: false,
    };
    let answer = Releases(node).rollback(params.call(request)?).await?.into_inner();
    Ok(on_bundle(shown(StatusCode::OK, &answer), &answer.to_bundle_id))
}

async fn list(
    State(node): State<Node>,
    Path(agent_id): OfAgent,
    Asked(page): Asked<Page>,
) -> Answer {
    let (params, request) = page.into_request(agent_id)?;
    let answer = Runs(node).list_runs(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

/// The caller's span. The standard says to pass over what is none.
fn trace_parent(headers: &HeaderMap) -> String {
    let given = headers.get(TRACE_PARENT).and_then(|value| value.to_str().ok());
    given.filter(|given| given.parse::<TraceParent>().is_ok()).unwrap_or_default().to_owned()
}

/// 202 with the pin; with `wait` 200 and the result, if the run ends in that time.
async fn start(
    State(node): State<Node>,
    Path(agent_id): OfAgent,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Start>,
) -> Answer {
    let options = write_options(&headers, body.reason.clone());
    let namespace = if params.namespace.is_empty() { "default" } else { &params.namespace };
    let run_id = match (body.run_id.as_str(), options.request_id.as_str()) {
        ("", "") => String::new(),
        ("", key) => id::derive_run_id(namespace, &agent_id, key),
        (run_id, _) => run_id.to_owned(),
    };
    let request = v1::StartRunRequest {
        namespace: params.namespace.clone(),
        agent_id: agent_id.clone(),
        run_id,
        input: body.input(),
        labels: body.labels,
        entry: body.entry,
        max_age: duration("max_age", body.max_age.as_deref())?,
        delay: duration("delay", body.delay.as_deref())?,
        session: body.session,
        repinnable: body.repinnable,
        restart_step: body.restart_step,
        priority: body.priority,
        fairness_key: body.fairness_key,
        callback: body.callback,
        trace_parent: trace_parent(&headers),
        parent_run_id: body.parent,
        bundle_id: body.bundle,
        options: Some(options),
        ..v1::StartRunRequest::default()
    };
    let runs = Runs(node);
    let started = runs.start_run(params.call(request)?).await?.into_inner();
    if let Some(wait) = params.wait()? {
        let ended = result(&runs, &params, &agent_id, &started.run_id, Some(wait)).await?;
        if ended.closed {
            return Ok(on_bundle(shown(StatusCode::OK, &ended), &ended.bundle_id));
        }
    }
    Ok(on_bundle(shown(StatusCode::ACCEPTED, &started), &started.bundle_id))
}

async fn result(
    runs: &Runs,
    params: &Params,
    agent_id: &str,
    run_id: &str,
    wait: Option<prost_types::Duration>,
) -> Result<v1::GetResultResponse, Problem> {
    let request = v1::GetResultRequest {
        namespace: params.namespace.clone(),
        agent_id: agent_id.to_owned(),
        run_id: run_id.to_owned(),
        wait,
        read: params.read(),
    };
    Ok(runs.get_result(params.call(request)?).await?.into_inner())
}

/// The run; with `wait`, once it is over or the time is.
async fn show(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
) -> Answer {
    let runs = Runs(node);
    if let Some(wait) = params.wait()? {
        result(&runs, &params, &agent_id, &run_id, Some(wait)).await?;
    }
    let namespace = params.namespace.clone();
    let request = v1::GetRunRequest { namespace, agent_id, run_id, read: params.read() };
    let answer = runs.get_run(params.call(request)?).await?.into_inner();
    let run = answer.run.unwrap_or_default();
    let bundle_id = run.pin.as_ref().map_or_else(String::new, |pin| pin.bundle_id.clone());
    Ok(on_bundle(shown(StatusCode::OK, &run), &bundle_id))
}

/// One event a change; their ids are revisions, so a reader that comes back misses nothing.
async fn events(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let from_revision = match last {
        None => 0,
        Some(text) => text.parse().map_err(|_| Problem::bad(format!("Last-Event-ID: {text:?}")))?,
    };
    let namespace = params.namespace.clone();
    let request = v1::WatchRunRequest {
        namespace,
        agent_id,
        run_id,
        from_revision,
        chunks: params.chunks,
        after: None,
    };
    let changes = Runs(node).watch_run(params.call(request)?).await?.into_inner();
    let events = changes.map(|change| Ok(event(change)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(QUIET)))
}

fn event(change: Result<v1::WatchRunResponse, tonic::Status>) -> Event {
    match change {
        // Without an id: who comes back begins behind the last change.
        Ok(chunks) if chunks.run.is_none() => {
            Event::default().event("chunks").data(json::of(&chunks).to_string())
        }
        Ok(change) => {
            let name = if change.closed { "end" } else { "change" };
            let event = Event::default().event(name).id(change.revision.to_string());
            event.data(json::of(&change).to_string())
        }
        Err(status) => Event::default().event("error").data(Problem::from(status).to_json()),
    }
}

async fn pin(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
) -> Answer {
    let namespace = params.namespace.clone();
    let request = v1::LookupPinRequest { namespace, agent_id, run_id, read: params.read() };
    let answer = Pins(node).lookup_pin(params.call(request)?).await?.into_inner();
    Ok(on_bundle(shown(StatusCode::OK, &answer), &answer.bundle_id))
}

async fn cancel(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Why>,
) -> Answer {
    let namespace = params.namespace.clone();
    let options = Some(write_options(&headers, body.reason));
    let request = v1::CancelRunRequest { namespace, agent_id, run_id, options };
    let answer = Runs(node).cancel_run(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn signal(
    State(node): State<Node>,
    Path((agent_id, run_id, name)): Path<(String, String, String)>,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Signal>,
) -> Answer {
    let namespace = params.namespace.clone();
    let value = body.value();
    let options = Some(write_options(&headers, body.reason));
    let request = v1::SignalRunRequest { namespace, agent_id, run_id, name, value, options };
    let answer = Runs(node).signal_run(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn retry(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Why>,
) -> Answer {
    let namespace = params.namespace.clone();
    let options = Some(write_options(&headers, body.reason));
    let request = v1::RetryRunRequest { namespace, agent_id, run_id, options };
    let answer = Runs(node).retry_run(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn finish(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Finish>,
) -> Answer {
    let outcome = match body.outcome {
        Outcome::Completed => v1::Outcome::Completed,
        Outcome::Failed => v1::Outcome::Failed,
    };
    let request = v1::FinishRunRequest {
        namespace: params.namespace.clone(),
        agent_id,
        run_id,
        outcome: outcome.into(),
        output: body.output(),
        failure: body.failure.map(Into::into),
        usage: None,
        options: Some(write_options(&headers, String::new())),
    };
    let answer = Runs(node).finish_run(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn keep(
    State(node): State<Node>,
    Path((agent_id, run_id)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    Body(body): Body<Why>,
) -> Answer {
    let namespace = params.namespace.clone();
    let options = Some(write_options(&headers, body.reason));
    let request = v1::KeepRunRequest { namespace, agent_id, run_id, options };
    let answer = Runs(node).keep_run(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn memory_get(
    State(node): State<Node>,
    Path((agent_id, key)): OfRun,
    Asked(params): Asked<Params>,
) -> Answer {
    let request = v1::GetMemoryRequest {
        namespace: params.namespace.clone(),
        agent_id,
        scope: params.scope()?,
        key,
        at_revision: params.at_revision,
        read: params.read(),
    };
    let answer = Memories(node).get_memory(params.call(request)?).await?.into_inner();
    let status = if answer.found { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok(shown(status, &answer))
}

async fn memory_put(
    State(node): State<Node>,
    Path((agent_id, key)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
    AnyJson(value): AnyJson,
) -> Answer {
    let request = v1::PutMemoryRequest {
        namespace: params.namespace.clone(),
        agent_id,
        scope: params.scope()?,
        key,
        value: Some(value),
        ttl: params.ttl()?,
        expected_key_revision: params.expected_revision,
        options: Some(write_options(&headers, String::new())),
    };
    let answer = Memories(node).put_memory(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}

async fn memory_delete(
    State(node): State<Node>,
    Path((agent_id, key)): OfRun,
    Asked(params): Asked<Params>,
    headers: HeaderMap,
) -> Answer {
    let request = v1::DeleteMemoryRequest {
        namespace: params.namespace.clone(),
        agent_id,
        scope: params.scope()?,
        key,
        expected_key_revision: params.expected_revision,
        options: Some(write_options(&headers, String::new())),
    };
    let answer = Memories(node).delete_memory(params.call(request)?).await?;
    Ok(shown(StatusCode::OK, answer.get_ref()))
}
