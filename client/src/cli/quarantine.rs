//! `quarantine`: how long the bundle before the last switch is kept to return to.

use std::time::Duration;

use clap::{Args, Subcommand};
use pinrail_proto::reason;
use pinrail_proto::v1::{self, Stage};

use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags, api_duration, duration};
use super::human;
use super::problem::Problem;
use super::release;
use super::table::pairs;
use super::view::View;

/// Verbs of `quarantine`.
#[derive(Debug, Clone, Subcommand)]
pub enum Quarantine {
    /// The pair in quarantine, its countdown, and what it waits for
    #[command(after_help = "Example:\n  pinrail quarantine show support")]
    Show(Show),
    /// Keep the standby for longer, counted from now
    #[command(
        after_help = "Example:\n  pinrail quarantine extend support --by 24h --reason \"over the weekend\""
    )]
    Extend(Extend),
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Extend {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Time from now; at most 30d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    by: Duration,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Quarantine) -> Done {
    match verb {
        Quarantine::Show(args) => show(context, args).await,
        Quarantine::Extend(args) => extend(context, args).await,
    }
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::ListReleasesRequest {
                agent_id: agent_id.clone(),
                page_size: 2,
                read: context.read(),
                ..Default::default()
            };
            // The pair is of the newest release, or of the one before it while another is active.
            let page = context.client.releases().list(request).await?;
            let pair = page
                .releases
                .into_iter()
                .find(|release| release.quarantine_until.is_some() && release.ended_at.is_none());
            let Some(release) = pair else {
                let message = format!("agent {agent_id} has nothing in quarantine");
                return Err(Problem::new(reason::RELEASE_NOT_ACTIVE.name, 9, message)
                    .next(format!("pinrail release list {agent_id}")));
            };
            let answer =
                v1::GetReleaseResponse { release: Some(release.clone()), revision: page.revision };
            Ok(View::object(&answer, &release.release_id, text(&release)))
        })
        .await
}

async fn extend(context: &Context, args: &Extend) -> Done {
    let request = v1::ExtendQuarantineRequest {
        agent_id: context.agent(&args.agent)?,
        until: Some(api_duration(args.by)),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().extend_quarantine(request).await?;
    release::shown(context, &answer, answer.release.as_ref())
}

fn text(release: &v1::Release) -> String {
    let now = human::now_ms();
    let gate = release.gates.iter().find(|gate| gate.stage() == release.stage());
    let waits = match release.stage() {
        Stage::Recycle => "the last pins of the standby",
        Stage::Unspecified
        | Stage::Prepare
        | Stage::Smoke
        | Stage::Evals
        | Stage::Shadow
        | Stage::Canary
        | Stage::Switch
        | Stage::Quarantine => "its time, and clean signals",
    };
    pairs(&[
        ("live", release.bundle_id.clone()),
        ("standby", release.baseline_bundle_id.clone()),
        ("switched", human::age(release.switched_at.as_ref(), now)),
        ("ends", human::age(release.quarantine_until.as_ref(), now)),
        ("at latest", human::at(release.quarantine_at_latest.as_ref())),
        ("waits for", waits.to_owned()),
        ("seen", gate.map(|gate| gate.reason.clone()).unwrap_or_default()),
        ("back", format!("pinrail rollback {}", release.agent_id)),
    ])
}
