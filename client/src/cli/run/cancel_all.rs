//! `run cancel-all`: asks all open runs of an agent to end, or those on a bundle, in a state, with labels.

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pinrail_proto::{limits, v1};
use serde_json::json;

use super::super::context::{Context, Done};
use super::super::flags::WriteFlags;
use super::super::human;
use super::super::problem::Problem;
use super::super::table::pairs;
use super::super::view::{Body, View};
use super::read::Which;

/// Runs that are asked at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Clone, Args)]
pub struct CancelAll {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    write: WriteFlags,
}

/// Each run that is open when its page is read. Those that others start meanwhile are not asked; a repeat finds them.
pub(super) async fn cancel_all(context: &Context, args: &CancelAll) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let options = context.write(&args.write)?;
    let of = match args.which.bundle.as_str() {
        "" => String::new(),
        bundle => format!(" on {bundle}"),
    };
    context.confirm(&args.write, &format!("Cancel the open runs of {agent_id}{of}?"))?;
    let (mut asked, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListRunsRequest {
            open: true,
            page_size: limits::PAGE,
            page_token,
            ..args.which.request(&agent_id)
        };
        let page = context.client.runs().list(request).await?;
        let calls = page.runs.into_iter().map(|run| one(context, &agent_id, &options, run.run_id));
        let of_page: Vec<String> = stream::iter(calls)
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|ended| std::future::ready(Ok(ended)))
            .try_collect()
            .await?;
        asked.extend(of_page);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let what = if args.write.dry_run { "would be asked to end" } else { "asked to end" };
    let text =
        pairs(&[("agent", agent_id.clone()), (what, human::count(asked.len() as u64, "run"))]);
    let answer = json!({ "agent_id": agent_id, "run_ids": asked, "dry_run": args.write.dry_run });
    context.show(&View::other(answer, None, asked, Body::Text(text)))
}

/// Asks one run. `None`: it was over meanwhile.
async fn one(
    context: &Context,
    agent_id: &str,
    options: &Option<v1::WriteOptions>,
    run_id: String,
) -> Result<Option<String>, Problem> {
    // An id of its own for each: a cancel is safe to repeat as it is.
    let options = options.clone().map(|it| v1::WriteOptions { request_id: String::new(), ..it });
    let request = v1::CancelRunRequest {
        agent_id: agent_id.to_owned(),
        run_id: run_id.clone(),
        options,
        ..Default::default()
    };
    let answer = context.client.runs().cancel(request).await?;
    Ok((!answer.already).then_some(run_id))
}
