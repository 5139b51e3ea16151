//! The OpenAPI document of `api.rs`. Answers follow from the messages' descriptors; `tests/it/http.rs` asks every
//! operation that stands here, and finds every path of the router here.

use std::sync::LazyLock;

use pinrail_proto::json::{Schemas, schema};
use pinrail_proto::v1;
use prost::Name;
use serde_json::{Map, Value as Json, json};

/// What the query may hold.
const PARAMS: &[(&str, &str, &str)] = &[
    ("namespace", "string", "Default: `default`."),
    ("timeout", "string", "How long the call may take: `10s` by default, at most 60 s."),
    ("local", "boolean", "Answer from this node's own state, without a quorum."),
    ("wait", "string", "How long to wait for the run's end, at most 60 s: `30s`."),
    ("chunks", "boolean", "Also what the run's steps emit, as events `chunks`."),
    ("key", "string", "Session or run id, for shares of a route."),
    (
        "bundle",
        "string",
        "A bundle; of memory: whose newest layer. Default: the live one, in a list all.",
    ),
    ("run", "string", "The layer of this run."),
    ("at_revision", "integer", "As of this revision."),
    (
        "expected_revision",
        "integer",
        "Refused unless the key was last written at this revision; 0: it must not exist.",
    ),
    ("ttl", "string", "The value is gone after this time: `24h`."),
    ("state", "string", "Only runs in this state."),
    ("kind", "string", "Only runs of this kind."),
    ("labels", "string", "Only runs with all of these: `key=value,key=value`."),
    ("older_than", "string", "Only runs that started so long ago: `10m`."),
    ("open", "boolean", "Only runs that are not over."),
    ("page_size", "integer", "At most 1,000."),
    ("page_token", "string", "`next_page_token` of the page before."),
];

/// A status, and the schema of the answer.
type Answer = (&'static str, fn(&mut Schemas) -> Json);

struct Operation {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    params: &'static [&'static str],
    body: Option<fn() -> Json>,
    answers: &'static [Answer],
}

const READ: &[&str] = &["namespace", "timeout", "local"];
const WRITE: &[&str] = &["namespace", "timeout"];

const fn operation(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Operation {
    Operation { path, method, id, summary, params: READ, body: None, answers }
}

fn of<M: Name>(schemas: &mut Schemas) -> Json {
    schema::<M>(schemas)
}

const OPERATIONS: &[Operation] = &[
    operation(
        "get",
        "/v1/agents/{agent}/status",
        "getAgentStatus",
        "Route, drains, open runs and workers of an agent.",
        &[("200", of::<v1::GetAgentStatusResponse>)],
    ),
    Operation {
        params: &["namespace", "timeout", "local", "key"],
        ..operation(
            "get",
            "/v1/agents/{agent}/route",
            "resolveRoute",
            "The bundle that a run started now would be pinned to, also as header Pinrail-Bundle.",
            &[("200", of::<v1::ResolveRouteResponse>)],
        )
    },
    Operation {
        params: WRITE,
        body: Some(|| {
            object(
                &[],
                &[
                    (
                        "from",
                        text(
                            "The bundle to leave. Without it a second rollback within 15 minutes is refused.",
                        ),
                    ),
                    ("in_flight", words(&["keep", "cancel", "restart"])),
                    ("reason", text("For the event.")),
                ],
            )
        }),
        ..operation(
            "post",
            "/v1/agents/{agent}/rollback",
            "rollback",
            "Leave a bundle and return to the one before it.",
            &[("200", of::<v1::RollbackResponse>)],
        )
    },
    Operation {
        params: &[
            "namespace",
            "timeout",
            "local",
            "state",
            "kind",
            "labels",
            "older_than",
            "bundle",
            "open",
            "page_size",
            "page_token",
        ],
        ..operation(
            "get",
            "/v1/agents/{agent}/runs",
            "listRuns",
            "Runs of an agent, without inputs and outputs.",
            &[("200", of::<v1::ListRunsResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "wait"],
        body: Some(|| {
            object(
                &[],
                &[
                    (
                        "run_id",
                        text(
                            "At most 256 bytes. Without it, it follows from Idempotency-Key, or is made up.",
                        ),
                    ),
                    ("input", json!({ "description": "Any JSON, at most 2 MiB." })),
                    (
                        "labels",
                        json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                    ),
                    ("entry", text("First step. Default: the bundle's.")),
                    ("max_age", text("Less than the policy's: `1h`.")),
                    ("delay", text("Begin so much later, on the bundle that is live then: `2h`.")),
                    ("session", text("Runs of one session start on one bundle.")),
                    (
                        "repinnable",
                        flag(
                            "Whether it may move to another bundle behind a step. Default: the policy's.",
                        ),
                    ),
                    (
                        "restart_step",
                        flag("Whether a step held past the grace is then tried again there."),
                    ),
                    (
                        "priority",
                        json!({ "type": "integer", "minimum": 1, "maximum": 5, "description": "1 first. Default: 3." }),
                    ),
                    (
                        "fairness_key",
                        text(
                            "Steps of one key take turns with those of others. Default: the session, or the run.",
                        ),
                    ),
                    (
                        "callback",
                        text(
                            "A hook of the agent's policy that is told of the end, with the result.",
                        ),
                    ),
                    ("parent", text("A run of the same agent that this becomes a child of.")),
                    ("bundle", text("Not the route's but this bundle.")),
                    ("reason", text("For the event.")),
                ],
            )
        }),
        ..operation(
            "post",
            "/v1/agents/{agent}/runs",
            "startRun",
            "Start a run: 202 with its pin; with `wait` 200 with its result, if it ends in that time.",
            &[("200", of::<v1::GetResultResponse>), ("202", of::<v1::StartRunResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "local", "wait"],
        ..operation(
            "get",
            "/v1/agents/{agent}/runs/{run}",
            "getRun",
            "A run with its input and output; with `wait` once it is over or the time is.",
            &[("200", of::<v1::Run>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "chunks"],
        ..operation(
            "get",
            "/v1/agents/{agent}/runs/{run}/events",
            "watchRun",
            "Server-sent events `change` and at last `end`; ids are revisions, Last-Event-ID resumes.",
            &[("200", of::<v1::WatchRunResponse>)],
        )
    },
    operation(
        "get",
        "/v1/agents/{agent}/runs/{run}/pin",
        "lookupPin",
        "Where a run is pinned, also as header Pinrail-Bundle.",
        &[("200", of::<v1::LookupPinResponse>)],
    ),
    Operation {
        params: WRITE,
        body: Some(|| object(&[], &[("reason", text("For the event."))])),
        ..operation(
            "post",
            "/v1/agents/{agent}/runs/{run}/cancel",
            "cancelRun",
            "Cancel a run; the holder of its step has the grace.",
            &[("200", of::<v1::CancelRunResponse>)],
        )
    },
    Operation {
        params: WRITE,
        body: Some(|| {
            let value = ("value", json!({ "description": "Any JSON, at most 2 MiB." }));
            object(&[], &[value, ("reason", text("For the event."))])
        }),
        ..operation(
            "post",
            "/v1/agents/{agent}/runs/{run}/signals/{signal}",
            "signalRun",
            "Send a signal: it ends the run's wait for it, or is kept until the run waits for it.",
            &[("200", of::<v1::SignalRunResponse>)],
        )
    },
    Operation {
        params: WRITE,
        body: Some(|| object(&[], &[("reason", text("For the event."))])),
        ..operation(
            "post",
            "/v1/agents/{agent}/runs/{run}/retry",
            "retryRun",
            "Let a paused run go on.",
            &[("200", of::<v1::RetryRunResponse>)],
        )
    },
    Operation {
        params: WRITE,
        body: Some(|| {
            object(
                &["outcome"],
                &[
                    ("outcome", words(&["completed", "failed"])),
                    ("output", json!({ "description": "Any JSON, at most 2 MiB." })),
                    (
                        "failure",
                        object(
                            &[],
                            &[
                                ("reason", text("Short and stable.")),
                                ("message", text("For people.")),
                            ],
                        ),
                    ),
                ],
            )
        }),
        ..operation(
            "post",
            "/v1/agents/{agent}/runs/{run}/finish",
            "finishRun",
            "End an external run; the first call wins.",
            &[("200", of::<v1::FinishRunResponse>)],
        )
    },
    Operation {
        params: WRITE,
        body: Some(|| object(&[], &[("reason", text("For the event."))])),
        ..operation(
            "post",
            "/v1/agents/{agent}/runs/{run}/keep",
            "keepRun",
            "Say that an external run is alive.",
            &[("200", of::<v1::KeepRunResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "local", "bundle", "run", "at_revision"],
        ..operation(
            "get",
            "/v1/agents/{agent}/memory/{key}",
            "getMemory",
            "A value of a bundle's memory, or as a run sees it. The key may have slashes.",
            &[("200", of::<v1::GetMemoryResponse>), ("404", of::<v1::GetMemoryResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "bundle", "ttl", "expected_revision"],
        body: Some(|| json!({ "description": "Any JSON, at most 2 MiB." })),
        ..operation(
            "put",
            "/v1/agents/{agent}/memory/{key}",
            "putMemory",
            "Write to the newest layer of a bundle.",
            &[("200", of::<v1::PutMemoryResponse>)],
        )
    },
    Operation {
        params: &["namespace", "timeout", "bundle", "expected_revision"],
        ..operation(
            "delete",
            "/v1/agents/{agent}/memory/{key}",
            "deleteMemory",
            "Delete from the newest layer of a bundle.",
            &[("200", of::<v1::DeleteMemoryResponse>)],
        )
    },
];

fn text(description: &str) -> Json {
    json!({ "type": "string", "description": description })
}

fn flag(description: &str) -> Json {
    json!({ "type": "boolean", "description": description })
}

fn words(words: &[&str]) -> Json {
    json!({ "type": "string", "enum": words })
}

fn object(required: &[&str], properties: &[(&str, Json)]) -> Json {
    let properties: Map<String, Json> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false
    })
}

/// The document as it is served.
pub(super) fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_string());
    &DOCUMENT
}

fn build() -> Json {
    let mut schemas = Schemas::default();
    let mut paths: Map<String, Json> = Map::new();
    for operation in OPERATIONS {
        let described = operation.describe(&mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    schemas.0.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pinrail",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs, pins, routes and memory of AI agents that are released blue-green. Errors are problem \
                details (RFC 9457) with a reason.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas.0 },
    })
}

fn problem() -> Json {
    let mut properties: Vec<(&str, Json)> = ["type", "title", "detail", "reason", "help"]
        .into_iter()
        .map(|name| (name, json!({ "type": "string" })))
        .collect();
    properties.push(("status", json!({ "type": "integer" })));
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    properties.push(("metadata", texts));
    object(&["type", "title", "status", "detail", "reason"], &properties)
}

impl Operation {
    fn describe(&self, schemas: &mut Schemas) -> Json {
        let mut parameters = Vec::new();
        for name in
            self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        {
            let schema = json!({ "type": "string" });
            parameters
                .push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
        let in_query = PARAMS.iter().filter(|(name, ..)| self.params.contains(name));
        for (name, kind, description) in in_query {
            let schema = json!({ "type": kind });
            parameters.push(
                json!({ "name": name, "in": "query", "schema": schema, "description": description }),
            );
        }
        if self.method != "get" {
            let schema = json!({ "type": "string" });
            let description = "Makes a repeat safe: the first answer is given again for an hour.";
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "schema": schema, "description": description
            }));
        }
        let kind = if self.id == "watchRun" { "text/event-stream" } else { "application/json" };
        let mut responses: Map<String, Json> = Map::new();
        for (status, answer) in self.answers {
            let content = json!({ kind: { "schema": answer(schemas) } });
            responses.insert(
                (*status).to_owned(),
                json!({ "description": self.summary, "content": content }),
            );
        }
        let refused = json!({ "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" }
        } });
        let refused = json!({ "description": "Refused, or not done.", "content": refused });
        responses.insert("default".to_owned(), refused);
        let mut described = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(body) = self.body {
            described["requestBody"] =
                json!({ "content": { "application/json": { "schema": body() } } });
        }
        described
    }
}
