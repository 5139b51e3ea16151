//! `worker`: workers that are connected, and programs as workers.

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::ReadFlags;
use super::human;
use super::problem::{self, Problem};
use super::table::{Table, pairs};
use super::view::View;

mod call;
mod host;

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
    /// Serve bundles with a program of any language
    #[command(
        after_help = "Examples:\n  pinrail worker exec support --bundle v1 -- python3 agent.py\n  pinrail worker exec support --bundle v1 --per-step -- ./agent.sh\n  pinrail worker exec support --bundle v1=blue --bundle v2=green -- node agent.mjs\n\nThe program speaks JSON over the Unix socket in PINRAIL_SOCKET; docs/WORKERS.md says how, and\nclient/examples/exec has helpers for Python and Node, and a shell script."
    )]
    Exec(host::Exec),
    /// Serve bundles with an HTTP server beside this process
    #[command(
        after_help = "Example:\n  pinrail worker http support --bundle v1 --url http://127.0.0.1:8000/pinrail\n\nEach step is POSTed to the URL, and the answer is its outcome; docs/WORKERS.md says how it calls back."
    )]
    Http(host::Http),
    /// Ask the host in the middle of a step, from a shell
    #[command(
        after_help = "Examples:\n  pinrail worker call memory.get key=visits --field value\n  pinrail worker call checkpoint name=words value:=3\n\nFor programs under `worker exec --per-step`; docs/WORKERS.md lists the messages."
    )]
    Call(call::Call),
}

impl Worker {
    /// Whether the verb hears the signals itself, because it has steps to finish.
    pub(super) fn finishes_first(&self) -> bool {
        match self {
            Worker::Exec(_) | Worker::Http(_) => true,
            Worker::List(_) | Worker::Show(_) | Worker::Drain(_) | Worker::Call(_) => false,
        }
    }
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
        Worker::Exec(args) => host::exec(context, args).await,
        Worker::Http(args) => host::http(context, args).await,
        Worker::Call(args) => call::call(context, args).await,
    }
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
                &["CODE", "VERIFIED", "NODE", "VERSION", "CONNECTED", "STEPS", "SHADOW-SAFE"],
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
                    if worker.shadow_safe { "yes" } else { "no" }.to_owned(),
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
        ("shadow-safe", if worker.shadow_safe { "yes" } else { "no" }.to_owned()),
        ("version", worker.version.clone()),
        ("tools seen", worker.tools.len().to_string()),
        ("blocked by", human::or_dash(&worker.blocked_by)),
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
