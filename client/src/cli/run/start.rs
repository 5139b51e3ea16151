//! `run start`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use pinrail_proto::trace::TraceParent;
use pinrail_proto::{id, v1};

use super::super::bundle::named;
use super::super::context::{Context, Done};
use super::super::flags::{WriteFlags, api_duration, duration, label};
use super::super::human;
use super::super::input::{self, Untyped};
use super::super::problem::Problem;
use super::super::table::pairs;
use super::super::view::View;
use super::result::wait_for;
use super::watch;
use crate::config;

/// What is known about workers is only a hint: nobody waits longer for it.
const HINT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Args)]
pub struct Start {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Input: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "null", hide_default_value = true)]
    input: String,
    /// Type of the input when it is no JSON
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Id of the run; made if not given
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Label task_kind
    #[arg(long, value_name = "KIND")]
    task_kind: Option<String>,
    /// First step; default: the bundle's entry
    #[arg(long, value_name = "STEP", default_value = "", hide_default_value = true)]
    entry: String,
    /// Explicit bundle instead of the route's
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<String>,
    /// Smoke runs serve no user and need a bundle
    #[arg(long, value_name = "KIND", default_value = "live")]
    kind: Kind,
    /// A smoke run sees the live bundle's memory as it was at this revision; default: it begins with an empty one
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    memory_at: u64,
    /// Hard end after so long; at most the policy's
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Run of the same agent that this becomes a child of: it has its bundle, its memory, at most its end, and ends with it
    #[arg(long, value_name = "RUN", conflicts_with_all = ["bundle", "delay"])]
    parent: Option<String>,
    /// Session, a conversation say: its runs start on one bundle, one after the other unless the policy says otherwise
    #[arg(long, value_name = "KEY", conflicts_with = "parent")]
    session: Option<String>,
    /// Whether it may move to another bundle behind a step, when its own reaches its drain deadline or by hand; default: the policy's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    repinnable: Option<bool>,
    /// Whether a step that is held past its bundle's grace is then tried again on the new one; default: the policy's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    restart_step: Option<bool>,
    /// 1 first to 5 last; default: 3, or a child's parent's
    #[arg(long, value_name = "1-5", value_parser = clap::value_parser!(u32).range(1..=5))]
    priority: Option<u32>,
    /// Steps of one key, a tenant's say, take turns with those of others; default: the session, or the run itself
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    fairness_key: String,
    /// Hook of the agent's policy that is told of the end, with the result
    #[arg(long, value_name = "HOOK", default_value = "", hide_default_value = true)]
    callback: String,
    /// Begin so much later, on the bundle that is live then
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    delay: Option<Duration>,
    /// Wait for the result and print it; exits 11 when the run did not complete
    #[arg(long)]
    wait: bool,
    /// Print what the run's steps emit as it comes, then the result; exits 11 when the run did not complete
    #[arg(long, conflicts_with = "wait")]
    follow: bool,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Live,
    Smoke,
}

pub(super) async fn start(context: &Context, args: &Start) -> Done {
    let request = request(context, args)?;
    let agent = request.agent_id.clone();
    let answer = context.client.runs().start(request).await?;
    context.acknowledged();
    if answer.already {
        eprintln!("this run had been started before: this is its first answer");
    }
    if args.write.dry_run {
        return context.show(&View::object(&answer, &answer.run_id, text(&answer)));
    }
    if answer.state() != v1::RunState::Scheduled {
        warn_without_workers(context, &agent, &answer.bundle_id).await;
    }
    if args.follow {
        eprintln!("run {} on {}", answer.run_id, human::or_dash(&answer.bundle_id));
        return watch::follow(context, &agent, &answer.run_id).await;
    }
    if args.wait {
        eprintln!("run {} on {}", answer.run_id, human::or_dash(&answer.bundle_id));
        return wait_for(context, &agent, &answer.run_id).await;
    }
    context.show(&View::object(&answer, &answer.run_id, text(&answer)))
}

fn request(context: &Context, args: &Start) -> Result<v1::StartRunRequest, Problem> {
    let agent_id = context.agent(&args.agent)?;
    let options = context.write(&args.write)?;
    let run_id = match &args.run_id {
        Some(run_id) => {
            id::check_token("run id", run_id)?;
            run_id.clone()
        }
        None => {
            id::derive_run_id(&context.settings.namespace.value, &agent_id, &context.request_id())
        }
    };
    let kind = match args.kind {
        Kind::Live => v1::RunKind::Live,
        Kind::Smoke => v1::RunKind::Smoke,
    };
    let task_kind = args.task_kind.iter().map(|kind| ("task_kind".to_owned(), kind.clone()));
    Ok(v1::StartRunRequest {
        agent_id,
        run_id,
        input: Some(input::payload(
            "--input",
            &args.input,
            args.content_type.as_deref(),
            Untyped::Json,
        )?),
        labels: args.labels.iter().cloned().chain(task_kind).collect(),
        entry: args.entry.clone(),
        max_age: args.max_age.map(api_duration),
        bundle_id: args.bundle.as_deref().map(named).transpose()?.unwrap_or_default(),
        kind: kind.into(),
        memory_revision: args.memory_at,
        parent_run_id: args.parent.clone().unwrap_or_default(),
        delay: args.delay.map(api_duration),
        session: args.session.clone().unwrap_or_default(),
        repinnable: args.repinnable,
        restart_step: args.restart_step,
        priority: args.priority.unwrap_or_default(),
        fairness_key: args.fairness_key.clone(),
        callback: args.callback.clone(),
        trace_parent: trace_parent(),
        options,
        ..Default::default()
    })
}

/// Of who called this program, as OpenTelemetry hands it to a process. The standard says to pass over what is none.
fn trace_parent() -> String {
    let given = config::variable("TRACEPARENT");
    given.filter(|given| given.parse::<TraceParent>().is_ok()).unwrap_or_default()
}

fn text(answer: &v1::StartRunResponse) -> String {
    let pin = answer.pin.clone().unwrap_or_default();
    pairs(&[
        ("run", answer.run_id.clone()),
        ("bundle", answer.bundle_id.clone()),
        ("state", human::run_state(answer.state())),
        ("expires", human::age(pin.expires_at.as_ref(), human::now_ms())),
        ("address", pin.endpoint),
        ("revision", answer.revision.to_string()),
        ("next", format!("pinrail run watch {}", answer.run_id)),
    ])
}

/// Says when nobody will execute the run. That it cannot be found out is no error.
async fn warn_without_workers(context: &Context, agent: &str, bundle: &str) {
    let client = context.client.with_timeout(HINT_TIMEOUT);
    let request = v1::ListWorkersRequest {
        agent_id: agent.to_owned(),
        bundle_id: bundle.to_owned(),
        ..Default::default()
    };
    let Ok(answer) = client.workers().list(request).await else { return };
    if !answer.workers.is_empty() {
        return;
    }
    let request = v1::GetAgentRequest { agent_id: agent.to_owned(), ..Default::default() };
    let Ok(answer) = client.agents().get(request).await else { return };
    let runs = answer.agent.and_then(|agent| agent.policy).and_then(|policy| policy.runs);
    if runs.is_some_and(|runs| runs.execution() == v1::Execution::External) {
        return;
    }
    eprintln!("no live worker serves {bundle}: the run waits until one connects");
}
