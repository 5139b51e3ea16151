//! `pinrail dev`: one node or three in this process, for trying things out. With an agent to play with.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use pinrail_client::{Client, Config};
use pinrail_node::config::{GRPC_PORT, LogSettings, Member, Profile, ServerConfig};
use pinrail_node::env::Env;
use pinrail_node::server::Server;
use pinrail_node::telemetry;
use pinrail_proto::id;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::hello;

/// Ports between two nodes of one `dev`.
const STRIDE: u16 = 10;
/// How long the first leader may take.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Start one node or three in this process, with an agent to try things on
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail dev\n  pinrail dev --nodes 3 --data ./data\n  pinrail dev --port 0 --print-env"
)]
pub(crate) struct DevArgs {
    /// One node, or three that replicate
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3), value_name = "1|3")]
    nodes: u16,
    /// gRPC port of the first node; HTTP and peers follow it; 0: any free ones
    #[arg(long, default_value_t = GRPC_PORT)]
    port: u16,
    /// Keep the data here; default: a temporary folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print only the lines that a shell needs to find the cluster
    #[arg(long)]
    print_env: bool,
    /// Bring no agent along
    #[arg(long)]
    empty: bool,
    /// What to log to standard error
    #[arg(long, default_value = "warn,openraft=error", value_name = "LEVEL")]
    log: String,
}

/// Runs until Ctrl-C or SIGTERM.
pub(crate) fn run(args: &DevArgs) -> ExitCode {
    telemetry::init_logs(&LogSettings { level: args.log.clone(), ..LogSettings::default() });
    telemetry::init_metrics();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &DevArgs) -> anyhow::Result<()> {
    if args.nodes == 2 {
        bail!("two nodes are less safe than one: choose --nodes 1 or 3");
    }
    let data = Data::at(args.data.as_deref())?;
    let configs = configs(args, data.path())?;
    super::runtime()?.block_on(async {
        let mut terminate =
            signal(SignalKind::terminate()).context("signals cannot be received")?;
        let mut servers = Vec::new();
        for config in configs {
            servers.push(Server::start(config, Env::real()).await?);
        }
        let stop = CancellationToken::new();
        let done = play(args, &servers, &stop);
        let result = tokio::select! {
            result = done => result,
            _ = terminate.recv() => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        stop.cancel();
        for server in servers {
            server.shutdown().await;
        }
        result
    })
}

/// Waits for a leader, brings the agent along, says what to try, and works.
async fn play(args: &DevArgs, servers: &[Server], stop: &CancellationToken) -> anyhow::Result<()> {
    let endpoints: Vec<String> =
        servers.iter().map(|server| server.grpc_addr.to_string()).collect();
    ready(servers).await?;
    let client = Client::new(Config { endpoints: endpoints.clone(), ..Config::default() })?;
    let mut workers = tokio::task::JoinSet::new();
    if !args.empty {
        hello::seed(&client).await.context("the agent to play with could not be made")?;
        workers = hello::work(&client, stop);
    }
    print(args, &endpoints, servers);
    while let Some(done) = workers.join_next().await {
        done.context("a worker of the agent to play with panicked")??;
    }
    stop.cancelled().await;
    Ok(())
}

async fn ready(servers: &[Server]) -> anyhow::Result<()> {
    let wait = async {
        for server in servers {
            let mut leadership = server.replica.leadership();
            let known = leadership.wait_for(|now| now.leader.is_some()).await;
            known.context("a node stopped before it knew a leader")?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(READY_WITHIN, wait).await.context("no leader was elected in time")?
}

fn print(args: &DevArgs, endpoints: &[String], servers: &[Server]) {
    let list = endpoints.join(",");
    if args.print_env {
        println!("export PINRAIL_ENDPOINT={list}");
        return;
    }
    let nodes = if servers.len() == 1 { "one node" } else { "three nodes" };
    println!("pinrail dev: {nodes}, ready at {list}");
    println!("  metrics  http://{}/metrics", servers[0].http_addr);
    let at = if endpoints[0] == pinrail_client::config::DEFAULT_ENDPOINT {
        String::new()
    } else {
        format!(" --endpoint {list}")
    };
    if args.empty {
        println!("\nTry:\n  pinrail cluster status{at}");
    } else {
        for command in suggestions(&at) {
            println!("{command}");
        }
    }
    println!("\nCtrl-C ends it.");
}

/// What to type next. One run id fits all of them.
fn suggestions(at: &str) -> Vec<String> {
    let agent = hello::AGENT;
    let run = format!("{}-first", id::agent_hash("default", agent));
    vec![
        "\nTry, in another terminal:".to_owned(),
        format!("  pinrail run start {agent} --run-id {run} --input '{{\"name\":\"you\"}}'{at}"),
        format!("  pinrail run watch {run}{at}"),
        format!("  pinrail run explain {run}{at}"),
        "\nThen put the second bundle live, and return:".to_owned(),
        format!("  pinrail switch {agent} v2{at}"),
        format!("  pinrail rollback {agent}{at}"),
    ]
}

fn configs(args: &DevArgs, data: &Path) -> anyhow::Result<Vec<ServerConfig>> {
    let ports = ports(args)?;
    let name = |index: usize| format!("dev-{index}");
    let mut configs = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let mut config = ServerConfig::local("dev", &name(index), &data.join(name(index)), 0);
        config.listen.grpc.set_port(port[0]);
        config.listen.http.set_port(port[1]);
        config.listen.peer.set_port(port[2]);
        config.raft.profile = Profile::Dedicated;
        if ports.len() > 1 {
            let member = |(index, port): (usize, &[u16; 3])| Member {
                name: name(index),
                peer: format!("127.0.0.1:{}", port[2]),
            };
            config.members = ports.iter().enumerate().map(member).collect();
        }
        configs.push(config);
    }
    Ok(configs)
}

/// gRPC, HTTP and peer port of each node.
fn ports(args: &DevArgs) -> anyhow::Result<Vec<[u16; 3]>> {
    let nodes = usize::from(args.nodes);
    if args.port == 0 {
        // Held until all are known, so that they differ.
        let held: Vec<TcpListener> = (0..nodes * 3)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .context("no free ports")?;
        let free: Vec<u16> =
            held.iter().map(|l| l.local_addr().map(|at| at.port())).collect::<Result<_, _>>()?;
        return Ok(free.chunks_exact(3).map(|three| [three[0], three[1], three[2]]).collect());
    }
    let first = |index: u16| args.port.checked_add(index * STRIDE + 2).map(|last| last - 2);
    let firsts: Option<Vec<u16>> = (0..args.nodes).map(first).collect();
    let firsts = firsts.context("--port is too high for the ports that follow it")?;
    Ok(firsts.into_iter().map(|port| [port, port + 1, port + 2]).collect())
}

/// Where the data is.
enum Data {
    Kept(PathBuf),
    Temporary(PathBuf),
}

impl Data {
    fn at(path: Option<&Path>) -> anyhow::Result<Self> {
        let mut builder = DirBuilder::new();
        let data = match path {
            Some(path) => {
                builder.recursive(true);
                Self::Kept(path.to_owned())
            }
            None => {
                let name = format!("pinrail-dev-{}", std::process::id());
                Self::Temporary(std::env::temp_dir().join(name))
            }
        };
        let made = builder.mode(0o700).create(data.path());
        made.with_context(|| format!("{} cannot be created", data.path().display()))?;
        Ok(data)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self {
            // What cannot be removed lies in the system's folder for such things.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
