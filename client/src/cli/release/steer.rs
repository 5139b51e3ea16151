//! What people do with the active release.

use clap::{Args, ValueEnum};
use pinrail_proto::v1;

use super::super::context::{Context, Done};
use super::super::flags::WriteFlags;
use super::super::view::View;
use super::text;

#[derive(Debug, Clone, Args)]
pub struct Plain {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Promote {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Stage to go to; default: the next one, in a canary the next share
    #[arg(long, value_name = "STAGE")]
    to: Option<To>,
    /// Past a required stage that was not passed; needs --reason
    #[arg(long, requires = "reason")]
    force: bool,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Smoke,
    Evals,
    Shadow,
    Canary,
    /// The candidate goes live at once
    Switch,
    /// Behind the switch: ends the quarantine
    Recycle,
}

pub(super) async fn promote(context: &Context, args: &Promote) -> Done {
    let to = match args.to {
        None => v1::Stage::Unspecified,
        Some(To::Smoke) => v1::Stage::Smoke,
        Some(To::Evals) => v1::Stage::Evals,
        Some(To::Shadow) => v1::Stage::Shadow,
        Some(To::Canary) => v1::Stage::Canary,
        Some(To::Switch) => v1::Stage::Switch,
        Some(To::Recycle) => v1::Stage::Recycle,
    };
    let request = v1::PromoteReleaseRequest {
        agent_id: context.agent(&args.agent)?,
        to: to.into(),
        force: args.force,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().promote(request).await?;
    show(context, &answer, answer.release.as_ref(), false)
}

pub(super) async fn hold(context: &Context, args: &Plain) -> Done {
    let request = v1::HoldReleaseRequest {
        agent_id: context.agent(&args.agent)?,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().hold(request).await?;
    show(context, &answer, answer.release.as_ref(), answer.already)
}

pub(super) async fn resume(context: &Context, args: &Plain) -> Done {
    let request = v1::ResumeReleaseRequest {
        agent_id: context.agent(&args.agent)?,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().resume(request).await?;
    show(context, &answer, answer.release.as_ref(), answer.already)
}

pub(super) async fn abort(context: &Context, args: &Plain) -> Done {
    let request = v1::AbortReleaseRequest {
        agent_id: context.agent(&args.agent)?,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().abort(request).await?;
    show(context, &answer, answer.release.as_ref(), false)
}

/// The release after a command.
pub(super) fn show<M: prost::Name>(
    context: &Context,
    answer: &M,
    release: Option<&v1::Release>,
    already: bool,
) -> Done {
    context.acknowledged();
    let release = release.cloned().unwrap_or_default();
    if already {
        eprintln!("nothing changed: it was so already");
    }
    context.show(&View::object(answer, &release.release_id, text::release(&release)))
}
