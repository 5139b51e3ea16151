//! P6 for drills: a part follows the one before it, and what a drill moved is back when it is over.

use pinrail_proto::log::{AgentRecord, DrillRecord};
use pinrail_proto::v1::{DrillMode, DrillPart, DrillState, Verdict};

use crate::drill::PARTS;
use crate::key::{Key, Kind};
use crate::store::Fault;
use crate::txn::get;

use super::{Found, Scene, records};

/// P6: the agent knows of the one drill that is under way; only that one has a route of its own or has turned the live one.
pub(super) fn drills_are_what_the_agent_says(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let agent = &scene.agent;
    let all: Vec<DrillRecord> = records(scene.read, Key::of(Kind::Drill, agent.number))?;
    for drill in &all {
        let number = drill.number;
        let is_running = drill.state() == DrillState::Running;
        if is_running != (agent.active_drill == number) {
            found.say("P6", format!("drill {number} is {:?}", drill.state()));
        }
        let own = is_running && drill.mode() == DrillMode::Route;
        if own != (drill.route != 0) {
            found.say("P6", format!("drill {number} has route {}", drill.route));
        }
        if own {
            let route: Option<AgentRecord> =
                get(scene.read, &Key::of(Kind::Agent, drill.route).build())?;
            if route.is_none_or(|route| route.drill_of != agent.number) {
                found.say("P6", format!("the route of drill {number} is not its own"));
            }
        }
        let done: Vec<DrillPart> =
            drill.parts.iter().map(pinrail_proto::log::DrillPartRecord::part).collect();
        let in_order = PARTS.starts_with(&done);
        let passed = drill
            .parts
            .iter()
            .all(|part| matches!(part.verdict(), Verdict::Pass | Verdict::Skipped));
        if !in_order || (drill.state() != DrillState::Failed && !passed) {
            found.say("P6", format!("drill {number} went past a part: {done:?}"));
        }
        if drill.state() == DrillState::Passed && done.len() != PARTS.len() {
            found.say("P6", format!("drill {number} passed with {} parts", done.len()));
        }
    }
    let active = all.iter().find(|drill| drill.number == agent.active_drill);
    if agent.active_drill != 0 && active.is_none() {
        found.say("P6", format!("drill {} is not there", agent.active_drill));
    }
    if agent.drill_turned && active.is_none_or(|drill| drill.mode() != DrillMode::Live) {
        found.say("P6", "the route is turned and no drill is out".to_owned());
    }
    if agent.drill_of != 0 {
        let of: Option<AgentRecord> =
            get(scene.read, &Key::of(Kind::Agent, agent.drill_of).build())?;
        let drill = match &of {
            Some(of) => crate::drill::find(scene.read, of.number, of.active_drill)?,
            None => None,
        };
        if drill.is_none_or(|drill| drill.route != agent.number) {
            found.say("P6", format!("the route {} belongs to no drill", agent.agent_id));
        }
    }
    Ok(())
}
