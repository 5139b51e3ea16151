//! `drain`: how far the runs of a bundle without traffic are, and when they will be over.

use std::time::Duration;

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::bundle::{named, open_pins};
use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags, api_duration, duration};
use super::human;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `drain`.
#[derive(Debug, Clone, Subcommand)]
pub enum Drain {
    /// Open pins and deadlines of an agent's bundles
    #[command(
        after_help = "Examples:\n  pinrail drain status support\n  pinrail drain status support v41 --watch"
    )]
    Status(Status),
    /// Bring the drain deadline of a bundle nearer; it never moves away
    #[command(
        after_help = "Example:\n  pinrail drain set support v41 --cap 10m --reason \"SUP-812\""
    )]
    Set(Set),
}

#[derive(Debug, Clone, Args)]
pub struct Status {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this bundle
    #[arg(value_name = "BUNDLE")]
    bundle: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Set {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the bundle
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Time from now until the drain deadline
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cap: Duration,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Drain) -> Done {
    match verb {
        Drain::Status(args) => status(context, args).await,
        Drain::Set(args) => set(context, args).await,
    }
}

async fn status(context: &Context, args: &Status) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let bundle_id = args.bundle.as_deref().map(named).transpose()?.unwrap_or_default();
    context
        .watch(args.read.watch, || async {
            let request = v1::GetDrainRequest {
                agent_id: agent_id.clone(),
                bundle_id: bundle_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.pins().drain(request).await?;
            let now = pinrail_proto::time::timestamp_millis(answer.cluster_time.as_ref());
            let mut table = Table::new(
                &["BUNDLE", "STATE", "OPEN PINS", "OLDEST", "DEADLINE", "DRAINED BY", "OVER"],
                &["OVER AT"],
            );
            for drain in &answer.drains {
                table.row(vec![
                    drain.bundle_id.clone(),
                    human::bundle_state(drain.state()),
                    open_pins(drain.open_pins.as_ref()).to_string(),
                    human::age(drain.oldest_pinned_at.as_ref(), now),
                    human::age(drain.deadline.as_ref(), now),
                    human::clock(drain.drained_by.as_ref(), now),
                    if drain.over { "yes" } else { "no" }.to_owned(),
                    human::at(drain.over_at.as_ref()),
                ]);
            }
            let names = answer.drains.iter().map(|drain| drain.bundle_id.clone()).collect();
            Ok(View::list(&answer, "drains", names, table))
        })
        .await
}

async fn set(context: &Context, args: &Set) -> Done {
    let request = v1::SetDrainRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: named(&args.bundle)?,
        cap: Some(api_duration(args.cap)),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.pins().set_drain(request).await?;
    let drain = answer.drain.clone().unwrap_or_default();
    let text =
        format!("{}{}", sentence(&drain), pairs(&[("revision", answer.revision.to_string())]));
    context.show(&View::object(&answer, &args.bundle, text))
}

/// What is left of a bundle, and until when; `switch` and `rollback` say the same.
pub(super) fn sentence(drain: &v1::Drain) -> String {
    let open = open_pins(drain.open_pins.as_ref());
    let left = if open == 0 {
        "no open runs".to_owned()
    } else {
        let by = human::clock(drain.drained_by.as_ref(), human::now_ms());
        format!("{}, over by {by} at the latest", human::count(open, "open run"))
    };
    pairs(&[("drain", format!("{}: {left}", drain.bundle_id))])
}
