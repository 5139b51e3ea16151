//! `eval coverage`: the categories of a set beside those of production.

use clap::Args;
use pinrail_proto::v1;

use super::{permille, set_id};
use crate::cli::bundle::named;
use crate::cli::context::{Context, Done};
use crate::cli::flags::ReadFlags;
use crate::cli::human;
use crate::cli::table::Table;
use crate::cli::view::View;

#[derive(Debug, Clone, Args)]
pub struct Coverage {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// A bundle whose newest report says which set, when the policy names none
    #[arg(value_name = "BUNDLE")]
    bundle: Option<String>,
    /// Another set than the policy's
    #[arg(long, value_name = "NAME@VERSION")]
    set: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

pub(super) async fn coverage(context: &Context, args: &Coverage) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let bundle_id = args.bundle.as_deref().map(named).transpose()?.unwrap_or_default();
    let set = args.set.as_deref().map(set_id).transpose()?;
    let set = set.map_or_else(String::new, |(name, version)| format!("{name}@{version}"));
    context
        .watch(args.read.watch, || async {
            let request = v1::GetEvalCoverageRequest {
                agent_id: agent_id.clone(),
                bundle_id: bundle_id.clone(),
                set: set.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.evals().coverage(request).await?;
            let coverage = answer.coverage.clone().unwrap_or_default();
            let names = coverage.categories.iter().map(|it| it.category.clone()).collect();
            Ok(View::list(&answer, "coverage", names, table(&coverage)).headed(heading(&coverage)))
        })
        .await
}

fn heading(coverage: &v1::EvalCoverage) -> String {
    format!(
        "{}: {} examples beside {} live runs with the label {} since {}\n\
         distance of the mixes {}, allowed {}; categories with {} of production need {} examples\n\n",
        coverage.set,
        coverage.examples,
        coverage.runs,
        coverage.label,
        human::at(coverage.window_start.as_ref()),
        permille(coverage.gap_permille),
        permille(coverage.max_gap_permille),
        permille(coverage.floor_permille),
        coverage.min_cases,
    )
}

fn table(coverage: &v1::EvalCoverage) -> Table {
    let columns = ["CATEGORY", "RUNS", "PRODUCTION", "EXAMPLES", "SET", "GAP", "STATE"];
    let mut table = Table::new(&columns, &[]);
    for it in &coverage.categories {
        let gap = i64::from(it.examples_permille) - i64::from(it.runs_permille);
        table.row(vec![
            human::or_dash(&it.category),
            it.runs.to_string(),
            permille(it.runs_permille),
            it.examples.to_string(),
            permille(it.examples_permille),
            permille(gap),
            if it.short { "SHORT" } else { "ok" }.to_owned(),
        ]);
    }
    table
}
