//! A plausible request of every method, so that one hostile field in it gets as far as it can.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// Messages that a request has to have, or a message of its kind.
const NEEDED: &[&str] = &["options", "manifest", "code", "input", "value", "output", "checkpoint"];

/// A name that nothing has yet.
fn new() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("new-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A message with whatever its fields need to be taken, about the given agent.
pub(super) fn of(descriptor: &MessageDescriptor, agent: &str) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let within = descriptor.name();
    for field in descriptor.fields() {
        if let Some(value) = value(within, &field, agent) {
            message.set_field(&field, value);
        }
    }
    message
}

fn value(within: &str, field: &FieldDescriptor, agent: &str) -> Option<Value> {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    let message = |descriptor: &MessageDescriptor| Value::Message(of(descriptor, agent));
    match (within, field.name()) {
        ("CreateAgentRequest", "agent_id")
        | ("CreateBundleRequest", "bundle_id")
        | ("StartRunRequest", "run_id")
        | ("CreateNamespaceRequest", "namespace")
        // Two streams of one worker end each other.
        | ("WorkerHello", "worker_id") => text(&new()),
        // Not the one that all others are in: its quotas would end theirs.
        ("UpdateNamespaceRequest" | "DeleteNamespaceRequest", "namespace") => text("spare"),
        // Nobody: the cluster stays as it is.
        ("AddMemberRequest" | "RemoveMemberRequest", "name") => text("nobody"),
        ("AddMemberRequest", "peer_address") => text("127.0.0.1:9"),
        ("TransferLeaderRequest", "to") => text("nobody"),
        (_, "agent_id") => text(agent),
        (_, "bundle_id" | "from_bundle_id" | "to_bundle_id") => text("v1"),
        ("WorkerHello", "code") => text("abc"),
        (_, "git_commit") => text("abc"),
        (_, "run_id") => text("r"),
        (_, "worker_id") => text("w"),
        (_, "content_type") => text("application/json"),
        ("Payload", "data") => Some(Value::Bytes("1".into())),
        (_, "key" | "session" | "hook" | "provider" | "name" | "id") => text("n"),
        (_, "snapshot" | "version" | "release_id" | "drill_id" | "report_id") => text("1"),
        (_, "set") => text("n@1"),
        (_, "format") => text("pinrail"),
        (_, "slots") => Some(Value::U32(1)),
        (_, "models") if field.is_map() => {
            let Kind::Message(entry) = field.kind() else { return None };
            let Kind::Message(model) = entry.map_entry_value_field().kind() else { return None };
            let name = MapKey::String("default".to_owned());
            Some(Value::Map(HashMap::from([(name, message(&model))])))
        }
        (_, name) => match field.kind() {
            Kind::Message(descriptor) if NEEDED.contains(&name) => Some(message(&descriptor)),
            Kind::Message(descriptor)
                if field.is_list() && ["metrics", "examples", "results"].contains(&name) =>
            {
                Some(Value::List(vec![message(&descriptor)]))
            }
            _ => None,
        },
    }
}
