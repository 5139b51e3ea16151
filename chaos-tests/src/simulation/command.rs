//! `chaos sim`: seeds one after the other, each in a process of its own, so that nothing of one reaches the next.

use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};

use anyhow::{Context as _, Result};

use super::{Seed, run, run_switch};

/// Processes at work at the same time.
pub(super) const AT_ONCE: usize = 2;
/// How a process ends whose seed broke a promise. Another end is the harness failing.
pub(super) const BROKEN: u8 = 3;

/// Starts a seed in a process of its own.
///
/// # Errors
/// When that cannot be started.
pub(super) fn begin(seed: u64, environment: Option<(&str, &str)>) -> Result<Child> {
    start(&["sim-one", "--seed", &seed.to_string()], environment)
}

fn start(args: &[&str], environment: Option<(&str, &str)>) -> Result<Child> {
    let own = std::env::current_exe().context("where this program is")?;
    Command::new(own)
        .args(args)
        .envs(environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start a seed")
}

/// Runs seeds `first..first + count`. A seed fixes faults, workload, network, clocks and elections: a seed that failed fails again,
/// with the same trace.
///
/// # Errors
/// When a process cannot be started.
pub fn many(first: u64, count: u64) -> Result<ExitCode> {
    let seeds: Vec<u64> = (first..first + count).collect();
    let mut failed = Vec::new();
    for pair in seeds.chunks(AT_ONCE) {
        let mut children = Vec::new();
        for seed in pair {
            children.push((*seed, begin(*seed, None)?));
        }
        for (seed, child) in children {
            let output = child.wait_with_output().context("wait for a seed")?;
            if output.status.success() {
                println!("{}", last_line(&output));
            } else {
                failed.push(seed);
                let text = String::from_utf8_lossy(&output.stdout);
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

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next_back().unwrap_or_default().to_owned()
}

/// One switch with a short cap, once for each entry of the log from the switch to the end of its drain, each time with a leader
/// that crashes at that entry. Every `stride`th entry.
///
/// # Errors
/// When a process cannot be started, or the switch fails without any fault.
pub fn switch(seed: u64, stride: usize, folder: &Path) -> Result<ExitCode> {
    let plain = run_switch(seed, None, folder)?;
    if !plain.report.passed() {
        return tell(seed, &plain);
    }
    let (first, last) = plain.entries;
    let indexes: Vec<u64> = (first..=last).step_by(stride.max(1)).collect();
    let mut failed = Vec::new();
    for pair in indexes.chunks(AT_ONCE) {
        let mut children = Vec::new();
        for index in pair {
            let (seed, index) = (seed.to_string(), index.to_string());
            let args = ["sim-switch-one", "--seed", &seed, "--crash-at", &index];
            children.push((index.clone(), start(&args, None)?));
        }
        for (index, child) in children {
            let output = child.wait_with_output().context("wait for a crash")?;
            if !output.status.success() {
                println!("{}", String::from_utf8_lossy(&output.stdout));
                println!(
                    "entry {index} FAILED; again with: chaos sim-switch-one --seed {seed} --crash-at {index}"
                );
                failed.push(index);
            }
        }
    }
    println!(
        "one switch, leaders crashed at {} of the entries {first} to {last}, {} failed {failed:?}",
        indexes.len(),
        failed.len()
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The switch with a leader that crashes at one entry.
///
/// # Errors
/// When the harness failed.
pub fn switch_one(seed: u64, crash_at: u64, folder: &Path) -> Result<ExitCode> {
    let result = run_switch(seed, Some(crash_at), folder)?;
    if result.evidence.faults.is_empty() {
        println!("entry {crash_at} was never written");
        return Ok(ExitCode::FAILURE);
    }
    tell(seed, &result)
}

/// Runs one seed in this process and prints what came of it.
///
/// # Errors
/// When the harness failed.
pub fn one(seed: u64, folder: &Path) -> Result<ExitCode> {
    tell(seed, &run(seed, folder)?)
}

fn tell(seed: u64, result: &Seed) -> Result<ExitCode> {
    let report = &result.report;
    if !report.passed() {
        let kept = std::env::temp_dir().join(format!("pinrail-seed-{seed}.json"));
        std::fs::write(&kept, serde_json::to_vec(&result.evidence)?)?;
        println!("{report}  its history is in {}", kept.display());
    }
    let (log, state) = result.losses;
    println!(
        "seed {seed}: {} runs, {} steps, {} comparisons, crashes lost log {log}x state {state}x, trace {:016x}",
        report.runs, report.steps_executed, report.compared, result.trace
    );
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else if report.violations.is_empty() && report.problems.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::from(BROKEN)
    })
}
