//! The mutation gate: the simulation counts only if it finds the bugs that are planted on purpose, one at a time.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use pinrail_node::mutant::{Mutant, VARIABLE};
use tokio::time::Instant;

use super::command::{BROKEN, begin, each};

/// Tries seeds `first..first + most` on each bug until one finds it.
///
/// # Errors
/// When a process cannot be started, or a name is no bug's: nothing would be looked for.
pub fn gate(only: &[String], first: u64, most: u64) -> Result<ExitCode> {
    for name in only {
        ensure!(Mutant::ALL.iter().any(|it| it.name() == name), "no bug is called {name}");
    }
    let wanted = |it: &&Mutant| only.is_empty() || only.iter().any(|name| name == it.name());
    let mut missed = Vec::new();
    for mutant in Mutant::ALL.iter().filter(wanted) {
        let began = Instant::now();
        match hunt(*mutant, first, most)? {
            Some((seed, how)) => {
                let took = began.elapsed();
                println!("{:<28} found by seed {seed} after {took:.1?}: {how}", mutant.name());
            }
            None => {
                println!("{:<28} NOT FOUND by {most} seeds", mutant.name());
                missed.push(mutant.name());
            }
        }
    }
    println!("{} of the planted bugs were not found {missed:?}", missed.len());
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first seed that finds a bug, and by what.
fn hunt(mutant: Mutant, first: u64, most: u64) -> Result<Option<(u64, String)>> {
    let mut found = None;
    let begin = |seed| begin(seed, Some((VARIABLE, mutant.name())));
    each(first..first + most, begin, |seed, output| {
        if output.status.code() != Some(i32::from(BROKEN)) {
            return ControlFlow::Continue(());
        }
        found = Some((seed, reason(&String::from_utf8_lossy(&output.stdout))));
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The first thing that a report says is wrong.
fn reason(report: &str) -> String {
    let is_heading = |line: &&str| line.contains("broken promises") || line.contains("problems");
    let said = report.lines().skip_while(|line| !is_heading(line)).nth(1);
    said.unwrap_or("see its report").trim().to_owned()
}
