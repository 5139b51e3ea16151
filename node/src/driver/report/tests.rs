//! What a worker may report, and the commands that become of it.

use std::time::Duration;

use pinrail_proto::log::command::Kind;
use prost::Message as _;

use super::*;

fn intro() -> Introduction {
    Introduction {
        agent: 3,
        namespace: "default".into(),
        agent_id: "support".into(),
        bundle_id: "v1".into(),
        worker_id: "w".into(),
        code: String::new(),
        verified: false,
        profile: std::sync::Arc::default(),
        slots: 1,
        version: String::new(),
        node: "n0".into(),
        lease: Duration::from_secs(30),
        heartbeat: Duration::from_secs(10),
    }
}

const TOKEN: Option<v1::StepToken> = Some(v1::StepToken { incarnation: 7, revision: 5 });

fn judge(message: Request) -> Result<(Kind, Report), String> {
    let request = v1::WorkRequest { sequence: 9, message: Some(message) };
    let report = report(&intro(), request).map_err(|refused| refused.reason)?;
    let command = log::Command::decode(report.command.clone()).expect("we encoded it");
    Ok((command.kind.expect("it has a kind"), report))
}

fn payload(bytes: usize) -> Option<v1::Payload> {
    Some(v1::Payload { content_type: String::new(), data: vec![b'x'; bytes].into() })
}

fn completion(outcome: Option<v1::complete_step::Outcome>) -> v1::CompleteStep {
    v1::CompleteStep { run_id: "r".into(), step: 2, token: TOKEN, outcome, ..Default::default() }
}

#[test]
fn a_completion_takes_the_next_step_for_its_own_worker_and_bundle_only() {
    let next = v1::NextStep { name: "answer".into(), input: payload(3) };
    let outcome = Some(v1::complete_step::Outcome::Next(next));
    let request = Request::Complete(v1::CompleteStep { lease_next: true, ..completion(outcome) });
    let (kind, report) = judge(request).expect("it is well formed");
    let Kind::CompleteStep(command) = kind else { panic!("{kind:?}") };
    let taker = command.lease_next.expect("it asked for it");
    assert_eq!((taker.worker_id.as_str(), taker.bundle_id.as_str()), ("w", "v1"));
    assert_eq!(command.step.map(|step| (step.agent, step.step)), Some((3, 2)));
    assert_eq!((report.sequence, report.token), (9, Token { incarnation: 7, revision: 5 }));
    assert_eq!(report.ends, Some(metrics::StepOutcome::Completed));
}

#[test]
fn malformed_reports_are_refused_before_the_log() {
    let done = |bytes| Some(v1::complete_step::Outcome::Done(payload(bytes).unwrap_or_default()));
    let limit = limits::PAYLOAD_BYTES;
    assert!(judge(Request::Complete(completion(done(limit)))).is_ok());
    let refused = |message| judge(message).err();
    let too_large = Some("LIMIT_EXCEEDED".to_owned());
    assert_eq!(refused(Request::Complete(completion(done(limit + 1)))), too_large);
    let invalid = Some("INVALID_REQUEST".to_owned());
    assert_eq!(refused(Request::Complete(completion(None))), invalid);
    let no_token = v1::HandBack { run_id: "r".into(), step: 1, ..Default::default() };
    assert_eq!(refused(Request::HandBack(no_token)), invalid);
    let ttl = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let put = |key: &str, ttl| v1::WorkerMemoryPut {
        run_id: "r".into(),
        step: 1,
        token: TOKEN,
        key: key.into(),
        value: payload(1),
        expected_revision: None,
        ttl,
    };
    assert_eq!(refused(Request::MemoryPut(put("k", ttl))), invalid);
    let bad_id = Some("INVALID_ID".to_owned());
    assert_eq!(refused(Request::MemoryPut(put("a//b", None))), bad_id);
    let next = v1::NextStep { name: "not a name".into(), input: None };
    let next = Some(v1::complete_step::Outcome::Next(next));
    assert_eq!(refused(Request::Complete(completion(next))), bad_id);
}

#[test]
fn a_memory_write_without_a_value_deletes() {
    let put = v1::WorkerMemoryPut {
        run_id: "r".into(),
        step: 1,
        token: TOKEN,
        key: "user/7".into(),
        ..Default::default()
    };
    let (kind, report) = judge(Request::MemoryPut(put)).expect("it is well formed");
    assert!(matches!(kind, Kind::DeleteMemory(_)), "{kind:?}");
    assert_eq!(report.ends, None);
}

#[test]
fn long_failure_messages_are_cut_at_a_character() {
    let failure = v1::Failure { message: "ä".repeat(limits::TEXT_BYTES), ..Default::default() };
    let failed = v1::FailStep {
        run_id: "r".into(),
        step: 1,
        token: TOKEN,
        failure: Some(failure),
        usage: None,
        progress: None,
    };
    let (kind, _) = judge(Request::Fail(failed)).expect("it is well formed");
    let Kind::FailStep(command) = kind else { panic!("{kind:?}") };
    let message = command.failure.expect("it has one").message;
    assert_eq!(message.len(), limits::TEXT_BYTES);
    assert!(message.chars().all(|c| c == 'ä'));
}

#[test]
fn a_pack_is_bounded_by_bytes_and_never_empty() {
    let report = |bytes: usize| Report {
        sequence: 1,
        token: Token { incarnation: 1, revision: 1 },
        step: StepId { agent: 1, run_id: "r".into(), step: 1 },
        command: Bytes::from(vec![0; bytes]),
        ends: None,
        next_input: None,
    };
    let large = limits::BATCH_BYTES;
    assert_eq!(pack(&[report(large * 2), report(1)]), 1);
    assert_eq!(pack(&[report(large / 2), report(large / 2), report(1)]), 2);
    assert_eq!(pack(&[report(1), report(1)]), 2);
}
