//! Faults against real processes, which are to find the bugs of the log that a real file system shows.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};
use pinrail_node::mutant::{Mutant, VARIABLE};

use super::{Engine, Found, first_complaint};

/// Each run is another seed of a schedule that takes less than three minutes.
const RUNS: u64 = 3;
/// The schedule that is to find each bug: arguments of `chaos`. A vote that was not synced is lost only within the two
/// milliseconds before the first entry of its term is, and RocksDB itself takes no write behind a sync that failed: those bugs
/// are for the simulation.
const SCHEDULES: [(Mutant, &[&str]); 1] =
    [(Mutant::AcknowledgesUnsynced, &["power-loss", "--cycles", "3"])];

/// Schedules of `chaos`, run with a server in which bugs can be planted.
#[derive(Debug)]
pub struct Processes {
    pub chaos: PathBuf,
    /// A server that was built with the feature `mutants`.
    pub server: PathBuf,
}

impl Engine for Processes {
    fn bugs(&self) -> Vec<Mutant> {
        SCHEDULES.map(|(mutant, _)| mutant).to_vec()
    }

    fn hunt(&self, mutant: Mutant) -> Result<Option<Found>> {
        let Some((_, schedule)) = SCHEDULES.iter().find(|(of, _)| *of == mutant) else {
            return Ok(None);
        };
        for seed in 1..=RUNS {
            let output = self.play(mutant, schedule, seed)?;
            if let Some(how) = first_complaint(&String::from_utf8_lossy(&output.stdout)) {
                let run = format!("chaos --seed {seed} {}", schedule.join(" "));
                return Ok(Some(Found { run, how }));
            }
            anyhow::ensure!(
                output.status.success(),
                "the harness failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(None)
    }

    fn budget(&self) -> String {
        format!("{RUNS} schedules")
    }
}

impl Processes {
    fn play(&self, mutant: Mutant, schedule: &[&str], seed: u64) -> Result<Output> {
        Command::new(&self.chaos)
            .args(["--seed", &seed.to_string()])
            .args(schedule)
            .env("PINRAIL_BIN", &self.server)
            .env(VARIABLE, mutant.name())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", self.chaos.display()))
    }
}
