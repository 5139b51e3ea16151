//! The check of the members' logs must reject each of these, and accept retries, restarts and snapshots.

use pinrail_chaos_tests::check::{Promise, Verdict, judge};
use pinrail_chaos_tests::history::{
    Answer, Call, InFlight, Logged, LoggedCommand, MemberLog, Outcome, VersionFinal,
};

use crate::story::{self, AGENT, Story, put, start};

const MEMBERS: usize = 3;
/// Of the last command in the story's log.
const LAST: u64 = 60;

fn command(kind: &str, subject: &str, request_id: &str) -> LoggedCommand {
    let (kind, request_id) = (kind.to_owned(), request_id.to_owned());
    LoggedCommand { kind, request_id, agent: AGENT.to_owned(), subject: subject.to_owned() }
}

/// The id that the story's call is given, by its operation.
fn id(operation: u64) -> String {
    format!("request-{operation}")
}

/// A log of the story at each member: one command an entry, so that an entry's index is its revision.
fn with_logs(mut story: Story) -> Story {
    let mut commands = vec![LoggedCommand { kind: "tick".into(), ..LoggedCommand::default() }; 60];
    for entry in &mut story.evidence.history {
        let Some((revision, _)) = entry.ok() else { continue };
        let place = usize::try_from(revision - 1).expect("the story is short");
        let (kind, subject) = match &entry.call {
            Call::StartRun { run_id, .. } => ("start_run", run_id.as_str()),
            Call::FinishRun { run_id, .. } => ("finish_run", run_id.as_str()),
            Call::Switch { .. } => ("switch", ""),
            Call::Rollback { .. } => ("rollback", ""),
            Call::PutMemory { key, .. } => ("put_memory", key.as_str()),
            _ => continue,
        };
        let is_run = matches!(entry.call, Call::StartRun { .. } | Call::FinishRun { .. });
        let request_id = if is_run { String::new() } else { id(entry.operation) };
        commands[place] = command(kind, subject, &request_id);
        entry.request_id = request_id;
    }
    // A worker's write.
    commands[17] = command("put_memory", "n", "");
    // A worker's report, by which a run is continued.
    commands[37] = command("complete_step", "d", "");
    let entries = (1..=LAST).zip(commands).map(|(index, command)| Logged {
        index,
        term: 2,
        leader: 7,
        kind: "batch".into(),
        hash: format!("hash-{index}"),
        revision: index,
        commands: vec![command],
    });
    let archive: Vec<Logged> = entries.collect();
    let log = archive[50..].iter().map(|entry| Logged { revision: 0, ..entry.clone() });
    let log: Vec<Logged> = log.collect();
    story.evidence.logs = (0..MEMBERS)
        .map(|node| MemberLog { node, archive: archive.clone(), log: log.clone() })
        .collect();
    story
}

fn verdict(change: impl FnOnce(&mut Story)) -> Verdict {
    let mut story = with_logs(story::good());
    change(&mut story);
    judge(&story.evidence)
}

fn find(word: &str, change: impl FnOnce(&mut Story)) {
    let verdict = verdict(change);
    let found =
        verdict.violations.iter().any(|it| it.promise == Promise::P2 && it.what.contains(word));
    assert!(found, "{word:?} was not found; instead: {:#?}", verdict.violations);
}

fn accepted(change: impl FnOnce(&mut Story)) {
    let verdict = verdict(change);
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.harness, Vec::<String>::new());
}

/// Puts a command into the log of every member, at one of the revisions behind the story.
fn logged(story: &mut Story, revision: u64, command: &LoggedCommand) {
    let place = usize::try_from(revision - 1).expect("it is small");
    for member in &mut story.evidence.logs {
        member.archive[place].commands = vec![command.clone()];
    }
}

/// A put behind the story, whose log is the test's business. Gives its request id.
fn asks(story: &mut Story, outcome: Outcome) -> String {
    story.push(put("k", "z"), outcome);
    let entry = story.evidence.history.last_mut().expect("it was just pushed");
    entry.request_id = id(entry.operation);
    entry.request_id.clone()
}

fn wrote(revision: u64) -> Outcome {
    Outcome::Ok { revision, answer: Answer::Wrote { key_revision: revision, layer: 3 } }
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: "no answer".to_owned() }
}

fn refused(reason: &str) -> Outcome {
    Outcome::Rejected { reason: reason.to_owned(), message: String::new() }
}

fn is_there(story: &mut Story, revision: u64) {
    let (key, value, run_id) = ("k".to_owned(), Some("z".to_owned()), String::new());
    story.final_of().versions.push(VersionFinal { key, revision, layer: 3, value, run_id });
    story.final_of().layers.push(3);
    // Somebody must have said which layer that is.
    let answer = Answer::Read { version: None, layer: 3 };
    let past = Call::GetMemory {
        scope: pinrail_chaos_tests::history::Scope::Bundle(String::new()),
        key: "other".to_owned(),
        at_revision: 0,
        local: false,
    };
    story.ok(past, LAST, answer);
}

#[test]
fn the_good_story_and_its_logs_pass() {
    accepted(|_| {});
    let without = judge(&story::good().evidence).compared;
    assert!(verdict(|_| {}).compared > without + 300, "the logs are compared");
}

#[test]
fn one_index_with_two_entries() {
    find("entry 20 is hash-20 of term 2 at node 0 and other of term 2 at node 2", |story| {
        story.evidence.logs[2].archive[19].hash = "other".into();
    });
    find("entry 20 is", |story| story.evidence.logs[1].archive[19].term = 3);
}

#[test]
fn an_entry_that_is_another_one_after_a_restart() {
    find("entry 60 is", |story| {
        let archive = &mut story.evidence.logs[1].archive;
        let other = Logged { hash: "other".into(), ..archive[59].clone() };
        archive.push(other);
    });
}

#[test]
fn a_log_that_is_not_what_was_applied() {
    find("entry 55 is", |story| story.evidence.logs[1].log[4].hash = "other".into());
    find("has entry 57 behind entry 55", |story| {
        story.evidence.logs[1].log.remove(5);
    });
}

#[test]
fn a_member_that_left_out_an_entry() {
    find("node 1 applied entry 31 after entry 29", |story| {
        story.evidence.logs[1].archive.remove(29);
    });
}

#[test]
fn members_that_count_revisions_differently() {
    find("left node 0 at revision 20 and node 1 at revision 21", |story| {
        story.evidence.logs[1].archive[19].revision = 21;
    });
    find("entry 20 led to revision 21", |story| {
        for member in &mut story.evidence.logs {
            member.archive[19].revision = 21;
        }
    });
}

#[test]
fn an_acknowledged_write_that_no_log_has() {
    find("was acknowledged at revision 14; the log has it at []", |story| {
        logged(story, 14, &command("tick", "", ""));
    });
    find("was acknowledged at revision 12; the log has it at []", |story| {
        logged(story, 12, &command("tick", "", ""));
    });
}

#[test]
fn an_acknowledged_write_that_the_log_has_elsewhere() {
    find("was acknowledged at revision 14; the log has it at [45]", |story| {
        logged(story, 14, &command("tick", "", ""));
        let entry = story.entry(|call| matches!(call, Call::PutMemory { .. }));
        let request_id = entry.request_id.clone();
        logged(story, 45, &command("put_memory", "k", &request_id));
    });
}

#[test]
fn another_version_than_the_log_has() {
    find("was acknowledged as version 15", |story| {
        let entry = story.entry(|call| matches!(call, Call::PutMemory { .. }));
        let answer = Answer::Wrote { key_revision: 15, layer: 1 };
        entry.outcome = Outcome::Ok { revision: 14, answer };
    });
}

#[test]
fn state_that_no_command_made() {
    find("at the revision of", |story| {
        logged(story, 18, &command("tick", "", ""));
    });
    find("b was pinned at revision 22, where the log has", |story| {
        logged(story, 22, &command("start_run", "other", ""));
    });
}

#[test]
fn a_write_of_unknown_fate_that_has_an_effect_and_is_in_no_log() {
    find("took effect at [50]; the log has it at []", |story| {
        asks(story, unknown());
        is_there(story, 50);
    });
}

#[test]
fn a_write_of_unknown_fate_that_is_in_the_log_and_has_no_effect() {
    find("is in the log at [50] and had no effect", |story| {
        let id = asks(story, unknown());
        logged(story, 50, &command("put_memory", "k", &id));
    });
    find("is in the log at [51] and had no effect", |story| {
        story.push(start("lost"), unknown());
        logged(story, 51, &command("start_run", "lost", ""));
    });
}

#[test]
fn a_write_that_took_effect_twice() {
    find("took effect at each of the revisions [50, 52]", |story| {
        let id = asks(story, wrote(50));
        for revision in [50, 52] {
            logged(story, revision, &command("put_memory", "k", &id));
            is_there(story, revision);
        }
    });
}

#[test]
fn a_refused_write_that_took_effect() {
    find("was refused, and took effect at [50]", |story| {
        let id = asks(story, refused("REVISION_MISMATCH"));
        logged(story, 50, &command("put_memory", "k", &id));
        is_there(story, 50);
    });
}

#[test]
fn a_write_that_was_refused_before_it_was_written_and_is_in_the_log() {
    find("was refused before it was written; the log has it at [50]", |story| {
        let id = asks(story, refused("NO_LEADER"));
        logged(story, 50, &command("put_memory", "k", &id));
    });
}

#[test]
fn entries_that_no_member_kept_are_no_verdict() {
    for gone in [0, 29] {
        let verdict = verdict(|story| {
            for member in &mut story.evidence.logs {
                member.archive.remove(gone);
            }
        });
        assert!(!verdict.harness.is_empty(), "entry {} is missing", gone + 1);
    }
}

#[test]
fn what_was_asked_again_is_in_the_log_twice_and_has_one_effect() {
    accepted(|story| {
        let id = asks(story, wrote(50));
        for revision in [50, 52] {
            logged(story, revision, &command("put_memory", "k", &id));
        }
        is_there(story, 50);
        let entry = story.evidence.history.iter_mut().find(|it| it.request_id == id);
        let entry = entry.expect("it was asked");
        let answer = Answer::Wrote { key_revision: 50, layer: 3 };
        entry.outcome = Outcome::Ok { revision: 52, answer };
    });
}

#[test]
fn a_refusal_that_was_applied_and_an_unknown_fate_that_the_log_decides_pass() {
    accepted(|story| {
        let id = asks(story, refused("REVISION_MISMATCH"));
        logged(story, 50, &command("put_memory", "k", &id));
    });
    accepted(|story| {
        let id = asks(story, unknown());
        logged(story, 50, &command("put_memory", "k", &id));
        is_there(story, 50);
    });
    accepted(|story| drop(asks(story, unknown())));
    // A repeat was told what the log had decided: a rollback leaves no version by which its effect would be seen.
    accepted(|story| {
        let (from_bundle_id, in_flight) = ("v9".to_owned(), InFlight::Restart);
        let back = Call::Rollback { from_bundle_id, in_flight };
        story.push(back, unknown());
        let entry = story.evidence.history.last_mut().expect("it was just pushed");
        entry.request_id = id(entry.operation);
        let mut again = entry.clone();
        again.outcome = refused("ROUTE_CHANGED");
        let id = again.request_id.clone();
        story.evidence.history.push(again);
        logged(story, 50, &command("rollback", "", &id));
    });
}

#[test]
fn a_restart_applies_again_and_a_snapshot_leaps() {
    accepted(|story| {
        let archive = &mut story.evidence.logs[1].archive;
        let again = archive[10..].to_vec();
        archive.truncate(20);
        archive.extend(again);
        let archive = &mut story.evidence.logs[2].archive;
        let (kind, commands) = ("snapshot".to_owned(), Vec::new());
        let snapshot = Logged { kind, commands, hash: String::new(), ..archive[39].clone() };
        archive.splice(20..40, [snapshot]);
    });
}
