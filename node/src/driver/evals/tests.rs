//! The gate on states that were made of commands, as the log would.

use bytes::Bytes;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, AgentRef};
use pinrail_proto::time::duration;
use pinrail_proto::v1::{self, EvalJudgement, EvalOutcome, Verdict};
use pinrail_state_machine::Machine;
use pinrail_state_machine::store::MemoryStore;
use prost::Message as _;

use super::{Question, judge};

const NOW_MS: u64 = 1_700_000_000_000;

#[derive(Default)]
struct World {
    store: MemoryStore,
}

impl World {
    /// An agent with v1 live and v2 registered.
    fn new() -> Self {
        let mut world = Self::default();
        world.must(Kind::InitCluster(log::InitCluster {
            cluster: "test".to_owned(),
            cluster_id: vec![1; 16].into(),
            incarnation: 1,
            feature_level: 1,
        }));
        let evals = v1::EvalsGate { coverage: Some(coverage()), ..v1::EvalsGate::default() };
        let gates = v1::GatesPolicy { evals: Some(evals), ..v1::GatesPolicy::default() };
        let policy = Some(v1::Policy { gates: Some(gates), ..v1::Policy::default() });
        world.must(Kind::CreateAgent(Box::new(log::CreateAgent { agent: agent(), policy })));
        for bundle_id in ["v1", "v2"] {
            world.must(Kind::CreateBundle(log::CreateBundle {
                agent: agent(),
                bundle_id: bundle_id.to_owned(),
                manifest: Some(manifest()),
            }));
        }
        world.must(Kind::Switch(log::Switch {
            agent: agent(),
            bundle_id: "v1".to_owned(),
            ..log::Switch::default()
        }));
        world
    }

    fn apply(&mut self, kind: Kind) -> Answer {
        let command = log::Command { header: None, kind: Some(kind) };
        let commands = vec![Bytes::from(command.encode_to_vec())];
        let batch = log::Batch { stamp_ms: NOW_MS, commands };
        let mut machine = Machine::open(&self.store).expect("it opens");
        let applied = machine.apply_batch(&Bytes::from(batch.encode_to_vec())).expect("it applies");
        self.store.write(machine.finish().writes);
        applied[0].outcome.result.clone().expect("an answer")
    }

    fn must(&mut self, kind: Kind) {
        let answer = self.apply(kind);
        assert!(!matches!(answer, Answer::Rejection(_)), "{answer:?}");
    }

    /// A set with examples `0`, `1`, … of these categories; `changed` ones have other content than in other versions.
    fn set(&mut self, version: &str, categories: &[(&str, usize)], changed: usize) {
        let names = categories.iter().flat_map(|(name, count)| std::iter::repeat_n(*name, *count));
        let example = |(index, category): (usize, &str)| v1::EvalExample {
            id: format!("{index:04}"),
            category: category.to_owned(),
            content_digest: if index < changed { "c".repeat(64) } else { "0".repeat(64) },
            ..v1::EvalExample::default()
        };
        let metric = |(name, kind): (&str, v1::MetricKind)| v1::EvalMetric {
            name: name.to_owned(),
            kind: kind.into(),
        };
        let metrics = [("exact", v1::MetricKind::Structured), ("tone", v1::MetricKind::Judge)];
        self.must(Kind::CreateEvalSet(log::CreateEvalSet {
            agent: agent(),
            set: Some(v1::EvalSet {
                name: "core".to_owned(),
                version: version.to_owned(),
                metrics: metrics.into_iter().map(metric).collect(),
                examples: names.enumerate().map(example).collect(),
                ..v1::EvalSet::default()
            }),
        }));
    }

    /// A report: a letter for each example, `p`assed, `f`ailed or `e`rror.
    fn report(&mut self, bundle: &str, version: &str, outcomes: &str) {
        self.report_with(bundle, version, outcomes, &["exact", "tone"]);
    }

    fn report_with(&mut self, bundle: &str, version: &str, outcomes: &str, metrics: &[&str]) {
        let score = |metric: &&str| v1::EvalScore {
            metric: (*metric).to_owned(),
            passed: Some(true),
            score_permille: Some(800),
        };
        let result = |(index, letter): (usize, char)| v1::EvalResult {
            example_id: format!("{index:04}"),
            outcome: match letter {
                'p' => EvalOutcome::Passed,
                'f' => EvalOutcome::Failed,
                _ => EvalOutcome::Error,
            }
            .into(),
            scores: metrics.iter().map(score).collect(),
            ..v1::EvalResult::default()
        };
        self.must(Kind::SubmitEvalReport(log::SubmitEvalReport {
            agent: agent(),
            report: Some(v1::EvalReport {
                bundle_id: bundle.to_owned(),
                set: format!("core@{version}"),
                results: outcomes.chars().enumerate().map(result).collect(),
                ..v1::EvalReport::default()
            }),
        }));
    }

    fn runs(&mut self, kind: &str, count: usize) {
        for index in 0..count {
            self.must(Kind::StartRun(log::StartRun {
                agent: agent(),
                run_id: format!("{kind}-{index}"),
                labels: [("task_kind".to_owned(), kind.to_owned())].into(),
                ..log::StartRun::default()
            }));
        }
    }

    fn judge(&self, version: &str) -> EvalJudgement {
        self.judge_by(&gate(version), "v1")
    }

    fn judge_by(&self, gate: &v1::EvalsGate, baseline: &str) -> EvalJudgement {
        let asked = Question { agent: 1, candidate: "v2", baseline, gate };
        judge(&self.store, &asked).expect("the store answers")
    }
}

fn agent() -> Option<AgentRef> {
    Some(AgentRef { namespace: String::new(), agent_id: "support".to_owned() })
}

fn manifest() -> v1::BundleManifest {
    let model = v1::ModelPart {
        provider: "p".to_owned(),
        name: "m".to_owned(),
        snapshot: "1".to_owned(),
        ..v1::ModelPart::default()
    };
    v1::BundleManifest {
        code: Some(v1::CodePart { git_commit: "c".to_owned(), image: String::new() }),
        models: [("default".to_owned(), model)].into(),
        ..v1::BundleManifest::default()
    }
}

fn coverage() -> v1::CoveragePolicy {
    v1::CoveragePolicy {
        label: Some("task_kind".to_owned()),
        window: Some(duration(7 * 24 * 3_600_000)),
        max_gap_permille: Some(100),
        floor_permille: Some(50),
        min_cases: Some(10),
    }
}

/// The defaults of docs/FILES.md.
fn gate(version: &str) -> v1::EvalsGate {
    v1::EvalsGate {
        set: format!("core@{version}"),
        min_pass_rate_permille: Some(900),
        max_loss_permille: Some(20),
        confidence_permille: Some(950),
        max_errors_permille: Some(10),
        coverage: Some(coverage()),
        sensitivity: Some(true),
        ..v1::EvalsGate::default()
    }
}

/// So many passed, then so many failed, then so many errors.
fn outcomes(passed: usize, failed: usize, errors: usize) -> String {
    "p".repeat(passed) + &"f".repeat(failed) + &"e".repeat(errors)
}

fn check<'a>(judgement: &'a EvalJudgement, name: &str) -> &'a v1::EvalCheck {
    judgement.checks.iter().find(|check| check.name == name).expect("the check was made")
}

#[test]
fn a_candidate_that_does_as_well_passes() {
    let mut world = World::new();
    world.set("14", &[("refund", 100)], 0);
    world.report("v1", "14", &outcomes(95, 5, 0));
    world.report("v2", "14", &outcomes(94, 6, 0));
    let judgement = world.judge("14");
    assert_eq!(judgement.verdict(), Verdict::Pass, "{judgement:#?}");
    assert_eq!(
        judgement.message,
        "pass rate 0.940 on core@14 (100 cases); at least 0.930 = v1's 0.950 − 0.020"
    );
    let rate = judgement.candidate.expect("its rate");
    assert_eq!((rate.rate_permille, rate.low_permille, rate.high_permille), (940, 875, 972));
}

#[test]
fn what_there_is_nothing_to_judge_by_is_skipped() {
    let world = World::new();
    let none = v1::EvalsGate { set: String::new(), ..gate("14") };
    assert_eq!(world.judge_by(&none, "v1").verdict(), Verdict::Skipped);
    let unknown = world.judge("14");
    assert_eq!(unknown.verdict(), Verdict::Error);
    assert_eq!(unknown.message, "core@14 is not registered");
}

#[test]
fn missing_reports_are_insufficient_data_and_named() {
    let mut world = World::new();
    world.set("14", &[("refund", 100)], 0);
    let none = world.judge("14");
    assert_eq!((none.verdict(), none.have, none.need), (Verdict::InsufficientData, 0, 100));
    assert_eq!(none.next, ["pinrail eval submit AGENT v2 -f FILE --set core@14"]);
    world.report("v2", "14", &outcomes(60, 0, 0));
    let part = world.judge("14");
    assert_eq!((part.verdict(), part.have, part.need), (Verdict::InsufficientData, 60, 100));
    world.report("v2", "14", &outcomes(100, 0, 0));
    let baseline = world.judge("14");
    assert_eq!(
        (baseline.verdict(), baseline.have, baseline.need),
        (Verdict::InsufficientData, 0, 100)
    );
    assert_eq!(baseline.next, ["pinrail eval submit AGENT v1 -f FILE --set core@14"]);
    // The first live bundle has nothing to be compared with.
    assert_eq!(world.judge_by(&gate("14"), "").verdict(), Verdict::Pass);
}

#[test]
fn a_low_pass_rate_fails_whatever_is_live() {
    let mut world = World::new();
    world.set("14", &[("refund", 100)], 0);
    world.report("v1", "14", &outcomes(80, 20, 0));
    world.report("v2", "14", &outcomes(85, 15, 0));
    let judgement = world.judge("14");
    assert_eq!(
        (judgement.verdict(), judgement.reason.as_str()),
        (Verdict::Fail, "GATE_NOT_PASSED")
    );
    assert_eq!(judgement.message, "pass rate 0.850 on core@14 (100 cases); needs 0.900");
}

#[test]
fn a_significant_loss_fails_with_the_numbers_shown() {
    let mut world = World::new();
    world.set("14", &[("refund", 220)], 0);
    world.report("v1", "14", &outcomes(214, 6, 0));
    world.report("v2", "14", &outcomes(202, 18, 0));
    let judgement = world.judge("14");
    assert_eq!(judgement.verdict(), Verdict::Fail, "{judgement:#?}");
    assert_eq!(
        judgement.message,
        "pass rate 0.918 on core@14 (220 cases); needs 0.953 = v1's 0.973 − 0.020; McNemar mid-p, one-sided p = 0.0001"
    );
    let pairs = judgement.comparison.expect("they were compared");
    assert_eq!(
        (pairs.pairs, pairs.only_baseline_passed, pairs.only_candidate_passed),
        (220, 12, 0)
    );
}

#[test]
fn a_loss_that_may_be_chance_is_insufficient_data() {
    let mut world = World::new();
    world.set("14", &[("refund", 30)], 0);
    world.report("v1", "14", &outcomes(29, 1, 0));
    // One that v1 failed and three that it passed.
    world.report("v2", "14", &("fff".to_owned() + &"p".repeat(27)));
    let judgement = world.judge("14");
    assert_eq!(
        check(&judgement, "regression").verdict(),
        Verdict::InsufficientData,
        "{judgement:#?}"
    );
    assert_eq!(judgement.have, 30);
    assert!(judgement.need > 30 && judgement.need < 200, "{}", judgement.need);
    assert!(judgement.message.contains("may be chance"), "{}", judgement.message);
}

#[test]
fn a_loss_that_is_allowed_passes_however_sure_it_is() {
    let mut world = World::new();
    world.set("14", &[("refund", 1_000)], 0);
    world.report("v1", "14", &outcomes(970, 30, 0));
    world.report("v2", "14", &outcomes(955, 45, 0));
    assert_eq!(world.judge("14").verdict(), Verdict::Pass);
}

#[test]
fn errors_are_no_failures_and_too_many_are_an_error() {
    let mut world = World::new();
    world.set("14", &[("refund", 200)], 0);
    world.report("v1", "14", &outcomes(200, 0, 0));
    world.report("v2", "14", &outcomes(198, 0, 2));
    assert_eq!(world.judge("14").verdict(), Verdict::Pass);
    world.report("v2", "14", &outcomes(190, 0, 10));
    let judgement = world.judge("14");
    assert_eq!(judgement.verdict(), Verdict::Error);
    assert_eq!(judgement.message, "10 of 200 examples are errors (0.050), allowed 0.010");
    world.report("v2", "14", &outcomes(0, 0, 200));
    assert_eq!(world.judge("14").verdict(), Verdict::Error);
}

#[test]
fn versions_that_only_add_are_compared_on_the_common_examples() {
    let mut world = World::new();
    world.set("14", &[("refund", 100)], 0);
    world.set("15", &[("refund", 150)], 0);
    world.report("v1", "14", &outcomes(98, 2, 0));
    world.report("v2", "15", &outcomes(148, 2, 0));
    let judgement = world.judge("15");
    assert_eq!(judgement.verdict(), Verdict::Pass, "{judgement:#?}");
    let stability = check(&judgement, "stability");
    let says = "compared on the 100 examples that core@15 and core@14 have in common";
    assert_eq!(stability.message, says);
    assert_eq!(judgement.comparison.expect("they were compared").pairs, 100);
}

#[test]
fn versions_that_share_too_few_examples_are_not_compared() {
    let mut world = World::new();
    world.set("14", &[("refund", 100)], 0);
    world.set("15", &[("refund", 100)], 40);
    world.report("v1", "14", &outcomes(98, 2, 0));
    world.report("v2", "15", &outcomes(98, 2, 0));
    let judgement = world.judge("15");
    assert_eq!(judgement.verdict(), Verdict::Error);
    assert_eq!(judgement.reason, "EVALS_NOT_COMPARABLE");
    assert!(
        judgement.message.contains("have 60 examples in common, of 100 and 100"),
        "{}",
        judgement.message
    );
    // Measured anew on the version that is asked for, they are.
    world.report("v1", "15", &outcomes(98, 2, 0));
    assert_eq!(world.judge("15").verdict(), Verdict::Pass);
}

#[test]
fn a_category_with_a_third_of_production_must_be_covered() {
    let mut world = World::new();
    world.set("14", &[("refund", 95), ("legal", 5)], 0);
    world.report("v1", "14", &outcomes(100, 0, 0));
    world.report("v2", "14", &outcomes(100, 0, 0));
    world.runs("refund", 30);
    let few = world.judge("14");
    assert_eq!(check(&few, "coverage").verdict(), Verdict::Skipped, "too few runs tell nothing");
    world.runs("refund", 100);
    assert_eq!(world.judge("14").verdict(), Verdict::Pass);
    world.runs("legal", 43);
    let judgement = world.judge("14");
    assert_eq!(judgement.verdict(), Verdict::Fail);
    assert_eq!(
        judgement.message,
        "core@14 does not cover production: its mix is 0.251 from that of 143 runs, allowed 0.100; legal has 0.301 of \
         production and 0.050 of the set (5 examples)"
    );
}

#[test]
fn a_set_needs_both_kinds_of_metrics() {
    let mut world = World::new();
    world.set("14", &[("refund", 100)], 0);
    world.report("v1", "14", &outcomes(100, 0, 0));
    for (metrics, says) in [
        (vec!["exact"], "no metric that a model or a person decides"),
        (vec!["tone"], "no structured metric"),
        (vec![], "no metric of a known kind"),
    ] {
        world.report_with("v2", "14", &outcomes(100, 0, 0), &metrics);
        let judgement = world.judge("14");
        assert_eq!(judgement.verdict(), Verdict::Fail);
        assert!(judgement.message.contains(says), "{}", judgement.message);
        let lenient = v1::EvalsGate { sensitivity: Some(false), ..gate("14") };
        assert_eq!(world.judge_by(&lenient, "v1").verdict(), Verdict::Pass);
    }
}
