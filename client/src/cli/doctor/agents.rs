//! The agents of the namespace: who waits for workers, for a person, or for nothing that comes.

use pinrail_proto::v1;

use super::super::context::Context;
use super::super::human;
use super::{Finding, fail, ok, warn};

/// Agents that are looked at one by one.
const AGENTS: u32 = 200;
/// A release that has not switched for so long and waits for nobody is stuck.
const STUCK_MS: u64 = 24 * 3_600 * 1_000;

pub(super) async fn look(context: &Context) -> Vec<Finding> {
    let request =
        v1::ListAgentsRequest { page_size: AGENTS, read: context.read(), ..Default::default() };
    let agents = match context.client.agents().list(request).await {
        Ok(answer) => answer.agents,
        Err(error) => return vec![fail("agents", error.to_string(), "pinrail agent list")],
    };
    let mut findings = Vec::new();
    for agent in &agents {
        let request = v1::GetAgentStatusRequest {
            agent_id: agent.agent_id.clone(),
            read: context.read(),
            ..Default::default()
        };
        match context.client.agents().status(request).await {
            Ok(status) => findings.extend(of_agent(&status)),
            Err(error) => {
                let next = format!("pinrail status {}", agent.agent_id);
                findings.push(fail("agents", format!("{}: {error}", agent.agent_id), next));
            }
        }
        findings.extend(release(context, &agent.agent_id).await);
    }
    if findings.is_empty() {
        let found = format!("nothing is stuck at {}", human::count(agents.len() as u64, "agent"));
        findings.push(ok("agents", found));
    }
    findings
}

fn of_agent(status: &v1::GetAgentStatusResponse) -> Vec<Finding> {
    let agent = status.agent.clone().unwrap_or_default();
    let (id, route) = (&agent.agent_id, agent.route.clone().unwrap_or_default());
    let mut findings = Vec::new();
    if agent.pause.as_ref().is_some_and(|pause| pause.paused) {
        findings.push(warn(
            "agents",
            format!("{id} is paused"),
            format!("pinrail agent resume {id}"),
        ));
    }
    let mut live_has_workers = false;
    for it in &status.bundles {
        let bundle = it.bundle.as_ref().map_or("-", |bundle| bundle.bundle_id.as_str());
        live_has_workers |= bundle == route.live_bundle_id && it.workers > 0;
        let workers = format!("pinrail worker list {id}");
        if it.stranded {
            let found = format!("{bundle} of {id} has open runs and no live worker");
            findings.push(fail("workers", found, workers));
        }
        if it.stalled_runs > 0 {
            let runs = human::count(it.stalled_runs, "run");
            let found = format!("{runs} of {id} on {bundle} made no progress for 10 minutes");
            findings.push(warn(
                "runs",
                found,
                format!("pinrail run list {id} --bundle {bundle} --open"),
            ));
        }
        if it.open_drifts > 0 {
            let found = format!("{bundle} of {id}: tools or models are not what the bundle says");
            findings.push(warn("drift", found, format!("pinrail tool drift {id}")));
        }
    }
    let standby = status.bundles.iter().find(|it| {
        it.bundle.as_ref().is_some_and(|bundle| bundle.bundle_id == route.standby_bundle_id)
    });
    // Where no worker serves the live bundle either, runs are executed elsewhere.
    if let Some(it) = standby.filter(|it| it.workers_known && it.workers == 0 && live_has_workers) {
        let bundle = it.bundle.as_ref().map_or("-", |bundle| bundle.bundle_id.as_str());
        let found = format!("standby {bundle} of {id} has none: runs would wait after a rollback");
        findings.push(warn(
            "workers",
            found,
            format!("start workers of {bundle}; pinrail environment list {id}"),
        ));
    }
    findings
}

/// The newest release, if it waits for a person or does not get on.
async fn release(context: &Context, agent_id: &str) -> Option<Finding> {
    let request = v1::ListReleasesRequest {
        agent_id: agent_id.to_owned(),
        page_size: 1,
        read: context.read(),
        ..Default::default()
    };
    let releases = context.client.releases().list(request).await.ok()?.releases;
    judge(agent_id, releases.first()?, human::now_ms())
}

fn judge(agent_id: &str, release: &v1::Release, now_ms: u64) -> Option<Finding> {
    if release.ended_at.is_some() {
        return None;
    }
    let id = &release.release_id;
    let status = format!("pinrail release status {agent_id}");
    let next = release.next.first().cloned().unwrap_or(status);
    if let Some(hold) = &release.hold {
        let since = human::age(hold.since.as_ref(), now_ms);
        let found = format!("{id} of {agent_id} is held for {since}: {}", hold.reason);
        return Some(warn("release", found, next));
    }
    let began = pinrail_proto::time::timestamp_millis(release.started_at.as_ref());
    let stuck = release.switched_at.is_none() && now_ms.saturating_sub(began) > STUCK_MS;
    let since = human::age(release.started_at.as_ref(), now_ms);
    stuck.then(|| warn("release", format!("{id} of {agent_id} has not switched for {since}"), next))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn bundle(id: &str, workers: u64) -> v1::BundleStatus {
        let bundle = v1::Bundle { bundle_id: id.into(), ..Default::default() };
        v1::BundleStatus {
            bundle: Some(bundle),
            workers,
            workers_known: true,
            ..Default::default()
        }
    }

    fn status(bundles: Vec<v1::BundleStatus>) -> v1::GetAgentStatusResponse {
        let route = v1::Route {
            live_bundle_id: "v2".into(),
            standby_bundle_id: "v1".into(),
            ..Default::default()
        };
        let agent = v1::Agent { agent_id: "a".into(), route: Some(route), ..Default::default() };
        v1::GetAgentStatusResponse { agent: Some(agent), bundles, ..Default::default() }
    }

    #[test]
    fn a_standby_without_workers_is_a_warning_where_the_live_bundle_has_some() {
        assert_eq!(of_agent(&status(vec![bundle("v2", 1), bundle("v1", 1)])), []);
        assert_eq!(of_agent(&status(vec![bundle("v2", 0), bundle("v1", 0)])), []);
        let found = of_agent(&status(vec![bundle("v2", 1), bundle("v1", 0)]));
        assert!(matches!(&found[..], [it] if it.state == State::Warn && it.check == "workers"));
        let stranded = v1::BundleStatus { stranded: true, ..bundle("v2", 0) };
        let found = of_agent(&status(vec![stranded, bundle("v1", 0)]));
        assert!(matches!(&found[..], [it] if it.state == State::Fail), "{found:?}");
    }

    #[test]
    fn a_release_is_stuck_when_it_is_held_or_old() {
        let at = |ms| pinrail_proto::time::timestamp(ms);
        let young = v1::Release { started_at: at(STUCK_MS), ..Default::default() };
        assert_eq!(judge("a", &young, STUCK_MS + 1), None);
        assert!(judge("a", &young, 3 * STUCK_MS).is_some());
        let over = v1::Release { ended_at: at(1), ..young.clone() };
        assert_eq!(judge("a", &over, 3 * STUCK_MS), None);
        let hold = v1::Hold { reason: "gate".into(), ..Default::default() };
        let held = v1::Release { hold: Some(hold), next: vec!["do it".into()], ..young };
        assert_eq!(judge("a", &held, STUCK_MS).map(|it| it.next), Some("do it".to_owned()));
    }
}
