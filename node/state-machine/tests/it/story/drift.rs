//! Drift in stories: what workers and runs report, what people accept, and what is known.

use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::v1::{self, DriftAction, DriftClass, DriftSource};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use super::command::{agent, agent_ref};
use super::line::Line;
use super::show;
use super::world::World;

/// A command about drift; `None` when the line is none.
pub(super) fn command(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        // `report-drift support v1 search breaking seen=a "what=region is required now"`
        "report-drift" => {
            let agent = number(world, line);
            let (bundle_id, tool) = (line.word(), line.word());
            let class = class(&line.word_or_none());
            let change = v1::DriftChange {
                path: "input /required".to_owned(),
                class: class.into(),
                what: line.text("what"),
            };
            Kind::ReportDrift(log::ReportDrift {
                agent,
                bundle_id,
                tool,
                expected: digest("0"),
                seen: digest(&line.text("seen")),
                class: class.into(),
                changes: vec![change],
                input_schema_json: "{}".to_owned(),
                worker_id: "w1".to_owned(),
                ..log::ReportDrift::default()
            })
        }
        "clear-drift" => Kind::ClearDrift(log::ClearDrift {
            agent: number(world, line),
            bundle_id: line.word(),
            tool: line.word(),
            seen: digest(&line.text("seen")),
        }),
        "accept-drift" => Kind::AcceptDrift(log::AcceptDrift {
            bundle_id: line.text("bundle"),
            source: source(&line.text("source")).into(),
            agent: agent(line),
            name: line.word_or_none(),
        }),
        _ => return None,
    })
}

fn number(world: &World, line: &mut Line) -> u32 {
    let agent = agent_ref(&line.word());
    query::agent_number(world.read(), &agent.namespace, &agent.agent_id).unwrap()
}

/// `a` stands for a digest of that digit; other words for themselves.
fn digest(word: &str) -> String {
    if word.len() == 1 { word.repeat(64) } else { word.to_owned() }
}

fn class(word: &str) -> DriftClass {
    match word {
        "" => DriftClass::Unspecified,
        word => DriftClass::from_str_name(&format!("DRIFT_CLASS_{}", word.to_uppercase())).unwrap(),
    }
}

fn source(word: &str) -> DriftSource {
    match word {
        "" => DriftSource::Unspecified,
        word => {
            DriftSource::from_str_name(&format!("DRIFT_SOURCE_{}", word.to_uppercase())).unwrap()
        }
    }
}

/// `drift-breaking=block drift-compatible=alert`.
pub(super) fn policy(line: &mut Line) -> Option<v1::DriftPolicy> {
    let mut action = |key: &str| match line.text(key).as_str() {
        "" => DriftAction::Unspecified,
        word => {
            DriftAction::from_str_name(&format!("DRIFT_ACTION_{}", word.to_uppercase())).unwrap()
        }
    };
    let policy = v1::DriftPolicy {
        breaking: action("drift-breaking").into(),
        compatible: action("drift-compatible").into(),
        sample_permille: None,
    };
    (policy != v1::DriftPolicy::default()).then_some(policy)
}

/// `drift support`, or `drift support all`: what is known.
pub(super) fn drift(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let all = line.flag("all");
    let agent = agent_ref(&line.word());
    let asked = v1::ListDriftsRequest {
        namespace: agent.namespace,
        agent_id: agent.agent_id,
        bundle_id: line.text("bundle"),
        name: line.word_or_none(),
        source: source(&line.text("source")).into(),
        all,
        read: None,
    };
    Ok(query::drifts(world.read(), &asked)?.iter().map(shown).collect())
}

/// One line about it.
pub(super) fn shown(it: &v1::Drift) -> String {
    let source = show::word(it.source().as_str_name(), "DRIFT_SOURCE_");
    let class = show::word(it.class().as_str_name(), "DRIFT_CLASS_");
    let state = show::word(it.state().as_str_name(), "DRIFT_STATE_");
    let action = show::word(it.action().as_str_name(), "DRIFT_ACTION_");
    let seen = it.seen.get(..8).unwrap_or(&it.seen);
    let what: Vec<String> =
        it.changes.iter().map(|change| format!("{} {}", change.path, change.what)).collect();
    let mut text = format!(
        "{} {source} {} {seen}: {class}, {state}, {action}, {} times since {}, last {}; {}",
        it.bundle_id,
        it.name,
        it.count,
        show::at(it.first_seen_at.as_ref()),
        show::at(it.last_seen_at.as_ref()),
        what.join(", ").trim()
    );
    if it.accepted_at.is_some() {
        text.push_str(&format!("; accepted by {}: {}", it.accepted_by, it.accept_reason));
    }
    text
}
