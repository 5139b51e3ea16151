//! Drift of schemas: compares what workers see of their tools with what the bundle says, writes down what is new, and says
//! who gets no steps for it.
//!
//! ```text
//!   hello: digests ──> tools (of one worker) ──differs──> schema: how ──> ReportDrift ──> the state
//!   heartbeat: schemas ──┘        ^                                                         │
//!                                 └── blocked or not, by the policy and what is accepted ───┘
//! ```
//! It remembers nothing that workers do not say again to another leader; apply decides what a row is.

mod inline;
mod schema;
mod tools;

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{self, ClearDrift, ReportDrift};
use pinrail_proto::{tool, v1};
use pinrail_state_machine::query::{self, KnownSchemas};
use prost::Message as _;
use tokio::time::{Duration, Instant, sleep};

use super::queues::SessionId;
use super::state::ask;
use super::{Dispatch, PROPOSE_TIMEOUT};

pub(crate) use tools::Tools;
use tools::{Sight, seen_as};

/// How often tools are looked at when nobody says anything.
const EVERY: Duration = Duration::from_secs(2);
/// A new leader does not know yet who will come back and still see something.
const SETTLE: Duration = Duration::from_secs(10);
/// Who the driver's commands are by.
const ACTOR: &str = "pinrail";

/// The digest of each tool's schemas.
pub(crate) fn digests(manifest: &v1::BundleManifest) -> BTreeMap<String, String> {
    let digest = |(name, part): (&String, &v1::ToolPart)| {
        (name.clone(), tool::schema_digest(&part.input_schema_json, &part.output_schema_json))
    };
    manifest.tools.iter().map(digest).collect()
}

/// Workers of one bundle, by what they see.
#[derive(Debug, Default)]
struct Group {
    namespace: String,
    agent_id: String,
    sessions: Vec<SessionId>,
    sights: Vec<(SessionId, Sight)>,
}

/// Looks until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch) {
    let began = Instant::now();
    loop {
        for ((agent, bundle_id), group) in groups(&dispatch) {
            let settled = began.elapsed() > SETTLE;
            look(&dispatch, (agent, &bundle_id), &group, settled).await;
        }
        tokio::select! {
            () = dispatch.inner.drift.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

fn groups(dispatch: &Dispatch) -> BTreeMap<(u32, String), Group> {
    let mut groups: BTreeMap<(u32, String), Group> = BTreeMap::new();
    dispatch.with_desk(|desk| {
        for (id, intro, tools) in desk.tools() {
            let group = groups.entry((intro.agent, intro.bundle_id.clone())).or_default();
            group.namespace.clone_from(&intro.namespace);
            group.agent_id.clone_from(&intro.agent_id);
            group.sessions.push(id);
            group.sights.extend(tools.sights().map(|sight| (id, sight)));
        }
    });
    groups
}

async fn look(dispatch: &Dispatch, (agent, bundle_id): (u32, &str), group: &Group, settled: bool) {
    let known = dispatch.inner.replica.read(|read| query::known_schemas(read, agent, bundle_id));
    let known = match known {
        Ok(Some(known)) => known,
        Ok(None) => return,
        Err(error) => return tracing::warn!(agent, %error, "drift cannot be read"),
    };
    judge(dispatch, group, &known);
    let mut news = found(dispatch, (agent, bundle_id), group, &known);
    if settled {
        news.extend(gone((agent, bundle_id), group, &known));
    }
    if !news.is_empty() {
        // The feed tells of it, and everybody is judged anew.
        propose(dispatch, news).await;
    }
}

fn judge(dispatch: &Dispatch, group: &Group, known: &KnownSchemas) {
    dispatch.with_desk(|desk| group.sessions.iter().for_each(|id| desk.judge_tools(*id, known)));
    dispatch.inner.assign.notify_one();
}

/// What workers see and the state does not know of, each once.
fn found(
    dispatch: &Dispatch,
    (agent, bundle_id): (u32, &str),
    group: &Group,
    known: &KnownSchemas,
) -> Vec<Kind> {
    let mut new: BTreeMap<(&str, &str), SessionId> = BTreeMap::new();
    for (id, sight) in group.sights.iter().filter(|(_, sight)| sight.differs && sight.told) {
        if !known.is_known(&sight.tool, &sight.seen) {
            new.entry((&sight.tool, &sight.seen)).or_insert(*id);
        }
    }
    if new.is_empty() {
        return Vec::new();
    }
    let bundle = ask(&dispatch.inner.replica, |read| {
        query::bundle(read, &group.namespace, &group.agent_id, bundle_id)
    });
    let Ok(bundle) = bundle else { return Vec::new() };
    let manifest = bundle.manifest.unwrap_or_default();
    let report = |((name, _), id): ((&str, &str), SessionId)| {
        let (worker_id, seen) = dispatch.with_desk(|desk| {
            let mut all = desk.tools().filter(|(other, _, _)| *other == id);
            let (_, intro, tools) = all.next()?;
            Some((intro.worker_id.clone(), tools.seen(name)?.clone()))
        })??;
        let part = manifest.tools.get(name)?;
        let (class, changes) = schema::compare(part, &seen);
        tracing::info!(
            agent = group.agent_id,
            bundle = bundle_id,
            worker = worker_id,
            tool = name,
            "a worker sees a tool that is not what the bundle says"
        );
        Some(Kind::ReportDrift(ReportDrift {
            agent,
            bundle_id: bundle_id.to_owned(),
            tool: name.to_owned(),
            expected: tool::schema_digest(&part.input_schema_json, &part.output_schema_json),
            seen: seen_as(&seen),
            class: class.into(),
            changes,
            input_schema_json: seen.input_schema_json,
            output_schema_json: seen.output_schema_json,
            worker_id,
        }))
    };
    new.into_iter().filter_map(report).collect()
}

/// What is open and no worker sees any more, while some see the tool otherwise.
fn gone((agent, bundle_id): (u32, &str), group: &Group, known: &KnownSchemas) -> Vec<Kind> {
    let seen: BTreeSet<(&str, &str)> =
        group.sights.iter().map(|(_, it)| (it.tool.as_str(), it.seen.as_str())).collect();
    let tools: BTreeSet<&str> = seen.iter().map(|(tool, _)| *tool).collect();
    let open =
        known.open().filter(|(tool, what)| tools.contains(tool) && !seen.contains(&(tool, what)));
    let clear = |(tool, seen): (&str, &str)| {
        Kind::ClearDrift(ClearDrift {
            agent,
            bundle_id: bundle_id.to_owned(),
            tool: tool.to_owned(),
            seen: seen.to_owned(),
        })
    };
    open.map(clear).collect()
}

/// What became of it shows in the next look.
async fn propose(dispatch: &Dispatch, kinds: Vec<Kind>) {
    let header = log::Header { actor: ACTOR.to_owned(), ..log::Header::default() };
    let commands = kinds.into_iter().map(|kind| {
        let command = log::Command { header: Some(header.clone()), kind: Some(kind) };
        command.encode_to_vec().into()
    });
    if let Err(error) =
        dispatch.inner.replica.propose_here(commands.collect(), PROPOSE_TIMEOUT).await
    {
        tracing::debug!(%error, "drift could not be written down yet");
        sleep(EVERY).await;
    }
}
