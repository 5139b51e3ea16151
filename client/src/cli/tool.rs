//! `tool`: tools and models that are not what a bundle says, and what somebody says about it.

use clap::{Args, Subcommand};
use pinrail_proto::{id, v1};

use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags, word};
use super::human;
use super::problem::{self, Problem};
use super::table::Table;
use super::view::View;

/// Digits of a digest that a table shows.
const DIGEST: usize = 12;

/// Verbs of `tool`.
#[derive(Debug, Clone, Subcommand)]
pub enum Tool {
    /// What is not what the bundle says; exit code 10 when the policy does not accept all of it
    #[command(
        after_help = "Examples:\n  pinrail tool drift support\n  pinrail tool drift support search --bundle v42 -o json\n  pinrail tool drift support --all --source model"
    )]
    Drift(Drift),
    /// Say that you live with it: it alarms and blocks no more
    #[command(
        after_help = "Examples:\n  pinrail tool accept support search --reason \"region has a default on the server\"\n  pinrail tool accept support default --source model --bundle v42 --reason \"SUP-812\""
    )]
    Accept(Accept),
}

#[derive(Debug, Clone, Args)]
pub struct Drift {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this tool, or this model
    #[arg(value_name = "TOOL", default_value = "", hide_default_value = true)]
    tool: String,
    /// Only of this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    /// Only what showed there: schema, response or model
    #[arg(long, value_name = "SOURCE", value_parser = word::<v1::DriftSource>)]
    source: Option<v1::DriftSource>,
    /// What was accepted or is over too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Accept {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the tool, or of the model
    #[arg(value_name = "TOOL")]
    tool: String,
    /// Only of this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    /// Only what showed there: schema, response or model
    #[arg(long, value_name = "SOURCE", value_parser = word::<v1::DriftSource>)]
    source: Option<v1::DriftSource>,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Tool) -> Done {
    match verb {
        Tool::Drift(args) => drift(context, args).await,
        Tool::Accept(args) => accept(context, args).await,
    }
}

async fn drift(context: &Context, args: &Drift) -> Done {
    let agent_id = context.agent(&args.agent)?;
    if !args.bundle.is_empty() {
        id::check_name("bundle", &args.bundle)?;
    }
    let read = || async {
        let request = v1::ListDriftsRequest {
            agent_id: agent_id.clone(),
            bundle_id: args.bundle.clone(),
            name: args.tool.clone(),
            source: args.source.unwrap_or_default().into(),
            all: args.all,
            read: context.read(),
            ..Default::default()
        };
        Ok::<_, Problem>(context.client.tools().drifts(request).await?)
    };
    if args.read.watch {
        return context.watch(true, || async { Ok(view(&read().await?)) }).await;
    }
    let answer = read().await?;
    context.show(&view(&answer))?;
    let minded = answer.drifts.iter().any(is_minded);
    Ok(if minded { problem::DIFFERENT } else { problem::OK })
}

/// Whether somebody should look: it is open, and the policy does not live with it.
fn is_minded(it: &v1::Drift) -> bool {
    it.state() == v1::DriftState::Open && it.action() != v1::DriftAction::Accept
}

async fn accept(context: &Context, args: &Accept) -> Done {
    if !args.bundle.is_empty() {
        id::check_name("bundle", &args.bundle)?;
    }
    let request = v1::AcceptDriftRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: args.bundle.clone(),
        name: args.tool.clone(),
        source: args.source.unwrap_or_default().into(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.tools().accept(request).await?;
    let names = answer.drifts.iter().map(|it| it.name.clone()).collect();
    context.show(&View::list(&answer, "drifts", names, table(&answer.drifts)))
}

fn view(answer: &v1::ListDriftsResponse) -> View {
    let names = answer.drifts.iter().map(|it| it.name.clone()).collect();
    View::list(answer, "drifts", names, table(&answer.drifts))
}

fn table(drifts: &[v1::Drift]) -> Table {
    let mut table = Table::new(
        &["BUNDLE", "NAME", "SOURCE", "CLASS", "STATE", "POLICY", "SEEN", "WHAT"],
        &["EXPECTED", "GOT", "FIRST", "BY", "REASON"],
    );
    let now = human::now_ms();
    for it in drifts {
        table.row(vec![
            it.bundle_id.clone(),
            it.name.clone(),
            human::drift_source(it.source()),
            human::drift_class(it.class()),
            human::drift_state(it.state()),
            human::drift_action(it.action()),
            format!("{}, {}", times(it.count), human::age(it.last_seen_at.as_ref(), now)),
            what(it),
            human::or_dash(&short(&it.expected)),
            human::or_dash(&short(&it.seen)),
            human::age(it.first_seen_at.as_ref(), now),
            human::or_dash(&format!("{}{}", it.worker_id, it.run_id)),
            human::or_dash(&it.accept_reason),
        ]);
    }
    table
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

/// The first difference, and how many more there are.
fn what(it: &v1::Drift) -> String {
    let Some(first) = it.changes.first() else { return "-".to_owned() };
    let more = match it.changes.len() {
        1 => String::new(),
        n => format!(" (+{})", n - 1),
    };
    match first.path.as_str() {
        "" => format!("{}{more}", first.what),
        path => format!("{path}: {}{more}", first.what),
    }
}

/// A digest by its beginning; anything else as it is.
fn short(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { human::cut(text, DIGEST) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift() -> v1::Drift {
        let change = |path: &str, what: &str| v1::DriftChange {
            path: path.to_owned(),
            what: what.to_owned(),
            ..Default::default()
        };
        let mut drift = v1::Drift {
            bundle_id: "v42".into(),
            name: "search".into(),
            count: 3,
            changes: vec![
                change("input /required", "region is required now"),
                change("", "it is written in another way"),
            ],
            ..Default::default()
        };
        drift.set_state(v1::DriftState::Open);
        drift.set_action(v1::DriftAction::Alert);
        drift
    }

    #[test]
    fn the_first_difference_is_told_and_the_rest_counted() {
        assert_eq!(what(&drift()), "input /required: region is required now (+1)");
        assert_eq!(what(&v1::Drift::default()), "-");
        assert_eq!((times(1), times(2)), ("once".to_owned(), "2 times".to_owned()));
        assert_eq!(short("large@1"), "large@1");
    }

    #[test]
    fn only_what_is_open_and_minded_makes_a_difference() {
        assert!(is_minded(&drift()));
        let mut accepted = drift();
        accepted.set_state(v1::DriftState::Accepted);
        assert!(!is_minded(&accepted));
        let mut lived_with = drift();
        lived_with.set_action(v1::DriftAction::Accept);
        assert!(!is_minded(&lived_with));
    }
}
