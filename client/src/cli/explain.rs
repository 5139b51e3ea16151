//! `explain`: what a reason means and what to do.

use clap::Args;
use pinrail_proto::reason::{self, Reason};

use super::context::{Context, Done};
use super::problem::Problem;
use super::table::{Table, pairs};
use super::view::{Body, View};

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  pinrail explain NO_QUORUM\n  pinrail explain")]
pub struct Explain {
    /// Reason, as it stands in brackets after `error`; without it: all of them
    #[arg(value_name = "REASON")]
    reason: Option<String>,
}

pub(super) fn explain(context: &Context, args: &Explain) -> Done {
    let Some(name) = &args.reason else { return all(context) };
    let found = reason::find(name).ok_or_else(|| unknown(name))?;
    let text = pairs(&[
        ("reason", found.name.to_owned()),
        ("exit code", found.exit.to_string()),
        ("gRPC code", found.code.to_string()),
        ("help", found.help.to_owned()),
    ]);
    let names = vec![found.name.to_owned()];
    context.show(&View::other(json(found), None, names, Body::Text(text)))
}

fn json(reason: &Reason) -> serde_json::Value {
    serde_json::json!({
        "reason": reason.name,
        "exit_code": reason.exit,
        "grpc_code": reason.code,
        "help": reason.help,
    })
}

fn all(context: &Context) -> Done {
    let mut table = Table::new(&["REASON", "EXIT", "HELP"], &["GRPC"]);
    for reason in reason::ALL {
        table.row(vec![
            reason.name.to_owned(),
            reason.exit.to_string(),
            reason.help.to_owned(),
            reason.code.to_string(),
        ]);
    }
    let names = reason::ALL.iter().map(|reason| reason.name.to_owned()).collect();
    let reasons: Vec<_> = reason::ALL.iter().map(json).collect();
    let json = serde_json::json!({ "reasons": reasons });
    context.show(&View::other(json, Some("reasons"), names, Body::Table(table)))
}

fn unknown(name: &str) -> Problem {
    let upper = name.to_uppercase();
    let near = reason::ALL.iter().min_by_key(|it| strsim::damerau_levenshtein(it.name, &upper));
    let problem = Problem::new("REASON_NOT_FOUND", 1, format!("no reason {name:?} is known"));
    match near {
        Some(near) => problem.next(format!("pinrail explain {}", near.name)),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_reason_is_suggested() {
        assert_eq!(unknown("no_qorum").next, ["pinrail explain NO_QUORUM"]);
    }
}
