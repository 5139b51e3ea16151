//! What is sent: an event as CloudEvents 1.0 in structured mode (docs/HOOKS.md). Pure.

use bytes::Bytes;
use pinrail_proto::{json, next, v1};
use serde_json::{Value, json as object};

/// A body and the id by which a receiver knows a repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// An event. `result`: that of a run that is over, where it goes along.
pub(super) fn of_event(cluster: &str, event: &v1::Event, result: Option<&v1::Payload>) -> Message {
    told(format!("{cluster}/{}/{}", event.revision, event.index), cluster, event, result)
}

/// An event that is in no stream: its id is like that of no other one.
pub(super) fn of_test(cluster: &str, unique: u64, event: &v1::Event) -> Message {
    told(format!("{cluster}/test/{unique:016x}"), cluster, event, None)
}

fn told(id: String, cluster: &str, event: &v1::Event, result: Option<&v1::Payload>) -> Message {
    let Value::Object(mut data) = json::of(event) else { unreachable!("a message is an object") };
    let time = data.remove("at").unwrap_or_default();
    data.remove("type");
    data.insert("next".to_owned(), next::after(event).into());
    if let Some(result) = result {
        data.insert("result".to_owned(), json::payload(result));
    }
    let subject = [&event.run_id, &event.bundle_id, &event.agent_id];
    let subject = subject.into_iter().find(|id| !id.is_empty()).cloned().unwrap_or_default();
    let kind = format!("io.pinrail.{}", event.r#type);
    envelope(
        id,
        source(cluster, &event.namespace, &event.agent_id),
        kind,
        subject,
        time,
        data.into(),
    )
}

/// What a gate is asked; `id` is the same in each repeat.
pub(super) fn of_gate(
    id: String,
    source: String,
    subject: &str,
    time: Value,
    data: Value,
) -> Message {
    let kind = "io.pinrail.gate.asked".to_owned();
    envelope(id, source, kind, subject.to_owned(), time, data)
}

/// Which agent of which cluster speaks.
pub(super) fn source(cluster: &str, namespace: &str, agent: &str) -> String {
    format!("/pinrail/{cluster}/{namespace}/{agent}")
}

fn envelope(
    id: String,
    source: String,
    kind: String,
    subject: String,
    time: Value,
    data: Value,
) -> Message {
    let event = object!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": kind,
        "subject": subject,
        "time": time,
        "datacontenttype": "application/json",
        "data": data,
    });
    Message { id, body: Bytes::from(event.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_cloud_event() {
        let event = v1::Event {
            revision: 812,
            index: 1,
            at: pinrail_proto::time::timestamp(1_700_000_000_500),
            r#type: "route.switched".to_owned(),
            namespace: "default".to_owned(),
            agent_id: "support".to_owned(),
            bundle_id: "v42".to_owned(),
            actor: "ci-main".to_owned(),
            reason: "SUP-812".to_owned(),
            attributes: [("epoch".to_owned(), "120".to_owned())].into(),
            ..v1::Event::default()
        };
        let sent = of_event("prod-eu", &event, None);
        assert_eq!(sent.id, "prod-eu/812/1");
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(
            body,
            object!({
                "specversion": "1.0",
                "id": "prod-eu/812/1",
                "source": "/pinrail/prod-eu/default/support",
                "type": "io.pinrail.route.switched",
                "subject": "v42",
                "time": "2023-11-14T22:13:20.500Z",
                "datacontenttype": "application/json",
                "data": {
                    "revision": 812,
                    "index": 1,
                    "namespace": "default",
                    "agent_id": "support",
                    "bundle_id": "v42",
                    "run_id": "",
                    "actor": "ci-main",
                    "reason": "SUP-812",
                    "attributes": { "epoch": "120" },
                    "next": ["pinrail status support", "pinrail rollback support --from v42"],
                },
            })
        );
    }

    #[test]
    fn a_result_goes_along_as_what_it_is() {
        let result = v1::Payload { content_type: "application/json".into(), data: "[1]".into() };
        let event = v1::Event { run_id: "r".to_owned(), ..v1::Event::default() };
        let sent = of_event("c", &event, Some(&result));
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!((&body["data"]["result"], &body["subject"]), (&object!([1]), &object!("r")));
    }
}
