//! `eval set`: versioned sets of examples, which never change.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::import::Choice;
use super::report::kind;
use super::{set_file, set_id};
use crate::cli::context::{Context, Done};
use crate::cli::flags::{ListFlags, ReadFlags, WriteFlags};
use crate::cli::human;
use crate::cli::problem::Problem;
use crate::cli::table::{Table, pairs};
use crate::cli::view::View;

/// Characters of a digest or an input in a table.
const SHOWN: usize = 13;
const INPUT: usize = 48;

/// Verbs of `eval set`.
#[derive(Debug, Clone, Subcommand)]
pub enum Set {
    /// Register a version; the same content again is a no-op, other content is refused
    #[command(
        after_help = "Examples:\n  pinrail eval set create support core@14 -f core.toml\n  pinrail eval set create support core@14 --from results.json"
    )]
    Create(Create),
    /// List versions of sets
    #[command(after_help = "Example:\n  pinrail eval set list support")]
    List(List),
    /// Show a version with its examples
    #[command(
        after_help = "Examples:\n  pinrail eval set show support core@14\n  pinrail eval set show support core"
    )]
    Show(Show),
}

#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name and version
    #[arg(value_name = "NAME@VERSION")]
    set: String,
    /// The set's file, TOML or JSON; `-` for stdin
    #[arg(short, long, value_name = "FILE", required_unless_present = "from")]
    file: Option<PathBuf>,
    /// Instead: the examples of a result file, by their ids, categories and digests
    #[arg(long, value_name = "RESULTS", conflicts_with = "file")]
    from: Option<PathBuf>,
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
    /// Name and version; a name alone: the version that was registered last
    #[arg(value_name = "NAME[@VERSION]")]
    set: String,
    #[command(flatten)]
    read: ReadFlags,
}

pub(super) async fn run(context: &Context, verb: &Set) -> Done {
    match verb {
        Set::Create(args) => create(context, args).await,
        Set::List(args) => list(context, args).await,
        Set::Show(args) => show(context, args).await,
    }
}

async fn create(context: &Context, args: &Create) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let (name, version) = set_id(&args.set)?;
    let content = match (&args.file, &args.from) {
        (Some(file), _) => set_file::load(file)?,
        (None, Some(results)) => set_file::from_results(results, &Choice::default())?,
        (None, None) => return Err(Problem::usage("give the set's file with -f")),
    };
    let request = v1::CreateEvalSetRequest {
        agent_id,
        name,
        version,
        description: content.description,
        metrics: content.metrics,
        memory_revision: content.memory_revision,
        examples: content.examples,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.evals().create_set(request).await?;
    if answer.already {
        eprintln!("the same set was there already");
    }
    let text = one(answer.set.as_ref());
    context.show(&View::object(&answer, &args.set, text))
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let agent_id = agent_id.as_str();
    context
        .watch(args.list.watch, || async move {
            let fetch = |page_size, page_token| async move {
                let request = v1::ListEvalSetsRequest {
                    agent_id: agent_id.to_owned(),
                    page_size,
                    page_token,
                    read: context.read(),
                    ..Default::default()
                };
                let answer = context.client.evals().list_sets(request).await?;
                Ok((answer.sets, answer.next_page_token, answer.revision))
            };
            let (sets, next_page_token, revision) = context.pages(&args.list, fetch).await?;
            Ok(page(v1::ListEvalSetsResponse { sets, next_page_token, revision }))
        })
        .await
}

fn page(page: v1::ListEvalSetsResponse) -> View {
    let now = human::now_ms();
    let columns = ["SET", "EXAMPLES", "CATEGORIES", "METRICS", "DIGEST", "AGE"];
    let mut table = Table::new(&columns, &["DESCRIPTION"]);
    for set in &page.sets {
        table.row(vec![
            set.set.clone(),
            set.example_count.to_string(),
            set.categories.len().to_string(),
            set.metrics.len().to_string(),
            human::cut(&set.digest, SHOWN),
            human::age(set.created_at.as_ref(), now),
            human::or_dash(&set.description),
        ]);
    }
    let names = page.sets.iter().map(|set| set.set.clone()).collect();
    View::list(&page, "sets", names, table)
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetEvalSetRequest {
                agent_id: agent_id.clone(),
                set: args.set.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.evals().get_set(request).await?;
            let set = answer.set.as_ref();
            let examples = set.map_or_else(String::new, |set| examples(set).render(false));
            let name = set.map_or_else(String::new, |set| set.set.clone());
            Ok(View::object(&answer, &name, format!("{}\n{examples}", one(set))))
        })
        .await
}

fn one(set: Option<&v1::EvalSet>) -> String {
    let set = set.cloned().unwrap_or_default();
    let count = |it: &v1::CategoryCount| format!("{} {}", human::or_dash(&it.category), it.count);
    let metric = |it: &v1::EvalMetric| format!("{} ({})", it.name, kind(it.kind()));
    let memory = match set.memory_revision {
        0 => String::new(),
        revision => format!("as of revision {revision}"),
    };
    pairs(&[
        ("set", set.set.clone()),
        ("agent", set.agent_id.clone()),
        ("digest", set.digest.clone()),
        ("description", set.description.clone()),
        ("examples", format!("{}, {} with an input", set.example_count, set.with_input)),
        ("categories", set.categories.iter().map(count).collect::<Vec<_>>().join(", ")),
        ("metrics", set.metrics.iter().map(metric).collect::<Vec<_>>().join(", ")),
        ("memory", memory),
        ("created", human::at(set.created_at.as_ref())),
        ("revision", set.created_revision.to_string()),
    ])
}

fn examples(set: &v1::EvalSet) -> Table {
    let mut table = Table::new(&["EXAMPLE", "CATEGORY", "DIGEST", "INPUT"], &[]);
    for example in &set.examples {
        table.row(vec![
            example.id.clone(),
            human::or_dash(&example.category),
            human::cut(&example.digest, SHOWN),
            human::or_dash(&human::payload(example.input.as_ref(), INPUT)),
        ]);
    }
    table
}
