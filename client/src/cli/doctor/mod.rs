//! `doctor`: everything that an engineer on call looks at first, each on one line with what to do next.
//!
//! It asks only what other verbs ask too, and decides nothing for the cluster. With `-f server.toml` it looks at this machine
//! as well (`local.rs`); no other part reads files.

mod agents;
mod cluster;
mod local;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::context::{Context, Done};
use super::problem;
use super::view::{Body, View};

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  pinrail doctor\n  pinrail doctor -f /etc/pinrail/server.toml")]
pub struct Doctor {
    /// server.toml of the member on this machine: its disk and limits are looked at too
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warn,
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    /// A command or advice; empty where nothing is to be done.
    next: String,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, state: State::Ok, found: found.into(), next: String::new() }
}

fn warn(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { check, state: State::Warn, found: found.into(), next: next.into() }
}

fn fail(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { check, state: State::Fail, found: found.into(), next: next.into() }
}

pub(super) async fn run(context: &Context, args: &Doctor) -> Done {
    let cluster::Looked { mut findings, has_quorum } = cluster::look(context).await;
    if has_quorum {
        findings.extend(agents::look(context).await);
    }
    if let Some(file) = &args.file {
        findings.extend(local::look(file));
    }
    context.show(&view(&findings))?;
    Ok(exit(&findings, has_quorum))
}

fn exit(findings: &[Finding], has_quorum: bool) -> u8 {
    match findings.iter().map(|it| it.state).max() {
        _ if !has_quorum => problem::UNAVAILABLE,
        Some(State::Fail) => problem::ERROR,
        Some(State::Ok | State::Warn) | None => problem::OK,
    }
}

fn view(findings: &[Finding]) -> View {
    let worst = findings.iter().map(|it| it.state).max().unwrap_or(State::Ok);
    let check = |it: &Finding| json!({ "check": it.check, "state": it.state.word(), "found": it.found, "next": it.next });
    let checks: Vec<_> = findings.iter().map(check).collect();
    let data = json!({ "state": worst.word(), "checks": checks });
    let names = findings.iter().filter(|it| it.state != State::Ok).map(|it| it.check.to_owned());
    let mut text = String::new();
    for it in findings {
        text.push_str(&format!("{:5} {:11} {}\n", it.state.word(), it.check, it.found));
        if !it.next.is_empty() {
            text.push_str(&format!("{:17} next  {}\n", "", it.next));
        }
    }
    View::other(data, Some("checks"), names.collect(), Body::Text(text))
}

#[cfg(test)]
mod tests {
    use super::super::settings::Output;
    use super::*;

    #[test]
    fn exit_codes_follow_the_worst_finding_and_the_quorum() {
        let (good, odd, bad) = (ok("a", "x"), warn("b", "x", "y"), fail("c", "x", "y"));
        assert_eq!(exit(&[], true), 0);
        assert_eq!(exit(&[good.clone(), odd.clone()], true), 0);
        assert_eq!(exit(&[good.clone(), bad, odd], true), 1);
        assert_eq!(exit(&[good], false), 6);
    }

    #[test]
    fn each_finding_is_a_line_and_says_what_to_do() {
        let shown = view(&[ok("quorum", "reads 2ms"), warn("lag", "n1 is behind", "look at n1")]);
        assert_eq!(
            shown.render(Output::Table).expect("it renders"),
            "ok    quorum      reads 2ms\nwarn  lag         n1 is behind\n                  next  look at n1\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&shown.render(Output::Json).expect("it renders")).expect("JSON");
        assert_eq!(
            (json["state"].as_str(), json["checks"][1]["next"].as_str()),
            (Some("warn"), Some("look at n1"))
        );
    }
}
