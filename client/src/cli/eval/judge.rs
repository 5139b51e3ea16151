//! `eval judge`: what the gate would say now.

use clap::Args;
use pinrail_proto::{reason, v1};
use v1::Verdict;

use super::{permille, set_id};
use crate::cli::bundle::named;
use crate::cli::context::{Context, Done};
use crate::cli::human;
use crate::cli::problem::{self, Problem};
use crate::cli::table::Table;
use crate::cli::view::View;

#[derive(Debug, Clone, Args)]
pub struct Judge {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The bundle to be judged
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Another set than the policy's
    #[arg(long, value_name = "NAME@VERSION")]
    set: Option<String>,
}

pub(super) async fn judge(context: &Context, args: &Judge) -> Done {
    let set = args.set.as_deref().map(set_id).transpose()?;
    let request = v1::JudgeEvalsRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: named(&args.bundle)?,
        set: set.map_or_else(String::new, |(name, version)| format!("{name}@{version}")),
        read: context.read(),
        ..Default::default()
    };
    let answer = context.client.evals().judge(request).await?;
    let judgement = answer.judgement.clone().unwrap_or_default();
    let names = vec![human::verdict(judgement.verdict())];
    context.show(
        &View::list(&answer, "judgement", names, table(&judgement)).headed(heading(&judgement)),
    )?;
    match judgement.verdict() {
        Verdict::Pass | Verdict::Skipped => Ok(problem::OK),
        Verdict::Unspecified
        | Verdict::Pending
        | Verdict::Running
        | Verdict::Fail
        | Verdict::InsufficientData
        | Verdict::Error => Err(not_passed(args, &judgement)),
    }
}

fn not_passed(args: &Judge, judgement: &v1::EvalJudgement) -> Problem {
    let reason = match judgement.reason.as_str() {
        "" => reason::GATE_NOT_PASSED.name,
        reason => reason,
    };
    let message =
        format!("{} did not pass evals: {}", args.bundle, human::verdict(judgement.verdict()));
    let mut problem = Problem::new(reason, problem::exit_code(reason), message);
    problem.why.push(judgement.message.clone());
    problem.next.push(format!("pinrail eval show {} {} --failed", args.agent, args.bundle));
    problem.next.extend(judgement.next.iter().cloned());
    problem
}

fn heading(judgement: &v1::EvalJudgement) -> String {
    let mut text = format!("{}  {}\n", human::verdict(judgement.verdict()), judgement.message);
    let rates = [
        (&judgement.bundle_id, judgement.candidate),
        (&judgement.baseline_bundle_id, judgement.baseline),
    ];
    for (bundle, rate) in rates {
        let Some(rate) = rate else { continue };
        text.push_str(&format!(
            "{bundle}  {} of {} passed: {} ({} to {}), {} errors\n",
            rate.passed,
            rate.judged,
            permille(rate.rate_permille),
            permille(rate.low_permille),
            permille(rate.high_permille),
            rate.errors,
        ));
    }
    text + "\n"
}

fn table(judgement: &v1::EvalJudgement) -> Table {
    let mut table = Table::new(&["CHECK", "VERDICT", "WHY"], &[]);
    for check in &judgement.checks {
        table.row(vec![check.name.clone(), human::verdict(check.verdict()), check.message.clone()]);
    }
    table
}
