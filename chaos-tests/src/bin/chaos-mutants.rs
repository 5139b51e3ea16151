//! `make mutants`: whether the simulation finds the bugs that are planted on purpose.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pinrail_chaos_tests::simulation::{command, gate};

#[derive(Debug, Parser)]
#[command(name = "chaos-mutants")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this bug, by its name; may be repeated.
    #[arg(long)]
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
}

fn main() -> Result<ExitCode> {
    let it = Arguments::parse();
    match it.command {
        Some(Command::SimOne) => command::one(it.seed, tempfile::tempdir()?.path()),
        None => gate::gate(&it.only, it.seed, it.seeds),
    }
}
