//! P5: the count of open pins in a drain answer equals a recount at the revision of that answer.

use super::{Case, Findings, Promise};
use crate::history::{Answer, Call};
use crate::model::Sweep;

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P5);
    let mut answers: Vec<(u64, &str, u64, bool)> = case
        .history
        .iter()
        .filter_map(|entry| match (&entry.call, entry.ok()?) {
            (Call::GetDrain { bundle_id, .. }, (revision, Answer::Drain { open, over, .. })) => {
                Some((revision, bundle_id.as_str(), *open, *over))
            }
            _ => None,
        })
        .collect();
    answers.sort_unstable();
    let mut sweep = Sweep::new(&case.timeline);
    for (revision, bundle_id, open, over) in answers {
        // What is wrong with the changes themselves is another promise's finding.
        let _ = sweep.advance(revision);
        let (mut certain, mut perhaps) = (0, 0);
        for run_id in sweep.model.pins.on(bundle_id) {
            if case.timeline.vague_runs.contains_key(run_id) {
                perhaps += 1;
            } else {
                certain += 1;
            }
        }
        perhaps += case
            .timeline
            .vague_runs
            .keys()
            .filter(|run_id| sweep.model.pins.bundle_of(run_id).is_some_and(|on| on != bundle_id))
            .count() as u64;
        findings.expect((certain..=certain + perhaps).contains(&open), || {
            format!(
                "drain of {bundle_id} at revision {revision} says {open} open pins; a recount finds {certain} \
                 (and perhaps {perhaps} more)"
            )
        });
        findings.expect(!over || certain == 0, || {
            format!("drain of {bundle_id} is called over at revision {revision} with {certain} open pins")
        });
    }
    findings
}
