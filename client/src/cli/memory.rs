//! `memory`: memory under the bundle id, for operators.

use std::time::Duration;

use clap::{Args, Subcommand};
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::{id, v1};

use super::bundle::named;
use super::context::{Context, Done};
use super::flags::{ListFlags, WriteFlags, api_duration, duration};
use super::human;
use super::input::{self, Untyped};
use super::problem::{self, Problem};
use super::run::value;
use super::settings::Output;
use super::table::{Table, pairs};
use super::view::View;

mod transfer;
mod watch;

/// Characters of a value in a table.
const VALUE: usize = 60;

/// Verbs of `memory`.
#[derive(Debug, Clone, Subcommand)]
pub enum Memory {
    /// The value of a key, as a bundle or a run sees it
    #[command(
        after_help = "Examples:\n  pinrail memory get support user/77/prefs --bundle v42\n  pinrail memory get support user/77/prefs --bundle v42 --at 118"
    )]
    Get(Get),
    /// Write a key; recorded as written by an operator
    #[command(
        after_help = "Examples:\n  pinrail memory put support user/77/prefs '{\"tone\":\"brief\"}' --bundle v42\n  pinrail memory put support notes @notes.md --ttl 7d"
    )]
    Put(Put),
    /// Delete a key
    #[command(after_help = "Example:\n  pinrail memory delete support user/77/prefs --bundle v42")]
    Delete(Delete),
    /// The keys under a prefix
    #[command(
        after_help = "Example:\n  pinrail memory list support --prefix user/77/ --bundle v42"
    )]
    List(List),
    /// The versions of a key, newest first
    #[command(after_help = "Example:\n  pinrail memory history support user/77/prefs --bundle v42")]
    History(History),
    /// Follow the changes that a bundle or a run sees
    #[command(
        after_help = "Examples:\n  pinrail memory watch support --prefix user/77/\n  pinrail memory watch support --bundle v42 --after 118 -o json"
    )]
    Watch(watch::Watch),
    /// The keys of which two bundles see different values
    #[command(
        after_help = "Examples:\n  pinrail memory diff support v41 v42\n  pinrail memory diff support v41 --late\n  pinrail memory diff support layer:3 layer:5 --prefix user/"
    )]
    Diff(transfer::Diff),
    /// Carry what a bundle's layer has of its own over to another bundle
    #[command(
        after_help = "Examples:\n  pinrail memory promote support --from v42 --to v41 --on-conflict skip --dry-run\n  pinrail memory promote support --from v41 --late --reason \"SUP-812\""
    )]
    Promote(transfer::Promote),
    /// Drop what a bundle's layer has of its own and no other layer sees; its runs must be over
    #[command(
        after_help = "Example:\n  pinrail memory discard support --from v42 --reason \"SUP-812\""
    )]
    Discard(transfer::Discard),
}

/// Whose memory; without any of them: the live bundle's.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ScopeFlags {
    /// The newest layer of this bundle; default: the live one
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["run", "layer"])]
    bundle: Option<String>,
    /// What this run sees: its layer, or the memory of its own of one that serves no user
    #[arg(long, value_name = "RUN", conflicts_with = "layer")]
    run: Option<String>,
    /// A layer by number
    #[arg(long, value_name = "N")]
    layer: Option<u64>,
}

impl ScopeFlags {
    fn scope(&self) -> Result<Option<v1::MemoryScope>, Problem> {
        let scope = match (&self.run, self.layer) {
            (Some(run), _) => {
                id::check_token("run id", run)?;
                Scope::RunId(run.clone())
            }
            (None, Some(layer)) => Scope::Layer(layer),
            (None, None) => {
                let bundle = self.bundle.as_deref().map(named).transpose()?;
                Scope::BundleId(bundle.unwrap_or_default())
            }
        };
        Ok(Some(v1::MemoryScope { scope: Some(scope) }))
    }
}

#[derive(Debug, Clone, Args)]
pub struct Get {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Key: a path of at most 16 segments
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    scope: ScopeFlags,
    /// As of this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    at: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Put {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Key: a path of at most 16 segments
    #[arg(value_name = "KEY")]
    key: String,
    /// Value: JSON, else text; @FILE, or - for stdin
    #[arg(value_name = "VALUE|@FILE|-")]
    value: String,
    /// Bundle whose newest layer is written; default: the live one
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<String>,
    /// Type of the value
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The key is gone after so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Delete {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Key: a path of at most 16 segments
    #[arg(value_name = "KEY")]
    key: String,
    /// Bundle whose newest layer is written; default: the live one
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<String>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    scope: ScopeFlags,
    /// As of this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    at: u64,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct History {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Key: a path of at most 16 segments
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    scope: ScopeFlags,
    #[command(flatten)]
    list: ListFlags,
}

pub(super) async fn run(context: &Context, verb: &Memory) -> Done {
    match verb {
        Memory::Get(args) => get(context, args).await,
        Memory::Put(args) => put(context, args).await,
        Memory::Delete(args) => delete(context, args).await,
        Memory::List(args) => list(context, args).await,
        Memory::History(args) => history(context, args).await,
        Memory::Watch(args) => watch::watch(context, args).await,
        Memory::Diff(args) => transfer::diff(context, args).await,
        Memory::Promote(args) => transfer::promote(context, args).await,
        Memory::Discard(args) => transfer::discard(context, args).await,
    }
}

fn key(key: &str) -> Result<String, Problem> {
    id::check_memory_key(key)?;
    Ok(key.to_owned())
}

async fn get(context: &Context, args: &Get) -> Done {
    let request = v1::GetMemoryRequest {
        agent_id: context.agent(&args.agent)?,
        scope: args.scope.scope()?,
        key: key(&args.key)?,
        at_revision: args.at,
        read: context.read(),
        ..Default::default()
    };
    let answer = context.client.memory().get(request).await?;
    let version = answer.version.clone().filter(|version| answer.found && !version.deleted);
    match context.output() {
        Output::Table => value(version.as_ref().and_then(|version| version.value.as_ref()))?,
        Output::Wide if version.is_none() => {}
        Output::Wide | Output::Json | Output::Jsonl | Output::Yaml | Output::Name => {
            let text = version.as_ref().map(one).unwrap_or_default();
            context.show(&View::object(&answer, &args.key, text))?;
        }
    }
    if version.is_some() {
        return Ok(problem::OK);
    }
    let list = format!("pinrail memory list {}", args.agent);
    Err(Problem::new("KEY_NOT_FOUND", 1, format!("no key {:?} is seen there", args.key)).next(list))
}

fn one(version: &v1::MemoryVersion) -> String {
    let expires = version.expires_at.as_ref();
    pairs(&[
        ("key", version.key.clone()),
        ("value", human::payload(version.value.as_ref(), 2_000)),
        ("written", human::at(version.written_at.as_ref())),
        ("expires", expires.map_or_else(String::new, |at| human::at(Some(at)))),
        ("bundle", version.bundle_id.clone()),
        ("layer", layer(version)),
        ("by", if version.run_id.is_empty() { "operator".into() } else { version.run_id.clone() }),
        ("revision", version.revision.to_string()),
    ])
}

/// A run that serves no user writes to none.
fn layer(version: &v1::MemoryVersion) -> String {
    if version.layer == 0 { "scratch".to_owned() } else { version.layer.to_string() }
}

fn bundle_scope(bundle: Option<&str>) -> Result<Option<v1::MemoryScope>, Problem> {
    ScopeFlags { bundle: bundle.map(str::to_owned), ..Default::default() }.scope()
}

/// The key's own revision is what a writer expects, not the agent's.
fn options(
    context: &Context,
    flags: &WriteFlags,
) -> Result<(Option<v1::WriteOptions>, Option<u64>), Problem> {
    let options = context.write(flags)?;
    let options = options.map(|options| v1::WriteOptions { expected_revision: 0, ..options });
    Ok((options, flags.expect_revision))
}

async fn put(context: &Context, args: &Put) -> Done {
    let value =
        input::payload("VALUE", &args.value, args.content_type.as_deref(), Untyped::JsonOrText)?;
    let (options, expected_key_revision) = options(context, &args.write)?;
    let request = v1::PutMemoryRequest {
        agent_id: context.agent(&args.agent)?,
        scope: bundle_scope(args.bundle.as_deref())?,
        key: key(&args.key)?,
        value: Some(value),
        ttl: args.ttl.map(api_duration),
        expected_key_revision,
        options,
        ..Default::default()
    };
    let answer = context.client.memory().put(request).await?;
    let text = match &answer.version {
        Some(version) => one(version),
        None => pairs(&[("key", args.key.clone()), ("revision", answer.revision.to_string())]),
    };
    context.show(&View::object(&answer, &args.key, text))
}

async fn delete(context: &Context, args: &Delete) -> Done {
    let (options, expected_key_revision) = options(context, &args.write)?;
    let request = v1::DeleteMemoryRequest {
        agent_id: context.agent(&args.agent)?,
        scope: bundle_scope(args.bundle.as_deref())?,
        key: key(&args.key)?,
        expected_key_revision,
        options,
        ..Default::default()
    };
    let answer = context.client.memory().delete(request).await?;
    if !answer.deleted {
        eprintln!("there was nothing to delete");
    }
    let text = pairs(&[
        ("key", args.key.clone()),
        ("deleted", if answer.deleted { "yes" } else { "no" }.to_owned()),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &args.key, text))
}

async fn list(context: &Context, args: &List) -> Done {
    let (agent, scope) = (context.agent(&args.agent)?, args.scope.scope()?);
    let (agent, scope) = (agent.as_str(), &scope);
    let fetch = |page_size, page_token| async move {
        let request = v1::ListMemoryRequest {
            agent_id: agent.to_owned(),
            scope: scope.clone(),
            prefix: args.prefix.clone(),
            at_revision: args.at,
            page_size,
            page_token,
            keys_only: args.keys_only,
            read: context.read(),
            ..Default::default()
        };
        let page = context.client.memory().list(request).await?;
        Ok((page.versions, page.next_page_token, page.revision))
    };
    context
        .watch(args.list.watch, || async move {
            let (versions, next_page_token, revision) = context.pages(&args.list, fetch).await?;
            let table = table(&versions);
            let names = versions.iter().map(|version| version.key.clone()).collect();
            let layer = args.scope.layer.unwrap_or(0);
            let page = v1::ListMemoryResponse { versions, next_page_token, layer, revision };
            Ok(View::list(&page, "versions", names, table))
        })
        .await
}

fn table(versions: &[v1::MemoryVersion]) -> Table {
    let now = human::now_ms();
    let mut table =
        Table::new(&["KEY", "REVISION", "AGE", "BUNDLE", "VALUE"], &["LAYER", "BY", "EXPIRES"]);
    for version in versions {
        let value = if version.deleted {
            "(deleted)".to_owned()
        } else {
            human::payload(version.value.as_ref(), VALUE)
        };
        table.row(vec![
            version.key.clone(),
            version.revision.to_string(),
            human::age(version.written_at.as_ref(), now),
            human::or_dash(&version.bundle_id),
            value,
            layer(version),
            if version.run_id.is_empty() { "operator".into() } else { version.run_id.clone() },
            human::age(version.expires_at.as_ref(), now),
        ]);
    }
    table
}

async fn history(context: &Context, args: &History) -> Done {
    let (agent, scope) = (context.agent(&args.agent)?, args.scope.scope()?);
    let key = key(&args.key)?;
    let (agent, scope, key) = (agent.as_str(), &scope, key.as_str());
    let fetch = |page_size, page_token| async move {
        let request = v1::GetMemoryHistoryRequest {
            agent_id: agent.to_owned(),
            scope: scope.clone(),
            key: key.to_owned(),
            page_size,
            page_token,
            read: context.read(),
            ..Default::default()
        };
        let page = context.client.memory().history(request).await?;
        Ok((page.versions, page.next_page_token, page.revision))
    };
    context
        .watch(args.list.watch, || async move {
            let (versions, next_page_token, revision) = context.pages(&args.list, fetch).await?;
            let table = table(&versions);
            let names = versions.iter().map(|version| version.revision.to_string()).collect();
            let page = v1::GetMemoryHistoryResponse { versions, next_page_token, revision };
            Ok(View::list(&page, "versions", names, table))
        })
        .await
}
