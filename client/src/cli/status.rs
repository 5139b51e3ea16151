//! `status`: what an engineer asks first at three in the morning, on one screen.

use std::time::Duration;

use clap::Args;
use pinrail_proto::{time, v1};

use super::agent;
use super::bundle::open_pins;
use super::context::{Context, Done};
use super::event;
use super::flags::ListFlags;
use super::human;
use super::json;
use super::problem::Problem;
use super::release;
use super::signal;
use super::view::{Body, View};

/// What the cluster line may cost: the rest must not wait for it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Route changes in the `last` line.
const LAST_EVENTS: usize = 3;

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  pinrail status\n  pinrail status support --watch")]
pub struct Status {
    /// Name of the agent; without it: all agents
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
    #[command(flatten)]
    list: ListFlags,
}

pub(super) async fn status(context: &Context, args: &Status) -> Done {
    match &args.agent {
        Some(name) => {
            let agent_id = context.agent(name)?;
            context.watch(args.list.watch, || one(context, &agent_id)).await
        }
        None => {
            let read = || async {
                let (cluster, view) =
                    tokio::join!(cluster(context), agent::agents(context, &args.list));
                Ok(view?.headed(format!("cluster  {}\n\n", cluster.line())))
            };
            context.watch(args.list.watch, read).await
        }
    }
}

async fn one(context: &Context, agent_id: &str) -> Result<View, Problem> {
    let request = v1::GetAgentStatusRequest {
        agent_id: agent_id.to_owned(),
        read: context.read(),
        ..Default::default()
    };
    let agents = context.client.agents();
    let (cluster, answer) = tokio::join!(cluster(context), agents.status(request));
    let answer = answer?;
    let mut json = json::of(&answer);
    if let (Some(status), Some(fields)) = (&cluster.status, json.as_object_mut()) {
        fields.insert("cluster".to_owned(), json::of(status));
    }
    let text = text(&cluster, &answer);
    Ok(View::other(json, None, vec![agent_id.to_owned()], Body::Text(text)))
}

/// What is known about the cluster; every part may be missing.
#[derive(Debug, Default)]
struct Cluster {
    status: Option<v1::GetClusterStatusResponse>,
    health: Option<v1::GetClusterHealthResponse>,
}

async fn cluster(context: &Context) -> Cluster {
    let client = context.client.with_timeout(PROBE_TIMEOUT);
    let service = client.cluster();
    let (status, health) = tokio::join!(service.status(), async {
        // A local read asks for no quorum, so neither does this line.
        if context.read().is_some() { None } else { service.health().await.ok() }
    });
    let mut status = status.ok();
    // The leader knows best who can be reached.
    if context.read().is_none()
        && let Some(seen) = &status
        && seen.leader != seen.node
        && !seen.leader_grpc_address.is_empty()
        && let Ok(better) = service.status_of(&seen.leader_grpc_address).await
    {
        status = Some(better);
    }
    Cluster { status, health }
}

impl Cluster {
    /// `DEGRADED 2 of 3 · leader pinrail-2 · pinrail-0 unreachable for 4m12s · writes 3ms · one more loss stops writes`.
    fn line(&self) -> String {
        let Some(status) = &self.status else { return "not reachable".to_owned() };
        let learner = |member: &&v1::Member| member.role() != v1::MemberRole::Learner;
        let voters: Vec<&v1::Member> = status.members.iter().filter(learner).collect();
        let up = voters.iter().filter(|member| member.reachable).count();
        let majority = voters.len() / 2 + 1;
        let state = match (&self.health, status.leader.is_empty()) {
            (Some(health), _) => human::health(health.state()).to_uppercase(),
            (None, true) => "NO LEADER".to_owned(),
            (None, false) if up < voters.len() => "DEGRADED".to_owned(),
            (None, false) => "UP".to_owned(),
        };
        let mut parts = vec![format!("{state} {up} of {}", voters.len())];
        if !status.leader.is_empty() {
            parts.push(format!("leader {}", status.leader));
        }
        for member in voters.iter().filter(|member| !member.reachable) {
            let age = member.last_contact.as_ref();
            let age =
                age.map_or_else(String::new, |age| format!(" for {}", human::api_span(Some(age))));
            parts.push(format!("{} unreachable{age}", member.name));
        }
        if let Some(writes) = self.health.as_ref().and_then(|health| health.write_latency.as_ref())
        {
            parts.push(format!("writes {}", human::api_span(Some(writes))));
        }
        if up == majority && voters.len() > 1 {
            parts.push("one more loss stops writes".to_owned());
        } else if up < majority {
            parts.push("writes are stopped".to_owned());
        }
        parts.join(" · ")
    }
}

fn text(cluster: &Cluster, answer: &v1::GetAgentStatusResponse) -> String {
    let agent = answer.agent.clone().unwrap_or_default();
    let now = time::timestamp_millis(answer.cluster_time.as_ref());
    let mut lines = vec![("cluster", cluster.line())];
    lines.push(("route", route(&agent, now)));
    if let Some(pause) = agent.pause.as_ref().filter(|it| it.paused || !it.bundle_ids.is_empty()) {
        lines.push(("paused", agent::pause_word(Some(pause))));
    }
    if let Some(release) = &answer.release {
        lines.push(("release", release::line(release, now)));
    }
    for watch in &answer.signals {
        lines.push(("signals", signals(watch)));
    }
    lines.push(("runs", join(answer.bundles.iter().map(|it| runs(it, now)))));
    lines.push(("workers", join(answer.bundles.iter().map(workers))));
    let thin = answer.bundles.iter().filter_map(|it| thin(answer, it));
    lines.push(("ALARM", join(answer.bundles.iter().filter_map(alarm).chain(thin))));
    let last = answer.recent_events.iter().take(LAST_EVENTS);
    lines.push((
        "last",
        join(
            last.map(|it| format!("{} {}", human::clock(it.at.as_ref(), now), event::sentence(it))),
        ),
    ));
    lines.push(("next", join(next(&agent, &answer.bundles).into_iter())));
    let mut text = String::new();
    for (label, line) in lines.iter().filter(|(_, line)| !line.is_empty()) {
        text.push_str(&format!("{label:9}{line}\n"));
    }
    text
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("       ")
}

fn route(agent: &v1::Agent, now: u64) -> String {
    let route = agent.route.clone().unwrap_or_default();
    if route.live_bundle_id.is_empty() {
        return "no bundle is live".to_owned();
    }
    let since = route.changed_at.as_ref();
    let live = format!(
        "{} live {} (since {})",
        route.live_bundle_id,
        human::age(since, now),
        human::clock(since, now)
    );
    let standby = match route.standby_bundle_id.as_str() {
        "" => "no standby".to_owned(),
        standby => format!("standby {standby}"),
    };
    format!("{live}   {standby}   epoch {}", route.epoch)
}

/// Of which release, when it is a canary: the figures of a candidate that is not live yet.
fn signals(watch: &v1::SignalWatch) -> String {
    match watch.phase() {
        v1::Stage::Canary => format!("{} canary: {}", watch.bundle_id, signal::line(watch)),
        v1::Stage::Unspecified
        | v1::Stage::Prepare
        | v1::Stage::Smoke
        | v1::Stage::Evals
        | v1::Stage::Shadow
        | v1::Stage::Switch
        | v1::Stage::Quarantine
        | v1::Stage::Recycle => signal::line(watch),
    }
}

fn name(status: &v1::BundleStatus) -> &str {
    status.bundle.as_ref().map_or("-", |bundle| bundle.bundle_id.as_str())
}

fn runs(status: &v1::BundleStatus, now: u64) -> String {
    let open = open_pins(status.bundle.as_ref().and_then(|bundle| bundle.open_pins.as_ref()));
    let mut text = format!("{} {open} open", name(status));
    if status.stalled_runs > 0 {
        text.push_str(&format!(", {} without progress for 10m", status.stalled_runs));
    }
    if let Some(oldest) = &status.oldest_open_run_started_at {
        text.push_str(&format!(", oldest {}", human::age(Some(oldest), now)));
    }
    if status.ready_steps > 0 {
        text.push_str(&format!(", {} waiting", human::count(status.ready_steps, "step")));
    }
    if let Some(by) = status.drained_by.as_ref().filter(|_| open > 0) {
        text.push_str(&format!(", drained by {} at the latest", human::clock(Some(by), now)));
    }
    text
}

fn workers(status: &v1::BundleStatus) -> String {
    if !status.workers_known {
        return String::new();
    }
    let (name, workers) = (name(status), status.workers);
    match workers {
        0 => format!("{name} none"),
        _ => format!("{name} {workers}, {} of {} slots free", status.free_slots, status.slots),
    }
}

/// What somebody should look at now.
fn alarm(status: &v1::BundleStatus) -> Option<String> {
    let open = open_pins(status.bundle.as_ref().and_then(|bundle| bundle.open_pins.as_ref()));
    let (name, runs) = (name(status), human::count(open, "open run"));
    let stranded = status.stranded.then(|| format!("{name} has {runs} and no live worker"));
    let blocked = match status.blocked_workers {
        0 => String::new(),
        n => format!(", {} blocked", human::count(n, "worker")),
    };
    let drifts = status.open_drifts;
    let drifted = (drifts > 0).then(|| {
        let plural = if drifts == 1 { "tool or model is" } else { "tools or models are" };
        format!("{name}: {drifts} {plural} not what the bundle says{blocked}")
    });
    let told: Vec<String> = stranded.into_iter().chain(drifted).collect();
    (!told.is_empty()).then(|| join(told.into_iter()))
}

/// Whether a bundle that traffic may go to next has too few slots for that: the candidate, or the one that a rollback returns to.
fn thin(answer: &v1::GetAgentStatusResponse, status: &v1::BundleStatus) -> Option<String> {
    let agent = answer.agent.as_ref()?;
    let policy = agent.policy.clone().unwrap_or_default();
    let least = u64::from(policy.environment.map_or(1, |it| it.min_slots()));
    let is_external = policy.runs.unwrap_or_default().execution() == v1::Execution::External;
    let candidate = answer.release.as_ref().filter(|release| release.switched_at.is_none());
    let is_next = agent.route.as_ref().is_some_and(|it| it.standby_bundle_id == name(status))
        || candidate.is_some_and(|release| release.bundle_id == name(status));
    let is_thin = is_next && !is_external && status.workers_known && status.slots < least;
    is_thin.then(|| format!("{} has {} of {least} slots", name(status), status.slots))
}

/// Commands that fit the situation, the most likely first.
fn next(agent: &v1::Agent, bundles: &[v1::BundleStatus]) -> Vec<String> {
    let id = &agent.agent_id;
    let route = agent.route.clone().unwrap_or_default();
    let mut lines = Vec::new();
    if agent.pause.as_ref().is_some_and(|pause| pause.paused) {
        lines.push(format!("pinrail agent resume {id}"));
    }
    if route.live_bundle_id.is_empty() {
        lines.push(format!("pinrail bundle list {id}"));
        lines.push(format!("pinrail switch {id} BUNDLE"));
        return lines;
    }
    if !route.standby_bundle_id.is_empty() || !route.canary_bundle_id.is_empty() {
        lines.push(format!("pinrail rollback {id}"));
    }
    if bundles.iter().any(|status| status.stranded) {
        lines.push(format!("pinrail worker list {id}"));
    }
    if bundles.iter().any(|status| status.open_drifts > 0) {
        lines.push(format!("pinrail tool drift {id}"));
    }
    let open = |status: &&v1::BundleStatus| {
        open_pins(status.bundle.as_ref().and_then(|bundle| bundle.open_pins.as_ref())) > 0
    };
    match bundles.iter().find(open) {
        Some(status) => {
            lines.push(format!("pinrail run list {id} --bundle {} --open", name(status)));
        }
        None => lines.push(format!("pinrail run start {id} --input JSON")),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, role: v1::MemberRole, reachable: bool) -> v1::Member {
        v1::Member {
            name: name.into(),
            role: role.into(),
            reachable,
            last_contact: Some(time::duration(if reachable { 10 } else { 252_000 })),
            ..Default::default()
        }
    }

    fn cluster() -> Cluster {
        let status = v1::GetClusterStatusResponse {
            leader: "pinrail-2".into(),
            members: vec![
                member("pinrail-0", v1::MemberRole::Follower, false),
                member("pinrail-1", v1::MemberRole::Follower, true),
                member("pinrail-2", v1::MemberRole::Leader, true),
            ],
            ..Default::default()
        };
        let health = v1::GetClusterHealthResponse {
            state: v1::HealthState::Degraded.into(),
            write_latency: Some(time::duration(3)),
            ..Default::default()
        };
        Cluster { status: Some(status), health: Some(health) }
    }

    fn bundle(id: &str, open: u64, workers: u64) -> v1::BundleStatus {
        let open_pins = v1::OpenPins { total: open, live: open, ..Default::default() };
        v1::BundleStatus {
            bundle: Some(v1::Bundle {
                bundle_id: id.into(),
                open_pins: Some(open_pins),
                ..Default::default()
            }),
            workers,
            free_slots: 71,
            slots: 32 * workers,
            workers_known: true,
            ..Default::default()
        }
    }

    #[test]
    fn the_screen_reads_as_documented() {
        let now = 1_700_000_000_000;
        let ago = |minutes: u64| time::timestamp(now - minutes * 60_000);
        let switch = v1::Event {
            at: ago(46),
            r#type: "route.switched".into(),
            bundle_id: "v42".into(),
            actor: "ci-main".into(),
            reason: "SUP-812".into(),
            ..Default::default()
        };
        let old = v1::BundleStatus {
            drained_by: time::timestamp(now + 3_600_000),
            stranded: true,
            ..bundle("v41", 3, 0)
        };
        let live = v1::BundleStatus {
            oldest_open_run_started_at: ago(41),
            stalled_runs: 12,
            open_drifts: 2,
            blocked_workers: 1,
            ..bundle("v42", 57, 9)
        };
        let figure = v1::SignalFigure {
            name: "p95".into(),
            value: "+31 %".into(),
            bounds: "limit +25 %, n 412".into(),
            over: true,
        };
        let watch = v1::SignalWatch {
            phase: v1::Stage::Quarantine.into(),
            readings: vec![v1::SignalReading {
                state: v1::SignalState::Firing.into(),
                figures: vec![figure],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = v1::GetAgentStatusResponse {
            agent: Some(v1::Agent {
                agent_id: "support".into(),
                route: Some(v1::Route {
                    live_bundle_id: "v42".into(),
                    standby_bundle_id: "v41".into(),
                    epoch: 120,
                    changed_at: ago(46),
                    revision: 118,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            bundles: vec![live, old],
            recent_events: vec![switch],
            revision: 118,
            cluster_time: time::timestamp(now),
            signals: vec![watch],
            release: Some(v1::Release {
                release_id: "r7".into(),
                bundle_id: "v42".into(),
                state: v1::ReleaseState::Switched.into(),
                switched_at: ago(46),
                quarantine_until: time::timestamp(now + 7_200_000),
                ..Default::default()
            }),
        };
        assert_eq!(
            text(&cluster(), &answer),
            "cluster  DEGRADED 2 of 3 · leader pinrail-2 · pinrail-0 unreachable for 4m12s · writes 3ms · one more loss stops writes\n\
             route    v42 live 46m (since 21:27Z)   standby v41   epoch 120\n\
             release  r7 of v42: quarantine until 00:13Z (in 2h)\n\
             signals  p95 +31 % FIRING (limit +25 %, n 412)\n\
             runs     v42 57 open, 12 without progress for 10m, oldest 41m       v41 3 open, drained by 23:13Z at the latest\n\
             workers  v42 9, 71 of 288 slots free       v41 none\n\
             ALARM    v42: 2 tools or models are not what the bundle says, 1 worker blocked       v41 has 3 open runs and no live worker       v41 has 0 of 1 slots\n\
             last     21:27Z route.switched v42 by ci-main \"SUP-812\"\n\
             next     pinrail rollback support       pinrail worker list support       pinrail tool drift support       pinrail run list support --bundle v42 --open\n"
        );
    }

    #[test]
    fn an_agent_without_a_live_bundle_says_how_to_get_one() {
        let agent = v1::Agent { agent_id: "support".into(), ..Default::default() };
        assert_eq!(route(&agent, 0), "no bundle is live");
        assert_eq!(next(&agent, &[])[1], "pinrail switch support BUNDLE");
    }

    #[test]
    fn a_cluster_that_cannot_be_asked_is_said_to_be() {
        assert_eq!(Cluster::default().line(), "not reachable");
    }
}
