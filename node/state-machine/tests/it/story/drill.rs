//! Drills in stories: their commands, and how a drill is shown.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{self};
use pinrail_proto::v1::{self, DrillMode, DrillPart, Verdict};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use super::command::{agent, agent_ref};
use super::line::{Line, span};
use super::show;
use super::world::World;

/// A command about drills; `None` when the line is none.
pub(super) fn command(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "start-drill" => Kind::StartDrill(log::StartDrill {
            mode: match (line.flag("live"), line.flag("by-policy")) {
                (true, _) => DrillMode::Live.into(),
                (false, true) => DrillMode::Unspecified.into(),
                (false, false) => DrillMode::Route.into(),
            },
            scheduled: line.flag("scheduled"),
            capacity: line.number("workers").map(|workers| log::Capacity {
                workers,
                free_slots: workers,
                ..log::Capacity::default()
            }),
            agent: agent(line),
        }),
        "drill-part" => {
            let (number, drill) = present(world, line);
            let part = format!("DRILL_PART_{}", line.word().to_uppercase().replace('-', "_"));
            let verdict = match line.word().as_str() {
                "pass" => Verdict::Pass,
                "fail" => Verdict::Fail,
                "skipped" => Verdict::Skipped,
                "error" => Verdict::Error,
                other => panic!("verdict {other}"),
            };
            Kind::RecordDrill(log::RecordDrill {
                agent: number,
                drill,
                part: DrillPart::from_str_name(&part).unwrap().into(),
                verdict: verdict.into(),
                took_micros: line.number("micros").unwrap_or(0),
                reason: line.text("because"),
                evidence: String::new(),
            })
        }
        "turn-route" => {
            let back = line.flag("back");
            let (agent, drill) = present(world, line);
            Kind::TurnRoute(log::TurnRoute { agent, drill, back })
        }
        "schedule-drill" => {
            let (agent, _) = present(world, line);
            Kind::ScheduleDrill(log::ScheduleDrill {
                agent,
                due_ms: world.now_ms() + span(&line.word()),
                policy_revision: line.number("policy").unwrap(),
            })
        }
        "abort-drill" => Kind::AbortDrill(log::AbortDrill { agent: agent(line) }),
        _ => return None,
    })
}

/// The agent's number, and that of its newest drill.
fn present(world: &World, line: &mut Line) -> (u32, u32) {
    let agent = agent_ref(&line.word());
    let number = query::agent_number(world.read(), &agent.namespace, &agent.agent_id).unwrap();
    let drill = query::drill(world.read(), &agent.namespace, &agent.agent_id, "", 0);
    let id = drill.map(|drill| drill.drill_id).unwrap_or_default();
    (number, id.trim_start_matches('d').parse().unwrap_or(0))
}

/// `drill support [d1]`: how it went, part by part.
pub(super) fn drill(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let id = line.word_or_none();
    let (namespace, name) = (&agent.namespace, &agent.agent_id);
    let drill = query::drill(world.read(), namespace, name, &id, world.now_ms())?;
    Ok(shown(&drill))
}

/// `drills support`: newest first, and what is planned.
pub(super) fn drills(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let (namespace, name) = (&agent.namespace, &agent.agent_id);
    let page = query::drills(world.read(), namespace, name, 0, "", world.now_ms())?;
    let mut told: Vec<String> =
        page.drills.iter().filter_map(|drill| shown(drill).into_iter().next()).collect();
    if page.due_at.is_some() {
        told.push(format!("the next one is due {}", show::at(page.due_at.as_ref())));
    }
    Ok(told)
}

pub(super) fn shown(it: &v1::Drill) -> Vec<String> {
    let state = show::word(it.state().as_str_name(), "DRILL_STATE_");
    let mode = show::word(it.mode().as_str_name(), "DRILL_MODE_");
    let mut head = format!("{} ({mode}): {state}", it.drill_id);
    if it.from_bundle_id != it.to_bundle_id {
        head.push_str(&format!(", {} to {}", it.from_bundle_id, it.to_bundle_id));
        head.push_str(&format!(
            ", {} keys hidden, {} late writes",
            it.memory_keys_hidden, it.late_writes
        ));
    }
    if it.scheduled {
        head.push_str(", by its schedule");
    }
    if !it.end_reason.is_empty() {
        head.push_str(&format!(" ({})", it.end_reason));
    }
    let part = |time: &v1::DrillTime| {
        let part = show::word(time.part().as_str_name(), "DRILL_PART_");
        let verdict = show::word(time.verdict().as_str_name(), "VERDICT_");
        let took = time.took.unwrap_or_default();
        let micros = took.seconds * 1_000_000 + i64::from(took.nanos) / 1_000;
        let mut told = format!("{part}: {verdict}, {micros} µs");
        if !time.reason.is_empty() {
            told.push_str(&format!(" ({})", time.reason));
        }
        told
    };
    std::iter::once(head).chain(it.parts.iter().map(part)).collect()
}
