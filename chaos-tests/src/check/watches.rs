//! P2, for those who watch: each hears every event once and in order, over however many streams and members it takes.

use std::collections::BTreeMap;

use super::{Case, Findings, Promise};
use crate::history::chain;

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P2);
    for watched in case.evidence.watched.iter().filter(|it| it.agent == case.agent.agent) {
        let events = case.agent.events.iter().take_while(|it| it.revision <= watched.upto);
        let (count, chained) =
            events.fold((0, 0), |(count, before), it| (count + 1, chain(before, it)));
        let name = &watched.watcher;
        for problem in &watched.problems {
            findings.wrong(format!("{name} {problem}"));
        }
        findings.expect((watched.count, watched.chain) == (count, chained), || {
            format!(
                "{name} heard {} events up to revision {}, which are not the {count} that there are",
                watched.count, watched.upto
            )
        });
    }
    starts(case, &mut findings);
    findings
}

/// Every run that is there has begun with an event.
fn starts(case: &Case<'_>, findings: &mut Findings) {
    let started = case.agent.events.iter().filter(|it| it.kind == "run.started");
    let started: BTreeMap<&str, u64> =
        started.map(|it| (it.run_id.as_str(), it.revision)).collect();
    // Histories that were made by hand have none.
    if case.agent.events.is_empty() {
        return;
    }
    for run in case.agent.runs.iter().filter(|run| run.restarts == 0) {
        let told = started.get(run.run_id.as_str());
        findings.expect(told == Some(&run.pin.revision), || {
            let (run_id, at) = (&run.run_id, run.pin.revision);
            format!("{run_id} was started at revision {at}, and its event is of {told:?}")
        });
    }
}
