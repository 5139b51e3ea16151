//! Evals in stories: sets, reports, and the mix of categories.

use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use super::command::agent_ref;
use super::line::Line;
use super::world::World;

/// `eval-set AGENT NAME@VERSION examples=id/category/input,… metrics=name:kind,…` and
/// `eval-report AGENT BUNDLE set=NAME@VERSION passed=a,b failed=c errors=d scores=metric:thousandths,…`.
pub(super) fn command(line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "eval-set" => {
            let agent = Some(agent_ref(&line.word()));
            let set = line.word();
            let (name, version) = set.split_once('@').unwrap_or((set.as_str(), ""));
            Kind::CreateEvalSet(log::CreateEvalSet {
                agent,
                set: Some(v1::EvalSet {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    metrics: metrics(line),
                    examples: items(&line.text("examples")).iter().map(|it| example(it)).collect(),
                    ..v1::EvalSet::default()
                }),
            })
        }
        "eval-report" => {
            let agent = Some(agent_ref(&line.word()));
            let bundle_id = line.word();
            let scores = scores(line);
            let mut results = Vec::new();
            for (key, outcome) in [
                ("passed", v1::EvalOutcome::Passed),
                ("failed", v1::EvalOutcome::Failed),
                ("errors", v1::EvalOutcome::Error),
            ] {
                for example_id in items(&line.text(key)) {
                    let outcome = outcome.into();
                    let scores = scores.clone();
                    let result =
                        v1::EvalResult { example_id, outcome, scores, ..Default::default() };
                    results.push(result);
                }
            }
            Kind::SubmitEvalReport(log::SubmitEvalReport {
                agent,
                report: Some(v1::EvalReport {
                    bundle_id,
                    set: line.text("set"),
                    format: "pinrail".to_owned(),
                    metrics: metrics(line),
                    results,
                    ..v1::EvalReport::default()
                }),
            })
        }
        _ => return None,
    })
}

/// `coverage-label=task_kind min-cases=2`.
pub(super) fn coverage_policy(line: &mut Line) -> Option<v1::CoveragePolicy> {
    let label = line.option("coverage-label")?;
    Some(v1::CoveragePolicy {
        label: Some(label),
        window: Some(duration(7 * 24 * 3_600_000)),
        max_gap_permille: Some(100),
        floor_permille: Some(50),
        min_cases: Some(line.number("min-cases").map_or(1, |it| u32::try_from(it).unwrap())),
    })
}

pub(super) fn answer(result: &log::outcome::Result) -> Option<String> {
    match result {
        log::outcome::Result::EvalSet(it) => {
            let set = it.set.clone().unwrap_or_default();
            Some(format!("{}{}", self::set(&set), again(it.already)))
        }
        log::outcome::Result::EvalReport(it) => {
            let report = it.report.clone().unwrap_or_default();
            Some(format!("{}{}", self::report(&report), again(it.already)))
        }
        _ => None,
    }
}

/// Answers a question about evals.
pub(super) fn ask(world: &World, line: &mut Line) -> Option<Result<Vec<String>, Stop>> {
    Some(match line.verb.as_str() {
        "eval-sets" => sets(world, &line.word()),
        "eval-reports" => reports(world, &line.word(), &line.word_or_none()),
        "eval-coverage" => coverage(world, &line.word(), &line.text("set")),
        _ => return None,
    })
}

fn sets(world: &World, agent: &str) -> Result<Vec<String>, Stop> {
    let (sets, _) = query::eval_sets(world.read(), "", agent, 0, "")?;
    Ok(sets.iter().map(set).collect())
}

fn reports(world: &World, agent: &str, bundle: &str) -> Result<Vec<String>, Stop> {
    let (reports, _) = query::eval_reports(world.read(), "", agent, bundle, 0, "")?;
    Ok(reports.iter().map(report).collect())
}

fn coverage(world: &World, agent: &str, set: &str) -> Result<Vec<String>, Stop> {
    let it = query::eval_coverage(world.read(), "", agent, "", set)?;
    let mut told = vec![format!(
        "{}: {} examples, {} runs by {}, gap {} of {} thousandths",
        it.set, it.examples, it.runs, it.label, it.gap_permille, it.max_gap_permille
    )];
    told.extend(it.categories.iter().map(|it| {
        let short = if it.short { ", short" } else { "" };
        format!(
            "{:?}: {} runs ({}), {} examples ({}){short}",
            it.category, it.runs, it.runs_permille, it.examples, it.examples_permille
        )
    }));
    Ok(told)
}

fn set(set: &v1::EvalSet) -> String {
    let count = |it: &v1::CategoryCount| format!("{:?} {}", it.category, it.count);
    let categories: Vec<String> = set.categories.iter().map(count).collect();
    format!(
        "{}: {} examples ({}), {} with input, {} metrics, digest {}",
        set.set,
        set.example_count,
        categories.join(", "),
        set.with_input,
        set.metrics.len(),
        &set.digest[..12]
    )
}

fn report(report: &v1::EvalReport) -> String {
    let summary = report.summary.clone().unwrap_or_default();
    let of = if report.set.is_empty() { "no set" } else { &report.set };
    let metric = |it: &v1::EvalMetricSummary| {
        let kind = it.kind().as_str_name().trim_start_matches("METRIC_KIND_").to_lowercase();
        let mean = it.mean_permille.map_or_else(String::new, |mean| format!(", mean {mean}"));
        format!("; {} ({kind}): {} of {} passed{mean}", it.name, it.passed, it.scored)
    };
    format!(
        "{} of {} on {of}: {} passed, {} failed, {} errors{}",
        report.report_id,
        report.bundle_id,
        summary.passed,
        summary.failed,
        summary.errors,
        summary.metrics.iter().map(metric).collect::<String>()
    )
}

fn again(already: bool) -> &'static str {
    if already { ", as before" } else { "" }
}

fn items(list: &str) -> Vec<String> {
    list.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn example(text: &str) -> v1::EvalExample {
    let mut parts = text.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (id, category, input) = (part(), part(), part());
    let input = (!input.is_empty()).then(|| v1::Payload {
        content_type: "text/plain".to_owned(),
        data: input.into_bytes().into(),
    });
    let content_digest = if input.is_none() { "0".repeat(64) } else { String::new() };
    v1::EvalExample { id, category, input, content_digest, ..v1::EvalExample::default() }
}

fn metrics(line: &mut Line) -> Vec<v1::EvalMetric> {
    let metric = |text: &String| {
        let (name, kind) = text.split_once(':').unwrap_or((text, ""));
        let kind = v1::MetricKind::from_str_name(&format!("METRIC_KIND_{}", kind.to_uppercase()));
        v1::EvalMetric { name: name.to_owned(), kind: kind.unwrap_or_default().into() }
    };
    items(&line.text("metrics")).iter().map(metric).collect()
}

fn scores(line: &mut Line) -> Vec<v1::EvalScore> {
    let score = |text: &String| {
        let (metric, permille) = text.split_once(':').expect("metric:thousandths");
        let permille: i32 = permille.parse().unwrap();
        v1::EvalScore {
            metric: metric.to_owned(),
            passed: Some(permille >= 500),
            score_permille: Some(permille),
        }
    };
    items(&line.text("scores")).iter().map(score).collect()
}
