//! What is refused, by key, value and range; and that what nobody said is complete.

use pinrail_proto::policy::range::{DAY, HOUR};
use pinrail_proto::time::{duration, millis};
use prost_types::Duration;

use super::*;
use pinrail_proto::log::Rejection;

/// The complete policy with a change.
fn changed(change: impl FnOnce(&mut v1::Policy)) -> Result<v1::Policy, Rejection> {
    let mut policy = policy::default();
    change(&mut policy);
    match complete(policy) {
        Ok(policy) => Ok(policy),
        Err(Stop::Rejected(rejection)) => Err(rejection),
        Err(Stop::Fault(fault)) => panic!("{fault:?}"),
    }
}

fn refused(change: impl FnOnce(&mut v1::Policy)) -> String {
    let rejection = changed(change).expect_err("it was accepted");
    format!("{}: {}", rejection.reason, rejection.message)
}

fn gates(policy: &mut v1::Policy) -> &mut v1::GatesPolicy {
    policy.gates.as_mut().unwrap()
}

fn canary(policy: &mut v1::Policy) -> &mut v1::CanaryGate {
    gates(policy).canary.as_mut().unwrap()
}

fn shadow(policy: &mut v1::Policy) -> &mut v1::ShadowGate {
    gates(policy).shadow.as_mut().unwrap()
}

fn evals(policy: &mut v1::Policy) -> &mut v1::EvalsGate {
    gates(policy).evals.as_mut().unwrap()
}

fn case(name: &str) -> v1::SmokeCase {
    v1::SmokeCase { name: name.to_owned(), ..v1::SmokeCase::default() }
}

fn hook(name: &str, url: &str) -> v1::Hook {
    v1::Hook { name: name.to_owned(), url: url.to_owned(), ..v1::Hook::default() }
}

fn step(share_bp: u32, hold: u64) -> v1::CanaryStep {
    v1::CanaryStep { share_bp, hold: Some(duration(hold)) }
}

#[test]
fn an_empty_policy_gets_every_default() {
    let policy = complete(v1::Policy::default()).unwrap();
    assert_eq!(policy, policy::default());
    let runs = policy.runs.unwrap();
    assert_eq!(runs.max_age.as_ref().and_then(millis), Some(6 * HOUR));
    assert_eq!(policy.steps.unwrap().max_attempts, Some(4));
    let gates = policy.gates.unwrap();
    assert_eq!(gates.prepare.unwrap().mode(), v1::StageMode::Required);
    assert_eq!(gates.canary.unwrap().steps, [step(500, HOUR)]);
    let max = policy.quarantine.unwrap().max;
    assert_eq!(max.as_ref().and_then(millis), Some(3 * DAY));
    let drift = policy.signals.unwrap().drift.unwrap();
    assert_eq!(drift.modes.unwrap().canary(), v1::SignalMode::Notify);
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for max_age in [Duration { seconds: -1, nanos: 0 }, duration(0), duration(31 * DAY)] {
        let message = refused(|policy| policy.runs.as_mut().unwrap().max_age = Some(max_age));
        assert!(message.starts_with("INVALID_POLICY: runs.max_age is "), "{message}");
    }
    let rejection =
        changed(|policy| evals(policy).confidence_permille = Some(1_000)).expect_err("refused");
    assert_eq!(
        rejection.message,
        "gates.evals.confidence (thousandths) is 1000; allowed: 500 to 999"
    );
    let metadata = [("key", "gates.evals.confidence (thousandths)"), ("range", "500 to 999")];
    assert_eq!(
        rejection.metadata,
        metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    );
}

#[test]
fn words_that_this_version_does_not_know_are_refused() {
    assert_eq!(
        refused(|policy| policy.rollback.as_mut().unwrap().in_flight = 77),
        "INVALID_POLICY: rollback.in_flight is 77; allowed: keep, cancel, restart"
    );
    assert_eq!(
        refused(|policy| {
            gates(policy).prepare.as_mut().unwrap().mode = v1::StageMode::Auto.into();
        }),
        "INVALID_POLICY: gates.prepare.mode is auto; allowed: required, optional, off"
    );
}

#[test]
fn canary_steps_grow_and_fit_their_timeout() {
    let steps = vec![step(500, HOUR), step(2_500, 2 * HOUR)];
    changed(|policy| canary(policy).steps = steps.clone()).unwrap();
    assert_eq!(
        refused(|policy| canary(policy).steps = vec![step(500, HOUR), step(500, HOUR)]),
        "INVALID_POLICY: gates.canary.steps[1].share (basis points) is 500; allowed: more than 500: steps grow"
    );
    assert_eq!(
        refused(|policy| canary(policy).steps = vec![step(0, HOUR)]),
        "INVALID_POLICY: gates.canary.steps[0].share (basis points) is 0; allowed: 1 to 10000"
    );
    assert_eq!(
        refused(|policy| canary(policy).steps = vec![step(1, 7 * HOUR)]),
        "INVALID_POLICY: gates.canary.timeout is 21600000 ms; allowed: at least 25200000 ms, which its steps hold together"
    );
    let without = v1::CanaryStep { share_bp: 1, hold: None };
    assert!(refused(|policy| canary(policy).steps = vec![without]).contains("hold is missing"));
    let many = (1..=21).map(|share| step(share, 1_000)).collect();
    assert!(refused(|policy| canary(policy).steps = many).ends_with("allowed: at most 20"));
}

#[test]
fn canary_names_parts_and_labels() {
    assert!(
        refused(|policy| canary(policy).auto_parts = vec!["weights".to_owned()])
            .ends_with("\"weights\"; allowed: code, prompts, model, index, tools")
    );
    let values = v1::LabelValues { values: vec!["x".repeat(257)] };
    assert_eq!(
        refused(|policy| canary(policy).include = [("tenant".to_owned(), values)].into()),
        "INVALID_POLICY: gates.canary.include.tenant is 257 bytes; allowed: at most 256 bytes"
    );
}

#[test]
fn smoke_cases_have_names_of_their_own_and_bounded_assertions() {
    let put = |cases: Vec<v1::SmokeCase>| {
        move |policy: &mut v1::Policy| gates(policy).smoke.as_mut().unwrap().cases = cases
    };
    let policy = changed(put(vec![case("a"), case("b")])).unwrap();
    let smoke = policy.gates.unwrap().smoke.unwrap();
    assert_eq!(smoke.cases[1].within, Some(duration(60_000)));
    assert_eq!(
        refused(put(vec![case("a"), case("a")])),
        "INVALID_POLICY: gates.smoke.cases[1].name is \"a\"; allowed: each name once"
    );
    assert!(refused(put(vec![case("")])).contains("gates.smoke.cases[0].name is \"\""));
    let schema = "x".repeat(limits::SMOKE_SCHEMA_BYTES + 1);
    assert!(
        refused(put(vec![v1::SmokeCase { schema, ..case("a") }]))
            .contains("gates.smoke.cases[0].expect.schema is 65537 bytes")
    );
    let contains = vec![String::new()];
    assert!(refused(put(vec![v1::SmokeCase { contains, ..case("a") }])).contains("not empty"));
}

#[test]
fn the_whole_policy_is_bounded() {
    let schema = "x".repeat(limits::SMOKE_SCHEMA_BYTES);
    let large = |at: u32| v1::SmokeCase { schema: schema.clone(), ..case(&format!("c{at}")) };
    let message = refused(|policy| {
        gates(policy).smoke.as_mut().unwrap().cases = (0..9).map(large).collect();
    });
    assert!(message.starts_with("LIMIT_EXCEEDED: policy bytes: "), "{message}");
}

#[test]
fn eval_sets_name_their_version() {
    changed(|policy| evals(policy).set = "core@14".to_owned()).unwrap();
    let message = refused(|policy| evals(policy).set = "core".to_owned());
    assert!(message.contains("gates.evals.set is \"core\""), "{message}");
}

#[test]
fn shadow_has_a_share_to_begin_with_and_one_to_rise_to() {
    let policy = changed(|policy| shadow(policy).share_bp = vec![700]).unwrap();
    assert_eq!(policy.gates.unwrap().shadow.unwrap().share_bp, [700, 700]);
    for wrong in [vec![0, 10], vec![200, 100], vec![1, 2, 3], vec![1, 10_001]] {
        let message = refused(|policy| shadow(policy).share_bp = wrong);
        assert!(message.contains("gates.shadow.share (basis points) is "), "{message}");
    }
    let judge = v1::Compare::Judge.into();
    assert!(refused(|policy| shadow(policy).compare = judge).contains("judge_step is empty"));
    let pointer = vec!["answer".to_owned()];
    assert!(refused(|policy| shadow(policy).ignore = pointer).contains("JSON pointers"));
}

#[test]
fn quarantine_ends_no_earlier_than_it_may() {
    let min = Some(duration(4 * DAY));
    assert_eq!(
        refused(|policy| policy.quarantine.as_mut().unwrap().min = min),
        "INVALID_POLICY: quarantine.max is 259200000 ms; allowed: at least quarantine.min: 345600000 ms"
    );
}

#[test]
fn a_release_is_held_before_stages_that_there_are() {
    let hold = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        move |policy: &mut v1::Policy| policy.release.as_mut().unwrap().hold_before = words
    };
    changed(hold(&["canary", "switch"])).unwrap();
    assert!(refused(hold(&["lunch"])).contains("release.hold_before is \"lunch\""));
    assert!(refused(hold(&["switch", "switch"])).ends_with("allowed: each once"));
}

#[test]
fn drills_are_due_by_a_window() {
    let drill = |every, window: &str| {
        let window = window.to_owned();
        move |policy: &mut v1::Policy| {
            let drill = policy.drill.as_mut().unwrap();
            (drill.every, drill.window) = (Some(duration(every)), window);
        }
    };
    changed(drill(14 * DAY, "Tue-Thu 13:00-16:00 Europe/Berlin")).unwrap();
    changed(drill(0, "")).unwrap();
    assert!(refused(drill(1_000, "")).contains("drill.every is 1000 ms"));
    assert_eq!(
        refused(drill(DAY, "Tue 13-16 UTC")),
        "INVALID_POLICY: drill.window is \"Tue 13-16 UTC\"; allowed: times such as 13:00-16:00 that differ"
    );
}

#[test]
fn hooks_have_names_urls_patterns_and_no_secrets() {
    let put = |hooks: Vec<v1::Hook>| move |policy: &mut v1::Policy| policy.hooks = hooks;
    let good = v1::Hook {
        events: ["signal.*", "run.expired", "*"].map(str::to_owned).to_vec(),
        secret: "env:PAGER_SECRET".to_owned(),
        gate: "switch".to_owned(),
        ..hook("pager", "https://pager.example:8443/x?y=1")
    };
    changed(put(vec![good.clone(), hook("ci", "http://[::1]:80")])).unwrap();
    let twice = vec![hook("a", "http://h"), hook("a", "http://h")];
    assert!(refused(put(twice)).contains("hooks[1].name is \"a\""));
    assert!(refused(put(vec![hook("a", "ftp://h")])).contains("hooks[0].url is \"ftp://h\""));
    let events = vec!["signal*".to_owned()];
    let message = refused(put(vec![v1::Hook { events, ..good.clone() }]));
    assert!(message.contains("hooks[0].events is \"signal*\""), "{message}");
    let secret = "hunter2".to_owned();
    let message = refused(put(vec![v1::Hook { secret, ..good.clone() }]));
    assert!(message.contains("secret is something else; allowed: env:NAME"), "{message}");
    let gate = "lunch".to_owned();
    assert!(refused(put(vec![v1::Hook { gate, ..good }])).contains("hooks[0].gate is \"lunch\""));
}
