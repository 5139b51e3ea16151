//! Between the API's messages and the plain facts of a history.

use pinrail_proto::v1;
use prost_types::{Duration, Timestamp};

use crate::history::{EventFinal, InFlight, Pin, Scope};

/// Milliseconds since the epoch; 0 when unset.
#[must_use]
pub fn ms(timestamp: Option<&Timestamp>) -> u64 {
    timestamp.map_or(0, |it| {
        u64::try_from(it.seconds).unwrap_or_default() * 1_000
            + u64::try_from(it.nanos).unwrap_or_default() / 1_000_000
    })
}

/// A duration message of so many milliseconds.
#[must_use]
pub fn duration(ms: u64) -> Duration {
    Duration {
        seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default(),
    }
}

/// A JSON payload.
#[must_use]
pub fn payload(json: &str) -> v1::Payload {
    v1::Payload {
        content_type: "application/json".to_owned(),
        data: bytes::Bytes::copy_from_slice(json.as_bytes()),
    }
}

/// The text of a payload; empty when there is none.
#[must_use]
pub fn text(payload: Option<&v1::Payload>) -> String {
    payload.map_or_else(String::new, |it| String::from_utf8_lossy(&it.data).into_owned())
}

#[must_use]
pub fn pin(pin: Option<&v1::Pin>) -> Pin {
    pin.map_or_else(Pin::default, |it| Pin {
        bundle_id: it.bundle_id.clone(),
        layer: it.layer,
        epoch: it.epoch,
        revision: it.revision,
        expires_at_ms: ms(it.expires_at.as_ref()),
    })
}

#[must_use]
pub fn scope(scope: &Scope) -> v1::MemoryScope {
    use v1::memory_scope::Scope as Wire;
    let scope = match scope {
        Scope::Bundle(bundle_id) => Wire::BundleId(bundle_id.clone()),
        Scope::Run(run_id) => Wire::RunId(run_id.clone()),
        Scope::Layer(layer) => Wire::Layer(*layer),
    };
    v1::MemoryScope { scope: Some(scope) }
}

#[must_use]
pub fn in_flight(in_flight: InFlight) -> v1::InFlight {
    match in_flight {
        InFlight::Keep => v1::InFlight::Keep,
        InFlight::Cancel => v1::InFlight::Cancel,
        InFlight::Restart => v1::InFlight::Restart,
    }
}

/// The lower-case word of a state: `completed`.
#[must_use]
pub fn run_state(state: i32) -> String {
    let name = v1::RunState::try_from(state).unwrap_or(v1::RunState::Unspecified).as_str_name();
    word(name, "RUN_STATE_")
}

#[must_use]
pub fn step_state(state: i32) -> String {
    let name = v1::StepState::try_from(state).unwrap_or(v1::StepState::Unspecified).as_str_name();
    word(name, "STEP_STATE_")
}

/// The lower-case word of an end reason; empty when unspecified.
#[must_use]
pub fn end_reason(reason: i32) -> String {
    match v1::EndReason::try_from(reason) {
        Ok(v1::EndReason::Unspecified) | Err(_) => String::new(),
        Ok(reason) => word(reason.as_str_name(), "END_REASON_"),
    }
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Linearizable, or from the local state of the node that is asked.
#[must_use]
pub fn read(local: bool) -> Option<v1::ReadOptions> {
    let consistency = if local { v1::Consistency::Local } else { v1::Consistency::Linearizable };
    Some(v1::ReadOptions { consistency: consistency.into(), min_revision: 0 })
}

/// An event, as far as it is compared.
#[must_use]
pub fn event(it: v1::Event) -> EventFinal {
    EventFinal { revision: it.revision, index: it.index, kind: it.r#type, run_id: it.run_id }
}
