//! `memory watch`: changes of memory as they happen.

use clap::Args;
use pinrail_proto::v1;

use super::super::context::{Context, Done};
use super::super::human;
use super::super::problem::Problem;
use super::super::view::write_told;
use super::{ScopeFlags, VALUE};

#[derive(Debug, Clone, Args)]
pub struct Watch {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    scope: ScopeFlags,
    /// Changes after this revision; default: from now on
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
}

pub(super) async fn watch(context: &Context, args: &Watch) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let scope = args.scope.scope()?;
    let after_revision = match args.after {
        Some(after) => after,
        None => now(context, &agent_id, scope.clone()).await?,
    };
    let mut changes = context.client.memory().watch(v1::WatchMemoryRequest {
        agent_id,
        scope,
        prefix: args.prefix.clone(),
        after_revision,
        ..Default::default()
    });
    let mut layer = None;
    loop {
        let answer = changes.next().await?;
        if layer.is_some_and(|layer| layer != answer.layer) {
            eprintln!(
                "the route changed: this is layer {} now, and other values may be seen",
                answer.layer
            );
        }
        layer = Some(answer.layer);
        for version in &answer.versions {
            write_told(context.output(), version, || sentence(version), &version.key)?;
        }
    }
}

/// Where "from now on" begins.
async fn now(
    context: &Context,
    agent_id: &str,
    scope: Option<v1::MemoryScope>,
) -> Result<u64, Problem> {
    let request = v1::ListMemoryRequest {
        agent_id: agent_id.to_owned(),
        scope,
        page_size: 1,
        keys_only: true,
        ..Default::default()
    };
    Ok(context.client.memory().list(request).await?.revision)
}

fn sentence(version: &v1::MemoryVersion) -> String {
    let at = human::at(version.written_at.as_ref());
    let value = match version.deleted {
        true => "deleted".to_owned(),
        false => format!("= {}", human::payload(version.value.as_ref(), VALUE)),
    };
    format!("{at}  {} {} {value}", version.revision, version.key)
}
