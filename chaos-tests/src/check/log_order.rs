//! P2, by the log: all members applied the same entries, in order and without a hole, and the merged log decides what became
//! of every write. What was acknowledged is in it at its revision; what nobody knows the fate of has an effect if it is there,
//! and none if it is not.
//!
//! Every command takes one revision, whatever comes of it, so counting the commands from the first entry on gives the
//! revision of each.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::history::{
    AgentFinal, Answer, Call, Entry, Evidence, Logged, LoggedCommand, MemberLog, Outcome,
};

/// Refusals that promise that nothing was written.
const REFUSED_BEFORE: [&str; 3] = ["NO_LEADER", "NO_QUORUM", "OVERLOADED"];

/// Commands whose repeats are told by the run that they are about.
const RUN_KINDS: [&str; 3] = ["start_run", "finish_run", "cancel_run"];

/// What is wrong, and what the harness did not get hold of.
pub(super) fn check(evidence: &Evidence) -> (Findings, Vec<String>) {
    let mut findings = Findings::new(Promise::P2);
    for member in &evidence.logs {
        in_order(member, &mut findings);
    }
    let entries = merged(&evidence.logs, &mut findings);
    let missing = holes(&entries);
    // Without every entry nothing can be counted.
    if missing.is_empty() {
        let log = Log::of(&entries, &mut findings);
        for agent in &evidence.finals {
            in_the_end(agent, &log, &mut findings);
            fates(evidence, agent, &log, &mut findings);
        }
    }
    (findings, missing)
}

/// A member leaves out entries only for a snapshot that has them.
fn in_order(member: &MemberLog, findings: &mut Findings) {
    let mut last: Option<u64> = None;
    for entry in &member.archive {
        if let Some(last) = last.filter(|_| entry.is_entry()) {
            findings.expect(entry.index <= last + 1, || {
                format!(
                    "node {} applied entry {} after entry {last}, and no snapshot",
                    member.node, entry.index
                )
            });
        }
        last = Some(entry.index);
    }
    for pair in member.log.windows(2) {
        findings.expect(pair[1].index == pair[0].index + 1, || {
            format!(
                "the log of node {} has entry {} behind entry {}",
                member.node, pair[1].index, pair[0].index
            )
        });
    }
}

/// Same index, same bytes, and the same revision behind them.
fn merged<'a>(logs: &'a [MemberLog], findings: &mut Findings) -> BTreeMap<u64, &'a Logged> {
    let mut entries: BTreeMap<u64, (&Logged, usize)> = BTreeMap::new();
    for member in logs {
        let all = member.archive.iter().chain(&member.log).filter(|entry| entry.is_entry());
        for entry in all {
            let known = entries.entry(entry.index).or_insert((entry, member.node));
            let (first, node) = *known;
            findings.expect(first.hash == entry.hash && first.term == entry.term, || {
                format!(
                    "entry {} is {} of term {} at node {node} and {} of term {} at node {}",
                    entry.index, first.hash, first.term, entry.hash, entry.term, member.node
                )
            });
            let both = first.revision != 0 && entry.revision != 0;
            findings.expect(!both || first.revision == entry.revision, || {
                format!(
                    "entry {} left node {node} at revision {} and node {} at revision {}",
                    entry.index, first.revision, member.node, entry.revision
                )
            });
            if first.revision == 0 {
                *known = (entry, member.node);
            }
        }
    }
    entries.into_iter().map(|(index, (entry, _))| (index, entry)).collect()
}

/// Entries that nobody has, between the first and the last.
fn holes(entries: &BTreeMap<u64, &Logged>) -> Vec<String> {
    let indexes: Vec<u64> = entries.keys().copied().collect();
    let begins = match indexes.first() {
        Some(first) if *first > 1 => vec![format!("the archives begin with entry {first}")],
        Some(_) => Vec::new(),
        None => vec!["the archives hold no entry".to_owned()],
    };
    let holes = indexes.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    let holes =
        holes.map(|pair| format!("no member has entries {} to {}", pair[0] + 1, pair[1] - 1));
    begins.into_iter().chain(holes).collect()
}

/// The merged log by what it is asked for.
struct Log<'a> {
    by_revision: BTreeMap<u64, &'a LoggedCommand>,
    /// Revisions by what was asked, so that a long history is not looked through for each of its calls.
    by_asked: BTreeMap<Asked<'a>, Vec<u64>>,
}

/// Kind, agent, subject and request id of a command. A run is its own id.
type Asked<'a> = (&'a str, &'a str, &'a str, &'a str);

impl<'a> Log<'a> {
    fn of(entries: &BTreeMap<u64, &'a Logged>, findings: &mut Findings) -> Self {
        let mut log = Self { by_revision: BTreeMap::new(), by_asked: BTreeMap::new() };
        let mut last = 0;
        for (index, entry) in entries {
            for command in &entry.commands {
                last += 1;
                let LoggedCommand { kind, agent, subject, request_id } = command;
                log.by_revision.insert(last, command);
                let is_of_run = RUN_KINDS.contains(&kind.as_str());
                let request_id = if is_of_run { "" } else { request_id };
                log.by_asked.entry((kind, agent, subject, request_id)).or_default().push(last);
            }
            findings.expect(entry.revision == 0 || entry.revision == last, || {
                format!(
                    "entry {index} led to revision {}; its commands and those before it are {last}",
                    entry.revision
                )
            });
        }
        log
    }

    /// Revisions at which a call is in the log.
    fn of_call(&self, entry: &Entry) -> Vec<u64> {
        let places = asked(entry).and_then(|asked| self.by_asked.get(&asked));
        places.cloned().unwrap_or_default()
    }
}

/// The command that a call becomes; none for reads.
fn asked(entry: &Entry) -> Option<Asked<'_>> {
    let (kind, subject) = match &entry.call {
        Call::StartRun { run_id, .. } => ("start_run", run_id.as_str()),
        Call::FinishRun { run_id, .. } => ("finish_run", run_id.as_str()),
        Call::CancelRun { run_id } => ("cancel_run", run_id.as_str()),
        Call::Switch { .. } => ("switch", ""),
        Call::Rollback { .. } => ("rollback", ""),
        Call::PutMemory { key, value: Some(_), .. } => ("put_memory", key.as_str()),
        Call::PutMemory { key, value: None, .. } => ("delete_memory", key.as_str()),
        Call::LookupPin { .. }
        | Call::ResolveRoute { .. }
        | Call::ReadRoute
        | Call::GetMemory { .. }
        | Call::GetDrain { .. } => return None,
    };
    Some((kind, &entry.agent, subject, &entry.request_id))
}

/// What is there in the end is there by a command of the log.
fn in_the_end(agent: &AgentFinal, log: &Log<'_>, findings: &mut Findings) {
    for version in &agent.versions {
        let command = log.by_revision.get(&version.revision);
        let made_it = command.is_some_and(|command| {
            let kind = if version.value.is_some() { "put_memory" } else { "delete_memory" };
            command.kind == kind && command.agent == agent.agent && command.subject == version.key
        });
        findings
            .expect(made_it, || format!("the log has {command:?} at the revision of {version:?}"));
    }
    let continued = agent.continued();
    for run in agent.runs.iter().filter(|run| run.restarts == 0) {
        let command = log.by_revision.get(&run.pin.revision);
        let made_it = command.is_some_and(|command| match continued.get(run.run_id.as_str()) {
            // A report names its agent by a number.
            Some(before) => command.kind == "complete_step" && command.subject == before.run_id,
            None => {
                command.kind == "start_run"
                    && command.agent == agent.agent
                    && command.subject == run.run_id
            }
        });
        findings.expect(made_it, || {
            format!(
                "{} was pinned at revision {}, where the log has {command:?}",
                run.run_id, run.pin.revision
            )
        });
    }
}

/// What became of every write of an agent.
fn fates(evidence: &Evidence, agent: &AgentFinal, log: &Log<'_>, findings: &mut Findings) {
    let mut operations: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
    let writes = evidence.history.iter().filter(|it| it.agent == agent.agent && it.call.is_write());
    for entry in writes {
        operations.entry(entry.operation).or_default().push(entry);
    }
    let traces = Traces::of(agent);
    for attempts in operations.values() {
        let Some(first) = attempts.first() else { continue };
        let places = log.of_call(first);
        for (revision, answer) in attempts.iter().filter_map(|it| it.ok()) {
            acknowledged(first, revision, answer, &places, findings);
        }
        let effects = traces.of_call(first);
        if let Some(effects) = &effects {
            traced(attempts, &places, effects, findings);
        }
        if attempts.iter().all(|it| refusal(it).is_some()) {
            refused(attempts, &places, &effects.unwrap_or_default(), findings);
        }
    }
}

/// Where what is there in the end came from.
struct Traces<'a> {
    /// Revisions by key and value: a value is written by one operation.
    versions: BTreeMap<(&'a str, &'a str), Vec<u64>>,
    pins: BTreeMap<&'a str, u64>,
}

impl<'a> Traces<'a> {
    fn of(agent: &'a AgentFinal) -> Self {
        let pins = agent.runs.iter().map(|run| (run.run_id.as_str(), run.pin.revision)).collect();
        let mut versions: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for version in &agent.versions {
            if let Some(value) = &version.value {
                versions.entry((&*version.key, &**value)).or_default().push(version.revision);
            }
        }
        Self { versions, pins }
    }

    /// Revisions at which a call is seen to have done something. None: it leaves no trace of its own.
    fn of_call(&self, entry: &Entry) -> Option<Vec<u64>> {
        match &entry.call {
            Call::PutMemory { key, value: Some(value), .. } => {
                Some(self.versions.get(&(&**key, &**value)).cloned().unwrap_or_default())
            }
            Call::StartRun { run_id, .. } => {
                Some(self.pins.get(run_id.as_str()).copied().into_iter().collect())
            }
            Call::FinishRun { .. }
            | Call::CancelRun { .. }
            | Call::Switch { .. }
            | Call::Rollback { .. }
            | Call::PutMemory { value: None, .. }
            | Call::LookupPin { .. }
            | Call::ResolveRoute { .. }
            | Call::ReadRoute
            | Call::GetMemory { .. }
            | Call::GetDrain { .. } => None,
        }
    }
}

/// The log and what is there in the end say the same of a write that leaves a trace.
fn traced(attempts: &[&Entry], places: &[u64], effects: &[u64], findings: &mut Findings) {
    let Some(first) = attempts.first() else { return };
    findings.expect(effects.len() <= 1, || {
        format!("{:?} took effect at each of the revisions {effects:?}", first.call)
    });
    // A run that was moved has the pin of another command.
    if matches!(first.call, Call::PutMemory { .. }) {
        findings.expect(effects.iter().all(|effect| places.contains(effect)), || {
            format!("{:?} took effect at {effects:?}; the log has it at {places:?}", first.call)
        });
    }
    // A condition may have failed, and a definite no may be what the log decided: it is there then, and did nothing.
    let is_certain = !matches!(first.call, Call::PutMemory { expected: Some(_), .. })
        && attempts.iter().all(|it| refusal(it).is_none_or(is_before));
    findings.expect(places.is_empty() || !effects.is_empty() || !is_certain, || {
        format!("{:?} is in the log at {places:?} and had no effect", first.call)
    });
}

/// The reason of a definite no.
fn refusal(entry: &Entry) -> Option<&str> {
    match &entry.outcome {
        Outcome::Rejected { reason, .. } => Some(reason),
        Outcome::Ok { .. } | Outcome::Unknown { .. } => None,
    }
}

fn is_before(reason: &str) -> bool {
    REFUSED_BEFORE.contains(&reason)
}

/// An acknowledged write is in the log at the revision of its answer, or was there before when it was asked again.
fn acknowledged(
    entry: &Entry,
    revision: u64,
    answer: &Answer,
    places: &[u64],
    findings: &mut Findings,
) {
    let is_repeat = match answer {
        // What was there already needed no command.
        Answer::Ended { already: true, .. } | Answer::Moved { already: true, .. } => return,
        Answer::Started { already, .. } => *already,
        _ => false,
    };
    let there =
        places.contains(&revision) || (is_repeat && places.iter().any(|place| *place <= revision));
    findings.expect(there, || {
        format!(
            "{:?} was acknowledged at revision {revision}; the log has it at {places:?}",
            entry.call
        )
    });
    if let Answer::Wrote { key_revision, .. } = answer {
        findings.expect(places.contains(key_revision), || {
            format!(
                "{:?} was acknowledged as version {key_revision}; the log has it at {places:?}",
                entry.call
            )
        });
    }
}

/// A definite no: nothing was done, and where it was said before anything was written, nothing is there.
fn refused(attempts: &[&Entry], places: &[u64], effects: &[u64], findings: &mut Findings) {
    // Another operation may have started the same run.
    let Some(first) = attempts.first().filter(|it| !it.request_id.is_empty()) else { return };
    findings.expect(effects.is_empty(), || {
        format!("{:?} was refused, and took effect at {effects:?}", first.call)
    });
    let before = attempts.iter().all(|it| refusal(it).is_some_and(is_before));
    findings.expect(places.is_empty() || !before, || {
        format!("{:?} was refused before it was written; the log has it at {places:?}", first.call)
    });
}
