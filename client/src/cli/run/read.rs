//! `run list`, `run show`, `run steps`.

use std::time::Duration;

use clap::Args;
use pinrail_proto::trace::TraceParent;
use pinrail_proto::{limits, v1};

use super::super::context::{Context, Done};
use super::super::flags::{ListFlags, ReadFlags, RunId, api_duration, duration, label, word};
use super::super::human;
use super::super::problem::Problem;
use super::super::table::{Table, pairs};
use super::super::view::View;

/// Characters of a payload in a table.
const PAYLOAD: usize = 48;

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    which: Which,
    /// Only runs that are not over
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    list: ListFlags,
}

/// Flags that say which runs of an agent are meant.
#[derive(Debug, Clone, Args)]
pub(super) struct Which {
    /// Only runs in this state
    #[arg(long, value_name = "STATE", value_parser = word::<v1::RunState>)]
    state: Option<v1::RunState>,
    /// Only runs on this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    pub(super) bundle: String,
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
}

impl Which {
    /// A list of these runs of an agent, from its beginning.
    pub(super) fn request(&self, agent_id: &str) -> v1::ListRunsRequest {
        v1::ListRunsRequest {
            agent_id: agent_id.to_owned(),
            state: self.state.unwrap_or_default().into(),
            bundle_id: self.bundle.clone(),
            kind: self.kind.unwrap_or_default().into(),
            labels: self.labels.iter().cloned().collect(),
            older_than: self.older_than.map(api_duration),
            waiting_for: self.waiting_for.clone(),
            ..Default::default()
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Steps {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    list: ListFlags,
}

pub(super) async fn list(context: &Context, args: &List) -> Done {
    let agent = context.agent(&args.agent)?;
    context.watch(args.list.watch, || runs(context, &agent, args)).await
}

async fn runs(context: &Context, agent: &str, args: &List) -> Result<View, Problem> {
    let (runs, next_page_token, revision) = context
        .pages(&args.list, |page_size, page_token| async move {
            let request = v1::ListRunsRequest {
                open: args.open,
                page_size,
                page_token,
                read: context.read(),
                ..args.which.request(agent)
            };
            let page = context.client.runs().list(request).await?;
            Ok((page.runs, page.next_page_token, page.revision))
        })
        .await?;
    let now = human::now_ms();
    let mut table = Table::new(
        &["RUN", "BUNDLE", "STATE", "STEP", "AGE", "WHY"],
        &["KIND", "STEPS", "STARTED", "ENDED", "LABELS"],
    );
    for run in &runs {
        let pin = run.pin.clone().unwrap_or_default();
        let labels: Vec<String> =
            run.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row(vec![
            run.run_id.clone(),
            pin.bundle_id,
            human::run_state(run.state()),
            human::or_dash(&run.current_step),
            human::age(run.started_at.as_ref(), now),
            why(run),
            human::run_kind(run.kind()),
            run.steps.to_string(),
            human::at(run.started_at.as_ref()),
            human::at(run.ended_at.as_ref()),
            human::or_dash(&labels.join(",")),
        ]);
    }
    let names = runs.iter().map(|run| run.run_id.clone()).collect();
    let page = v1::ListRunsResponse { runs, next_page_token, revision };
    Ok(View::list(&page, "runs", names, table))
}

/// Why it ended, when it did not complete.
fn why(run: &v1::Run) -> String {
    match &run.failure {
        Some(failure) => human::or_dash(&failure.reason),
        None => human::end_reason(run.end_reason()),
    }
}

pub(super) async fn show(context: &Context, args: &Show) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetRunRequest {
                agent_id: agent_id.clone(),
                run_id: run_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.runs().get(request).await?;
            let run = answer.run.clone().unwrap_or_default();
            Ok(View::object(&answer, &run.run_id, one(&run)))
        })
        .await
}

/// A run as lines; `run explain` begins with the same.
/// `0.400 by human ada: wrong; 0.950 by judge grader`.
fn score(run: &v1::Run) -> String {
    let one = |it: &v1::Score| {
        let source = human::score_source(it.source());
        let comment =
            if it.comment.is_empty() { String::new() } else { format!(": {}", it.comment) };
        let value = human::permille(it.score_permille.into());
        format!("{value} by {source} {}{comment}", it.actor).trim_end().to_owned()
    };
    // A person's word counts before a judge's.
    run.scores.iter().rev().map(one).collect::<Vec<_>>().join("; ")
}

pub(super) fn one(run: &v1::Run) -> String {
    let now = human::now_ms();
    let pin = run.pin.clone().unwrap_or_default();
    let failure = run.failure.as_ref().map(|it| format!("{}: {}", it.reason, it.message));
    let open = run.ended_at.is_none();
    let end = if open { human::age(pin.expires_at.as_ref(), now) } else { String::new() };
    let ended = run.ended_at.as_ref().map(|at| human::at(Some(at)));
    let labels: Vec<String> =
        run.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let state = match run.end_reason() {
        v1::EndReason::Unspecified => human::run_state(run.state()),
        reason => format!("{} ({})", human::run_state(run.state()), human::end_reason(reason)),
    };
    let payload = |it: &Option<v1::Payload>| {
        it.as_ref().map_or_else(String::new, |it| human::payload(Some(it), 2_000))
    };
    pairs(&[
        ("run", run.run_id.clone()),
        ("agent", run.agent_id.clone()),
        ("bundle", format!("{} ({})", pin.bundle_id, human::pin_reason(pin.reason()))),
        ("kind", human::run_kind(run.kind())),
        ("state", state),
        ("failure", failure.unwrap_or_default()),
        ("step", run.current_step.clone()),
        ("steps", run.steps.to_string()),
        ("session", session(run)),
        ("score", score(run)),
        ("repinnable", repinnable(run)),
        ("priority", priority(run)),
        ("fairness key", run.fairness_key.clone()),
        ("callback", run.callback.clone()),
        ("trace", trace(run)),
        ("started", human::at(run.started_at.as_ref())),
        ("ended", ended.unwrap_or_default()),
        ("expires", end),
        ("restarts", if run.restarts == 0 { String::new() } else { run.restarts.to_string() }),
        (
            "signals kept",
            match run.pending_signals {
                0 => String::new(),
                kept => kept.to_string(),
            },
        ),
        ("labels", labels.join(" ")),
        ("usage", usage(run.usage.as_ref())),
        ("input", payload(&run.input)),
        ("output", payload(&run.output)),
        ("revision", run.revision.to_string()),
    ])
}

fn session(run: &v1::Run) -> String {
    let turn = if run.awaits_turn { " (waits for its turn)" } else { "" };
    format!("{}{turn}", run.session)
}

/// The id to look for where traces are kept; empty when it is in none.
fn trace(run: &v1::Run) -> String {
    let parent: Option<TraceParent> = run.trace_parent.parse().ok();
    parent.map_or_else(String::new, |parent| format!("{:032x}", parent.trace_id))
}

/// Empty when it is the usual one.
fn priority(run: &v1::Run) -> String {
    if run.priority == limits::DEFAULT_PRIORITY { String::new() } else { run.priority.to_string() }
}

/// Empty when it stays on its bundle.
fn repinnable(run: &v1::Run) -> String {
    match (run.repinnable, run.repins, run.repin_to.as_str()) {
        (false, _, _) => String::new(),
        (true, 0, "") => "yes".to_owned(),
        (true, moved, "") => format!("moved {}", human::count(u64::from(moved), "time")),
        (true, _, to) => format!("moves to {to} when its held steps are over"),
    }
}

fn usage(usage: Option<&v1::Usage>) -> String {
    let Some(usage) = usage else { return String::new() };
    let models = usage.models.iter().map(|it| {
        let cost = human::micros(it.cost_micros);
        format!("{}: {} in, {} out, {cost}", it.model, it.input_tokens, it.output_tokens)
    });
    let tools =
        usage.tools.iter().map(|it| format!("{}: {}", it.tool, human::count(it.calls, "call")));
    models.chain(tools).collect::<Vec<_>>().join("\n")
}

pub(super) async fn steps(context: &Context, args: &Steps) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let (agent_id, run_id) = (agent_id.as_str(), run_id.as_str());
    context
        .watch(args.list.watch, || async move {
            let (steps, next_page_token, revision) = context
                .pages(&args.list, |page_size, page_token| async move {
                    let request = v1::ListStepsRequest {
                        agent_id: agent_id.to_owned(),
                        run_id: run_id.to_owned(),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    let page = context.client.runs().steps(request).await?;
                    Ok((page.steps, page.next_page_token, page.revision))
                })
                .await?;
            let names = steps.iter().map(|step| step.number.to_string()).collect();
            let table = step_table(&steps);
            let page = v1::ListStepsResponse { steps, next_page_token, revision };
            Ok(View::list(&page, "steps", names, table))
        })
        .await
}

/// Steps as a table; `run explain` shows the same.
pub(super) fn step_table(steps: &[v1::Step]) -> Table {
    let mut table = Table::new(
        &["#", "STEP", "STATE", "ATTEMPT", "TOOK", "WORKER", "BUNDLE", "FAILURE"],
        &["CHECKPOINTS", "WAIT", "READY", "INPUT", "OUTPUT"],
    );
    for step in steps {
        let failure = step.failure.as_ref().map(|it| format!("{}: {}", it.reason, it.message));
        table.row(vec![
            step.number.to_string(),
            name(step),
            human::step_state(step.state()),
            format!("{}/{}", step.attempt, step.max_attempts),
            took(step),
            human::or_dash(&step.worker_id),
            step.bundle_id.clone(),
            human::or_dash(&human::cut(&failure.unwrap_or_default(), PAYLOAD)),
            step.checkpoints.to_string(),
            human::or_dash(&wait(step)),
            human::at(step.ready_at.as_ref()),
            human::payload(step.input.as_ref(), PAYLOAD),
            human::payload(step.output.as_ref(), PAYLOAD),
        ]);
    }
    table
}

/// The step's name, and which branch of which join it is in.
fn name(step: &v1::Step) -> String {
    match step.join {
        0 => step.name.clone(),
        join => format!("{} (#{join}/{})", step.name, step.branch),
    }
}

/// What it waits for, or did: its branches, a signal, a time, or whichever is first.
fn wait(step: &v1::Step) -> String {
    if step.branches > 0 {
        return format!("{} of {} branches", step.branches - step.branches_open, step.branches);
    }
    let until = step.wait_until.as_ref().map(|at| format!("until {}", human::at(Some(at))));
    let signal = (!step.wait_signal.is_empty()).then(|| step.wait_signal.clone());
    signal.into_iter().chain(until).collect::<Vec<_>>().join(" ")
}

/// From lease to end, or until now.
fn took(step: &v1::Step) -> String {
    let end = match &step.ended_at {
        Some(end) => pinrail_proto::time::timestamp_millis(Some(end)),
        None => human::now_ms(),
    };
    human::age(step.leased_at.as_ref(), end)
}
