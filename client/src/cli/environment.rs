//! `environment`: the compute of a bundle. Pinrail does not start it; it says what it wants.

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::bundle::named;
use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags};
use super::human;
use super::problem::Problem;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `environment`.
#[derive(Debug, Clone, Subcommand)]
pub enum Environment {
    /// What compute is wanted for the bundles of an agent
    #[command(after_help = "Example:\n  pinrail environment list support")]
    List(List),
    /// What compute is wanted for one bundle
    #[command(after_help = "Example:\n  pinrail environment show support v42")]
    Show(Show),
    /// Set where the compute of a bundle is; pins and routes then carry it
    #[command(
        after_help = "Examples:\n  pinrail environment set support v42 --address agents-v42.internal:8080\n  pinrail environment set support v42 --clear"
    )]
    Set(Set),
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the bundle
    #[arg(value_name = "BUNDLE")]
    bundle: String,
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
    /// Host and port, or URL, of the compute
    #[arg(long, value_name = "ADDRESS", required_unless_present = "clear")]
    address: Option<String>,
    /// Take the address away
    #[arg(long, conflicts_with = "address")]
    clear: bool,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Environment) -> Done {
    match verb {
        Environment::List(args) => list(context, args).await,
        Environment::Show(args) => show(context, args).await,
        Environment::Set(args) => set(context, args).await,
    }
}

async fn list(context: &Context, args: &List) -> Done {
    let agent = context.agent(&args.agent)?;
    context.watch(args.read.watch, || environments(context, &agent, "")).await
}

async fn show(context: &Context, args: &Show) -> Done {
    let (agent, bundle) = (context.agent(&args.agent)?, named(&args.bundle)?);
    context.watch(args.read.watch, || environments(context, &agent, &bundle)).await
}

async fn environments(context: &Context, agent: &str, bundle: &str) -> Result<View, Problem> {
    let request = v1::ListEnvironmentsRequest {
        agent_id: agent.to_owned(),
        bundle_id: bundle.to_owned(),
        read: context.read(),
        ..Default::default()
    };
    let answer = context.client.agents().environments(request).await?;
    let mut table =
        Table::new(&["BUNDLE", "WANT", "WHY", "OPEN PINS", "ADDRESS"], &["SLOTS", "REVISION"]);
    for it in &answer.environments {
        table.row(vec![
            it.bundle_id.clone(),
            human::want(it.want()),
            human::or_dash(&it.reason),
            it.open_pins.to_string(),
            human::or_dash(&it.endpoint),
            it.slots.to_string(),
            it.revision.to_string(),
        ]);
    }
    let names = answer.environments.iter().map(|it| it.bundle_id.clone()).collect();
    Ok(View::list(&answer, "environments", names, table))
}

async fn set(context: &Context, args: &Set) -> Done {
    let request = v1::SetEnvironmentRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: named(&args.bundle)?,
        endpoint: args.address.clone().unwrap_or_default(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.agents().set_environment(request).await?;
    let environment = answer.environment.clone().unwrap_or_default();
    let text = pairs(&[
        ("bundle", args.bundle.clone()),
        ("want", human::want(environment.want())),
        ("address", human::or_dash(&environment.endpoint)),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &args.bundle, text))
}
