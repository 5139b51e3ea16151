//! `memory diff`, `promote`, `discard`: what two layers see differently, and what becomes of it.

use clap::{Args, ValueEnum};
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::{id, v1};

use super::super::bundle::named;
use super::super::context::{Context, Done};
use super::super::flags::{ListFlags, WriteFlags};
use super::super::human;
use super::super::problem::Problem;
use super::super::table::{Table, pairs};
use super::super::view::View;
use super::VALUE;

/// A bundle, or `layer:N`.
fn layer(text: &str) -> Result<v1::MemoryScope, Problem> {
    let scope = match text.strip_prefix("layer:") {
        Some(number) => Scope::Layer(number.parse().map_err(|_| {
            Problem::usage(format!("{text:?}: a layer is layer:N with its number"))
        })?),
        None => Scope::BundleId(named(text)?),
    };
    Ok(v1::MemoryScope { scope: Some(scope) })
}

/// A bundle, `layer:N`, or what a run sees.
fn side(text: &str) -> Result<v1::MemoryScope, Problem> {
    let Some(run) = text.strip_prefix("run:") else { return layer(text) };
    id::check_token("run id", run)?;
    Ok(v1::MemoryScope { scope: Some(Scope::RunId(run.to_owned())) })
}

#[derive(Debug, Clone, Args)]
pub struct Diff {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle, layer:N, or run:ID for what a run sees
    #[arg(value_name = "FROM")]
    from: String,
    /// Bundle, layer:N, or run:ID; default: the live bundle
    #[arg(value_name = "TO")]
    to: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only what was written to FROM after another layer froze on it, or after it was rolled back
    #[arg(long)]
    late: bool,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    list: ListFlags,
}

/// What happens to a key that the target got another version of meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    /// Nothing is written at all
    Fail,
    /// The target keeps its version
    Skip,
    /// The target gets this version too
    Overwrite,
}

#[derive(Debug, Clone, Args)]
pub struct Promote {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle, or layer:N, whose own versions are carried over
    #[arg(long, value_name = "BUNDLE")]
    from: String,
    /// Bundle whose newest layer is written; default: the live one
    #[arg(long, value_name = "BUNDLE")]
    to: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only what was written after another layer froze on it, or after it was rolled back
    #[arg(long)]
    late: bool,
    /// When the target got another version meanwhile
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnConflict::Fail)]
    on_conflict: OnConflict,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Discard {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle, or layer:N, whose own versions are dropped
    #[arg(long, value_name = "BUNDLE")]
    from: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn diff(context: &Context, args: &Diff) -> Done {
    let agent = context.agent(&args.agent)?;
    let from = side(&args.from)?;
    let to = args.to.as_deref().map(side).transpose()?;
    let (agent, from, to) = (agent.as_str(), &from, &to);
    let fetch = |page_size, page_token| async move {
        let request = v1::DiffMemoryRequest {
            agent_id: agent.to_owned(),
            from: Some(from.clone()),
            to: to.clone(),
            prefix: args.prefix.clone(),
            late: args.late,
            keys_only: args.keys_only,
            page_size,
            page_token,
            read: context.read(),
            ..Default::default()
        };
        let page = context.client.memory().diff(request).await?;
        Ok((page.differences, page.next_page_token, page.revision))
    };
    context
        .watch(args.list.watch, || async move {
            let (differences, next_page_token, revision) = context.pages(&args.list, fetch).await?;
            let table = table(&differences);
            let names = differences.iter().map(|it| it.key.clone()).collect();
            let page = v1::DiffMemoryResponse {
                differences,
                next_page_token,
                revision,
                ..Default::default()
            };
            Ok(View::list(&page, "differences", names, table))
        })
        .await
}

fn table(differences: &[v1::MemoryDifference]) -> Table {
    let mut table = Table::new(&["KEY", "FROM", "TO"], &["FROM REVISION", "TO REVISION"]);
    let value = |it: &Option<v1::MemoryVersion>| {
        it.as_ref().map_or_else(|| "-".to_owned(), |it| human::payload(it.value.as_ref(), VALUE))
    };
    let revision = |it: &Option<v1::MemoryVersion>| {
        it.as_ref().map_or_else(|| "-".to_owned(), |it| it.revision.to_string())
    };
    for it in differences {
        table.row(vec![
            it.key.clone(),
            value(&it.from),
            value(&it.to),
            revision(&it.from),
            revision(&it.to),
        ]);
    }
    table
}

/// Options of one batch of many: the batches of one call have ids of their own, and so have those of a rehearsal.
fn batch(
    options: Option<&v1::WriteOptions>,
    number: u32,
    dry_run: bool,
) -> Option<v1::WriteOptions> {
    let mut options = options.cloned()?;
    options.dry_run |= dry_run;
    // A rehearsal is not remembered.
    options.request_id = if dry_run || options.request_id.is_empty() {
        String::new()
    } else {
        format!("{}-{number}", options.request_id)
    };
    Some(options)
}

pub(super) async fn promote(context: &Context, args: &Promote) -> Done {
    let on_conflict = match args.on_conflict {
        OnConflict::Fail => v1::OnConflict::Fail,
        OnConflict::Skip => v1::OnConflict::Skip,
        OnConflict::Overwrite => v1::OnConflict::Overwrite,
    };
    let request = v1::PromoteMemoryRequest {
        agent_id: context.agent(&args.agent)?,
        from: Some(layer(&args.from)?),
        to_bundle_id: args.to.as_deref().map(named).transpose()?.unwrap_or_default(),
        prefix: args.prefix.clone(),
        late: args.late,
        on_conflict: on_conflict.into(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    if args.on_conflict == OnConflict::Fail && !args.write.dry_run {
        // A batch is refused as a whole, but not those before it: see first whether any would be.
        batches(context, &request, true).await?;
    }
    let done = batches(context, &request, args.write.dry_run).await?;
    let text = pairs(&[
        ("promoted", done.promoted.to_string()),
        ("skipped", done.skipped.to_string()),
        ("the same", done.same.to_string()),
        ("conflicts", done.conflicts.join("\n")),
        ("from layer", done.from_layer.to_string()),
        ("to layer", done.to_layer.to_string()),
        ("revision", done.revision.to_string()),
    ]);
    context.show(&View::object(&done, &args.from, text))
}

/// All batches of a promotion, summed up.
async fn batches(
    context: &Context,
    request: &v1::PromoteMemoryRequest,
    dry_run: bool,
) -> Result<v1::PromoteMemoryResponse, Problem> {
    let mut sum = v1::PromoteMemoryResponse::default();
    for number in 0.. {
        let request = v1::PromoteMemoryRequest {
            after_key: sum.next_key.clone(),
            options: batch(request.options.as_ref(), number, dry_run),
            ..request.clone()
        };
        let done = context.client.memory().promote(request).await?;
        sum.conflicts.extend(done.conflicts);
        sum = v1::PromoteMemoryResponse {
            promoted: sum.promoted + done.promoted,
            skipped: sum.skipped + done.skipped,
            same: sum.same + done.same,
            conflicts: sum.conflicts,
            next_key: done.next_key,
            from_layer: done.from_layer,
            to_layer: done.to_layer,
            revision: done.revision,
        };
        if sum.next_key.is_empty() {
            break;
        }
    }
    Ok(sum)
}

pub(super) async fn discard(context: &Context, args: &Discard) -> Done {
    let question =
        format!("Drop what {} has of its own in the memory of {}?", args.from, args.agent);
    context.confirm(&args.write, &question)?;
    let options = context.write(&args.write)?;
    let mut request = v1::DiscardMemoryRequest {
        agent_id: context.agent(&args.agent)?,
        from: Some(layer(&args.from)?),
        prefix: args.prefix.clone(),
        ..Default::default()
    };
    let mut sum = v1::DiscardMemoryResponse::default();
    for number in 0.. {
        request.options = batch(options.as_ref(), number, args.write.dry_run);
        let done = context.client.memory().discard(request.clone()).await?;
        request.after_key.clone_from(&done.next_key);
        sum = v1::DiscardMemoryResponse { discarded: sum.discarded + done.discarded, ..done };
        if sum.next_key.is_empty() {
            break;
        }
    }
    let text = pairs(&[
        ("dropped", human::count(sum.discarded, "version")),
        ("layer", sum.layer.to_string()),
        ("revision", sum.revision.to_string()),
    ]);
    context.show(&View::object(&sum, &args.from, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_bundle_a_layer_or_a_run() {
        let layer = v1::MemoryScope { scope: Some(Scope::Layer(3)) };
        assert_eq!(side("layer:3"), Ok(layer));
        let run = v1::MemoryScope { scope: Some(Scope::RunId("smoke-1".into())) };
        assert_eq!(side("run:smoke-1"), Ok(run));
        assert!(super::layer("run:smoke-1").is_err(), "nothing leads out of a run's memory");
        let bundle = v1::MemoryScope { scope: Some(Scope::BundleId("v1".into())) };
        assert_eq!(side("v1"), Ok(bundle));
        assert!(side("layer:x").is_err() && side("a b").is_err());
    }

    #[test]
    fn batches_of_one_call_have_ids_of_their_own() {
        let options = v1::WriteOptions { request_id: "q".into(), ..Default::default() };
        let id = |number, dry_run| {
            let options = batch(Some(&options), number, dry_run).expect("there are some");
            (options.request_id, options.dry_run)
        };
        assert_eq!(id(0, false), ("q-0".to_owned(), false));
        assert_eq!(id(7, false), ("q-7".to_owned(), false));
        assert_eq!(id(7, true), (String::new(), true));
    }
}
