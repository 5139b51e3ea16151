//! `run cancel-all`: asks all open runs of an agent to end, or those on a bundle, in a state, with labels.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pinrail_proto::{limits, v1};
use serde_json::json;

use super::super::context::{Context, Done};
use super::super::flags::{WriteFlags, api_duration, duration, label, word};
use super::super::human;
use super::super::problem::Problem;
use super::super::table::pairs;
use super::super::view::{Body, View};

/// Runs that are asked at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Clone, Args)]
pub struct CancelAll {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only runs on this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    /// Only runs in this state
    #[arg(long, value_name = "STATE", value_parser = word::<v1::RunState>)]
    state: Option<v1::RunState>,
    /// Only runs of this kind
    #[arg(long, value_name = "KIND", value_parser = word::<v1::RunKind>)]
    kind: Option<v1::RunKind>,
    /// Only runs with this label; more than one: with all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only runs that were started at least so long ago
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only runs of which a step waits for this signal
    #[arg(long, value_name = "SIGNAL", default_value = "", hide_default_value = true)]
    waiting_for: String,
    #[command(flatten)]
    write: WriteFlags,
}

/// Each run that is open when its page is read. Those that others start meanwhile are not asked; a repeat finds them.
pub(super) async fn cancel_all(context: &Context, args: &CancelAll) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let options = context.write(&args.write)?;
    let of = if args.bundle.is_empty() { String::new() } else { format!(" on {}", args.bundle) };
    context.confirm(&args.write, &format!("Cancel the open runs of {agent_id}{of}?"))?;
    let (mut asked, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListRunsRequest {
            agent_id: agent_id.clone(),
            state: args.state.unwrap_or_default().into(),
            bundle_id: args.bundle.clone(),
            open: true,
            kind: args.kind.unwrap_or_default().into(),
            labels: args.labels.iter().cloned().collect(),
            older_than: args.older_than.map(api_duration),
            waiting_for: args.waiting_for.clone(),
            page_size: limits::PAGE,
            page_token,
            ..Default::default()
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
