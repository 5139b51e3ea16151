//! `session`: runs that belong together, and the bundle that they start on.

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::{ListFlags, ReadFlags, WriteFlags};
use super::human;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `session`.
#[derive(Debug, Clone, Subcommand)]
pub enum Session {
    /// The sessions of an agent that hold a pin
    #[command(after_help = "Example:\n  pinrail session list support")]
    List(List),
    /// Where the next run of a session starts, and its open runs
    #[command(after_help = "Example:\n  pinrail session show support chat-812")]
    Show(Show),
    /// Take the pin from a session: its next run starts where the route leads; open ones stay where they are
    #[command(after_help = "Example:\n  pinrail session end support chat-812 --reason \"SUP-812\"")]
    End(End),
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
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The session's key
    #[arg(value_name = "KEY")]
    session: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct End {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The session's key
    #[arg(value_name = "KEY")]
    session: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Session) -> Done {
    match verb {
        Session::List(args) => list(context, args).await,
        Session::Show(args) => show(context, args).await,
        Session::End(args) => end(context, args).await,
    }
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let agent_id = agent_id.as_str();
    context
        .watch(args.list.watch, || async move {
            let (sessions, next_page_token, revision) = context
                .pages(&args.list, |page_size, page_token| async move {
                    let request = v1::ListSessionsRequest {
                        agent_id: agent_id.to_owned(),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    let page = context.client.pins().sessions(request).await?;
                    Ok((page.sessions, page.next_page_token, page.revision))
                })
                .await?;
            let names = sessions.iter().map(|session| session.session.clone()).collect();
            let table = table(&sessions);
            let page = v1::ListSessionsResponse { sessions, next_page_token, revision };
            Ok(View::list(&page, "sessions", names, table))
        })
        .await
}

fn table(sessions: &[v1::Session]) -> Table {
    let mut table =
        Table::new(&["SESSION", "BUNDLE", "PINNED", "NEXT RUN", "OPEN"], &["EPOCH", "ENDS"]);
    let now = human::now_ms();
    for session in sessions {
        table.row(vec![
            session.session.clone(),
            session.bundle_id.clone(),
            human::age(session.pinned_at.as_ref(), now),
            next(session),
            session.open_run_ids.len().to_string(),
            session.epoch.to_string(),
            human::at(session.ends_at.as_ref()),
        ]);
    }
    table
}

/// Where the next run starts.
fn next(session: &v1::Session) -> String {
    if session.holds { format!("on {}", session.bundle_id) } else { "by the route".to_owned() }
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetSessionRequest {
                agent_id: agent_id.clone(),
                session: args.session.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.pins().session(request).await?;
            let text = text(&answer.session.clone().unwrap_or_default());
            Ok(View::object(&answer, &args.session, text))
        })
        .await
}

async fn end(context: &Context, args: &End) -> Done {
    let request = v1::EndSessionRequest {
        agent_id: context.agent(&args.agent)?,
        session: args.session.clone(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.pins().end_session(request).await?;
    context.acknowledged();
    let was = answer.session.clone().unwrap_or_default();
    eprintln!(
        "the next run of the session starts where the route leads; it was on {}",
        was.bundle_id
    );
    context.show(&View::object(&answer, &args.session, text(&was)))
}

fn text(session: &v1::Session) -> String {
    pairs(&[
        ("session", session.session.clone()),
        ("next run", next(session)),
        ("pinned", human::at(session.pinned_at.as_ref())),
        ("ends", human::at(session.ends_at.as_ref())),
        ("open runs", human::or_dash(&session.open_run_ids.join(" "))),
        ("revision", session.revision.to_string()),
    ])
}
