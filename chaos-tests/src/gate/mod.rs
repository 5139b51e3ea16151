//! The mutation gates: an engine that looks for bugs counts only if it finds those that are planted on purpose, one at a time.

mod processes;
mod seeds;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use pinrail_node::mutant::Mutant;
use tokio::time::Instant;

pub use processes::Processes;
pub use seeds::Seeds;

/// An engine that looks for bugs.
pub trait Engine {
    /// The bugs that it is to find.
    fn bugs(&self) -> Vec<Mutant>;
    /// Looks for one: in which of its runs it was found, and as what.
    ///
    /// # Errors
    /// When nothing could be run.
    fn hunt(&self, mutant: Mutant) -> Result<Option<Found>>;
    /// What it looked through at most.
    fn budget(&self) -> String;
}

/// A bug that was found.
#[derive(Debug)]
pub struct Found {
    pub run: String,
    pub how: String,
}

/// Plants each bug of the engine, or only those of these names, and says whether it was found.
///
/// # Errors
/// When nothing could be run, or a name is of no bug of the engine: nothing would be looked for.
pub fn gate(engine: &impl Engine, only: &[String]) -> Result<ExitCode> {
    let bugs = engine.bugs();
    for name in only {
        ensure!(bugs.iter().any(|it| it.name() == name), "no bug for this is called {name}");
    }
    let wanted = |it: &&Mutant| only.is_empty() || only.iter().any(|name| name == it.name());
    let mut missed = Vec::new();
    for mutant in bugs.iter().filter(wanted) {
        let began = Instant::now();
        match engine.hunt(*mutant)? {
            Some(Found { run, how }) => {
                let took = began.elapsed();
                println!("{:<28} found by {run} after {took:.1?}: {how}", mutant.name());
            }
            None => {
                println!("{:<28} NOT FOUND by {}", mutant.name(), engine.budget());
                missed.push(mutant.name());
            }
        }
    }
    println!("{} of the planted bugs were not found {missed:?}", missed.len());
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first thing that a report says is wrong with the product; none: it says nothing of that kind.
fn first_complaint(report: &str) -> Option<String> {
    let is_heading = |line: &&str| {
        line.trim_start().starts_with("broken promises:")
            || line.trim_start().starts_with("problems:")
    };
    let said = report.lines().skip_while(|line| !is_heading(line)).nth(1)?;
    Some(said.trim().to_owned())
}
