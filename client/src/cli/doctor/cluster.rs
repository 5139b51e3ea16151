//! The members: who answers, whether they agree, and whether a quorum reads and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pinrail_proto::v1;
use tokio::time::sleep;

use super::super::context::Context;
use super::super::human;
use super::{Finding, fail, ok, warn};
use crate::service::Seen;

/// How long one member may take to answer, and a quorum.
const ANSWER: Duration = Duration::from_millis(1_500);
const PROBE: Duration = Duration::from_secs(3);
/// Between two looks at who leads.
const STABLE: Duration = Duration::from_secs(1);
/// Looks until members are seen at the same index, and between them.
const LOOKS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Entries that a member may be behind.
const LAG: u64 = 1_000;
/// Clocks may differ by so many seconds: what is compared is cut to whole ones, and asked one after the other.
const SKEW: u64 = 5;
/// A read or a write that takes longer is slow.
const SLOW: Duration = Duration::from_millis(250);
/// Entries after the last snapshot: more, and a start takes long.
const UNSAVED: u64 = 5_000_000;

/// What was found, and whether a quorum answers.
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    pub(super) has_quorum: bool,
}

/// Every member that is known, as it answers itself.
struct Members {
    seen: Vec<(String, Seen)>,
    silent: BTreeSet<String>,
}

pub(super) async fn look(context: &Context) -> Looked {
    let probe = context.client.with_timeout(PROBE);
    let (first, health) = tokio::join!(ask_all(context), async { probe.cluster().health().await });
    let mut findings = vec![endpoints(&first)];
    if first.seen.is_empty() {
        return Looked { findings, has_quorum: false };
    }
    let (quorum, has_quorum) = quorum(health);
    findings.extend(quorum);
    findings.push(versions(&first));
    sleep(STABLE).await;
    let second = ask_again(context, &first).await;
    findings.push(leader(&first, &second));
    findings.push(lag(&second));
    findings.push(hashes(context, second).await);
    findings.push(clocks(&first));
    findings.push(snapshots(&first));
    Looked { findings, has_quorum }
}

/// All that are known, and those that they know.
async fn ask_all(context: &Context) -> Members {
    let mut members = Members { seen: Vec::new(), silent: BTreeSet::new() };
    let mut known: BTreeSet<String> = context.settings.config().endpoints.into_iter().collect();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    for _ in 0..2 {
        let new: Vec<String> = known.difference(&asked).cloned().collect();
        for (endpoint, answer) in ask(context, &new).await {
            match answer {
                Some(seen) => {
                    let addresses = seen.status.members.iter().map(|it| it.grpc_address.clone());
                    known.extend(addresses.filter(|it| !it.is_empty()));
                    // Two names may lead to one member.
                    if !members.seen.iter().any(|(_, it)| it.status.node == seen.status.node) {
                        members.seen.push((endpoint.clone(), seen));
                    }
                }
                None => {
                    members.silent.insert(endpoint.clone());
                }
            }
            asked.insert(endpoint);
        }
    }
    members.seen.sort_by(|(_, a), (_, b)| a.status.node.cmp(&b.status.node));
    members
}

/// Those that answered before: waiting for the others again would take long.
async fn ask_again(context: &Context, members: &Members) -> Members {
    let endpoints: Vec<String> =
        members.seen.iter().map(|(endpoint, _)| endpoint.clone()).collect();
    let answers = ask(context, &endpoints).await.into_iter();
    let seen = answers.filter_map(|(endpoint, answer)| Some((endpoint, answer?))).collect();
    Members { seen, silent: members.silent.clone() }
}

async fn ask(context: &Context, endpoints: &[String]) -> Vec<(String, Option<Seen>)> {
    let client = context.client.with_timeout(ANSWER);
    let answers = endpoints.iter().map(|endpoint| {
        let client = client.clone();
        async move { (endpoint.clone(), client.cluster().seen(endpoint).await.ok()) }
    });
    futures::future::join_all(answers).await
}

fn endpoints(members: &Members) -> Finding {
    let names: Vec<&str> = members.seen.iter().map(|(_, it)| it.status.node.as_str()).collect();
    let silent: Vec<&str> = members.silent.iter().map(String::as_str).collect();
    let next = "is its server running? docs/RECOVERY.md, one node down";
    match (names.is_empty(), silent.is_empty()) {
        (true, _) => fail(
            "endpoints",
            format!("nobody answers: {}", silent.join(", ")),
            "--endpoint or PINRAIL_ENDPOINT says where; else docs/RECOVERY.md, no quorum",
        ),
        (false, true) => ok("endpoints", format!("{} answer", names.join(", "))),
        (false, false) => warn(
            "endpoints",
            format!("{} answer; no answer from {}", names.join(", "), silent.join(", ")),
            next,
        ),
    }
}

fn quorum(health: crate::Result<v1::GetClusterHealthResponse>) -> (Vec<Finding>, bool) {
    let lost = |why: String| {
        let next = "pinrail cluster status; docs/RECOVERY.md, no quorum";
        (vec![fail("quorum", why, next)], false)
    };
    let health = match health {
        Ok(health) => health,
        Err(error) => return lost(error.to_string()),
    };
    if health.state() == v1::HealthState::NoQuorum {
        return lost(health.problems.join("; "));
    }
    let (read, write) = (health.read_latency.as_ref(), health.write_latency.as_ref());
    let found = format!("reads {}, writes {}", human::api_span(read), human::api_span(write));
    let is_slow = |it: Option<&prost_types::Duration>| {
        it.and_then(|it| Duration::try_from(*it).ok()).is_some_and(|it| it > SLOW)
    };
    let quorum = if is_slow(read) || is_slow(write) {
        warn("quorum", found, "a slow disk or network: look at the leader's machine first")
    } else {
        ok("quorum", found)
    };
    let problems = health.problems.iter();
    let alarms = problems.map(|it| warn("member", it.clone(), "pinrail cluster members -o wide"));
    (std::iter::once(quorum).chain(alarms).collect(), true)
}

fn versions(members: &Members) -> Finding {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, it) in &members.seen {
        by_version.entry(&it.status.version).or_default().push(&it.status.node);
    }
    let each: Vec<_> = by_version
        .iter()
        .map(|(version, nodes)| format!("{version} ({})", nodes.join(", ")))
        .collect();
    match each.len() {
        0 | 1 => ok("versions", each.join("; ")),
        _ => warn("versions", each.join("; "), "finish the upgrade: one member after the other"),
    }
}

fn leader(first: &Members, second: &Members) -> Finding {
    let terms = |members: &Members| -> BTreeSet<(String, u64)> {
        members.seen.iter().map(|(_, it)| (it.status.leader.clone(), it.status.term)).collect()
    };
    let (before, after) = (terms(first), terms(second));
    let next = "members disagree or elect again and again: look at their clocks, disks and network";
    match (before.first(), after.len()) {
        (Some((leader, term)), 1) if before == after && !leader.is_empty() => {
            ok("leader", format!("{leader} in term {term}, for a second at least"))
        }
        (Some((leader, _)), 1) if leader.is_empty() => fail("leader", "none is known", next),
        (Some(_) | None, _) => {
            let each: Vec<_> =
                after.iter().map(|(leader, term)| format!("{leader} in term {term}")).collect();
            warn("leader", format!("it changes: {}", each.join(", ")), next)
        }
    }
}

fn lag(members: &Members) -> Finding {
    let most = members.seen.iter().map(|(_, it)| it.status.applied_index).max().unwrap_or(0);
    let behind = members.seen.iter().filter(|(_, it)| most - it.status.applied_index > LAG);
    let behind: Vec<_> = behind
        .map(|(_, it)| format!("{} by {} entries", it.status.node, most - it.status.applied_index))
        .collect();
    if behind.is_empty() {
        return ok("lag", format!("all have applied entry {most}, or nearly"));
    }
    warn(
        "lag",
        format!("behind: {}", behind.join(", ")),
        "it catches up, or its disk is slow: ask again",
    )
}

/// Members are compared where they stand at the same entry.
async fn hashes(context: &Context, mut members: Members) -> Finding {
    for _ in 0..LOOKS {
        let mut by_index: BTreeMap<u64, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        for (_, it) in &members.seen {
            let at = by_index.entry(it.status.applied_index).or_default();
            at.entry(&it.status.state_hash).or_default().push(&it.status.node);
        }
        if let Some((index, hashes)) = by_index.iter().find(|(_, hashes)| hashes.len() > 1) {
            let each: Vec<_> = hashes.values().map(|nodes| nodes.join(", ")).collect();
            let next =
                "stop the member that differs, and rebuild it: docs/RECOVERY.md, a damaged member";
            return fail("state", format!("differs at entry {index}: {}", each.join(" | ")), next);
        }
        let compared = by_index.values().flat_map(BTreeMap::values).map(Vec::len).max();
        if compared == Some(members.seen.len()) {
            return ok(
                "state",
                format!("the same hash at {}", human::count(members.seen.len() as u64, "member")),
            );
        }
        sleep(LOOK_AGAIN).await;
        members = ask_again(context, &members).await;
    }
    ok("state", "not compared: the members were never seen at the same entry")
}

fn clocks(members: &Members) -> Finding {
    let at: Vec<(&str, u64)> = members
        .seen
        .iter()
        .filter_map(|(_, it)| Some((it.status.node.as_str(), it.wall_s?)))
        .chain([("this machine", human::now_ms() / 1_000)])
        .collect();
    let (Some(least), Some(most)) =
        (at.iter().min_by_key(|(_, at)| at), at.iter().max_by_key(|(_, at)| at))
    else {
        return ok("clocks", "no member says what its clock is");
    };
    let apart = most.1 - least.1;
    if apart <= SKEW {
        return ok("clocks", format!("within {SKEW} s of each other"));
    }
    let found = format!("{} is {apart} s ahead of {}", most.0, least.0);
    warn("clocks", found, "no deadline depends on it, but certificates and logs do: mend NTP")
}

fn snapshots(members: &Members) -> Finding {
    let behind = members.seen.iter().map(|(_, it)| {
        (it.status.last_log_index.saturating_sub(it.status.snapshot_index), &it.status.node)
    });
    match behind.max() {
        Some((entries, node)) if entries > UNSAVED => {
            let found = format!("{entries} entries of {node} are in no snapshot");
            warn("snapshot", found, "is its disk full? its log says why none was taken")
        }
        Some((entries, _)) => ok("snapshot", format!("at most {entries} entries behind the log")),
        None => ok("snapshot", "none"),
    }
}
