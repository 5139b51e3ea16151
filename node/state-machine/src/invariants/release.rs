//! P6: a release enters no stage without the verdict of the one before, and at most one is active.

use pinrail_proto::log::ReleaseRecord;
use pinrail_proto::v1::{HoldCause, ReleaseState, Stage, Verdict};

use crate::key::{Key, Kind};
use crate::release::{is_over, last_gates};
use crate::store::Fault;

use super::{Found, Scene, records};

/// P6: what the agent says of its releases is what they say themselves.
pub(super) fn releases_are_what_the_agent_says(
    scene: &Scene<'_>,
    found: &mut Found,
) -> Result<(), Fault> {
    let agent = &scene.agent;
    let all: Vec<ReleaseRecord> = records(scene.read, Key::of(Kind::Release, agent.number))?;
    for release in &all {
        let number = release.number;
        let is_known = [agent.active_release, agent.quarantine_release].contains(&number);
        if is_over(release.state()) == is_known {
            found
                .say("P6", format!("release {number} is {:?}, known: {is_known}", release.state()));
        }
        let is_switched = release.state() == ReleaseState::Switched;
        if is_known && is_switched != (agent.quarantine_release == number) {
            found.say("P6", format!("release {number} is active and {:?}", release.state()));
        }
        gates_are_in_order(scene, release, found)?;
    }
    let active = all.iter().find(|release| release.number == agent.active_release);
    let candidate = active.map(|release| release.bundle_id.as_str()).unwrap_or_default();
    if candidate != agent.candidate_bundle_id {
        found.say(
            "P6",
            format!("the candidate is {:?}, not {candidate:?}", agent.candidate_bundle_id),
        );
    }
    if agent.canary_bp != 0 && active.is_none_or(|release| release.canary_step == 0) {
        found.say("P6", "a share of the traffic goes to no canary".to_owned());
    }
    if let Some(active) = active
        && active.baseline_bundle_id != agent.live_bundle_id
    {
        found.say("P6", format!("release {} began beside another live bundle", active.number));
    }
    let pair = all.iter().find(|release| release.number == agent.quarantine_release);
    if let Some(pair) = pair {
        let mut route = [&agent.live_bundle_id, &agent.standby_bundle_id];
        if agent.drill_turned {
            route.reverse();
        }
        let is_pair = route == [&pair.bundle_id, &pair.baseline_bundle_id];
        if !is_pair {
            found.say("P6", format!("release {} is not the pair in quarantine", pair.number));
        }
    }
    Ok(())
}

/// Every stage before the present one was passed, skipped, passed over by a person, or lacked data and may; the present
/// one is under way exactly when nobody is waited for.
fn gates_are_in_order(
    scene: &Scene<'_>,
    release: &ReleaseRecord,
    found: &mut Found,
) -> Result<(), Fault> {
    let last = last_gates(scene.read, scene.agent.number, release.number)?;
    for plan in release.plan.iter().filter(|plan| plan.stage < release.stage) {
        let way = last.get(&plan.stage).map(|(_, gate)| {
            let lenient = plan.lenient && gate.verdict() == Verdict::InsufficientData;
            let passed = matches!(gate.verdict(), Verdict::Pass | Verdict::Skipped);
            passed || lenient || !gate.overridden_by.is_empty()
        });
        if way != Some(true) {
            let stage = plan.stage().as_str_name();
            found.say(
                "P6",
                format!("release {} went past {stage} without a verdict", release.number),
            );
        }
    }
    let is_judged_from_outside = !matches!(release.stage(), Stage::Switch | Stage::Unspecified);
    let is_held = release.hold() != HoldCause::Unspecified;
    if !is_over(release.state()) && is_judged_from_outside && !is_held {
        let present = last.get(&release.stage);
        let is_running = present.is_some_and(|(attempt, gate)| {
            *attempt == release.attempt && gate.verdict() == Verdict::Running
        });
        if !is_running {
            found.say(
                "P6",
                format!("release {} is at a stage that is not under way", release.number),
            );
        }
    }
    Ok(())
}
