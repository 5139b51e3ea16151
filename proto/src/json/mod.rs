//! Messages of the API as JSON, by their descriptors, with the four rules of docs/CLI.md and docs/HTTP.md: payloads as what they are,
//! 64-bit integers as numbers, enum values as lower-case words, times as RFC 3339 and durations as `"21600s"`.
//!
//! Scalars, lists and maps are always there; messages, optional scalars and enums that are not set are left out.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use prost::Name;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};
use serde_json::{Map, Value as Json};

use crate::v1;

mod schema;
mod word;

pub use schema::{Schemas, schema};
pub use word::{Worded, parse, word, words};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(crate::DESCRIPTORS)
        .expect("the embedded descriptors were compiled with the messages")
});

/// The message as JSON.
#[must_use]
pub fn of<M: Name>(message: &M) -> Json {
    let descriptor =
        POOL.get_message_by_name(&M::full_name()).expect("a generated message has a descriptor");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("a message decodes by its own descriptor");
    object(&dynamic)
}

/// A payload as the JSON, text or bytes that it is.
#[must_use]
pub fn payload(payload: &v1::Payload) -> Json {
    payload_of(&payload.content_type, &payload.data)
}

fn payload_of(content_type: &str, data: &[u8]) -> Json {
    if content_type.starts_with("application/json")
        && let Ok(json) = serde_json::from_slice(data)
    {
        return json;
    }
    if content_type.starts_with("text/")
        && let Ok(text) = std::str::from_utf8(data)
    {
        return text.into();
    }
    serde_json::json!({ "base64": base64(data) })
}

fn object(message: &DynamicMessage) -> Json {
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        "pinrail.v1.Payload" => return whole_payload(message),
        "google.protobuf.Timestamp" => return timestamp(message),
        "google.protobuf.Duration" => return duration(message),
        _ => {}
    }
    let mut fields = Map::new();
    for field in descriptor.fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        let value = message.get_field(&field);
        if let Some(json) = json(&value, &field) {
            fields.insert(field.name().to_owned(), json);
        }
    }
    Json::Object(fields)
}

/// `None` for an enum that is not set.
fn json(value: &Value, field: &FieldDescriptor) -> Option<Json> {
    Some(match value {
        Value::Bool(bool) => (*bool).into(),
        Value::I32(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::F32(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
        Value::String(text) => text.clone().into(),
        Value::Bytes(bytes) => serde_json::json!({ "base64": base64(bytes) }),
        Value::EnumNumber(number) => return enumeration(field, *number),
        Value::Message(message) => object(message),
        Value::List(items) => items.iter().filter_map(|item| json(item, field)).collect(),
        Value::Map(entries) => {
            let Kind::Message(entry) = field.kind() else { return None };
            let value_field = entry.map_entry_value_field();
            // serde_json sorts or keeps the order; either way the entries are sorted first.
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|one, other| one.0.cmp(other.0));
            let pairs = sorted
                .into_iter()
                .filter_map(|(key, value)| Some((map_key(key), json(value, &value_field)?)));
            Json::Object(pairs.collect())
        }
    })
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn enumeration(field: &FieldDescriptor, number: i32) -> Option<Json> {
    let Kind::Enum(descriptor) = field.kind() else { return None };
    if number == 0 {
        return None;
    }
    Some(match descriptor.get_value(number) {
        Some(value) => word::of(&descriptor, value.name()).into(),
        // Of a newer server.
        None => number.into(),
    })
}

fn whole_payload(message: &DynamicMessage) -> Json {
    let content_type = message.get_field_by_name("content_type");
    let data = message.get_field_by_name("data");
    let content_type = content_type.as_ref().and_then(|value| value.as_str()).unwrap_or_default();
    match data.as_ref().and_then(|value| value.as_bytes()) {
        Some(data) => payload_of(content_type, data),
        None => Json::Null,
    }
}

fn parts(message: &DynamicMessage) -> (i64, i32) {
    let seconds = message.get_field_by_name("seconds").and_then(|value| value.as_i64());
    let nanos = message.get_field_by_name("nanos").and_then(|value| value.as_i32());
    (seconds.unwrap_or(0), nanos.unwrap_or(0))
}

fn timestamp(message: &DynamicMessage) -> Json {
    let (seconds, nanos) = parts(message);
    rfc3339(&prost_types::Timestamp { seconds, nanos }).into()
}

/// `2026-11-23T02:14:00.123Z`.
#[must_use]
pub fn rfc3339(timestamp: &prost_types::Timestamp) -> String {
    let millis = crate::time::timestamp_millis(Some(timestamp));
    match UNIX_EPOCH.checked_add(Duration::from_millis(millis)) {
        Some(time) => humantime::format_rfc3339_millis(time).to_string(),
        None => String::new(),
    }
}

fn duration(message: &DynamicMessage) -> Json {
    let (seconds, nanos) = parts(message);
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:09}", seconds.unsigned_abs(), nanos.unsigned_abs());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.')).into()
}

/// Standard alphabet, padded.
#[must_use]
pub fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (bits >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run() -> v1::Run {
        v1::Run {
            run_id: "r".into(),
            state: v1::RunState::Running.into(),
            kind: v1::RunKind::Live.into(),
            labels: [("team".to_owned(), "a".to_owned())].into(),
            started_at: crate::time::timestamp(1_700_000_000_123),
            revision: u64::MAX,
            ..Default::default()
        }
    }

    #[test]
    fn payloads_are_shown_as_what_they_are() {
        let show = |content_type: &str, data: &'static [u8]| {
            let input = v1::Payload { content_type: content_type.into(), data: data.into() };
            of(&v1::Run { input: Some(input), ..run() })["input"].clone()
        };
        assert_eq!(show("application/json", b"{\"a\":[1]}"), json!({"a": [1]}));
        assert_eq!(show("application/json; charset=utf-8", b"1"), json!(1));
        assert_eq!(show("text/plain", b"hi"), json!("hi"));
        assert_eq!(show("image/png", b"\x00\x01"), json!({"base64": "AAE="}));
        assert_eq!(show("application/json", b"{broken"), json!({"base64": "e2Jyb2tlbg=="}));
        assert_eq!(show("text/plain", b"\xff"), json!({"base64": "/w=="}));
    }

    #[test]
    fn large_integers_stay_numbers_and_enums_become_words() {
        let json = of(&run());
        assert_eq!(json["revision"].as_u64(), Some(u64::MAX));
        assert_eq!(json["state"], "running");
        assert_eq!(json["kind"], "live");
        let flight = v1::RollbackResponse {
            in_flight: v1::InFlight::Keep.into(),
            side_effects: vec![v1::SideEffect {
                class: v1::SideEffects::ReadOnly.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(of(&flight)["in_flight"], "keep");
        assert_eq!(of(&flight)["side_effects"][0]["class"], "read_only");
    }

    #[test]
    fn times_and_durations_are_texts() {
        assert_eq!(of(&run())["started_at"], "2023-11-14T22:13:20.123Z");
        let policy = v1::Policy {
            runs: Some(v1::RunPolicy {
                max_age: Some(crate::time::duration(21_600_000)),
                keep_alive: Some(crate::time::duration(1_500)),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(of(&policy)["runs"]["max_age"], "21600s");
        assert_eq!(of(&policy)["runs"]["keep_alive"], "1.5s");
    }

    #[test]
    fn what_is_always_there_and_what_is_left_out() {
        let page = of(&v1::ListRunsResponse::default());
        assert_eq!(page, json!({"runs": [], "next_page_token": "", "revision": 0}));
        let json = of(&run());
        assert_eq!(json["labels"], json!({"team": "a"}));
        assert_eq!(json["external"], false);
        for absent in ["ended_at", "end_reason", "failure", "pin", "input"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn what_scripts_rely_on_is_at_the_top() {
        let start = of(&v1::StartRunResponse::default());
        let pin = of(&v1::LookupPinResponse::default());
        for key in ["run_id", "bundle_id", "revision"] {
            assert!(start.get(key).is_some() && pin.get(key).is_some(), "{key}");
        }
        let switch = of(&v1::SwitchResponse::default());
        let rollback = of(&v1::RollbackResponse::default());
        for key in ["agent_id", "from_bundle_id", "to_bundle_id", "epoch", "revision"] {
            assert!(switch.get(key).is_some() && rollback.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn base64_pads() {
        let cases: [(&[u8], &str); 4] =
            [(b"", ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v")];
        for (data, text) in cases {
            assert_eq!(base64(data), text);
        }
    }
}
