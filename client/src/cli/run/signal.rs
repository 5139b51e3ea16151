//! `run signal`.

use clap::Args;
use pinrail_proto::v1;

use super::super::context::{Context, Done};
use super::super::flags::{RunId, WriteFlags};
use super::super::human;
use super::super::input::{self, Untyped};
use super::super::table::pairs;
use super::super::view::View;

#[derive(Debug, Clone, Args)]
pub struct Signal {
    #[command(flatten)]
    run: RunId,
    /// What the run waits for, or will
    #[arg(value_name = "SIGNAL")]
    name: String,
    /// What comes with it: JSON, text, @FILE, or - for stdin
    #[arg(long, value_name = "VALUE|@FILE|-")]
    value: Option<String>,
    /// Type of the value, where it is not plain from it
    #[arg(long, value_name = "TYPE", requires = "value")]
    content_type: Option<String>,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn signal(context: &Context, args: &Signal) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let content_type = args.content_type.as_deref();
    let payload =
        |text: &String| input::payload("--value", text, content_type, Untyped::JsonOrText);
    let request = v1::SignalRunRequest {
        agent_id,
        run_id,
        name: args.name.clone(),
        value: args.value.as_ref().map(payload).transpose()?,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.runs().signal(request).await?;
    let text = pairs(&[
        ("run", answer.run_id.clone()),
        ("state", human::run_state(answer.state())),
        ("signal", if answer.delivered { "ended its wait" } else { "kept for a wait" }.to_owned()),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &answer.run_id, text))
}
