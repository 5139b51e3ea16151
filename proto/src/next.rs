//! What to do next about something that happened, as commands: the same lines in the body of a hook and wherever else an
//! event is shown.

use crate::v1;

/// Commands that go on from an event, the likeliest first; none where there is nothing to do. An event that names its
/// own (attributes `next_1`, `next_2`, …) is taken at its word.
#[must_use]
pub fn after(event: &v1::Event) -> Vec<String> {
    let own = event.attributes.iter().filter(|(key, _)| key.starts_with("next_"));
    let own: Vec<String> = own.map(|(_, command)| command.clone()).collect();
    if !own.is_empty() {
        return own;
    }
    let (agent, bundle, run) = (&event.agent_id, &event.bundle_id, &event.run_id);
    let fact = |key: &str| event.attributes.get(key).map_or("", String::as_str);
    let commands = match event.r#type.as_str() {
        "route.switched" => vec![
            format!("pinrail status {agent}"),
            format!("pinrail rollback {agent} --from {bundle}"),
        ],
        "route.rolled_back" => vec![
            format!("pinrail status {agent}"),
            format!("pinrail run list {agent} --bundle {} --open", fact("from")),
        ],
        "bundle.draining" => vec![format!("pinrail drain status {agent} {bundle}")],
        "environment.wanted" => vec![
            format!("pinrail environment show {agent} {bundle}"),
            format!("pinrail environment set {agent} {bundle} --address ADDRESS"),
        ],
        "agent.paused" if bundle.is_empty() => vec![format!("pinrail agent resume {agent}")],
        "agent.paused" => vec![format!("pinrail agent resume {agent} --bundle {bundle}")],
        "run.paused" => vec![
            format!("pinrail run steps {run} --agent {agent}"),
            format!("pinrail run resume {run} --agent {agent}"),
            format!("pinrail run retry {run} --agent {agent}"),
        ],
        "run.restart_held" => vec![
            format!("pinrail run explain {run} --agent {agent}"),
            format!("pinrail run retry {run} --agent {agent}"),
        ],
        "run.failed" | "run.expired" | "run.cancelled" | "step.failed" | "step.lease_expired" => {
            vec![format!("pinrail run explain {run} --agent {agent}")]
        }
        "run.finished" => vec![format!("pinrail run result {run} --agent {agent}")],
        "signal.fired" => vec![
            format!("pinrail status {agent}"),
            format!("pinrail signal show {agent}"),
            format!("pinrail rollback {agent} --from {bundle}"),
        ],
        "release.held" => vec![
            format!("pinrail release status {agent}"),
            format!("pinrail release resume {agent}"),
            format!("pinrail release abort {agent}"),
        ],
        kind if kind.starts_with("signal.") => vec![format!("pinrail signal show {agent}")],
        kind if kind.starts_with("release.") || kind.starts_with("gate.") => {
            vec![format!("pinrail release status {agent}")]
        }
        _ => Vec::new(),
    };
    let namespace = match event.namespace.as_str() {
        "" | "default" => String::new(),
        other => format!(" --namespace {other}"),
    };
    commands.into_iter().map(|command| command + &namespace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> v1::Event {
        v1::Event {
            r#type: kind.to_owned(),
            namespace: "default".to_owned(),
            agent_id: "support".to_owned(),
            bundle_id: "v2".to_owned(),
            ..v1::Event::default()
        }
    }

    #[test]
    fn the_way_back_follows_a_switch() {
        let next = after(&event("route.switched"));
        assert_eq!(next, ["pinrail status support", "pinrail rollback support --from v2"]);
        let elsewhere = v1::Event { namespace: "team-a".to_owned(), ..event("bundle.draining") };
        assert_eq!(after(&elsewhere), ["pinrail drain status support v2 --namespace team-a"]);
    }

    #[test]
    fn what_an_event_says_itself_counts() {
        let mut said = event("signal.fired");
        said.attributes.insert("next_1".to_owned(), "pinrail signal ack support".to_owned());
        assert_eq!(after(&said), ["pinrail signal ack support"]);
        assert!(after(&event("memory.written")).is_empty());
    }
}
