//! `event`: what happened, in one order.

use clap::{Args, Subcommand};
use pinrail_proto::{limits, v1};

use super::context::{Context, Done};
use super::human;
use super::problem::Problem;
use super::table::Table;
use super::view::{View, write_told};

/// Verbs of `event`.
#[derive(Debug, Clone, Subcommand)]
pub enum Event {
    /// The latest events, or those after a revision
    #[command(
        after_help = "Examples:\n  pinrail event list support\n  pinrail event list support --type route. --after 118"
    )]
    List(List),
    /// Follow the events as they happen; resumable with --after
    #[command(after_help = "Example:\n  pinrail event watch support -o jsonl")]
    Watch(Watch),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Filter {
    /// Only this agent
    #[arg(value_name = "AGENT", default_value = "", hide_default_value = true)]
    agent: String,
    /// Type, or a prefix that ends in a dot
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    kind: String,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Events after this revision, oldest first; without it the latest
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::PAGE)))]
    limit: u32,
    /// Read again each second
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Watch {
    #[command(flatten)]
    filter: Filter,
    /// Events after this revision; without it from now on
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
}

pub(super) async fn run(context: &Context, verb: &Event) -> Done {
    match verb {
        Event::List(args) => list(context, args).await,
        Event::Watch(args) => watch(context, args).await,
    }
}

fn agent(context: &Context, filter: &Filter) -> Result<String, Problem> {
    if filter.agent.is_empty() { Ok(String::new()) } else { context.agent(&filter.agent) }
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = agent(context, &args.filter)?;
    context
        .watch(args.watch, || async {
            let request = v1::ListEventsRequest {
                agent_id: agent_id.clone(),
                r#type: args.filter.kind.clone(),
                after_revision: args.after.unwrap_or(0),
                limit: args.limit,
                newest_first: args.after.is_none(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.events().list(request).await?;
            let mut table = Table::new(
                &["TIME", "REVISION", "TYPE", "AGENT", "BUNDLE", "RUN", "BY", "REASON"],
                &["ATTRIBUTES"],
            );
            for event in &answer.events {
                table.row(vec![
                    human::at(event.at.as_ref()),
                    event.revision.to_string(),
                    event.r#type.clone(),
                    human::or_dash(&event.agent_id),
                    human::or_dash(&event.bundle_id),
                    human::or_dash(&event.run_id),
                    human::or_dash(&event.actor),
                    human::or_dash(&event.reason),
                    human::or_dash(&attributes(event)),
                ]);
            }
            let names = answer.events.iter().map(|event| event.revision.to_string()).collect();
            Ok(View::list(&answer, "events", names, table))
        })
        .await
}

fn attributes(event: &v1::Event) -> String {
    let pairs = event.attributes.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

async fn watch(context: &Context, args: &Watch) -> Done {
    let agent_id = agent(context, &args.filter)?;
    let after_revision = match args.after {
        Some(after) => after,
        None => newest(context, &agent_id).await?,
    };
    let mut events = context.client.events().watch(v1::WatchEventsRequest {
        agent_id,
        r#type: args.filter.kind.clone(),
        after_revision,
        ..Default::default()
    });
    loop {
        for event in events.next().await?.events {
            let name = event.revision.to_string();
            let line = || format!("{}  {}", human::at(event.at.as_ref()), sentence(&event));
            write_told(context.output(), &event, line, &name)?;
        }
    }
}

/// Where "from now on" begins.
async fn newest(context: &Context, agent: &str) -> Result<u64, Problem> {
    let request = v1::ListEventsRequest {
        agent_id: agent.to_owned(),
        limit: 1,
        newest_first: true,
        ..Default::default()
    };
    Ok(context.client.events().list(request).await?.revision)
}

/// An event in words; `status` shows the same.
pub(super) fn sentence(event: &v1::Event) -> String {
    let mut text = event.r#type.clone();
    for part in [&event.agent_id, &event.bundle_id, &event.run_id] {
        if !part.is_empty() {
            text.push_str(&format!(" {part}"));
        }
    }
    if !event.actor.is_empty() {
        text.push_str(&format!(" by {}", event.actor));
    }
    if !event.reason.is_empty() {
        text.push_str(&format!(" {:?}", event.reason));
    }
    text
}
