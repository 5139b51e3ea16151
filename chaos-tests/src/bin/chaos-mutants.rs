//! `make mutants`: whether the simulation, and faults against real processes, find the bugs that are planted on purpose.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pinrail_chaos_tests::gate::{Processes, Seeds, gate};
use pinrail_chaos_tests::simulation::command;

#[derive(Debug, Parser)]
#[command(name = "chaos-mutants")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this bug, by its name; may be repeated.
    #[arg(long, global = true)]
    only: Vec<String>,
    /// The first seed.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Seeds that are tried on each.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One seed, with the bug that the environment names.
    SimOne,
    /// Bugs of the log, in real processes.
    Processes {
        /// The program that hurts them.
        #[arg(long)]
        chaos: PathBuf,
        /// A server that was built with the feature `mutants`.
        #[arg(long)]
        server: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    let it = Arguments::parse();
    match it.command {
        Some(Command::SimOne) => command::one(it.seed, tempfile::tempdir()?.path()),
        Some(Command::Processes { chaos, server }) => gate(&Processes { chaos, server }, &it.only),
        None => gate(&Seeds { first: it.seed, most: it.seeds }, &it.only),
    }
}
