//! What can be checked at the door, before anything is proposed: ids, sizes, JSON, durations.

use pinrail_proto::v1::{self, Payload, WriteOptions};
use pinrail_proto::{id, limits, reason, time};
use tonic::Status;

use super::error::refuse;

type Checked = Result<(), Status>;

fn invalid_id(error: &id::IdError) -> Status {
    refuse(reason::INVALID_ID, error.to_string())
}

fn name(what: &'static str, value: &str) -> Checked {
    id::check_name(what, value).map_err(|error| invalid_id(&error))
}

/// Empty means `default`.
pub(super) fn namespace(value: &str) -> Checked {
    if value.is_empty() { Ok(()) } else { name("namespace", value) }
}

pub(super) fn agent(value: &str) -> Checked {
    name("agent", value)
}

pub(super) fn bundle(value: &str) -> Checked {
    name("bundle", value)
}

/// Empty means all, or the live one.
pub(super) fn bundle_or_empty(value: &str) -> Checked {
    if value.is_empty() { Ok(()) } else { bundle(value) }
}

pub(super) fn hook(value: &str) -> Checked {
    name("hook", value)
}

pub(super) fn run(value: &str) -> Checked {
    id::check_token("run id", value).map_err(|error| invalid_id(&error))
}

pub(super) fn session(value: &str) -> Checked {
    id::check_token("session", value).map_err(|error| invalid_id(&error))
}

pub(super) fn signal(value: &str) -> Checked {
    name("signal", value)
}

/// Names of one agent's object in a read; the agent may be empty where the run's id leads to it.
pub(super) fn run_of(namespace_id: &str, agent_id: &str, run_id: &str) -> Checked {
    namespace(namespace_id)?;
    if !agent_id.is_empty() {
        agent(agent_id)?;
    }
    run(run_id)
}

pub(super) fn options(options: &WriteOptions) -> Checked {
    if !options.request_id.is_empty() {
        id::check_token("request id", &options.request_id).map_err(|error| invalid_id(&error))?;
    }
    for (what, text) in [("reason", &options.reason), ("actor", &options.actor)] {
        if text.len() > limits::TEXT_BYTES {
            return Err(too_large(what, text.len(), limits::TEXT_BYTES));
        }
    }
    Ok(())
}

pub(super) fn too_large(what: &str, size: usize, limit: usize) -> Status {
    refuse(reason::LIMIT_EXCEEDED, format!("{what}: {size} bytes; at most {limit} are allowed"))
}

/// A value within its limit; JSON that says that it is JSON must be some.
pub(super) fn payload(what: &str, payload: Option<&Payload>) -> Checked {
    let Some(payload) = payload else { return Ok(()) };
    if payload.data.len() > limits::PAYLOAD_BYTES {
        return Err(too_large(what, payload.data.len(), limits::PAYLOAD_BYTES));
    }
    if payload.content_type.len() > limits::LABEL_VALUE_BYTES {
        return Err(too_large(
            "content type",
            payload.content_type.len(),
            limits::LABEL_VALUE_BYTES,
        ));
    }
    if payload.content_type == "application/json" {
        serde_json::from_slice::<serde::de::IgnoredAny>(&payload.data).map_err(|error| {
            refuse(reason::INVALID_REQUEST, format!("{what} is no JSON: {error}"))
        })?;
    }
    Ok(())
}

/// Milliseconds of a duration that must be there and positive.
pub(super) fn positive(
    what: &str,
    duration: Option<&prost_types::Duration>,
) -> Result<u64, Status> {
    match optional(what, duration)? {
        0 => Err(refuse(reason::INVALID_REQUEST, format!("{what} must be more than 0"))),
        ms => Ok(ms),
    }
}

/// Milliseconds of a duration, 0 when there is none; a duration that is there must be positive.
pub(super) fn positive_or_none(
    what: &str,
    duration: Option<&prost_types::Duration>,
) -> Result<u64, Status> {
    if duration.is_none() { Ok(0) } else { positive(what, duration) }
}

/// Milliseconds of a duration, 0 when there is none.
pub(super) fn optional(
    what: &str,
    duration: Option<&prost_types::Duration>,
) -> Result<u64, Status> {
    let Some(duration) = duration else { return Ok(0) };
    let ms = time::millis(duration).filter(|ms| *ms <= 10 * limits::MAX_AGE_MS);
    ms.ok_or_else(|| {
        refuse(reason::INVALID_REQUEST, format!("{what} is negative or longer than 300 days"))
    })
}

/// Milliseconds since the epoch, 0 when there is no instant.
pub(super) fn instant(
    what: &str,
    timestamp: Option<&prost_types::Timestamp>,
) -> Result<u64, Status> {
    let Some(timestamp) = timestamp else { return Ok(0) };
    time::instant_millis(timestamp)
        .ok_or_else(|| refuse(reason::INVALID_REQUEST, format!("{what} is no instant")))
}

pub(super) fn memory_key(key: &str) -> Checked {
    id::check_memory_key(key).map_err(|error| invalid_id(&error))
}

/// Schemas and parameters must be JSON objects; the core only digests them.
pub(super) fn manifest(manifest: Option<&v1::BundleManifest>) -> Checked {
    let Some(manifest) = manifest else {
        return Err(refuse(reason::INVALID_MANIFEST, "the manifest is missing"));
    };
    for (model, part) in &manifest.models {
        object(&format!("models.{model}.parameters"), &part.parameters_json)?;
    }
    for (tool, part) in &manifest.tools {
        object(&format!("tools.{tool}.input_schema"), &part.input_schema_json)?;
        object(&format!("tools.{tool}.output_schema"), &part.output_schema_json)?;
        json(&format!("tools.{tool}.stub"), &part.stub_json)?;
    }
    Ok(())
}

fn object(what: &str, text: &str) -> Checked {
    match json(what, text)? {
        None | Some(serde_json::Value::Object(_)) => Ok(()),
        Some(_) => Err(refuse(reason::INVALID_MANIFEST, format!("{what} is no JSON object"))),
    }
}

/// `None`: the text is empty.
fn json(what: &str, text: &str) -> Result<Option<serde_json::Value>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| refuse(reason::INVALID_MANIFEST, format!("{what} is no JSON: {error}")))
}
