//! P2, for runs that were continued as new: each is followed by one run, which is there and begins where it ended: at the same
//! revision, with its pin or, where its completion asked for that, on the bundle that was live then.

use std::collections::BTreeMap;

use super::{Case, Findings, Promise};
use crate::history::{Pin, RunFinal};
use crate::model::Sweep;

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P2);
    let runs: BTreeMap<&str, &RunFinal> =
        case.agent.runs.iter().map(|run| (run.run_id.as_str(), run)).collect();
    let is_continued = |run: &&RunFinal| run.state == "continued" || !run.continued_to.is_empty();
    let mut continued: Vec<&RunFinal> = case.agent.runs.iter().filter(is_continued).collect();
    continued.sort_by_key(|run| run.revision);
    let mut sweep = Sweep::new(&case.timeline);
    for run in continued {
        findings.expect(run.state == "continued", || {
            format!("{} is {} and was continued to {}", run.run_id, run.state, run.continued_to)
        });
        let Some(next) = runs.get(run.continued_to.as_str()) else {
            let (run_id, next) = (&run.run_id, &run.continued_to);
            findings.wrong(format!("{run_id} was continued to {next:?}, which is lost"));
            continue;
        };
        // What is wrong with the changes themselves is another promise's finding.
        let _ = sweep.advance(run.revision);
        let live = sweep.model.route.live();
        follows(run, next, live.map(|live| live.bundle_id.as_str()), &mut findings);
    }
    for run in case.agent.runs.iter().filter(|run| !run.first_run_id.is_empty()) {
        let before = case.agent.runs.iter().filter(|it| it.continued_to == run.run_id).count();
        findings.expect(before == 1, || format!("{before} runs were continued to {}", run.run_id));
    }
    findings
}

fn follows(run: &RunFinal, next: &RunFinal, live: Option<&str>, findings: &mut Findings) {
    let first = if run.first_run_id.is_empty() { &run.run_id } else { &run.first_run_id };
    findings.expect(next.first_run_id == *first, || {
        format!("{} says that it continues {:?}, and not {first}", next.run_id, next.first_run_id)
    });
    // A rollback gave it another pin.
    if next.restarts > 0 {
        return;
    }
    // As the worker's completion wrote it into the input that it handed on.
    let follows = match next.input().contains("\"moves\":true") {
        true => next.pin.revision == run.revision && Some(next.pin.bundle_id.as_str()) == live,
        false => next.pin == Pin { revision: run.revision, ..run.pin.clone() },
    };
    findings.expect(follows, || {
        format!(
            "{} was continued at revision {} from {:?}, with {live:?} live, to {} with {:?}",
            run.run_id, run.revision, run.pin, next.run_id, next.pin
        )
    });
}
