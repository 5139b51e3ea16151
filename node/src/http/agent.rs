//! Agents over HTTP: which there are, their status, their route, the way back, what they cost, and what happens.

use axum::routing::{get, post};
use pinrail_proto::v1;
use pinrail_proto::v1::agent_service_server::AgentService as _;
use pinrail_proto::v1::event_service_server::EventService as _;
use pinrail_proto::v1::pin_service_server::PinService as _;
use pinrail_proto::v1::release_service_server::ReleaseService as _;
use pinrail_proto::v1::run_service_server::RunService as _;

use super::api::{Answer, on_bundle, shown, streamed};
use super::body::{Body, Rollback};
use super::call::Call;
use super::openapi::{Operation, object, of, read, stream, text, words, write};
use crate::service::{Agents, Events, Pins, Releases, Runs};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        params: &["namespace", "timeout", "local", "page_size", "page_token"],
        ..read(
            || get(list),
            "/v1/agents",
            "listAgents",
            "Agents of a namespace, by name.",
            &[("200", of::<v1::ListAgentsResponse>)],
        )
    },
    read(
        || get(status),
        "/v1/agents/{agent}/status",
        "getAgentStatus",
        "Route, drains, open runs and workers of an agent.",
        &[("200", of::<v1::GetAgentStatusResponse>)],
    ),
    Operation {
        params: &["namespace", "timeout", "local", "key"],
        ..read(
            || get(route),
            "/v1/agents/{agent}/route",
            "resolveRoute",
            "The bundle that a run started now would be pinned to, also as header Pinrail-Bundle.",
            &[("200", of::<v1::ResolveRouteResponse>)],
        )
    },
    Operation {
        body: Some(|| {
            let from =
                "The bundle to leave. Without it a second rollback within 15 minutes is refused.";
            object(
                &[],
                &[
                    ("from", text(from)),
                    ("in_flight", words::<v1::InFlight>()),
                    ("reason", text("For the event.")),
                ],
            )
        }),
        ..write(
            || post(rollback),
            "post",
            "/v1/agents/{agent}/rollback",
            "rollback",
            "Leave a bundle and return to the one before it.",
            &[("200", of::<v1::RollbackResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "local", "by", "bundle", "page_size", "page_token"],
        ..read(
            || get(costs),
            "/v1/agents/{agent}/costs",
            "getCosts",
            "What an agent's runs used and cost, summed up; by run: the runs that are kept, in pages.",
            &[("200", of::<v1::GetCostsResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "type", "after_revision"],
        ..stream(
            || get(events),
            "/v1/agents/{agent}/events",
            "watchEvents",
            "Server-sent events `events` with what happened to an agent, `progress` without; ids are revisions, Last-Event-ID \
             resumes.",
            &[("200", of::<v1::WatchEventsResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "after_revision"],
        ..stream(
            || get(pins),
            "/v1/agents/{agent}/pins",
            "watchPins",
            "Server-sent events `pins`: all that are open, then each that is made, moves, changes or ends; `progress` without. Ids \
             are revisions, Last-Event-ID resumes.",
            &[("200", of::<v1::WatchPinsResponse>)],
        )
    },
];

async fn list(call: Call) -> Answer {
    let request = v1::ListAgentsRequest {
        namespace: call.namespace(),
        page_size: call.query.page_size,
        page_token: call.query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Agents(call.node).list_agents(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn status(call: Call) -> Answer {
    let request = v1::GetAgentStatusRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Agents(call.node).get_agent_status(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn route(call: Call) -> Answer {
    let request = v1::ResolveRouteRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        key: call.query.key.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Pins(call.node).resolve_route(request).await?.into_inner();
    Ok(on_bundle(shown(&answer), &answer.bundle_id))
}

async fn rollback(call: Call, Body(body): Body<Rollback>) -> Answer {
    let request = v1::RollbackRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        from_bundle_id: body.from,
        in_flight: body.in_flight.into(),
        options: Some(call.write(body.reason)),
        from_inferred: false,
    };
    let request = call.with(request);
    let answer = Releases(call.node).rollback(request).await?.into_inner();
    Ok(on_bundle(shown(&answer), &answer.to_bundle_id))
}

async fn costs(call: Call) -> Answer {
    let request = v1::GetCostsRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        by: call.query.by.into(),
        bundle_id: call.query.bundle.clone(),
        page_size: call.query.page_size,
        page_token: call.query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Runs(call.node).get_costs(request).await?;
    Ok(shown(answer.get_ref()))
}

/// What happened to an agent, then what happens; ids are revisions, so a reader that comes back misses nothing.
async fn events(call: Call) -> Answer {
    let request = v1::WatchEventsRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        r#type: call.query.r#type.clone(),
        after_revision: call.resume()?,
    };
    let request = call.with(request);
    let events = Events(call.node).watch_events(request).await?.into_inner();
    Ok(streamed(events, |page| {
        (if page.events.is_empty() { "progress" } else { "events" }, page.revision)
    }))
}

/// The open pins of an agent, then what becomes of them.
async fn pins(call: Call) -> Answer {
    let request = v1::WatchPinsRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        after_revision: call.resume()?,
    };
    let request = call.with(request);
    let pins = Pins(call.node).watch_pins(request).await?.into_inner();
    Ok(streamed(pins, |page| {
        (if page.pins.is_empty() { "progress" } else { "pins" }, page.revision)
    }))
}
