//! P8: what a read of memory saw is what its layer shows at the revision of the answer, and every write lies in
//! the layer that it belongs to.

use std::collections::BTreeMap;

use super::{Case, Findings, Promise};
use crate::history::{Answer, Call, Entry, RunFinal, Scope, Version};
use crate::model::{Model, Sweep};

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P8);
    for problem in &case.timeline.problems {
        if !problem.starts_with("epoch") {
            findings.wrong(problem.clone());
        }
    }
    let runs: BTreeMap<&str, &RunFinal> =
        case.agent.runs.iter().map(|run| (run.run_id.as_str(), run)).collect();
    own_layers(case, &runs, &mut findings);
    replay(case, &runs, &mut findings);
    findings
}

/// What a run wrote lies in the layer that the run is pinned to.
fn own_layers(case: &Case<'_>, runs: &BTreeMap<&str, &RunFinal>, findings: &mut Findings) {
    for version in case.agent.versions.iter().filter(|version| !version.run_id.is_empty()) {
        let Some(run) = runs.get(version.run_id.as_str()) else { continue };
        findings.expect(run.restarts > 0 || run.pin.layer == version.layer, || {
            format!(
                "{} wrote {} at revision {} into layer {}; it is pinned to layer {}",
                version.run_id, version.key, version.revision, version.layer, run.pin.layer
            )
        });
    }
}

/// A question to the model: what was seen, as of when, asked at which revision.
struct Question<'a> {
    /// Everything up to here has happened.
    revision: u64,
    entry: &'a Entry,
}

fn replay(case: &Case<'_>, runs: &BTreeMap<&str, &RunFinal>, findings: &mut Findings) {
    let mut questions: Vec<Question<'_>> = case
        .history
        .iter()
        .filter_map(|entry| match (&entry.call, entry.ok()?) {
            (Call::GetMemory { .. }, (revision, Answer::Read { .. })) => {
                Some(Question { revision, entry })
            }
            // A conditional write saw what was there before it.
            (
                Call::PutMemory { expected: Some(_), .. },
                (_, Answer::Wrote { key_revision, .. }),
            ) => Some(Question { revision: key_revision - 1, entry }),
            _ => None,
        })
        .collect();
    questions.sort_by_key(|question| question.revision);
    let mut sweep = Sweep::new(&case.timeline);
    for question in questions {
        let _ = sweep.advance(question.revision); // Reported by the check of the route.
        ask(case, &sweep.model, &question, runs, findings);
    }
}

fn ask(
    case: &Case<'_>,
    model: &Model,
    question: &Question<'_>,
    runs: &BTreeMap<&str, &RunFinal>,
    findings: &mut Findings,
) {
    let (scope, key) = match &question.entry.call {
        Call::GetMemory { scope, key, .. } | Call::PutMemory { scope, key, .. } => (scope, key),
        _ => return,
    };
    let layer = match scope {
        Scope::Bundle(name) => model.route.layer_of(name),
        Scope::Layer(layer) => case.timeline.layers.ours(*layer),
        Scope::Run(run_id) => runs
            .get(run_id.as_str())
            .filter(|run| run.restarts == 0)
            .and_then(|run| case.timeline.layers.ours(run.pin.layer)),
    };
    let Some(layer) = layer else { return };
    match (&question.entry.call, question.entry.ok().map(|(_, answer)| answer)) {
        (Call::GetMemory { at_revision, .. }, Some(Answer::Read { version, .. })) => {
            let at = if *at_revision == 0 { question.revision } else { *at_revision };
            let expected = model.memory.visible(layer, key, at);
            let seen =
                version.as_ref().map(|Version { value, revision, .. }| (value.as_str(), *revision));
            findings.expect(seen == expected, || {
                format!(
                    "{key} of {scope:?} at revision {at} (answer of {}, node {}): saw {seen:?}, the layer shows \
                     {expected:?}",
                    question.revision, question.entry.node
                )
            });
        }
        (Call::PutMemory { expected: Some(expected), .. }, Some(Answer::Wrote { .. })) => {
            let before =
                model.memory.visible(layer, key, question.revision).map_or(0, |(_, at)| at);
            findings.expect(before == *expected, || {
                format!(
                    "{key} of {scope:?} was written on condition that it was of revision {expected}; after \
                     revision {} it was of {before}",
                    question.revision
                )
            });
        }
        _ => {}
    }
}
