//! `worker`: workers that are connected.

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::ReadFlags;
use super::human;
use super::problem::{self, Problem};
use super::table::{Table, pairs};
use super::view::View;
use crate::host::Host;
use crate::worker::shutdown_signal;

/// Verbs of `worker`.
#[derive(Debug, Clone, Subcommand)]
pub enum Worker {
    /// The live workers of an agent
    #[command(after_help = "Example:\n  pinrail worker list support --bundle v42")]
    List(List),
    /// Show one worker
    #[command(after_help = "Example:\n  pinrail worker show support worker-7")]
    Show(Show),
    /// Tell a worker to take no more work; it finishes what it holds
    #[command(after_help = "Example:\n  pinrail worker drain support worker-7")]
    Drain(Drain),
    /// Serve a bundle with a program of any language
    #[command(
        after_help = "Example:\n  pinrail worker exec support --bundle v1 -- python3 agent.py\n\nThe program speaks JSON over the Unix socket in PINRAIL_SOCKET; docs/WORKERS.md says how, and\nclient/examples/exec has a helper for Python."
    )]
    Exec(Exec),
}

#[derive(Debug, Clone, Args)]
pub struct Exec {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The bundle that the program is; also PINRAIL_BUNDLE
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    /// Where the program runs [default: here]
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
    /// Processes at most, each one step at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slots: u32,
    /// A step that it serves; repeat for more [default: what the program says]
    #[arg(long = "step", value_name = "NAME")]
    steps: Vec<String>,
    /// Every effect of the program goes through tools and checkpoints
    #[arg(long)]
    shadow_safe: bool,
    /// What the program was built from; also PINRAIL_CODE
    #[arg(long, value_name = "ID")]
    code: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the worker
    #[arg(value_name = "WORKER")]
    worker: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Drain {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Id of the worker
    #[arg(value_name = "WORKER")]
    worker: String,
}

pub(super) async fn run(context: &Context, verb: &Worker) -> Done {
    match verb {
        Worker::List(args) => list(context, args).await,
        Worker::Show(args) => show(context, args).await,
        Worker::Drain(args) => drain(context, args).await,
        Worker::Exec(args) => exec(context, args).await,
    }
}

async fn exec(context: &Context, args: &Exec) -> Done {
    let bundle = match args.bundle.as_str() {
        "" => crate::config::worker_bundle().unwrap_or_default(),
        bundle => bundle.to_owned(),
    };
    pinrail_proto::id::check_name("bundle", &bundle)?;
    let host = Host {
        agent: context.agent(&args.agent)?,
        bundle,
        command: args.command.clone(),
        dir: args.dir.clone(),
        slots: args.slots,
        steps: args.steps.clone(),
        shadow_safe: args.shadow_safe,
        code: args.code.clone(),
    };
    eprintln!("serving {} {}; Ctrl-C ends it in order", host.agent, host.bundle);
    host.run_until(context.client.clone(), shutdown_signal()).await?;
    Ok(problem::OK)
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::ListWorkersRequest {
                agent_id: agent_id.clone(),
                bundle_id: args.bundle.clone(),
                ..Default::default()
            };
            let answer = context.client.workers().list(request).await?;
            let now = human::now_ms();
            let mut table = Table::new(
                &["WORKER", "BUNDLE", "STATE", "SLOTS", "FREE", "HEARTBEAT"],
                &["CODE", "VERIFIED", "NODE", "VERSION", "CONNECTED", "STEPS"],
            );
            for worker in &answer.workers {
                table.row(vec![
                    worker.worker_id.clone(),
                    worker.bundle_id.clone(),
                    human::worker_state(worker.state()),
                    worker.slots.to_string(),
                    worker.free_slots.to_string(),
                    human::age(worker.last_heartbeat_at.as_ref(), now),
                    human::or_dash(&human::cut(&worker.code, 20)),
                    if worker.verified { "yes" } else { "no" }.to_owned(),
                    human::or_dash(&worker.node),
                    human::or_dash(&worker.version),
                    human::age(worker.connected_at.as_ref(), now),
                    human::or_dash(&worker.steps.join(",")),
                ]);
            }
            let names = answer.workers.iter().map(|worker| worker.worker_id.clone()).collect();
            Ok(View::list(&answer, "workers", names, table))
        })
        .await
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request =
                v1::ListWorkersRequest { agent_id: agent_id.clone(), ..Default::default() };
            let answer = context.client.workers().list(request).await?;
            let found = answer.workers.iter().find(|worker| worker.worker_id == args.worker);
            let worker = found.ok_or_else(|| {
                let name = pinrail_proto::reason::WORKER_NOT_FOUND.name;
                let message = format!("no live worker {:?}", args.worker);
                Problem::new(name, problem::exit_code(name), message)
            })?;
            Ok(View::object(worker, &args.worker, one(worker)))
        })
        .await
}

fn one(worker: &v1::Worker) -> String {
    let now = human::now_ms();
    let code = if worker.verified { worker.code.clone() } else { "unverified".to_owned() };
    pairs(&[
        ("worker", worker.worker_id.clone()),
        ("agent", worker.agent_id.clone()),
        ("bundle", worker.bundle_id.clone()),
        ("state", human::worker_state(worker.state())),
        ("slots", format!("{} free of {}", worker.free_slots, worker.slots)),
        ("held", worker.held.to_string()),
        ("code", code),
        ("steps", worker.steps.join(", ")),
        ("node", worker.node.clone()),
        ("connected", human::age(worker.connected_at.as_ref(), now)),
        ("heartbeat", human::age(worker.last_heartbeat_at.as_ref(), now)),
        ("version", worker.version.clone()),
    ])
}

async fn drain(context: &Context, args: &Drain) -> Done {
    let request = v1::DrainWorkerRequest {
        agent_id: context.agent(&args.agent)?,
        worker_id: args.worker.clone(),
        ..Default::default()
    };
    let answer = context.client.workers().drain(request).await?;
    let text = answer.worker.as_ref().map(one).unwrap_or_default();
    context.show(&View::object(&answer, &args.worker, text))
}
