//! `pin`: which bundle a run belongs to.

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::{ListFlags, ReadFlags, RunId};
use super::human;
use super::problem::Problem;
use super::table::{Table, pairs};
use super::view::{View, write_told};

/// Verbs of `pin`.
#[derive(Debug, Clone, Subcommand)]
pub enum Pin {
    /// The bundle of a run, and how long it may go on
    #[command(
        after_help = "Examples:\n  pinrail pin get 1f0c2d3e-00000000000000000000000000000007\n  pinrail pin get order-77 --agent support"
    )]
    Get(Get),
    /// The open pins of an agent, oldest first
    #[command(after_help = "Example:\n  pinrail pin list support --bundle v41")]
    List(List),
    /// Follow the pins of an agent: all open ones, then each that is made, moves, changes or ends; resumable with --after
    #[command(
        after_help = "Examples:\n  pinrail pin watch support\n  pinrail pin watch support --after 118 -o jsonl"
    )]
    Watch(Watch),
}

#[derive(Debug, Clone, Args)]
pub struct Get {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Watch {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// What happened after this revision; without it all open pins first
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    after: u64,
}

pub(super) async fn run(context: &Context, verb: &Pin) -> Done {
    match verb {
        Pin::Get(args) => get(context, args).await,
        Pin::List(args) => list(context, args).await,
        Pin::Watch(args) => watch(context, args).await,
    }
}

async fn get(context: &Context, args: &Get) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    context
        .watch(args.read.watch, || async {
            let request = v1::LookupPinRequest {
                agent_id: agent_id.clone(),
                run_id: run_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.pins().lookup(request).await?;
            let pin = answer.pin.clone().unwrap_or_default();
            let now = human::now_ms();
            let text = pairs(&[
                ("run", answer.run_id.clone()),
                ("bundle", answer.bundle_id.clone()),
                ("open", if answer.open { "yes" } else { "no" }.to_owned()),
                ("why", human::pin_reason(pin.reason())),
                ("pinned", human::at(pin.pinned_at.as_ref())),
                ("expires", human::age(pin.expires_at.as_ref(), now)),
                ("soft end", human::age(pin.soft_end.as_ref(), now)),
                ("layer", pin.layer.to_string()),
                ("epoch", pin.epoch.to_string()),
                ("address", pin.endpoint),
                ("revision", answer.revision.to_string()),
            ]);
            Ok(View::object(&answer, &answer.bundle_id, text))
        })
        .await
}

async fn list(context: &Context, args: &List) -> Done {
    let agent = context.agent(&args.agent)?;
    context.watch(args.list.watch, || pins(context, &agent, args)).await
}

async fn pins(context: &Context, agent: &str, args: &List) -> Result<View, Problem> {
    let (pins, next_page_token, revision) = context
        .pages(&args.list, |page_size, page_token| async move {
            let request = v1::ListPinsRequest {
                agent_id: agent.to_owned(),
                bundle_id: args.bundle.clone(),
                page_size,
                page_token,
                read: context.read(),
                ..Default::default()
            };
            let page = context.client.pins().list(request).await?;
            Ok((page.pins, page.next_page_token, page.revision))
        })
        .await?;
    let now = human::now_ms();
    let mut table = Table::new(
        &["RUN", "BUNDLE", "WHY", "AGE", "SOFT END"],
        &["EXPIRES", "LAYER", "EPOCH", "ADDRESS"],
    );
    for pin in &pins {
        table.row(vec![
            pin.run_id.clone(),
            pin.bundle_id.clone(),
            human::pin_reason(pin.reason()),
            human::age(pin.pinned_at.as_ref(), now),
            human::age(pin.soft_end.as_ref(), now),
            human::age(pin.expires_at.as_ref(), now),
            pin.layer.to_string(),
            pin.epoch.to_string(),
            human::or_dash(&pin.endpoint),
        ]);
    }
    let names = pins.iter().map(|pin| pin.run_id.clone()).collect();
    let page = v1::ListPinsResponse { pins, next_page_token, revision };
    Ok(View::list(&page, "pins", names, table))
}

async fn watch(context: &Context, args: &Watch) -> Done {
    let mut pins = context.client.pins().watch(v1::WatchPinsRequest {
        agent_id: context.agent(&args.agent)?,
        after_revision: args.after,
        ..Default::default()
    });
    loop {
        for pin in pins.next().await?.pins {
            write_told(context.output(), &pin, || sentence(&pin), &pin.run_id)?;
        }
    }
}

fn sentence(answer: &v1::LookupPinResponse) -> String {
    let (revision, run) = (answer.revision, &answer.run_id);
    let Some(pin) = answer.pin.as_ref().filter(|_| answer.open) else {
        return format!("{revision}  {run} over");
    };
    let why = human::pin_reason(pin.reason());
    let mut text = format!("{revision}  {run} {} ({why})", answer.bundle_id);
    text.push_str(&format!(" until {}", human::at(pin.soft_end.as_ref())));
    if !pin.endpoint.is_empty() {
        text.push_str(&format!(" at {}", pin.endpoint));
    }
    text
}
