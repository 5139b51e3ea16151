//! Operations, and the OpenAPI document that they make. Answers follow from the messages' descriptors;
//! `tests/it/http.rs` asks every operation.

use std::sync::LazyLock;

use axum::routing::MethodRouter;
use pinrail_proto::json::{self, Schemas, Worded, schema};
use pinrail_proto::v1;
use prost::Name;
use serde_json::{Map, Value as Json, json};

use super::api;
use crate::service::Node;

/// A parameter: its name, its schema, and what is said of it.
type Param = (&'static str, fn() -> Json, &'static str);

/// What the query may hold.
const PARAMS: &[Param] = &[
    ("namespace", string, "Default: `default`."),
    ("timeout", string, "How long the call may take: `10s` by default, at most 60 s."),
    ("local", boolean, "Answer from this node's own state, without a quorum."),
    ("wait", string, "How long to wait for the run's end, at most 60 s: `30s`."),
    ("chunks", boolean, "Also what the run's steps emit, as events `chunks`."),
    ("key", string, "Session or run id, for shares of a route."),
    (
        "bundle",
        string,
        "A bundle; of memory: whose newest layer. Default: the live one, in a list all.",
    ),
    ("run", string, "The layer of this run."),
    (
        "from",
        string,
        "A bundle, `layer:7`, or `run:ID` for what a run sees. Default: the live bundle.",
    ),
    ("to", string, "The same. Default: the live bundle."),
    (
        "late",
        boolean,
        "Only what was written to `from` after another layer froze on it, or after it was rolled back.",
    ),
    ("prefix", string, "Only keys that begin with this."),
    ("keys_only", boolean, "Without values."),
    ("at_revision", integer, "As of this revision."),
    (
        "after_revision",
        integer,
        "What came after this revision. Default: from the oldest that is kept.",
    ),
    (
        "expected_revision",
        integer,
        "Refused unless the key was last written at this revision; 0: it must not exist.",
    ),
    ("ttl", string, "The value is gone after this time: `24h`."),
    ("state", words::<v1::RunState>, "Only runs in this state."),
    ("kind", words::<v1::RunKind>, "Only runs of this kind."),
    ("labels", string, "Only runs with all of these: `key=value,key=value`."),
    ("older_than", string, "Only runs that started so long ago: `10m`."),
    ("waiting_for", string, "Only runs of which a step waits for this signal."),
    ("open", boolean, "Only runs that are not over."),
    ("by", words::<v1::CostBy>, "What is summed up. Default: `bundle`."),
    ("type", string, "Only events of this type, or of those that begin with it: `run.`."),
    ("page_size", integer, "At most 1,000."),
    ("page_token", string, "`next_page_token` of the page before."),
];

/// What headers may say beside the body.
const HEADERS: &[(&str, &str)] = &[
    ("Idempotency-Key", "Makes a repeat safe: the first answer is given again for an hour."),
    ("Pinrail-Actor", "Who asks, for the events."),
    ("Last-Event-ID", "The id of the last event that came: the stream goes on behind it."),
    ("traceparent", "The caller's span (W3C): the run's steps become part of its trace."),
];

/// A status, and the schema of the answer.
type Answer = (&'static str, fn(&mut Schemas) -> Json);

/// Something that can be asked for: how, what is said of it, and who answers.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) serve: fn() -> MethodRouter<Node>,
    pub(super) method: &'static str,
    /// As the router takes it.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// What its query may hold: names of [`PARAMS`].
    pub(super) params: &'static [&'static str],
    /// What its headers may say: names of [`HEADERS`].
    pub(super) headers: &'static [&'static str],
    pub(super) body: Option<fn() -> Json>,
    pub(super) answers: &'static [Answer],
    /// It answers with server-sent events.
    pub(super) streams: bool,
}

/// Parameters of reads that take no others.
const READ: &[&str] = &["namespace", "timeout", "local"];
/// Parameters of writes that take no others.
const WRITE: &[&str] = &["namespace", "timeout"];

/// A read without parameters of its own.
pub(super) const fn read(
    serve: fn() -> MethodRouter<Node>,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Operation {
    Operation {
        serve,
        method: "get",
        path,
        id,
        summary,
        params: READ,
        headers: &[],
        body: None,
        answers,
        streams: false,
    }
}

/// A stream of server-sent events.
pub(super) const fn stream(
    serve: fn() -> MethodRouter<Node>,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Operation {
    Operation {
        headers: &["Last-Event-ID"],
        streams: true,
        ..read(serve, path, id, summary, answers)
    }
}

/// A write without parameters of its own; `method` as the document has it.
pub(super) const fn write(
    serve: fn() -> MethodRouter<Node>,
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Operation {
    Operation {
        method,
        params: WRITE,
        headers: &["Idempotency-Key", "Pinrail-Actor"],
        ..read(serve, path, id, summary, answers)
    }
}

/// The schema of a message.
pub(super) fn of<M: Name>(schemas: &mut Schemas) -> Json {
    schema::<M>(schemas)
}

fn string() -> Json {
    json!({ "type": "string" })
}

fn integer() -> Json {
    json!({ "type": "integer" })
}

fn boolean() -> Json {
    json!({ "type": "boolean" })
}

/// The body of what takes a reason and nothing else.
pub(super) fn reason() -> Json {
    object(&[], &[("reason", text("For the event."))])
}

pub(super) fn text(description: &str) -> Json {
    json!({ "type": "string", "description": description })
}

pub(super) fn flag(description: &str) -> Json {
    json!({ "type": "boolean", "description": description })
}

/// The words of an enum.
pub(super) fn words<E: Worded>() -> Json {
    json!({ "type": "string", "enum": json::words::<E>() })
}

pub(super) fn object(required: &[&str], properties: &[(&str, Json)]) -> Json {
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
    for operation in api::operations() {
        let described = operation.describe(&mut schemas);
        // The router says of a name that it may hold slashes; the document has no word for that.
        let path = paths.entry(operation.path.replace("{*", "{")).or_insert_with(|| json!({}));
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
        .map(|name| (name, string()))
        .collect();
    properties.push(("status", integer()));
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    properties.push(("metadata", texts));
    object(&["type", "title", "status", "detail", "reason"], &properties)
}

impl Operation {
    fn describe(&self, schemas: &mut Schemas) -> Json {
        let in_path =
            self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = in_path.map(|name| {
            let name = name.trim_start_matches('*');
            json!({ "name": name, "in": "path", "required": true, "schema": string() })
        });
        let in_query = PARAMS.iter().filter(|(name, ..)| self.params.contains(name));
        let in_query = in_query.map(|(name, schema, description)| {
            json!({ "name": name, "in": "query", "schema": schema(), "description": description })
        });
        let in_headers = HEADERS.iter().filter(|(name, _)| self.headers.contains(name));
        let in_headers = in_headers.map(|(name, description)| {
            json!({ "name": name, "in": "header", "schema": string(), "description": description })
        });
        let parameters: Vec<Json> = in_path.chain(in_query).chain(in_headers).collect();
        let kind = if self.streams { "text/event-stream" } else { "application/json" };
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
