//! What goes over the socket, one JSON object a line. A message with an `id` is answered with the same `id`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The protocol's version, which a child names in its hello.
pub(super) const VERSION: u32 = 1;

/// From a child.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum FromChild {
    #[serde(rename = "hello")]
    Hello(Hello),
    #[serde(rename = "checkpoint")]
    Checkpoint { id: u64, name: String, value: Value },
    #[serde(rename = "checkpoint.get")]
    CheckpointGet { id: u64, name: String },
    #[serde(rename = "memory.get")]
    MemoryGet {
        id: u64,
        #[serde(flatten)]
        key: Key,
    },
    #[serde(rename = "memory.put")]
    MemoryPut {
        id: u64,
        #[serde(flatten)]
        key: Key,
        value: Value,
        expected_revision: Option<u64>,
    },
    #[serde(rename = "memory.delete")]
    MemoryDelete {
        id: u64,
        #[serde(flatten)]
        key: Key,
    },
    #[serde(rename = "memory.list")]
    MemoryList {
        id: u64,
        #[serde(default)]
        path: String,
    },
    #[serde(rename = "tool.begin")]
    ToolBegin {
        id: u64,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(rename = "tool.end")]
    ToolEnd {
        id: u64,
        name: String,
        /// Of the call that ends; without it, the last one of this name.
        key: Option<String>,
        #[serde(default)]
        output: Value,
    },
    #[serde(rename = "run.start")]
    StartRun {
        id: u64,
        agent: String,
        #[serde(default)]
        input: Value,
    },
    /// Tools as the program sees them by now.
    #[serde(rename = "tools")]
    Tools {
        /// It is answered when it has one.
        id: Option<u64>,
        tools: Tools,
    },
    #[serde(rename = "usage")]
    Usage(Usage),
    #[serde(rename = "emit")]
    Emit(Emit),
    #[serde(rename = "progress")]
    Progress {
        /// It is answered when it has one.
        id: Option<u64>,
        value: Value,
    },
    #[serde(rename = "outcome")]
    Outcome(Box<Outcome>),
}

/// The first message of a connection.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    #[serde(default)]
    pub(super) steps: Vec<String>,
    #[serde(default)]
    pub(super) shadow_safe: bool,
    #[serde(default)]
    pub(super) tools: Tools,
}

/// By name; `null`: there is no such tool.
pub(super) type Tools = BTreeMap<String, Option<Schemas>>;

/// A tool as the program sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schemas {
    pub(super) input: Value,
    /// Nobody says what it gives, when there is none.
    pub(super) output: Option<Value>,
}

/// `path/key`, or either of them alone.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    #[serde(default)]
    path: String,
    #[serde(default)]
    key: String,
}

impl Key {
    pub(super) fn join(&self) -> String {
        let parts = [self.path.as_str(), self.key.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

/// `text`, or any `value`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Emit {
    /// It is answered when it has one.
    pub(super) id: Option<u64>,
    pub(super) text: Option<String>,
    pub(super) value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    /// It is answered when it has one.
    pub(super) id: Option<u64>,
    pub(super) model: String,
    pub(super) served_model: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cost_micros: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            id: None,
            model: crate::worker::DEFAULT.to_owned(),
            served_model: String::new(),
            input_tokens: 0,
            output_tokens: 0,
            cost_micros: 0,
        }
    }
}

/// How a step ended: exactly one of `next`, `done`, `all`, `child`, `continue`, `wait`, `sleep` and `fail`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Outcome {
    pub(super) next: Option<String>,
    /// `null` is a result too.
    #[serde(deserialize_with = "present")]
    pub(super) done: Option<Value>,
    pub(super) all: Option<Vec<Branch>>,
    pub(super) child: Option<ChildRun>,
    #[serde(rename = "continue", deserialize_with = "present")]
    pub(super) continue_with: Option<Value>,
    /// Of `continue`: the new run is pinned to the live bundle.
    pub(super) on_live_bundle: bool,
    pub(super) wait: Option<String>,
    pub(super) sleep: Option<String>,
    pub(super) fail: Option<Fail>,
    /// Of `next` and `then`.
    pub(super) input: Value,
    pub(super) timeout: Option<String>,
    pub(super) then: Option<String>,
    /// Of `all`: the step that gets the outputs, and whether it comes even when branches fail.
    pub(super) join: Option<String>,
    pub(super) settle: bool,
}

/// A run that this one waits for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChildRun {
    pub(super) entry: String,
    #[serde(default)]
    pub(super) input: Value,
}

/// A step of a fan-out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Branch {
    pub(super) next: String,
    #[serde(default)]
    pub(super) input: Value,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fail {
    pub(super) reason: String,
    pub(super) message: String,
    /// `auto`, as the policy says, or `never`.
    pub(super) retry: Retry,
    pub(super) after: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Retry {
    #[default]
    Auto,
    Never,
}

/// The step that a child is to do.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) r#type: &'static str,
    pub(super) agent_id: String,
    pub(super) run_id: String,
    pub(super) step: String,
    pub(super) number: u32,
    pub(super) attempt: u32,
    pub(super) kind: String,
    pub(super) side_effects: &'static str,
    pub(super) labels: BTreeMap<String, String>,
    /// The session that the run belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    /// W3C `traceparent` for what the step calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_parent: Option<String>,
    /// Milliseconds until the attempt is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remaining_ms: Option<u64>,
    pub(super) input: Value,
    /// What ended the wait that the step was behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) woken: Option<Value>,
    /// How far an earlier attempt said that it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_progress: Option<Value>,
    pub(super) bundle: Value,
    /// Recorded by an earlier attempt, by name.
    pub(super) checkpoints: Map<String, Value>,
    /// Where to call back, when the program did not learn it from its environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket: Option<String>,
}

/// The step is to stop.
#[derive(Debug, Serialize)]
pub(super) struct Cancel {
    pub(super) r#type: &'static str,
    pub(super) run_id: String,
    pub(super) step: String,
    pub(super) number: u32,
    pub(super) attempt: u32,
    pub(super) reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FromChild, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn the_documented_messages_are_understood() {
        for text in [
            r#"{"type":"hello","protocol":1,"steps":["plan"],"shadow_safe":false}"#,
            r#"{"type":"hello","protocol":1,"tools":{"search":{"input":{}},"mail":null}}"#,
            r#"{"id":8,"type":"tools","tools":{"search":{"input":{},"output":{}}}}"#,
            r#"{"id":1,"type":"checkpoint","name":"search","value":[1]}"#,
            r#"{"id":2,"type":"memory.get","path":"user/77","key":"prefs"}"#,
            r#"{"id":2,"type":"memory.put","key":"a/b","value":1,"expected_revision":0}"#,
            r#"{"id":3,"type":"tool.begin","name":"refund","input":{}}"#,
            r#"{"id":4,"type":"tool.end","name":"refund","key":"a1","output":{}}"#,
            r#"{"id":5,"type":"checkpoint.get","name":"search"}"#,
            r#"{"id":6,"type":"usage","output_tokens":3}"#,
            r#"{"type":"usage","input_tokens":3}"#,
            r#"{"type":"emit","text":"Your "}"#,
            r#"{"id":7,"type":"emit","value":{"token":1}}"#,
            r#"{"type":"progress","value":{"done":3}}"#,
            r#"{"type":"outcome","next":"answer","input":{"a":1}}"#,
            r#"{"type":"outcome","wait":"approved","timeout":"3d","then":"resume","input":1}"#,
            r#"{"type":"outcome","fail":{"reason":"CARD","message":"no","retry":"never"}}"#,
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
        let Ok(FromChild::Outcome(outcome)) = parse(r#"{"type":"outcome","done":null}"#) else {
            panic!("an outcome")
        };
        assert_eq!(outcome.done, Some(Value::Null));
    }

    #[test]
    fn a_key_is_path_and_key_together() {
        let key = |path: &str, key: &str| Key { path: path.into(), key: key.into() }.join();
        assert_eq!(key("user/77", "prefs"), "user/77/prefs");
        assert_eq!((key("", "a"), key("a", "")), ("a".to_owned(), "a".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for text in ["", "{", "[]", r#"{"type":"dance"}"#, r#"{"type":"outcome","child":{}}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
