//! `bundle`: immutable releases of an agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pinrail_proto::tool::schema_digest;
use pinrail_proto::{id, v1};

use super::context::{Context, Done};
use super::file;
use super::flags::{ListFlags, ReadFlags, WriteFlags};
use super::human;
use super::problem::Problem;
use super::table::{Table, pairs};
use super::view::View;

/// Characters of a digest in a table.
const DIGEST: usize = 13;

/// Verbs of `bundle`.
#[derive(Debug, Clone, Subcommand)]
pub enum Bundle {
    /// Register a bundle; the same content again is a no-op
    #[command(
        after_help = "Examples:\n  pinrail bundle create support v42 -f bundle.toml\n  pinrail bundle create support v42 -f bundle.toml --set code.git_commit=0123abc"
    )]
    Create(Create),
    /// List the bundles of an agent
    #[command(after_help = "Example:\n  pinrail bundle list support")]
    List(List),
    /// Show a bundle with its manifest
    #[command(after_help = "Example:\n  pinrail bundle show support v42 -o json")]
    Show(Show),
    /// What differs between two bundles, part by part
    #[command(after_help = "Example:\n  pinrail bundle diff support v41 v42")]
    Diff(Diff),
    /// Give up the environment and memory of a bundle that nobody returns to; refused while something needs it
    #[command(after_help = "Example:\n  pinrail bundle recycle support v39")]
    Recycle(Recycle),
}

#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the new bundle
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Manifest; paths in it are relative to it
    #[arg(short, long, value_name = "bundle.toml")]
    file: PathBuf,
    /// Changes a key of the manifest; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the bundle
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Diff {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Before
    #[arg(value_name = "BUNDLE")]
    from: String,
    /// After
    #[arg(value_name = "BUNDLE")]
    to: String,
}

#[derive(Debug, Clone, Args)]
pub struct Recycle {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the bundle
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Bundle) -> Done {
    match verb {
        Bundle::Create(args) => create(context, args).await,
        Bundle::List(args) => list(context, args).await,
        Bundle::Show(args) => show(context, args).await,
        Bundle::Diff(args) => diff(context, args).await,
        Bundle::Recycle(args) => recycle(context, args).await,
    }
}

/// Checks the id of a bundle.
pub(super) fn named(bundle: &str) -> Result<String, Problem> {
    id::check_name("bundle", bundle)?;
    Ok(bundle.to_owned())
}

async fn create(context: &Context, args: &Create) -> Done {
    let around = file::bundle::Surroundings { variable: &crate::config::variable, set: &args.set };
    let request = v1::CreateBundleRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: named(&args.bundle)?,
        manifest: Some(file::bundle::load(&args.file, &around)?),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.bundles().create(request).await?;
    if answer.already {
        eprintln!("the same bundle was there already");
    }
    let text = one(answer.bundle.as_ref(), answer.revision);
    context.show(&View::object(&answer, &args.bundle, text))
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context.watch(args.list.watch, || bundles(context, &agent_id, &args.list)).await
}

async fn bundles(context: &Context, agent: &str, list: &ListFlags) -> Result<View, Problem> {
    let (bundles, next_page_token, revision) = context
        .pages(list, |page_size, page_token| async move {
            let request = v1::ListBundlesRequest {
                agent_id: agent.to_owned(),
                page_size,
                page_token,
                read: context.read(),
                ..Default::default()
            };
            let page = context.client.bundles().list(request).await?;
            Ok((page.bundles, page.next_page_token, page.revision))
        })
        .await?;
    let now = human::now_ms();
    let mut table = Table::new(
        &["BUNDLE", "STATE", "OPEN PINS", "AGE", "DIGEST"],
        &["CREATED", "DRAIN DEADLINE", "REVISION"],
    );
    for bundle in &bundles {
        table.row(vec![
            bundle.bundle_id.clone(),
            human::bundle_state(bundle.state()),
            open_pins(bundle.open_pins.as_ref()).to_string(),
            human::age(bundle.created_at.as_ref(), now),
            human::cut(&bundle.digest, DIGEST),
            human::at(bundle.created_at.as_ref()),
            human::age(bundle.drain_deadline.as_ref(), now),
            bundle.revision.to_string(),
        ]);
    }
    let names = bundles.iter().map(|bundle| bundle.bundle_id.clone()).collect();
    let page = v1::ListBundlesResponse { bundles, next_page_token, revision };
    Ok(View::list(&page, "bundles", names, table))
}

pub(super) fn open_pins(pins: Option<&v1::OpenPins>) -> u64 {
    pins.map_or(0, |pins| pins.total)
}

async fn show(context: &Context, args: &Show) -> Done {
    let (agent_id, bundle_id) = (context.agent(&args.agent)?, named(&args.bundle)?);
    context
        .watch(args.read.watch, || async {
            let request = v1::GetBundleRequest {
                agent_id: agent_id.clone(),
                bundle_id: bundle_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.bundles().get(request).await?;
            let text = one(answer.bundle.as_ref(), answer.revision);
            Ok(View::object(&answer, &args.bundle, text))
        })
        .await
}

fn one(bundle: Option<&v1::Bundle>, revision: u64) -> String {
    let Some(bundle) = bundle else { return pairs(&[("revision", revision.to_string())]) };
    let now = human::now_ms();
    let manifest = bundle.manifest.clone().unwrap_or_default();
    let deadline = bundle.drain_deadline.as_ref();
    pairs(&[
        ("bundle", bundle.bundle_id.clone()),
        ("agent", bundle.agent_id.clone()),
        ("state", human::bundle_state(bundle.state())),
        ("digest", bundle.digest.clone()),
        ("created", human::at(bundle.created_at.as_ref())),
        ("open pins", open_pins(bundle.open_pins.as_ref()).to_string()),
        ("drain", deadline.map_or_else(String::new, |at| human::age(Some(at), now))),
        ("parts", parts(&manifest)),
        ("entry", manifest.entry),
        ("message", manifest.message),
        ("revision", revision.to_string()),
    ])
}

/// One line per part of a manifest.
pub(super) fn parts(manifest: &v1::BundleManifest) -> String {
    let mut lines = Vec::new();
    if let Some(code) = &manifest.code {
        lines.push(format!("code    {}{}", code.git_commit, code.image));
    }
    for (name, model) in &manifest.models {
        lines.push(format!("model   {name}: {} {} {}", model.provider, model.name, model.snapshot));
    }
    for (name, prompt) in &manifest.prompts {
        lines.push(format!("prompt  {name}: {}", human::cut(&prompt.digest, DIGEST)));
    }
    for (name, index) in &manifest.indexes {
        lines.push(format!("index   {name}: {} {}", index.version, index.embedding_model));
    }
    for (name, tool) in &manifest.tools {
        let class = human::side_effects(tool.side_effects());
        let digest = schema_digest(&tool.input_schema_json, &tool.output_schema_json);
        let digest = human::cut(&digest, DIGEST);
        lines.push(format!("tool    {name}: {} {class} {digest}", tool.version));
    }
    lines.join("\n")
}

async fn diff(context: &Context, args: &Diff) -> Done {
    let request = v1::DiffBundlesRequest {
        agent_id: context.agent(&args.agent)?,
        from_bundle_id: named(&args.from)?,
        to_bundle_id: named(&args.to)?,
        read: context.read(),
        ..Default::default()
    };
    let answer = context.client.bundles().diff(request).await?;
    if answer.changes.is_empty() {
        eprintln!("no difference");
    }
    let names = answer.changes.iter().map(|it| format!("{}.{}", it.part, it.name)).collect();
    let table = changes(&answer.changes);
    context.show(&View::list(&answer, "changes", names, table))
}

async fn recycle(context: &Context, args: &Recycle) -> Done {
    let (agent_id, bundle_id) = (context.agent(&args.agent)?, named(&args.bundle)?);
    context.confirm(&args.write, &format!("Give up the memory of {bundle_id}?"))?;
    let request = v1::RecycleBundleRequest {
        agent_id,
        bundle_id,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().recycle(request).await?;
    if answer.already {
        eprintln!("it was recycled already");
    }
    let text =
        pairs(&[("recycled", answer.bundle_id.clone()), ("revision", answer.revision.to_string())]);
    context.show(&View::object(&answer, &args.bundle, text))
}

/// Differences as a table; `run explain` shows the same.
pub(super) fn changes(changes: &[v1::PartChange]) -> Table {
    let mut table = Table::new(&["PART", "NAME", "CHANGE", "BEFORE", "AFTER"], &[]);
    for it in changes {
        table.row(vec![
            it.part.clone(),
            human::or_dash(&it.name),
            human::change(it.kind()),
            human::or_dash(&human::cut(&it.before.replace('\n', "⏎"), 48)),
            human::or_dash(&human::cut(&it.after.replace('\n', "⏎"), 48)),
        ]);
    }
    table
}
