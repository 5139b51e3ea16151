//! `eval`: sets of examples, how bundles did on them, and how well they span what production does.

mod coverage;
mod import;
mod judge;
mod report;
mod set;
mod set_file;

use clap::Subcommand;
use pinrail_proto::id;

use super::context::{Context, Done};
use super::problem::{self, Problem};

/// Verbs of `eval`.
#[derive(Debug, Clone, Subcommand)]
pub enum Eval {
    /// Versioned sets of examples, which never change
    #[command(subcommand, alias = "sets")]
    Set(set::Set),
    /// Say how a bundle did: the result file of promptfoo, Inspect AI, DeepEval, JUnit or our own JSON
    #[command(
        after_help = "Examples:\n  pinrail eval submit support v42 -f results.json --set core@14\n  pinrail eval submit support v42 -f logs/2026-11-23_core.eval --pass 'tone>=0.7'\n  pinrail eval submit support v42 -f results.json --provider openai:gpt-5 --dry-run"
    )]
    Submit(report::Submit),
    /// Reports, newest first
    #[command(
        after_help = "Examples:\n  pinrail eval list support\n  pinrail eval list support v42"
    )]
    List(report::List),
    /// How a bundle did, example by example
    #[command(
        after_help = "Examples:\n  pinrail eval show support v42 --failed\n  pinrail eval show support v42 --report er-0f3b5c7d9e1a"
    )]
    Show(report::Show),
    /// What the gate `evals` would say of a bundle now; exit 3 when it is not passed
    #[command(
        after_help = "Examples:\n  pinrail eval judge support v42\n  pinrail eval judge support v42 --set core@15"
    )]
    Judge(judge::Judge),
    /// The categories of a set beside those of production
    #[command(
        after_help = "Examples:\n  pinrail eval coverage support v42\n  pinrail eval coverage support --set core@15"
    )]
    Coverage(coverage::Coverage),
}

pub(super) async fn run(context: &Context, verb: &Eval) -> Done {
    match verb {
        Eval::Set(verb) => set::run(context, verb).await,
        Eval::Submit(args) => report::submit(context, args).await,
        Eval::List(args) => report::list(context, args).await,
        Eval::Show(args) => report::show(context, args).await,
        Eval::Judge(args) => judge::judge(context, args).await,
        Eval::Coverage(args) => coverage::coverage(context, args).await,
    }
}

/// Checks `name@version`.
fn set_id(text: &str) -> Result<(String, String), Problem> {
    let (name, version) = text
        .split_once('@')
        .ok_or_else(|| Problem::usage(format!("{text:?}: a set is written as name@version")))?;
    id::check_name("eval set", name)?;
    id::check_name("version of the eval set", version)?;
    Ok((name.to_owned(), version.to_owned()))
}

/// Thousandths as people read them: `0.881`.
fn permille(permille: impl Into<i64>) -> String {
    let permille = permille.into();
    let sign = if permille < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", permille.abs() / 1_000, permille.abs() % 1_000)
}

/// A file as it lies there, or stdin.
/// Whether a result file is read, for those who look for one that does harm.
#[cfg(feature = "testing")]
#[must_use]
pub fn reads_eval_results(data: &[u8]) -> bool {
    import::import(data, import::Format::Auto, &import::Choice::default()).is_ok()
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, Problem> {
    use std::io::Read as _;
    let cannot = |error: std::io::Error| Problem::usage(format!("{}: {error}", path.display()));
    if path.as_os_str() != "-" {
        return std::fs::read(path).map_err(cannot);
    }
    let mut data = Vec::new();
    std::io::stdin().lock().read_to_end(&mut data).map_err(cannot)?;
    Ok(data)
}

/// A file that was not taken.
fn refused(path: &std::path::Path, error: &import::ImportError) -> Problem {
    let name = pinrail_proto::reason::INVALID_EVAL_REPORT.name;
    let message = format!("{}: {error}", path.display());
    let mut problem = Problem::new(name, problem::exit_code(name), message);
    problem.why.push("nothing was stored".to_owned());
    problem
}
