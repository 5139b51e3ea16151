//! `release`: the procedure that brings a bundle from its first check to live.

mod steer;
mod text;
mod wait;

pub(super) use text::line;

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::bundle::named;
use super::context::{Context, Done};
use super::flags::{ListFlags, ReadFlags, WriteFlags};
use super::human;
use super::json;
use super::table::Table;
use super::view::{View, write};
use wait::WaitFlags;

/// Verbs of `release`.
#[derive(Debug, Clone, Subcommand)]
pub enum Release {
    /// What a release would go through, and until when its drain would last, before anything happens
    #[command(after_help = "Example:\n  pinrail release plan support v42")]
    Plan(Plan),
    /// Begin the release of a bundle
    #[command(
        after_help = "Examples:\n  pinrail release start support v42 --reason \"SUP-812\"\n  pinrail release start support v42 --fast --wait --until switch"
    )]
    Start(Start),
    /// Releases of an agent, newest first
    #[command(after_help = "Example:\n  pinrail release list support")]
    List(List),
    /// Where the active release stands (else the newest, or one by its id)
    #[command(
        after_help = "Examples:\n  pinrail release status support --watch\n  pinrail release status support --release r7\n  pinrail release status support --wait --until quarantine"
    )]
    Status(Status),
    /// Follow a release until it ends
    #[command(after_help = "Example:\n  pinrail release watch support")]
    Watch(Watch),
    /// What a release was, as Markdown: timeline, verdicts with their evidence, metrics of both bundles, cost, what a
    /// rollback could not undo
    #[command(
        after_help = "Examples:\n  pinrail release report support\n  pinrail release report support --release r7 -o json"
    )]
    Report(Watch),
    /// Go on: from a hold, to the next share of a canary, or past a stage
    #[command(
        after_help = "Examples:\n  pinrail release promote support\n  pinrail release promote support --to switch --force --reason \"hotfix\""
    )]
    Promote(steer::Promote),
    /// Stop the timers of the stage; never a pin's. Never asks
    #[command(after_help = "Example:\n  pinrail release hold support --reason \"looking at p95\"")]
    Hold(steer::Plain),
    /// End a hold; a stage that was judged already is tried again
    #[command(after_help = "Example:\n  pinrail release resume support")]
    Resume(steer::Plain),
    /// End the active release; its canary's traffic goes back to the live bundle. Never asks
    #[command(after_help = "Example:\n  pinrail release abort support --reason \"the wrong tag\"")]
    Abort(steer::Plain),
}

#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle that would be released
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// As `release start --fast` would do it
    #[arg(long)]
    fast: bool,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Start {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle to release
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Even when the bundle was rolled back; needs --reason
    #[arg(long, requires = "reason")]
    force: bool,
    /// Optional stages wait at most 10 s, and pass when they lack data
    #[arg(long)]
    fast: bool,
    /// Follow it until it ends
    #[arg(short, long, conflicts_with = "wait")]
    watch: bool,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Status {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of a release, `r7`; default: the active one, else the newest
    #[arg(long = "release", value_name = "ID", default_value = "", hide_default_value = true)]
    release: String,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Watch {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of a release, `r7`; default: the active one, else the newest
    #[arg(long = "release", value_name = "ID", default_value = "", hide_default_value = true)]
    release: String,
}

pub(super) async fn run(context: &Context, verb: &Release) -> Done {
    match verb {
        Release::Plan(args) => plan(context, args).await,
        Release::Start(args) => start(context, args).await,
        Release::List(args) => list(context, args).await,
        Release::Status(args) => status(context, args).await,
        Release::Watch(args) => follow(context, &context.agent(&args.agent)?, &args.release).await,
        Release::Report(args) => report(context, args).await,
        Release::Promote(args) => steer::promote(context, args).await,
        Release::Hold(args) => steer::hold(context, args).await,
        Release::Resume(args) => steer::resume(context, args).await,
        Release::Abort(args) => steer::abort(context, args).await,
    }
}

async fn plan(context: &Context, args: &Plan) -> Done {
    let (agent_id, bundle_id) = (context.agent(&args.agent)?, named(&args.bundle)?);
    context
        .watch(args.read.watch, || async {
            let request = v1::PlanReleaseRequest {
                agent_id: agent_id.clone(),
                bundle_id: bundle_id.clone(),
                fast: args.fast,
                read: context.read(),
                ..Default::default()
            };
            let plan = context.client.releases().plan(request).await?;
            Ok(View::object(&plan, &bundle_id, text::plan(&plan)))
        })
        .await
}

async fn start(context: &Context, args: &Start) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let request = v1::StartReleaseRequest {
        agent_id: agent_id.clone(),
        bundle_id: named(&args.bundle)?,
        force: args.force,
        fast: args.fast,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().start(request).await?;
    context.acknowledged();
    let release = answer.release.clone().unwrap_or_default();
    if args.watch && !args.write.dry_run {
        return follow(context, &agent_id, &release.release_id).await;
    }
    if args.wait.wait && !args.write.dry_run {
        return wait::wait(context, &agent_id, &release.release_id, &args.wait).await;
    }
    context.show(&View::object(&answer, &release.release_id, text::release(&release)))
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let agent_id = agent_id.as_str();
    context
        .watch(args.list.watch, || async move {
            let (releases, next_page_token, revision) = context
                .pages(&args.list, |page_size, page_token| async move {
                    let request = v1::ListReleasesRequest {
                        agent_id: agent_id.to_owned(),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    let page = context.client.releases().list(request).await?;
                    Ok((page.releases, page.next_page_token, page.revision))
                })
                .await?;
            let names = releases.iter().map(|release| release.release_id.clone()).collect();
            let table = table(&releases);
            let page = v1::ListReleasesResponse { releases, next_page_token, revision };
            Ok(View::list(&page, "releases", names, table))
        })
        .await
}

fn table(releases: &[v1::Release]) -> Table {
    let columns = ["RELEASE", "BUNDLE", "BASELINE", "STATE", "STARTED", "ENDED", "WHY"];
    let mut table = Table::new(&columns, &["ACTOR", "REASON"]);
    let now = human::now_ms();
    for release in releases {
        let why = match &release.hold {
            Some(hold) => format!("held: {}", hold.reason),
            None => release.end_reason.clone(),
        };
        table.row(vec![
            release.release_id.clone(),
            release.bundle_id.clone(),
            human::or_dash(&release.baseline_bundle_id),
            human::release_state(release.state()),
            human::age(release.started_at.as_ref(), now),
            human::age(release.ended_at.as_ref(), now),
            human::or_dash(&human::cut(&why, 60)),
            human::or_dash(&release.actor),
            human::or_dash(&release.reason),
        ]);
    }
    table
}

async fn status(context: &Context, args: &Status) -> Done {
    let agent_id = context.agent(&args.agent)?;
    if args.wait.wait {
        return wait::wait(context, &agent_id, &args.release, &args.wait).await;
    }
    context
        .watch(args.read.watch, || async {
            let request = v1::GetReleaseRequest {
                agent_id: agent_id.clone(),
                release_id: args.release.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.releases().get(request).await?;
            let release = answer.release.clone().unwrap_or_default();
            Ok(View::object(&answer, &release.release_id, text::release(&release)))
        })
        .await
}

async fn report(context: &Context, args: &Watch) -> Done {
    let request = v1::GetReleaseReportRequest {
        agent_id: context.agent(&args.agent)?,
        release_id: args.release.clone(),
        read: context.read(),
        ..Default::default()
    };
    let mut answer = context.client.reports().release(request).await?;
    let report = answer.report.get_or_insert_default();
    // The page is for people, the rest of the message for programs.
    let page = std::mem::take(&mut report.markdown);
    let id = report.release.clone().unwrap_or_default().release_id;
    context.show(&View::object(&answer, &id, page))
}

/// The release after a command about it.
pub(super) fn shown<M: prost::Name>(
    context: &Context,
    answer: &M,
    release: Option<&v1::Release>,
) -> Done {
    steer::show(context, answer, release, false)
}

/// Prints each change until the release ends; the exit code is that of its end.
async fn follow(context: &Context, agent_id: &str, release_id: &str) -> Done {
    let mut changes = context.client.releases().watch(v1::WatchReleaseRequest {
        agent_id: agent_id.to_owned(),
        release_id: release_id.to_owned(),
        ..Default::default()
    });
    let (mut told, mut last) = (0, v1::Release::default());
    while let Some(release) = changes.next().await? {
        if context.output().is_structured() {
            write(format!("{}\n", json::of(&release)).as_bytes())?;
        } else {
            for line in release.transitions.iter().skip(told).map(text::transition) {
                write(format!("{line}\n").as_bytes())?;
            }
            if let Some(hold) = &release.hold {
                eprintln!("held: {}", hold.reason);
                release.next.iter().for_each(|next| eprintln!("  next  {next}"));
            }
            told = release.transitions.len();
        }
        last = release;
    }
    Ok(wait::code(&last))
}
