//! `eval submit|list|show`: how bundles did.

use std::path::PathBuf;

use clap::Args;
use pinrail_proto::v1;
use v1::EvalOutcome as Outcome;

use super::import::{Choice, Format, import};
use super::{permille, read_file, refused, set_id};
use crate::cli::bundle::named;
use crate::cli::context::{Context, Done};
use crate::cli::flags::{ListFlags, ReadFlags, WriteFlags};
use crate::cli::human;
use crate::cli::problem::Problem;
use crate::cli::table::{Table, pairs};
use crate::cli::view::View;

/// Characters of a message in a table.
const MESSAGE: usize = 60;

#[derive(Debug, Clone, Args)]
pub struct Submit {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The bundle that was measured
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Result file; `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The set that it was measured on; default: the policy's (gates.evals.set)
    #[arg(long, value_name = "NAME@VERSION")]
    set: Option<String>,
    /// What the file is
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// Of a file with several providers (promptfoo): only this one
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Which scorer decides whether a sample passed (Inspect AI), and from which value on
    #[arg(long, value_name = "SCORER>=VALUE", value_parser = pass)]
    pass: Option<(String, f64)>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only of this bundle
    #[arg(value_name = "BUNDLE")]
    bundle: Option<String>,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The bundle that was measured
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Another report than the newest
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    report: String,
    /// Only examples that failed or are errors
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    read: ReadFlags,
}

/// `SCORER>=VALUE`, or a scorer alone.
fn pass(text: &str) -> Result<(String, f64), String> {
    let Some((scorer, value)) = text.split_once(">=") else { return Ok((text.to_owned(), 0.5)) };
    let value: f64 = value.trim().parse().map_err(|_| format!("{value:?} is no number"))?;
    Ok((scorer.trim().to_owned(), value))
}

pub(super) async fn submit(context: &Context, args: &Submit) -> Done {
    let (agent_id, bundle_id) = (context.agent(&args.agent)?, named(&args.bundle)?);
    let set = args.set.as_deref().map(set_id).transpose()?;
    let choice = Choice { provider: args.provider.clone(), pass: args.pass.clone() };
    let data = read_file(&args.file)?;
    let imported =
        import(&data, args.format, &choice).map_err(|error| refused(&args.file, &error))?;
    let format = imported.format.word();
    eprintln!("read as {format}: {} examples", imported.results.len());
    imported.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let request = v1::SubmitEvalReportRequest {
        agent_id,
        bundle_id,
        set: set.map_or_else(String::new, |(name, version)| format!("{name}@{version}")),
        format: format.to_owned(),
        source: source(&args.file, &imported.tool),
        metrics: imported.metrics,
        results: imported.results,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.evals().submit(request).await?;
    if answer.already {
        eprintln!("the same report was there already");
    }
    let report = answer.report.clone().unwrap_or_default();
    if report.set.is_empty() {
        eprintln!(
            "note: it is of no registered set, so no gate reads it; --set NAME@VERSION says of which"
        );
    }
    context.show(&View::object(&answer, &report.report_id, summary(&report)))
}

/// What an audit wants to know: which file, of which tool.
fn source(file: &std::path::Path, tool: &str) -> String {
    let name =
        file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let text = if tool.is_empty() { name } else { format!("{name} ({tool})") };
    human::cut(&text, 256)
}

fn summary(report: &v1::EvalReport) -> String {
    let of = report.summary.clone().unwrap_or_default();
    let judged = of.passed + of.failed;
    let rate = match judged {
        0 => "-".to_owned(),
        judged => {
            format!("{} of {judged}", permille(i64::from(of.passed) * 1_000 / i64::from(judged)))
        }
    };
    let metrics: Vec<String> = of.metrics.iter().map(metric).collect();
    let cost = if of.cost_micros == 0 { String::new() } else { human::micros(of.cost_micros) };
    pairs(&[
        ("report", report.report_id.clone()),
        ("agent", report.agent_id.clone()),
        ("bundle", report.bundle_id.clone()),
        ("set", human::or_dash(&report.set)),
        ("source", format!("{} {}", report.format, report.source)),
        ("pass rate", rate),
        ("passed", of.passed.to_string()),
        ("failed", of.failed.to_string()),
        ("errors", of.errors.to_string()),
        ("metrics", metrics.join("\n")),
        ("cost", cost),
        ("submitted", human::at(report.created_at.as_ref())),
        ("by", report.actor.clone()),
        ("revision", report.revision.to_string()),
    ])
}

fn metric(metric: &v1::EvalMetricSummary) -> String {
    let mean =
        metric.mean_permille.map_or_else(String::new, |it| format!(", mean {}", permille(it)));
    format!(
        "{} ({}): {} of {} passed{mean}",
        metric.name,
        kind(metric.kind()),
        metric.passed,
        metric.scored
    )
}

/// A kind of metric as files say it.
pub(super) fn kind(kind: v1::MetricKind) -> &'static str {
    match kind {
        v1::MetricKind::Unspecified => "kind not said",
        v1::MetricKind::Structured => "structured",
        v1::MetricKind::Judge => "judge",
        v1::MetricKind::Human => "human",
    }
}

pub(super) async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let bundle_id = args.bundle.as_deref().map(named).transpose()?.unwrap_or_default();
    let (agent_id, bundle_id) = (agent_id.as_str(), bundle_id.as_str());
    context
        .watch(args.list.watch, || async move {
            let fetch = |page_size, page_token| async move {
                let request = v1::ListEvalReportsRequest {
                    agent_id: agent_id.to_owned(),
                    bundle_id: bundle_id.to_owned(),
                    page_size,
                    page_token,
                    read: context.read(),
                    ..Default::default()
                };
                let answer = context.client.evals().list_reports(request).await?;
                Ok((answer.reports, answer.next_page_token, answer.revision))
            };
            let (reports, next_page_token, revision) = context.pages(&args.list, fetch).await?;
            Ok(page(v1::ListEvalReportsResponse { reports, next_page_token, revision }))
        })
        .await
}

fn page(page: v1::ListEvalReportsResponse) -> View {
    let now = human::now_ms();
    let mut table = Table::new(
        &["REPORT", "BUNDLE", "SET", "PASSED", "FAILED", "ERRORS", "AGE"],
        &["FORMAT", "SOURCE", "BY"],
    );
    for report in &page.reports {
        let of = report.summary.clone().unwrap_or_default();
        table.row(vec![
            report.report_id.clone(),
            report.bundle_id.clone(),
            human::or_dash(&report.set),
            of.passed.to_string(),
            of.failed.to_string(),
            of.errors.to_string(),
            human::age(report.created_at.as_ref(), now),
            report.format.clone(),
            report.source.clone(),
            human::or_dash(&report.actor),
        ]);
    }
    let names = page.reports.iter().map(|report| report.report_id.clone()).collect();
    View::list(&page, "reports", names, table)
}

pub(super) async fn show(context: &Context, args: &Show) -> Done {
    let (agent_id, bundle_id) = (context.agent(&args.agent)?, named(&args.bundle)?);
    context
        .watch(args.read.watch, || async {
            let request = v1::GetEvalReportRequest {
                agent_id: agent_id.clone(),
                bundle_id: bundle_id.clone(),
                report_id: args.report.clone(),
                failed: args.failed,
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.evals().get_report(request).await?;
            let report = answer.report.as_ref().ok_or_else(|| Problem::usage("no report came"))?;
            let text = format!("{}\n{}", summary(report), results(report).render(false));
            Ok(View::object(&answer, &report.report_id, text))
        })
        .await
}

fn results(report: &v1::EvalReport) -> Table {
    let mut table = Table::new(&["EXAMPLE", "CATEGORY", "OUTCOME", "SCORES", "MESSAGE"], &[]);
    for result in &report.results {
        let score = |it: &v1::EvalScore| match (it.score_permille, it.passed) {
            (Some(score), _) => format!("{} {}", it.metric, permille(score)),
            (None, Some(true)) => format!("{} yes", it.metric),
            (None, _) => format!("{} no", it.metric),
        };
        let outcome = match result.outcome() {
            Outcome::Unspecified => "-",
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Error => "ERROR",
        };
        let tries = match result.trials {
            0 | 1 => String::new(),
            trials => format!(" {} of {trials}", result.trials_passed),
        };
        table.row(vec![
            result.example_id.clone(),
            human::or_dash(&result.category),
            format!("{outcome}{tries}"),
            human::or_dash(&result.scores.iter().map(score).collect::<Vec<_>>().join(", ")),
            human::or_dash(&human::cut(&result.message.replace('\n', "⏎"), MESSAGE)),
        ]);
    }
    table
}
