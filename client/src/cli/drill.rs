//! `drill`: the rollback, practised and timed.

use std::time::Duration;

use clap::{Args, Subcommand};
use parking_lot::Mutex;
use pinrail_proto::v1::{self, DrillMode, DrillState, Verdict};
use tokio::time::{sleep, timeout};

use super::context::{Context, Done};
use super::flags::{ListFlags, ReadFlags, WriteFlags, duration};
use super::human;
use super::problem::{self, Problem};
use super::table::{Table, pairs};
use super::view::View;

/// A part failed, or all of them together took longer than the limit.
const FAILED: u8 = 3;
const ABORTED: u8 = 4;
/// How often a drill that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// `drill AGENT` is short for `drill run AGENT`.
#[derive(Debug, Clone, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  pinrail drill support\n  pinrail drill support --live --reason \"game day\"\n  pinrail drill support --history\n  pinrail drill support --schedule"
)]
pub struct Drill {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    short: Short,
}

/// Verbs of `drill`.
#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Practise a rollback and wait for its end; exit code 0 passed, 3 failed, 4 aborted
    #[command(
        after_help = "Examples:\n  pinrail drill run support\n  pinrail drill run support --live --reason \"game day\""
    )]
    Run(Run),
    /// Drills of an agent, newest first, and when the next one is due
    #[command(after_help = "Example:\n  pinrail drill list support")]
    List(List),
    /// How a drill went, part by part; default: the one under way, else the newest
    #[command(after_help = "Example:\n  pinrail drill show support --drill d3")]
    Show(Show),
    /// End the drill that is under way; on the live route, back to where it began. Never asks
    #[command(after_help = "Example:\n  pinrail drill abort support --reason \"an incident\"")]
    Abort(Abort),
}

#[derive(Debug, Clone, Args)]
struct Short {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
    /// Drills so far, newest first
    #[arg(long, conflicts_with_all = ["schedule", "live"])]
    history: bool,
    /// When the next one is due
    #[arg(long, conflicts_with = "live")]
    schedule: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Args)]
struct Run {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Args)]
struct How {
    /// On the live route, in quarantine only: users go to the standby for the time of the drill. Asks
    #[arg(long)]
    live: bool,
    /// The longest to wait; the drill goes on
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    within: Option<Duration>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of a drill, `d3`; default: the one under way, else the newest
    #[arg(long = "drill", value_name = "ID", default_value = "", hide_default_value = true)]
    drill: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
struct Abort {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, args: &Drill) -> Done {
    match &args.verb {
        Some(Verb::Run(args)) => practise(context, &args.agent, &args.how).await,
        Some(Verb::List(args)) => list(context, &args.agent, &args.list).await,
        Some(Verb::Show(args)) => show(context, args).await,
        Some(Verb::Abort(args)) => abort(context, args).await,
        None => {
            let Some(agent) = &args.short.agent else {
                return Err(Problem::usage("name the agent: pinrail drill AGENT"));
            };
            if args.short.history {
                list(context, agent, &ListFlags::default()).await
            } else if args.short.schedule {
                schedule(context, agent).await
            } else {
                practise(context, agent, &args.short.how).await
            }
        }
    }
}

async fn practise(context: &Context, agent: &str, how: &How) -> Done {
    let agent_id = context.agent(agent)?;
    let mode = if how.live { DrillMode::Live } else { DrillMode::Route };
    let request = v1::StartDrillRequest {
        agent_id: agent_id.clone(),
        mode: mode.into(),
        options: context.write(&how.write)?,
        ..Default::default()
    };
    if how.live && !how.write.dry_run {
        let asked = v1::WriteOptions {
            dry_run: true,
            request_id: String::new(),
            ..request.options.clone().unwrap_or_default()
        };
        let asked = v1::StartDrillRequest { options: Some(asked), ..request.clone() };
        let drill = context.client.drills().start(asked).await?.drill.unwrap_or_default();
        eprint!("{}", consequence(&drill));
        context.confirm(&how.write, &format!("Send users to {}?", drill.to_bundle_id))?;
    }
    let answer = context.client.drills().start(request).await?;
    context.acknowledged();
    let drill = answer.drill.clone().unwrap_or_default();
    if how.write.dry_run {
        return context.show(&View::object(&answer, &drill.drill_id, text(&drill)));
    }
    let end = follow(context, &agent_id, &drill.drill_id);
    let drill = match how.within {
        None => end.await?,
        Some(within) => timeout(within, end).await.unwrap_or_else(|_| {
            Err(Problem::timed_out("the drill is not over yet; it goes on")
                .next(format!("pinrail drill show {agent_id}")))
        })?,
    };
    context.show(&View::object(&drill, &drill.drill_id, text(&drill)))?;
    Ok(code(&drill))
}

/// What a drill on the live route means for memory, before it begins.
fn consequence(drill: &v1::Drill) -> String {
    let (from, to) = (&drill.from_bundle_id, &drill.to_bundle_id);
    format!(
        "users go from {from} to {to} and back; sessions on either begin anew\n\
         memory  {} keys that {from} wrote are hidden meanwhile; what {to} writes meanwhile stays in its own layer, late \
         ({} late writes so far)\n",
        drill.memory_keys_hidden, drill.late_writes
    )
}

/// Tells each part on stderr as it is over; the drill at its end.
async fn follow(context: &Context, agent_id: &str, drill_id: &str) -> Result<v1::Drill, Problem> {
    let mut told = 0;
    loop {
        let request = v1::GetDrillRequest {
            agent_id: agent_id.to_owned(),
            drill_id: drill_id.to_owned(),
            ..Default::default()
        };
        let drill = context.client.drills().get(request).await?.drill.unwrap_or_default();
        let is_over = |time: &&v1::DrillTime| time.verdict() != Verdict::Running;
        for time in drill.parts.iter().filter(is_over).skip(told) {
            told += 1;
            eprintln!("{}", part(time));
        }
        if drill.state() != DrillState::Running {
            return Ok(drill);
        }
        sleep(LOOK).await;
    }
}

fn code(drill: &v1::Drill) -> u8 {
    match drill.state() {
        DrillState::Failed => FAILED,
        DrillState::Aborted => ABORTED,
        DrillState::Unspecified | DrillState::Running | DrillState::Passed => problem::OK,
    }
}

async fn list(context: &Context, agent: &str, flags: &ListFlags) -> Done {
    let agent_id = context.agent(agent)?;
    let agent_id = agent_id.as_str();
    context
        .watch(flags.watch, || async move {
            // What is planned is in every page.
            let planned = &Mutex::new(v1::ListDrillsResponse::default());
            let (drills, next_page_token, revision) = context
                .pages(flags, |page_size, page_token| async move {
                    let request = v1::ListDrillsRequest {
                        agent_id: agent_id.to_owned(),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    let mut page = context.client.drills().list(request).await?;
                    let drills = std::mem::take(&mut page.drills);
                    let (token, revision) = (page.next_page_token.clone(), page.revision);
                    *planned.lock() = page;
                    Ok((drills, token, revision))
                })
                .await?;
            let names = drills.iter().map(|drill| drill.drill_id.clone()).collect();
            let table = table(&drills);
            let planned = planned.lock().clone();
            let page = v1::ListDrillsResponse { drills, next_page_token, revision, ..planned };
            Ok(View::list(&page, "drills", names, table))
        })
        .await
}

fn table(drills: &[v1::Drill]) -> Table {
    let columns = ["DRILL", "MODE", "STATE", "FROM", "TO", "STARTED", "TOOK", "LIMIT", "WHY"];
    let mut table = Table::new(&columns, &["ACTOR", "REASON"]);
    let now = human::now_ms();
    for drill in drills {
        table.row(vec![
            drill.drill_id.clone(),
            human::drill_mode(drill.mode()),
            human::drill_state(drill.state()),
            drill.from_bundle_id.clone(),
            drill.to_bundle_id.clone(),
            human::age(drill.started_at.as_ref(), now),
            human::api_span(drill.took.as_ref()),
            human::api_span(drill.limit.as_ref()),
            human::or_dash(&human::cut(&drill.end_reason, 60)),
            human::or_dash(&drill.actor),
            human::or_dash(&drill.reason),
        ]);
    }
    table
}

async fn schedule(context: &Context, agent: &str) -> Done {
    let agent_id = context.agent(agent)?;
    let request = v1::ListDrillsRequest {
        agent_id: agent_id.clone(),
        page_size: 1,
        read: context.read(),
        ..Default::default()
    };
    let answer = context.client.drills().list(request).await?;
    let policy = answer.policy.clone().unwrap_or_default();
    let now = human::now_ms();
    let due = match &answer.due_at {
        None => "none is planned".to_owned(),
        Some(at) => format!("{} ({})", human::at(Some(at)), human::age(Some(at), now)),
    };
    let last = answer.drills.first();
    let text = pairs(&[
        ("agent", agent_id.clone()),
        ("every", human::api_span(policy.every.as_ref())),
        ("window", policy.window.clone()),
        ("mode", human::drill_mode(policy.mode())),
        ("limit", human::api_span(policy.limit.as_ref())),
        ("next", due),
        (
            "last",
            last.map_or_else(String::new, |drill| {
                let ago = human::age(drill.started_at.as_ref(), now);
                format!("{} {}, {ago} ago", drill.drill_id, human::drill_state(drill.state()))
            }),
        ),
    ]);
    context.show(&View::object(&answer, &agent_id, text))
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetDrillRequest {
                agent_id: agent_id.clone(),
                drill_id: args.drill.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.drills().get(request).await?;
            let drill = answer.drill.clone().unwrap_or_default();
            Ok(View::object(&answer, &drill.drill_id, text(&drill)))
        })
        .await
}

async fn abort(context: &Context, args: &Abort) -> Done {
    let request = v1::AbortDrillRequest {
        agent_id: context.agent(&args.agent)?,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.drills().abort(request).await?;
    context.acknowledged();
    let drill = answer.drill.clone().unwrap_or_default();
    context.show(&View::object(&answer, &drill.drill_id, text(&drill)))
}

/// A drill with the time of each part.
fn text(drill: &v1::Drill) -> String {
    let limit = human::api_span(drill.limit.as_ref());
    let mut text = pairs(&[
        ("drill", drill.drill_id.clone()),
        ("state", human::drill_state(drill.state())),
        ("mode", human::drill_mode(drill.mode())),
        ("from", drill.from_bundle_id.clone()),
        ("to", drill.to_bundle_id.clone()),
        ("started", human::at(drill.started_at.as_ref())),
        ("took", format!("{} of {limit}", human::api_span(drill.took.as_ref()))),
        ("in flight", human::in_flight(drill.in_flight())),
        ("why", drill.end_reason.clone()),
        ("reason", drill.reason.clone()),
    ]);
    drill.parts.iter().for_each(|time| text.push_str(&format!("  {}\n", part(time))));
    text
}

/// One part on a line: `rollback   pass     4.2ms   acknowledged`.
fn part(time: &v1::DrillTime) -> String {
    let took = time.took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
    let took = match took {
        short if short < Duration::from_millis(100) => {
            format!("{:.1}ms", short.as_secs_f64() * 1e3)
        }
        long => human::span(long),
    };
    let line = format!(
        "{:<10} {:<8} {took:>8}  {}",
        human::drill_part(time.part()),
        human::verdict(time.verdict()),
        time.reason
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_exit_code() {
        let drill = |state: DrillState| v1::Drill { state: state.into(), ..Default::default() };
        assert_eq!(code(&drill(DrillState::Passed)), 0);
        assert_eq!(code(&drill(DrillState::Failed)), 3);
        assert_eq!(code(&drill(DrillState::Aborted)), 4);
    }

    #[test]
    fn a_part_is_told_with_its_time() {
        let time = v1::DrillTime {
            part: v1::DrillPart::InFlight.into(),
            verdict: Verdict::Pass.into(),
            took: Some(prost_types::Duration { seconds: 0, nanos: 4_230_000 }),
            reason: "3 of 3 runs kept".to_owned(),
            ..Default::default()
        };
        assert_eq!(part(&time), "in_flight  pass        4.2ms  3 of 3 runs kept");
    }
}
