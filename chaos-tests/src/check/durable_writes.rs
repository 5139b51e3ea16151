//! P2, writes: whatever was acknowledged is there in the end, and no answer is older than what was acknowledged
//! before the question.

use std::collections::{BTreeMap, BTreeSet};

use super::{Case, Findings, Promise};
use crate::history::{Answer, Call, Entry, Pin, RunFinal, VersionFinal, WorkerEvent};

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P2);
    let runs: BTreeMap<&str, &RunFinal> =
        case.agent.runs.iter().map(|run| (run.run_id.as_str(), run)).collect();
    let versions: BTreeMap<(&str, u64), &VersionFinal> = case
        .agent
        .versions
        .iter()
        .map(|version| ((version.key.as_str(), version.revision), version))
        .collect();
    starts(case, &runs, &mut findings);
    ends(case, &runs, &mut findings);
    memory(case, &versions, &mut findings);
    route(case, &mut findings);
    invented(case, &mut findings);
    freshness(case, &mut findings);
    findings
}

fn starts(case: &Case<'_>, runs: &BTreeMap<&str, &RunFinal>, findings: &mut Findings) {
    let mut told: BTreeMap<&str, &Pin> = BTreeMap::new();
    for entry in &case.history {
        let (Call::StartRun { run_id, .. }, Some((_, Answer::Started { pin, .. }))) =
            (&entry.call, entry.ok())
        else {
            continue;
        };
        let Some(run) = runs.get(run_id.as_str()) else {
            findings.wrong(format!("acknowledged run {run_id} is lost"));
            continue;
        };
        findings.expect(run.restarts > 0 || run.pin == *pin, || {
            format!("run {run_id} was acknowledged with {pin:?} and ended up with {:?}", run.pin)
        });
        let first = *told.entry(run_id).or_insert(pin);
        findings.expect(run.restarts > 0 || first == pin, || {
            format!("run {run_id} was acknowledged with two pins: {first:?} and {pin:?}")
        });
    }
    for entry in &case.history {
        if let (Call::LookupPin { run_id }, Some((_, Answer::Pinned { pin, .. }))) =
            (&entry.call, entry.ok())
        {
            let run = runs.get(run_id.as_str());
            findings.expect(run.is_some_and(|run| run.restarts > 0 || run.pin == *pin), || {
                format!("the pin of {run_id} was read as {pin:?}, in the end it is {run:?}")
            });
        }
    }
    missed(case, findings);
}

/// A pin that was acknowledged is found by every later look-up, at any node.
fn missed(case: &Case<'_>, findings: &mut Findings) {
    let mut acked: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &case.history {
        match (&entry.call, &entry.outcome) {
            (Call::StartRun { run_id, .. }, _) if entry.ok().is_some() => {
                acked.entry(run_id).or_insert(entry.returned_us);
            }
            (Call::LookupPin { run_id }, crate::history::Outcome::Rejected { reason, .. })
                if reason == "RUN_NOT_FOUND" =>
            {
                let at = acked.get(run_id.as_str());
                findings.expect(at.is_none_or(|at| entry.invoked_us < *at), || {
                    format!("node {} did not find {run_id}, acknowledged before", entry.node)
                });
            }
            _ => {}
        }
    }
}

fn ends(case: &Case<'_>, runs: &BTreeMap<&str, &RunFinal>, findings: &mut Findings) {
    let mut winners: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in &case.history {
        let Some((_, Answer::Ended { state, already })) = entry.ok() else { continue };
        let (Call::FinishRun { run_id, .. } | Call::CancelRun { run_id }) = &entry.call else {
            continue;
        };
        let Some(run) = runs.get(run_id.as_str()) else {
            findings.wrong(format!("acknowledged end of {run_id}: the run is lost"));
            continue;
        };
        // A cancelled run may be `cancelling` for a while.
        let ended = matches!(entry.call, Call::FinishRun { .. });
        findings.expect(!ended || run.state == *state, || {
            format!("{run_id} was acknowledged as {state}, in the end it is {}", run.state)
        });
        if let (Call::FinishRun { output, .. }, false) = (&entry.call, already) {
            findings.expect(run.output == *output, || {
                format!(
                    "{run_id} was finished with {output:?}, in the end it says {:?}",
                    run.output
                )
            });
            let first = *winners.entry(run_id).or_insert(output);
            findings.expect(first == output, || {
                format!("{run_id} was finished twice: with {first:?} and with {output:?}")
            });
        }
    }
}

fn memory(
    case: &Case<'_>,
    versions: &BTreeMap<(&str, u64), &VersionFinal>,
    findings: &mut Findings,
) {
    let mut expect = |key: &str, revision: u64, value: Option<&str>, who: &str| {
        let found = versions.get(&(key, revision));
        findings.expect(found.is_some_and(|found| found.value.as_deref() == value), || {
            format!(
                "{who}: {key} = {value:?} was acknowledged at revision {revision}, found {found:?}"
            )
        });
    };
    for entry in &case.history {
        let Call::PutMemory { key, value, .. } = &entry.call else { continue };
        match entry.ok() {
            Some((_, Answer::Wrote { key_revision, .. })) => {
                expect(key, *key_revision, value.as_deref(), "memory");
            }
            Some((revision, Answer::Deleted { deleted: true })) if is_only_attempt(case, entry) => {
                expect(key, revision, None, "memory");
            }
            Some(_) | None => {}
        }
    }
    for line in case.evidence.worker_log.iter().filter(|line| line.agent == case.agent.agent) {
        if let WorkerEvent::MemoryAcked { key, value, revision } = &line.event {
            expect(key, *revision, Some(value), &line.worker_id);
        }
    }
}

fn is_only_attempt(case: &Case<'_>, entry: &Entry) -> bool {
    case.history.iter().filter(|other| other.operation == entry.operation).count() == 1
}

/// The route in the end is the last one that was acknowledged, unless a route change has an unknown fate.
fn route(case: &Case<'_>, findings: &mut Findings) {
    let last = case
        .history
        .iter()
        .filter_map(|entry| match entry.ok()?.1 {
            Answer::Moved { epoch, to, .. } => Some((*epoch, to.as_str())),
            _ => None,
        })
        .max();
    let Some((epoch, to)) = last else { return };
    let settled: BTreeSet<u64> = case
        .history
        .iter()
        .filter(|entry| entry.ok().is_some())
        .map(|entry| entry.operation)
        .collect();
    let open = case.history.iter().any(|entry| {
        matches!(entry.call, Call::Switch { .. } | Call::Rollback { .. })
            && entry.may_have_happened()
            && !settled.contains(&entry.operation)
    });
    let found = (case.agent.epoch, case.agent.live_bundle_id.as_str());
    findings.expect(found == (epoch, to) || (open && found.0 > epoch), || {
        format!("epoch {epoch} with {to} live was acknowledged; in the end it is {found:?}")
    });
}

/// Nothing is there that nobody asked for.
fn invented(case: &Case<'_>, findings: &mut Findings) {
    let mut asked: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut deleted: BTreeSet<&str> = BTreeSet::new();
    let mut started: BTreeSet<&str> = BTreeSet::new();
    for entry in case.history.iter().filter(|entry| entry.may_have_happened()) {
        match &entry.call {
            Call::PutMemory { key, value: Some(value), .. } => {
                asked.insert((key, value));
            }
            Call::PutMemory { key, value: None, .. } => {
                deleted.insert(key);
            }
            Call::StartRun { run_id, .. } => {
                started.insert(run_id);
            }
            _ => {}
        }
    }
    for line in &case.evidence.worker_log {
        if let WorkerEvent::MemoryAsked { key, value } = &line.event {
            asked.insert((key, value));
        }
    }
    for version in &case.agent.versions {
        let known = match &version.value {
            Some(value) => asked.contains(&(version.key.as_str(), value.as_str())),
            None => deleted.contains(version.key.as_str()),
        };
        findings.expect(known, || format!("nobody wrote {version:?}"));
    }
    // What a run that continues another came of, `continued_runs` judges.
    for run in case.agent.runs.iter().filter(|run| run.first_run_id.is_empty()) {
        findings.expect(started.contains(run.run_id.as_str()), || {
            format!("nobody started {}", run.run_id)
        });
    }
}

/// In real time revisions never go back: a linearizable answer is at least as new as everything that was
/// acknowledged before its question.
fn freshness(case: &Case<'_>, findings: &mut Findings) {
    let mut by_invocation: Vec<&&Entry> = case
        .history
        .iter()
        .filter(|entry| entry.call.is_linearizable() && entry.ok().is_some())
        .collect();
    by_invocation.sort_by_key(|entry| entry.invoked_us);
    let mut returned = case
        .history
        .iter()
        .filter(|entry| entry.call.is_write())
        .filter_map(|entry| Some((entry.returned_us, entry.ok()?.0)))
        .peekable();
    let mut newest = 0;
    for entry in by_invocation {
        while let Some((_, revision)) = returned.next_if(|(at, _)| *at < entry.invoked_us) {
            newest = newest.max(revision);
        }
        let revision = entry.ok().map_or(0, |(revision, _)| revision);
        findings.expect(revision >= newest, || {
            format!(
                "node {} answered {} with revision {revision}; {newest} had been acknowledged before",
                entry.node,
                entry.call.name()
            )
        });
    }
}
