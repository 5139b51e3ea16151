//! The one binary. The verbs that start a node or open its files are here (`command/`); every other verb is the client's.

mod command;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use pinrail_client::cli;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Blue-green releases of AI agents: bundles, pins, memory, switch and rollback
#[derive(Debug, Parser)]
#[command(name = "pinrail", version, subcommand_required = true, arg_required_else_help = true)]
struct Pinrail {
    #[command(flatten)]
    globals: cli::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(command::dev::DevArgs),
    Server(command::server::ServerArgs),
    #[command(subcommand)]
    Debug(command::dump_log::Debug),
    #[command(flatten)]
    Client(cli::Command),
}

fn main() -> ExitCode {
    cli::set_root(Pinrail::command);
    let Pinrail { globals, command } = Pinrail::parse();
    match command {
        Command::Dev(args) => command::dev::run(&args),
        Command::Server(args) => command::server::run(&args),
        Command::Debug(command::dump_log::Debug::DumpLog(args)) => {
            command::dump_log::run(&args, &globals)
        }
        Command::Client(cli::Command::Cluster(cli::Cluster::Recover(args))) => {
            command::recover::run(&args, &globals)
        }
        Command::Client(command) => match command::runtime() {
            Ok(runtime) => runtime.block_on(cli::run(command, globals)),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Pinrail::command().debug_assert();
    }

    #[test]
    fn verbs_of_both_sides_are_there() {
        let command = Pinrail::command();
        for verb in ["dev", "server", "debug", "switch", "rollback", "run", "status"] {
            assert!(command.find_subcommand(verb).is_some(), "{verb}");
        }
    }
}
