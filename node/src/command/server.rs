//! `pinrail server`: one member of a cluster, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use pinrail_node::config::ServerConfig;
use pinrail_node::env::Env;
use pinrail_node::server::Server;
use pinrail_node::telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a configuration that is refused.
const REFUSED: u8 = 2;

/// Start one member of a cluster
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail server -f /etc/pinrail/server.toml --check\n  pinrail server -f server.toml"
)]
pub(crate) struct ServerArgs {
    /// server.toml
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Listen on addresses that others can reach, without TLS
    #[arg(long)]
    insecure: bool,
    /// Say what would be done, and whether the file is valid: exit 0 or 2
    #[arg(long)]
    check: bool,
    /// For tests: append every entry that is applied to files in a directory, which snapshots do not shorten
    #[arg(long, value_name = "DIR")]
    log_archive: Option<PathBuf>,
}

/// Runs a server until SIGTERM or SIGINT.
pub(crate) fn run(args: &ServerArgs) -> ExitCode {
    let config = ServerConfig::load(&args.file)
        .and_then(|config| config.check_reach(args.insecure).map(|()| config));
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(REFUSED);
        }
    };
    if args.check {
        print!("{}", config.describe());
        return ExitCode::SUCCESS;
    }
    telemetry::init_logs(&config.log);
    telemetry::init_metrics();
    match serve(config, args.log_archive.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: ServerConfig, log_archive: Option<PathBuf>) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        let (cluster, node) = (config.cluster.clone(), config.node.clone());
        let mut terminate =
            signal(SignalKind::terminate()).context("signals cannot be received")?;
        let mut env = Env::real();
        env.log_archive = log_archive;
        let server = Server::start(config, env).await?;
        println!(
            "pinrail {node} of {cluster} listens: grpc {}  http {}  peer {}",
            server.grpc_addr, server.http_addr, server.peer_addr
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        server.shutdown().await;
        Ok(())
    })
}
