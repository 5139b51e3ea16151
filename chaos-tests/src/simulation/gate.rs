//! The mutation gate: the simulation counts only if it finds the bugs that are planted on purpose, one at a time.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use pinrail_node::mutant::{Mutant, VARIABLE};
use tokio::time::Instant;

use super::command::{AT_ONCE, BROKEN, begin};

/// Tries seeds `first..first + most` on each bug until one finds it.
///
/// # Errors
/// When a process cannot be started.
pub fn gate(only: &[String], first: u64, most: u64) -> Result<ExitCode> {
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
    let seeds: Vec<u64> = (first..first + most).collect();
    for pair in seeds.chunks(AT_ONCE) {
        let mut children = Vec::new();
        for seed in pair {
            children.push((*seed, begin(*seed, Some((VARIABLE, mutant.name())))?));
        }
        let mut found = None;
        for (seed, child) in children {
            let output = child.wait_with_output().context("wait for a seed")?;
            if output.status.code() == Some(i32::from(BROKEN)) && found.is_none() {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                found = Some((seed, reason(&text)));
            }
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The first thing that a report says is wrong.
fn reason(report: &str) -> String {
    let is_heading = |line: &&str| line.contains("broken promises") || line.contains("problems");
    let said = report.lines().skip_while(|line| !is_heading(line)).nth(1);
    said.unwrap_or("see its report").trim().to_owned()
}
