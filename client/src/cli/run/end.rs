//! `run cancel`, `run retry`, `run pause`, `run resume`, `run repin`, `run finish`, `run keep`.

use clap::{Args, ValueEnum};
use pinrail_proto::v1;

use super::super::bundle::named;
use super::super::context::{Context, Done};
use super::super::flags::{RunId, WriteFlags};
use super::super::human;
use super::super::input::{self, Untyped};
use super::super::problem::Problem;
use super::super::table::pairs;
use super::super::view::View;

#[derive(Debug, Clone, Args)]
pub struct Cancel {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Retry {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Pause {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Resume {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Repin {
    #[command(flatten)]
    run: RunId,
    /// Bundle that it moves to; default: the live one
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<String>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Finish {
    #[command(flatten)]
    run: RunId,
    /// How it ended
    #[arg(long, value_name = "OUTCOME")]
    outcome: Outcome,
    /// Result of a completed run: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    result: Option<String>,
    /// Short and stable reason of a failed run
    #[arg(long, value_name = "REASON", default_value = "FAILED")]
    failure: String,
    /// What happened, for a failed run
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Outcome {
    Completed,
    Failed,
}

#[derive(Debug, Clone, Args)]
pub struct Keep {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn cancel(context: &Context, args: &Cancel) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let options = context.write(&args.write)?;
    let request = v1::CancelRunRequest { agent_id, run_id, options, ..Default::default() };
    let answer = context.client.runs().cancel(request).await?;
    if answer.already {
        eprintln!("the run was over already");
    }
    let text = ended(&answer.run_id, answer.state(), answer.revision);
    context.show(&View::object(&answer, &answer.run_id, text))
}

pub(super) async fn retry(context: &Context, args: &Retry) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let options = context.write(&args.write)?;
    let request = v1::RetryRunRequest { agent_id, run_id, options, ..Default::default() };
    let answer = context.client.runs().retry(request).await?;
    let text = ended(&answer.run_id, answer.state(), answer.revision);
    context.show(&View::object(&answer, &answer.run_id, text))
}

pub(super) async fn pause(context: &Context, args: &Pause) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let options = context.write(&args.write)?;
    let request = v1::PauseRunRequest { agent_id, run_id, options, ..Default::default() };
    let answer = context.client.runs().pause(request).await?;
    if answer.already {
        eprintln!("the run was paused already");
    } else if answer.state() == v1::RunState::Running {
        eprintln!("a worker holds a step of it, which finishes first");
    }
    let text = ended(&answer.run_id, answer.state(), answer.revision);
    context.show(&View::object(&answer, &answer.run_id, text))
}

pub(super) async fn resume(context: &Context, args: &Resume) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let options = context.write(&args.write)?;
    let request = v1::ResumeRunRequest { agent_id, run_id, options, ..Default::default() };
    let answer = context.client.runs().resume(request).await?;
    let text = ended(&answer.run_id, answer.state(), answer.revision);
    context.show(&View::object(&answer, &answer.run_id, text))
}

pub(super) async fn repin(context: &Context, args: &Repin) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let bundle_id = args.bundle.as_deref().map(named).transpose()?.unwrap_or_default();
    let options = context.write(&args.write)?;
    let request =
        v1::RepinRunRequest { agent_id, run_id, bundle_id, options, ..Default::default() };
    let answer = context.client.runs().repin(request).await?;
    if answer.already {
        eprintln!("the run is on {} already", answer.bundle_id);
    } else if !answer.moved {
        eprintln!("a worker holds a step of it: it moves when that is over");
    }
    let text = pairs(&[
        ("run", answer.run_id.clone()),
        (
            if answer.moved || answer.already { "bundle" } else { "moves to" },
            answer.bundle_id.clone(),
        ),
        ("state", human::run_state(answer.state())),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &answer.run_id, text))
}

pub(super) async fn finish(context: &Context, args: &Finish) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let payload = |text: &String| input::payload("--result", text, None, Untyped::Json);
    let (outcome, failure) = match args.outcome {
        Outcome::Completed => (v1::Outcome::Completed, None),
        Outcome::Failed if args.result.is_some() => {
            return Err(Problem::usage("a failed run has no --result; --message says why"));
        }
        Outcome::Failed => {
            let (reason, message) = (args.failure.clone(), args.message.clone());
            let failure = v1::Failure { reason, message, ..Default::default() };
            (v1::Outcome::Failed, Some(failure))
        }
    };
    let request = v1::FinishRunRequest {
        agent_id,
        run_id,
        outcome: outcome.into(),
        output: args.result.as_ref().map(payload).transpose()?,
        failure,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.runs().finish(request).await?;
    if answer.already {
        eprintln!("an earlier call had ended the run; this is what it said");
    }
    let text = ended(&answer.run_id, answer.state(), answer.revision);
    context.show(&View::object(&answer, &answer.run_id, text))
}

fn ended(run_id: &str, state: v1::RunState, revision: u64) -> String {
    pairs(&[
        ("run", run_id.to_owned()),
        ("state", human::run_state(state)),
        ("revision", revision.to_string()),
    ])
}

pub(super) async fn keep(context: &Context, args: &Keep) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let options = context.write(&args.write)?;
    let request =
        v1::KeepRunRequest { agent_id, run_id: run_id.clone(), options, ..Default::default() };
    let answer = context.client.runs().keep(request).await?;
    let text = pairs(&[
        ("run", run_id.clone()),
        ("kept until", human::at(answer.keep_until.as_ref())),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &run_id, text))
}
