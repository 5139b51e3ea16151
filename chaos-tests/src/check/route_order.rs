//! P3: once a switch is acknowledged, no later start lands on the previous bundle, at any node. And whatever
//! epoch an answer names, its bundle is the one that this epoch made live.

use std::collections::BTreeMap;

use super::{Case, Findings, Promise};
use crate::history::{Answer, Call, Entry};
use crate::model::Sweep;

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P3);
    for problem in &case.timeline.problems {
        if problem.starts_with("epoch") {
            findings.wrong(problem.clone());
        }
    }
    let mut sweep = Sweep::new(&case.timeline);
    if let Err(wrong) = sweep.advance(u64::MAX) {
        wrong.into_iter().for_each(|what| findings.wrong(what));
    }
    bundles_of_epochs(case, &sweep, &mut findings);
    let acked = acknowledged(case, |call| matches!(call, Call::Switch { .. }));
    later_answers(case, &acked, "switch", &mut findings);
    findings
}

/// When each epoch was acknowledged first, in order of time.
pub(super) fn acknowledged(case: &Case<'_>, which: impl Fn(&Call) -> bool) -> Vec<(u64, u64)> {
    let mut acked: BTreeMap<u64, u64> = BTreeMap::new();
    for entry in case.history.iter().filter(|entry| which(&entry.call)) {
        if let Some((_, Answer::Moved { epoch, already: false, .. })) = entry.ok() {
            let at = acked.entry(*epoch).or_insert(entry.returned_us);
            *at = (*at).min(entry.returned_us);
        }
    }
    let mut acked: Vec<_> = acked.into_iter().map(|(epoch, at)| (at, epoch)).collect();
    acked.sort_unstable();
    acked
}

/// A start that was first asked for, or a route that was read, after an acknowledgement knows its epoch.
pub(super) fn later_answers(
    case: &Case<'_>,
    acked: &[(u64, u64)],
    what: &str,
    findings: &mut Findings,
) {
    // A start that is asked for once more keeps its first answer: what counts is when it was asked for first.
    let mut first_asked: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &case.history {
        if let Call::StartRun { run_id, .. } = &entry.call {
            let at = first_asked.entry(run_id).or_insert(entry.invoked_us);
            *at = (*at).min(entry.invoked_us);
        }
    }
    for entry in &case.history {
        let Some((epoch, bundle)) = routed(entry) else { continue };
        let asked = match &entry.call {
            Call::StartRun { run_id, .. } => first_asked.get(run_id.as_str()).copied(),
            _ => None,
        }
        .unwrap_or(entry.invoked_us);
        let known = acked
            .iter()
            .take_while(|(at, _)| *at < asked)
            .map(|(_, epoch)| *epoch)
            .max()
            .unwrap_or(0);
        findings.expect(epoch >= known, || {
            format!(
                "{} at node {} answered {bundle} of epoch {epoch}; the {what} to epoch {known} had been \
                 acknowledged before it was asked ({:?})",
                entry.call.name(),
                entry.node,
                entry.call
            )
        });
    }
}

fn bundles_of_epochs(case: &Case<'_>, sweep: &Sweep<'_>, findings: &mut Findings) {
    for entry in &case.history {
        let Some((epoch, bundle)) = routed(entry) else { continue };
        match sweep.model.route.at_epoch(epoch) {
            Some(placed) => findings.expect(placed.bundle_id == bundle, || {
                format!(
                    "{} answered {bundle} with epoch {epoch}, which made {} live",
                    entry.call.name(),
                    placed.bundle_id
                )
            }),
            None => findings.wrong(format!(
                "{} answered {bundle} with epoch {epoch}, which no acknowledged route change made",
                entry.call.name()
            )),
        }
    }
}

/// Epoch and bundle of an answer that the route decided.
fn routed(entry: &Entry) -> Option<(u64, &str)> {
    match (&entry.call, entry.ok()?.1) {
        (Call::StartRun { bundle_id, .. }, Answer::Started { pin, .. }) if bundle_id.is_empty() => {
            Some((pin.epoch, &pin.bundle_id))
        }
        (
            Call::ResolveRoute { local: false } | Call::ReadRoute,
            Answer::Route { bundle_id, epoch, .. },
        ) => Some((*epoch, bundle_id)),
        _ => None,
    }
}
