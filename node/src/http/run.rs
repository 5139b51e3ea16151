//! Runs over HTTP: start, wait, watch, signal, end.

mod schema;

use axum::http::StatusCode;
use axum::routing::{get, post};
use pinrail_proto::v1::pin_service_server::PinService as _;
use pinrail_proto::v1::run_service_server::RunService as _;
use pinrail_proto::{id, v1};
use serde_json::json;

use super::api::{Answer, on_bundle, shown, shown_as, streamed};
use super::body::{Body, Finish, Score, Signal, Start, Why};
use super::call::Call;
use super::openapi::{Operation, object, of, read, reason, stream, text, write};
use super::problem::Problem;
use crate::service::{Pins, Runs};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        params: &[
            "namespace",
            "timeout",
            "local",
            "state",
            "kind",
            "labels",
            "older_than",
            "waiting_for",
            "bundle",
            "open",
            "page_size",
            "page_token",
        ],
        ..read(
            || get(list),
            "/v1/agents/{agent}/runs",
            "listRuns",
            "Runs of an agent, without inputs and outputs.",
            &[("200", of::<v1::ListRunsResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "wait"],
        headers: &["Idempotency-Key", "Pinrail-Actor", "traceparent"],
        body: Some(schema::start),
        ..write(
            || post(start),
            "post",
            "/v1/agents/{agent}/runs",
            "startRun",
            "Start a run: 202 with its pin; with `wait` 200 with its result, if it ends in that time.",
            &[("200", of::<v1::GetResultResponse>), ("202", of::<v1::StartRunResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "local", "wait"],
        ..read(
            || get(show),
            "/v1/agents/{agent}/runs/{run}",
            "getRun",
            "A run with its input and output; with `wait` once it is over or the time is.",
            &[("200", of::<v1::Run>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "chunks"],
        ..stream(
            || get(events),
            "/v1/agents/{agent}/runs/{run}/events",
            "watchRun",
            "Server-sent events `change` and at last `end`; ids are revisions, Last-Event-ID resumes.",
            &[("200", of::<v1::WatchRunResponse>)],
        )
    },
    read(
        || get(pin),
        "/v1/agents/{agent}/runs/{run}/pin",
        "lookupPin",
        "Where a run is pinned, also as header Pinrail-Bundle.",
        &[("200", of::<v1::LookupPinResponse>)],
    ),
    Operation {
        params: &["namespace", "timeout", "local", "page_size", "page_token"],
        ..read(
            || get(steps),
            "/v1/agents/{agent}/runs/{run}/steps",
            "listSteps",
            "Steps of a run, in their order.",
            &[("200", of::<v1::ListStepsResponse>)],
        )
    },
    Operation {
        body: Some(reason),
        ..write(
            || post(cancel),
            "post",
            "/v1/agents/{agent}/runs/{run}/cancel",
            "cancelRun",
            "Cancel a run; the holder of its step has the grace.",
            &[("200", of::<v1::CancelRunResponse>)],
        )
    },
    Operation {
        body: Some(|| {
            let value = ("value", json!({ "description": "Any JSON, at most 2 MiB." }));
            object(&[], &[value, ("reason", text("For the event."))])
        }),
        ..write(
            || post(signal),
            "post",
            "/v1/agents/{agent}/runs/{run}/signals/{signal}",
            "signalRun",
            "Send a signal: it ends the run's wait for it, or is kept until the run waits for it.",
            &[("200", of::<v1::SignalRunResponse>)],
        )
    },
    Operation {
        body: Some(reason),
        ..write(
            || post(pause),
            "post",
            "/v1/agents/{agent}/runs/{run}/pause",
            "pauseRun",
            "Give out no step of a run any more; one that is held goes on to its end.",
            &[("200", of::<v1::PauseRunResponse>)],
        )
    },
    Operation {
        body: Some(reason),
        ..write(
            || post(resume),
            "post",
            "/v1/agents/{agent}/runs/{run}/resume",
            "resumeRun",
            "Let a run go on that was paused by hand.",
            &[("200", of::<v1::ResumeRunResponse>)],
        )
    },
    Operation {
        body: Some(schema::score),
        ..write(
            || post(score),
            "post",
            "/v1/agents/{agent}/runs/{run}/score",
            "scoreRun",
            "Say how good the answer of a run was; again from the same source replaces it.",
            &[("200", of::<v1::ScoreRunResponse>)],
        )
    },
    Operation {
        body: Some(reason),
        ..write(
            || post(retry),
            "post",
            "/v1/agents/{agent}/runs/{run}/retry",
            "retryRun",
            "Let a paused run go on.",
            &[("200", of::<v1::RetryRunResponse>)],
        )
    },
    Operation {
        body: Some(schema::finish),
        ..write(
            || post(finish),
            "post",
            "/v1/agents/{agent}/runs/{run}/finish",
            "finishRun",
            "End an external run; the first call wins.",
            &[("200", of::<v1::FinishRunResponse>)],
        )
    },
    Operation {
        body: Some(reason),
        ..write(
            || post(keep),
            "post",
            "/v1/agents/{agent}/runs/{run}/keep",
            "keepRun",
            "Say that an external run is alive.",
            &[("200", of::<v1::KeepRunResponse>)],
        )
    },
];

async fn list(call: Call) -> Answer {
    let query = &call.query;
    let request = v1::ListRunsRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        state: query.state.into(),
        bundle_id: query.bundle.clone(),
        open: query.open,
        kind: query.kind.into(),
        labels: query.labels.clone(),
        older_than: call.older_than(),
        waiting_for: query.waiting_for.clone(),
        page_size: query.page_size,
        page_token: query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Runs(call.node).list_runs(request).await?;
    Ok(shown(answer.get_ref()))
}

/// 202 with the pin; with `wait` 200 and the result, if the run ends in that time.
async fn start(call: Call, Body(body): Body<Start>) -> Answer {
    let input = body.input();
    let options = call.write(body.reason);
    let (namespace, agent_id) = (call.namespace(), call.agent());
    let run_id = match (body.run_id.as_str(), options.request_id.as_str()) {
        ("", "") => String::new(),
        ("", key) => {
            let namespace = if namespace.is_empty() { "default" } else { &namespace };
            id::derive_run_id(namespace, &agent_id, key)
        }
        (run_id, _) => run_id.to_owned(),
    };
    let request = v1::StartRunRequest {
        namespace,
        agent_id,
        run_id,
        input,
        labels: body.labels,
        entry: body.entry,
        max_age: body.max_age,
        delay: body.delay,
        session: body.session,
        repinnable: body.repinnable,
        restart_step: body.restart_step,
        priority: body.priority,
        fairness_key: body.fairness_key,
        callback: body.callback,
        trace_parent: call.trace_parent(),
        parent_run_id: body.parent,
        bundle_id: body.bundle,
        options: Some(options),
        wait: call.wait(),
        ..v1::StartRunRequest::default()
    };
    let runs = Runs(call.node.clone());
    let mut started = runs.start_run(call.with(request)).await?.into_inner();
    if let Some(ended) = started.result.take() {
        return Ok(on_bundle(shown(&ended), &ended.bundle_id));
    }
    Ok(on_bundle(shown_as(StatusCode::ACCEPTED, &started), &started.bundle_id))
}

/// The result of a run once it is over or the time to wait is; `None`: the call does not wait.
async fn awaited(
    runs: &Runs,
    call: &Call,
    run_id: String,
) -> Result<Option<v1::GetResultResponse>, Problem> {
    let Some(wait) = call.wait() else { return Ok(None) };
    let request = v1::GetResultRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id,
        wait: Some(wait),
        read: call.read(),
    };
    Ok(Some(runs.get_result(call.with(request)).await?.into_inner()))
}

/// The run; with `wait`, once it is over or the time is.
async fn show(call: Call) -> Answer {
    let runs = Runs(call.node.clone());
    awaited(&runs, &call, call.run()).await?;
    let request = v1::GetRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        read: call.read(),
    };
    let answer = runs.get_run(call.with(request)).await?.into_inner();
    let run = answer.run.unwrap_or_default();
    let bundle_id = run.pin.as_ref().map_or("", |pin| pin.bundle_id.as_str());
    Ok(on_bundle(shown(&run), bundle_id))
}

/// One event a change; their ids are revisions, so a reader that comes back misses nothing.
async fn events(call: Call) -> Answer {
    let request = v1::WatchRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        from_revision: call.resume()?,
        chunks: call.query.chunks,
        after: None,
    };
    let request = call.with(request);
    let changes = Runs(call.node).watch_run(request).await?.into_inner();
    Ok(streamed(changes, |change| match (&change.run, change.closed) {
        // Without an id: who comes back begins behind the last change.
        (None, _) => ("chunks", 0),
        (Some(_), false) => ("change", change.revision),
        (Some(_), true) => ("end", change.revision),
    }))
}

async fn pin(call: Call) -> Answer {
    let request = v1::LookupPinRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Pins(call.node).lookup_pin(request).await?.into_inner();
    Ok(on_bundle(shown(&answer), &answer.bundle_id))
}

async fn steps(call: Call) -> Answer {
    let request = v1::ListStepsRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        page_size: call.query.page_size,
        page_token: call.query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Runs(call.node).list_steps(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn cancel(call: Call, Body(body): Body<Why>) -> Answer {
    let request = v1::CancelRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        options: Some(call.write(body.reason)),
    };
    let request = call.with(request);
    let answer = Runs(call.node).cancel_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn signal(call: Call, Body(body): Body<Signal>) -> Answer {
    let request = v1::SignalRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        name: call.signal(),
        value: body.value(),
        options: Some(call.write(body.reason)),
    };
    let request = call.with(request);
    let answer = Runs(call.node).signal_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn pause(call: Call, Body(body): Body<Why>) -> Answer {
    let request = v1::PauseRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        options: Some(call.write(body.reason)),
    };
    let request = call.with(request);
    let answer = Runs(call.node).pause_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn resume(call: Call, Body(body): Body<Why>) -> Answer {
    let request = v1::ResumeRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        options: Some(call.write(body.reason)),
    };
    let request = call.with(request);
    let answer = Runs(call.node).resume_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn score(call: Call, Body(body): Body<Score>) -> Answer {
    let request = v1::ScoreRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        score_permille: body.score_permille,
        source: body.source.into(),
        comment: body.comment,
        options: Some(call.write(String::new())),
    };
    let request = call.with(request);
    let answer = Runs(call.node).score_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn retry(call: Call, Body(body): Body<Why>) -> Answer {
    let request = v1::RetryRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        options: Some(call.write(body.reason)),
    };
    let request = call.with(request);
    let answer = Runs(call.node).retry_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn finish(call: Call, Body(body): Body<Finish>) -> Answer {
    let request = v1::FinishRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        outcome: body.outcome.into(),
        output: body.output(),
        failure: body.failure.map(Into::into),
        usage: body.usage.map(Into::into),
        options: Some(call.write(String::new())),
    };
    let request = call.with(request);
    let answer = Runs(call.node).finish_run(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn keep(call: Call, Body(body): Body<Why>) -> Answer {
    let request = v1::KeepRunRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        run_id: call.run(),
        options: Some(call.write(body.reason)),
    };
    let request = call.with(request);
    let answer = Runs(call.node).keep_run(request).await?;
    Ok(shown(answer.get_ref()))
}
