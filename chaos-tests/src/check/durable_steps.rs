//! P2, steps: a step's result is recorded at most once, an acknowledged one is there in the end, and recorded
//! checkpoints come back.

use std::collections::BTreeMap;

use super::{Case, Findings, Promise};
use crate::history::{RunFinal, WorkerEvent, WorkerLine};

/// A step of a run.
type Step<'a> = (&'a str, u32);

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P2);
    let mut steps: BTreeMap<Step<'_>, Vec<&WorkerLine>> = BTreeMap::new();
    for line in case.evidence.worker_log.iter().filter(|line| line.agent == case.agent.agent) {
        steps.entry((&line.run_id, line.step)).or_default().push(line);
    }
    let runs: BTreeMap<&str, &RunFinal> =
        case.agent.runs.iter().map(|run| (run.run_id.as_str(), run)).collect();
    for ((run_id, step), lines) in &steps {
        let Some(run) = runs.get(run_id) else { continue };
        recorded_once(&runs, run, *step, lines, &mut findings);
        checkpoints_come_back(run, *step, lines, &mut findings);
        stale_tokens(run, *step, lines, &mut findings);
    }
    findings
}

/// Only the lines that belong to the pin that the run ended with: a restart begins anew.
fn of_last_pin<'a>(
    run: &'a RunFinal,
    lines: &'a [&'a WorkerLine],
) -> impl Iterator<Item = &'a &'a WorkerLine> {
    lines.iter().filter(|line| run.restarts == 0 || line.token > run.pin.revision)
}

fn recorded_once(
    runs: &BTreeMap<&str, &RunFinal>,
    run: &RunFinal,
    step: u32,
    lines: &[&WorkerLine],
    findings: &mut Findings,
) {
    let mut recorded: BTreeMap<u64, (&str, bool)> = BTreeMap::new();
    for line in of_last_pin(run, lines) {
        if let WorkerEvent::Completed { mark, closed, .. } = &line.event {
            recorded.insert(line.token, (mark, *closed));
        }
    }
    findings.expect(recorded.len() <= 1, || {
        format!("step {step} of {} was recorded {} times: {recorded:?}", run.run_id, recorded.len())
    });
    let Some((mark, closed)) = recorded.into_values().next() else { return };
    let found = run.steps.iter().find(|found| found.number == step);
    findings.expect(found.is_some_and(|found| found.state == "completed"), || {
        format!("the result of step {step} of {} was acknowledged, found {found:?}", run.run_id)
    });
    // What the completion handed on names it: the run's output, the next step's input, or that of the run that continues it. A
    // run that was past its end was closed with the step, and kept neither.
    let carried = match (closed, run.state.as_str()) {
        (true, "completed") => run.output.contains(mark),
        (true, "continued") => {
            let next = runs.get(run.continued_to.as_str());
            next.is_some_and(|next| next.input().contains(mark))
        }
        (true, _) => true,
        (false, _) => {
            let next = run.steps.iter().find(|next| next.number == step + 1);
            next.is_some_and(|next| next.input.contains(mark))
        }
    };
    findings.expect(carried, || {
        format!("the result {mark} of step {step} of {} is not what was recorded", run.run_id)
    });
}

fn checkpoints_come_back(
    run: &RunFinal,
    step: u32,
    lines: &[&WorkerLine],
    findings: &mut Findings,
) {
    let mut lines: Vec<&&WorkerLine> = of_last_pin(run, lines).collect();
    lines.sort_by_key(|line| line.token);
    let acked: Vec<(u64, u64, &str)> = lines
        .iter()
        .filter_map(|line| match &line.event {
            WorkerEvent::CheckpointAcked { name, revision } => {
                Some((line.token, *revision, name.as_str()))
            }
            _ => None,
        })
        .collect();
    for line in &lines {
        let WorkerEvent::Began { checkpoints, .. } = &line.event else { continue };
        for (token, revision, name) in &acked {
            if *token < line.token {
                findings.expect(checkpoints.iter().any(|one| one == name), || {
                    format!(
                        "checkpoint {name} of step {step} of {} was acknowledged at revision {revision} and not \
                         given to the attempt of token {}",
                        run.run_id, line.token
                    )
                });
            }
        }
    }
}

/// Nothing is accepted under a token once a later lease of the step exists.
fn stale_tokens(run: &RunFinal, step: u32, lines: &[&WorkerLine], findings: &mut Findings) {
    let mut tokens: Vec<u64> = lines.iter().map(|line| line.token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    for line in lines {
        let (WorkerEvent::Completed { revision, .. }
        | WorkerEvent::CheckpointAcked { revision, .. }
        | WorkerEvent::MemoryAcked { revision, .. }) = &line.event
        else {
            continue;
        };
        let later = tokens.iter().find(|token| **token > line.token);
        findings.expect(later.is_none_or(|later| revision <= later), || {
            format!(
                "step {step} of {}: token {} was obeyed at revision {revision}, after the lease of {later:?}",
                run.run_id, line.token
            )
        });
    }
}
