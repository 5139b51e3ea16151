//! Releases as people read them.

use pinrail_proto::v1::{self, Verdict};

use super::super::human;
use super::super::table::pairs;

/// Where a release stands: the stages one by one, and what to do next.
pub(super) fn release(release: &v1::Release) -> String {
    let now = human::now_ms();
    let hold = release.hold.as_ref().map_or_else(String::new, |hold| {
        format!("{} ago: {}", human::age(hold.since.as_ref(), now), hold.reason)
    });
    let canary = release.canary.as_ref().filter(|canary| canary.share_bp != 0);
    let canary = canary.map_or_else(String::new, |canary| {
        let ends = human::age(canary.step_ends_at.as_ref(), now);
        let share = percent(canary.share_bp);
        format!("{share} of new runs, step {} of {}, ends {ends}", canary.step, canary.steps)
    });
    let quarantine = match release.ended_at {
        Some(_) => String::new(),
        None => release.quarantine_until.as_ref().map_or_else(String::new, |until| {
            format!("until {} ({})", human::clock(Some(until), now), human::age(Some(until), now))
        }),
    };
    let mut text = pairs(&[
        ("release", release.release_id.clone()),
        ("bundle", release.bundle_id.clone()),
        ("baseline", human::or_dash(&release.baseline_bundle_id)),
        ("state", human::release_state(release.state())),
        ("held", hold),
        ("canary", canary),
        ("quarantine", quarantine),
        ("started", human::at(release.started_at.as_ref())),
        (
            "switched",
            release.switched_at.as_ref().map_or_else(String::new, |at| human::at(Some(at))),
        ),
        ("ended", release.ended_at.as_ref().map_or_else(String::new, |at| human::at(Some(at)))),
        ("why", release.end_reason.clone()),
        ("reason", release.reason.clone()),
        ("revision", release.revision.to_string()),
    ]);
    text.push_str(&gates(&release.gates, now));
    let next: Vec<(&str, String)> = release
        .next
        .iter()
        .enumerate()
        .map(|(n, next)| (if n == 0 { "next" } else { "" }, next.clone()))
        .collect();
    text.push_str(&pairs(&next));
    text
}

/// A release that goes on, on a line.
pub(in super::super) fn line(release: &v1::Release, now: u64) -> String {
    let canary = release.canary.as_ref().filter(|canary| canary.share_bp != 0);
    let at = match (canary, &release.quarantine_until) {
        (_, Some(until)) => {
            let left = human::age(Some(until), now);
            format!("quarantine until {} ({left})", human::clock(Some(until), now))
        }
        (Some(canary), None) => format!(
            "canary, {} of new runs, step {} of {}, ends {}",
            percent(canary.share_bp),
            canary.step,
            canary.steps,
            human::age(canary.step_ends_at.as_ref(), now)
        ),
        (None, None) => human::release_state(release.state()),
    };
    let held = release.hold.as_ref().map_or_else(String::new, |hold| {
        format!(", held {}: {}", human::age(hold.since.as_ref(), now), hold.reason)
    });
    format!("{} of {}: {at}{held}", release.release_id, release.bundle_id)
}

fn gates(gates: &[v1::Gate], now: u64) -> String {
    let lines: Vec<(String, String)> = gates
        .iter()
        .map(|gate| {
            let mut line = human::verdict(gate.verdict());
            if gate.attempt > 1 {
                line.push_str(&format!(", attempt {}", gate.attempt));
            }
            if !gate.reason.is_empty() {
                line.push_str(&format!(": {}", gate.reason));
            }
            if gate.verdict() == Verdict::Running && gate.deadline.is_some() {
                line.push_str(&format!(", decides {}", human::age(gate.deadline.as_ref(), now)));
            }
            if !gate.overridden_by.is_empty() {
                line.push_str(&format!(" (passed over by {})", gate.overridden_by));
            }
            (format!("  {}", human::stage(gate.stage())), line)
        })
        .collect();
    let borrowed: Vec<(&str, String)> =
        lines.iter().map(|(stage, line)| (stage.as_str(), line.clone())).collect();
    pairs(&borrowed)
}

/// One change of a release on a line.
pub(super) fn transition(it: &v1::Transition) -> String {
    let mut line = format!("{}  {:<10}", human::at(it.at.as_ref()), it.what);
    if it.from() != it.to() {
        let from = human::release_state(it.from());
        line.push_str(&format!("  {from} -> {}", human::release_state(it.to())));
    } else {
        line.push_str(&format!("  {}", human::release_state(it.to())));
    }
    for (name, value) in [("by", &it.actor), ("", &it.reason)] {
        if !value.is_empty() {
            line.push_str(&format!("  {name}{}{value}", if name.is_empty() { "" } else { " " }));
        }
    }
    line
}

/// Stages, bounds, and what the switch would leave to drain.
pub(super) fn plan(plan: &v1::PlanReleaseResponse) -> String {
    let now = human::now_ms();
    let mut text = pairs(&[
        ("bundle", plan.bundle_id.clone()),
        ("baseline", human::or_dash(&plan.baseline_bundle_id)),
        ("workers", format!("{}, {} slots free", plan.workers, plan.free_slots)),
    ]);
    let stages: Vec<(String, String)> = plan
        .stages
        .iter()
        .map(|stage| (format!("  {}", human::stage(stage.stage())), planned(stage)))
        .collect();
    let stages: Vec<(&str, String)> =
        stages.iter().map(|(stage, line)| (stage.as_str(), line.clone())).collect();
    text.push_str(&pairs(&stages));
    let least = human::api_span(plan.promote_at_least.as_ref());
    let most = human::api_span(plan.promote_at_most.as_ref());
    let oldest = match plan.open_pins {
        0 => String::new(),
        _ => format!(", the oldest {}", human::age(plan.oldest_pinned_at.as_ref(), now)),
    };
    text.push_str(&pairs(&[
        ("live", format!("after {least} at least, {most} at most (holds not counted)")),
        ("rollback", "one command, below a second".to_owned()),
        ("open pins", format!("{}{oldest}", plan.open_pins)),
        (
            "drain",
            format!(
                "over {} after the switch at the latest",
                human::api_span(plan.drained_within.as_ref())
            ),
        ),
        ("blocked", plan.blockers.join("\n")),
        ("revision", plan.revision.to_string()),
    ]));
    text
}

fn planned(stage: &v1::PlannedStage) -> String {
    if !stage.skipped.is_empty() {
        return format!("skipped: {}", stage.skipped);
    }
    let mut line = human::stage_mode(stage.mode());
    if let Some(least) = &stage.at_least {
        line.push_str(&format!(", {} at least", human::api_span(Some(least))));
    }
    if let Some(timeout) = &stage.timeout {
        line.push_str(&format!(", {} at most", human::api_span(Some(timeout))));
    }
    if stage.hold_before {
        line.push_str(", waits for a person before it");
    }
    if !stage.hooks.is_empty() {
        line.push_str(&format!(", gated by {}", stage.hooks.join(", ")));
    }
    line
}

/// `5 %` of 500 basis points.
fn percent(share_bp: u32) -> String {
    match share_bp % 100 {
        0 => format!("{} %", share_bp / 100),
        rest => format!("{}.{rest:02} %", share_bp / 100),
    }
}
