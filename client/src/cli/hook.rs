//! `hook`: where events of an agent are sent to, and what became of each delivery.

use clap::{Args, Subcommand};
use pinrail_proto::{id, v1};

use super::context::{Context, Done};
use super::flags::{ListFlags, ReadFlags, WriteFlags};
use super::human;
use super::problem::{self, Problem};
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `hook`.
#[derive(Debug, Clone, Subcommand)]
pub enum Hook {
    /// The hooks of an agent's policy, and how far they are
    #[command(after_help = "Example:\n  pinrail hook list support")]
    List(List),
    /// One hook: what it asks for, what got through, what did not
    #[command(after_help = "Example:\n  pinrail hook show support pager")]
    Show(Show),
    /// Send a test event now and show what comes of it; exit code 1 if it was not taken
    #[command(after_help = "Example:\n  pinrail hook test support pager")]
    Test(Test),
    /// Deliveries that are tried again, that were given up, and the newest that were made
    #[command(
        after_help = "Examples:\n  pinrail hook deliveries support pager\n  pinrail hook deliveries support pager --state dead -o json"
    )]
    Deliveries(Deliveries),
    /// Send events again: one by its id, or all that were given up
    #[command(
        after_help = "Examples:\n  pinrail hook redeliver support pager 812/0\n  pinrail hook redeliver support pager --dead --reason \"it was down\""
    )]
    Redeliver(Redeliver),
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
    /// Name of the hook
    #[arg(value_name = "NAME")]
    hook: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Test {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the hook
    #[arg(value_name = "NAME")]
    hook: String,
}

#[derive(Debug, Clone, Args)]
pub struct Deliveries {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the hook
    #[arg(value_name = "NAME")]
    hook: String,
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_enum)]
    state: Option<State>,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    Pending,
    Dead,
    Delivered,
}

#[derive(Debug, Clone, Args)]
pub struct Redeliver {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the hook
    #[arg(value_name = "NAME")]
    hook: String,
    /// Id of a delivery: revision and index of its event, which need not have been meant for the hook
    #[arg(value_name = "DELIVERY", required_unless_present = "dead")]
    delivery: Option<String>,
    /// All that were given up
    #[arg(long, conflicts_with = "delivery")]
    dead: bool,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Hook) -> Done {
    match verb {
        Hook::List(args) => list(context, args).await,
        Hook::Show(args) => show(context, args).await,
        Hook::Test(args) => test(context, args).await,
        Hook::Deliveries(args) => deliveries(context, args).await,
        Hook::Redeliver(args) => redeliver(context, args).await,
    }
}

fn named(name: &str) -> Result<String, Problem> {
    id::check_name("hook", name)?;
    Ok(name.to_owned())
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::ListHooksRequest {
                agent_id: agent_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.hooks().list(request).await?;
            let mut table = Table::new(
                &["HOOK", "EVENTS", "PENDING", "DEAD", "DELIVERED", "LAST", "LAST ERROR"],
                &["CURSOR", "URL"],
            );
            let now = human::now_ms();
            for it in &answer.hooks {
                let hook = it.hook.clone().unwrap_or_default();
                table.row(vec![
                    hook.name.clone(),
                    human::or_dash(&events(&hook)),
                    it.pending.to_string(),
                    it.dead.to_string(),
                    it.delivered.to_string(),
                    human::age(it.delivered_at.as_ref(), now),
                    human::or_dash(&human::cut(&it.error, 40)),
                    it.cursor.to_string(),
                    hook.url,
                ]);
            }
            let name = |it: &v1::HookStatus| it.hook.clone().unwrap_or_default().name;
            let names = answer.hooks.iter().map(name).collect();
            Ok(View::list(&answer, "hooks", names, table))
        })
        .await
}

/// What it is sent, and the stage that asks it.
fn events(hook: &v1::Hook) -> String {
    let mut words = hook.events.clone();
    if !hook.gate.is_empty() {
        words.push(format!("gate of {}", hook.gate));
    }
    words.join(" ")
}

async fn show(context: &Context, args: &Show) -> Done {
    let (agent_id, hook) = (context.agent(&args.agent)?, named(&args.hook)?);
    context
        .watch(args.read.watch, || async {
            let request = v1::GetHookRequest {
                agent_id: agent_id.clone(),
                hook: hook.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.hooks().get(request).await?;
            let it = answer.hook.clone().unwrap_or_default();
            let of = it.hook.clone().unwrap_or_default();
            let now = human::now_ms();
            let text = pairs(&[
                ("hook", of.name.clone()),
                ("url", of.url.clone()),
                ("events", human::or_dash(&of.events.join(" "))),
                ("gate", human::or_dash(&of.gate)),
                ("secret", human::or_dash(&of.secret)),
                ("pending", it.pending.to_string()),
                ("dead", it.dead.to_string()),
                ("delivered", it.delivered.to_string()),
                ("last delivered", human::age(it.delivered_at.as_ref(), now)),
                ("last failed", human::age(it.failed_at.as_ref(), now)),
                ("last error", human::or_dash(&it.error)),
                ("cursor", it.cursor.to_string()),
                ("since", it.since_revision.to_string()),
            ]);
            Ok(View::object(&answer, &of.name, text))
        })
        .await
}

async fn test(context: &Context, args: &Test) -> Done {
    let request = v1::TestHookRequest {
        agent_id: context.agent(&args.agent)?,
        hook: named(&args.hook)?,
        ..Default::default()
    };
    let answer = context.client.hooks().test(request).await?;
    let status =
        if answer.status == 0 { "no answer".to_owned() } else { answer.status.to_string() };
    let text = pairs(&[
        ("hook", args.hook.clone()),
        ("taken", if answer.delivered { "yes" } else { "no" }.to_owned()),
        ("status", status),
        ("error", human::or_dash(&answer.error)),
        ("took", human::api_span(answer.took.as_ref())),
        ("signed", if answer.signed { "yes" } else { "no" }.to_owned()),
        ("sent by", answer.node.clone()),
    ]);
    context.show(&View::object(&answer, &args.hook, text))?;
    Ok(if answer.delivered { problem::OK } else { problem::ERROR })
}

async fn deliveries(context: &Context, args: &Deliveries) -> Done {
    let (agent_id, hook) = (context.agent(&args.agent)?, named(&args.hook)?);
    let (agent_id, hook) = (agent_id.as_str(), hook.as_str());
    let state = match args.state {
        None => v1::DeliveryState::Unspecified,
        Some(State::Pending) => v1::DeliveryState::Pending,
        Some(State::Dead) => v1::DeliveryState::Dead,
        Some(State::Delivered) => v1::DeliveryState::Delivered,
    };
    context
        .watch(args.list.watch, || async move {
            let (deliveries, next_page_token, revision) = context
                .pages(&args.list, |page_size, page_token| async move {
                    let request = v1::ListDeliveriesRequest {
                        agent_id: agent_id.to_owned(),
                        hook: hook.to_owned(),
                        state: state.into(),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    let page = context.client.hooks().deliveries(request).await?;
                    Ok((page.deliveries, page.next_page_token, page.revision))
                })
                .await?;
            let names = deliveries.iter().map(|it| it.delivery_id.clone()).collect();
            let table = table(&deliveries);
            let page = v1::ListDeliveriesResponse { deliveries, next_page_token, revision };
            Ok(View::list(&page, "deliveries", names, table))
        })
        .await
}

fn table(deliveries: &[v1::Delivery]) -> Table {
    let mut table = Table::new(
        &["DELIVERY", "EVENT", "STATE", "ATTEMPTS", "STATUS", "NEXT", "ERROR"],
        &["HAPPENED", "LAST TRIED"],
    );
    let now = human::now_ms();
    for it in deliveries {
        table.row(vec![
            it.delivery_id.clone(),
            it.r#type.clone(),
            human::delivery_state(it.state()),
            it.attempts.to_string(),
            if it.status == 0 { "-".to_owned() } else { it.status.to_string() },
            human::age(it.next_at.as_ref(), now),
            human::or_dash(&human::cut(&it.error, 60)),
            human::age(it.event_at.as_ref(), now),
            human::age(it.tried_at.as_ref(), now),
        ]);
    }
    table
}

async fn redeliver(context: &Context, args: &Redeliver) -> Done {
    use v1::redeliver_request::What;
    let request = v1::RedeliverRequest {
        agent_id: context.agent(&args.agent)?,
        hook: named(&args.hook)?,
        what: Some(match &args.delivery {
            Some(delivery) => What::DeliveryId(delivery.clone()),
            None => What::AllDead(true),
        }),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.hooks().redeliver(request).await?;
    let text = pairs(&[
        ("sent again", answer.deliveries.to_string()),
        ("gone", answer.gone.to_string()),
        ("revision", answer.revision.to_string()),
        ("next", format!("pinrail hook deliveries {} {}", args.agent, args.hook)),
    ]);
    context.show(&View::object(&answer, &args.hook, text))
}
