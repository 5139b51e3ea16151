//! `chaos sim`: seeds one after the other, each in a process of its own, so that nothing of one reaches the next.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};

use anyhow::{Context as _, Result};

use super::{Seed, run, run_switch};

/// Processes at work at the same time.
const AT_ONCE: usize = 2;
/// How a process ends whose seed broke a promise. Another end is the harness failing.
pub(crate) const BROKEN: u8 = 3;

/// Starts a seed in a process of its own.
///
/// # Errors
/// When that cannot be started.
pub(crate) fn begin(seed: u64, environment: Option<(&str, &str)>) -> Result<Child> {
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

/// Starts a process for each, a few at the same time, and takes what came of it, until somebody has seen enough.
///
/// # Errors
/// When one cannot be started.
pub(crate) fn each(
    all: impl Iterator<Item = u64>,
    begin: impl Fn(u64) -> Result<Child>,
    mut take: impl FnMut(u64, &Output) -> ControlFlow<()>,
) -> Result<()> {
    let all: Vec<u64> = all.collect();
    for some in all.chunks(AT_ONCE) {
        let begun: Vec<(u64, Child)> =
            some.iter().map(|one| Ok((*one, begin(*one)?))).collect::<Result<_>>()?;
        let mut enough = false;
        for (one, child) in begun {
            let output = child.wait_with_output().context("wait for a process")?;
            // All that were begun are waited for: nothing goes on behind this.
            enough = enough || take(one, &output).is_break();
        }
        if enough {
            break;
        }
    }
    Ok(())
}

/// Runs seeds `first..first + count`. A seed fixes faults, workload, network, clocks and elections: a seed that failed fails again,
/// with the same trace.
///
/// # Errors
/// When a process cannot be started.
pub fn many(first: u64, count: u64) -> Result<ExitCode> {
    let mut failed = Vec::new();
    let begin = |seed| begin(seed, None);
    each(first..first + count, begin, |seed, output| {
        if output.status.success() {
            println!("{}", last_line(output));
        } else {
            failed.push(seed);
            let text = String::from_utf8_lossy(&output.stdout);
            let talk = String::from_utf8_lossy(&output.stderr);
            println!("{text}{talk}\nseed {seed} FAILED; again with: chaos sim-one --seed {seed}");
        }
        ControlFlow::Continue(())
    })?;
    println!("{} seeds passed, {} failed {failed:?}", count - failed.len() as u64, failed.len());
    Ok(code(failed.is_empty()))
}

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
    let (mut crashes, mut failed) = (0, Vec::new());
    let begin = |index: u64| {
        let (seed, index) = (seed.to_string(), index.to_string());
        start(&["sim-switch-one", "--seed", &seed, "--crash-at", &index], None)
    };
    each((first..=last).step_by(stride.max(1)), begin, |index, output| {
        crashes += 1;
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!(
                "entry {index} FAILED; again with: chaos sim-switch-one --seed {seed} --crash-at {index}"
            );
            failed.push(index);
        }
        ControlFlow::Continue(())
    })?;
    println!(
        "one switch, leaders crashed at {crashes} of the entries {first} to {last}, {} failed {failed:?}",
        failed.len()
    );
    Ok(code(failed.is_empty()))
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
        "seed {seed}: {} runs, {} continued, {} with their worker, {} steps, {} comparisons, crashes lost log {log}x state {state}x, {} messages came again, trace {:016x}",
        report.runs,
        report.continued,
        report.stayed,
        report.steps_executed,
        report.compared,
        result.copies,
        result.trace
    );
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else if report.violations.is_empty() && report.problems.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::from(BROKEN)
    })
}
