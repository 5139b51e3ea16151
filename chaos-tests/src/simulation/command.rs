//! `chaos sim`: seeds one after the other, each in a process of its own, so that nothing of one reaches the next.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use super::run;

/// Processes at work at the same time.
const AT_ONCE: usize = 2;

/// Runs seeds `first..first + count`. A seed fixes faults, workload, network and clocks, but not yet openraft's own
/// election timeouts: a failing seed is likely, not certain, to fail again.
///
/// # Errors
/// When a process cannot be started.
pub fn many(first: u64, count: u64) -> Result<ExitCode> {
    let own = std::env::current_exe().context("where this program is")?;
    let seeds: Vec<u64> = (first..first + count).collect();
    let mut failed = Vec::new();
    for pair in seeds.chunks(AT_ONCE) {
        let mut children = Vec::new();
        for seed in pair {
            let child = Command::new(&own)
                .args(["sim-one", "--seed", &seed.to_string()])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("start a seed")?;
            children.push((*seed, child));
        }
        for (seed, child) in children {
            let output = child.wait_with_output().context("wait for a seed")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let last = text.lines().next_back().unwrap_or_default().to_owned();
            if output.status.success() {
                println!("{last}");
            } else {
                failed.push(seed);
                let talk = String::from_utf8_lossy(&output.stderr);
                println!(
                    "{text}{talk}\nseed {seed} FAILED; again with: chaos sim-one --seed {seed}"
                );
            }
        }
    }
    println!("{} seeds passed, {} failed {failed:?}", seeds.len() - failed.len(), failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one seed in this process and prints what came of it.
///
/// # Errors
/// When the harness failed.
pub fn one(seed: u64, folder: &Path) -> Result<ExitCode> {
    let result = run(seed, folder)?;
    let passed = result.report.passed();
    if !passed {
        print!("{}", result.report);
    }
    let (log, state) = result.losses;
    println!(
        "seed {seed}: {} runs, {} steps, {} comparisons, crashes lost log {log}x state {state}x, trace {:016x}",
        result.report.runs, result.report.steps_executed, result.report.compared, result.trace
    );
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
