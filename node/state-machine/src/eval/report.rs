//! Eval reports: how a bundle did on a set, example by example.

use std::collections::BTreeMap;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, EvalBodyRecord, EvalReportRecord, EvalReportResult, SubmitEvalReport,
};
use pinrail_proto::{id, limits, reason, time, v1};
use prost::Message as _;

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, decode};
use crate::{agent, bundle, event};

use super::set::{body, body_key, examples, existing, of_policy};
use super::{check_metric, check_metrics, digest, too_many};

/// Characters of its digest that a report is named by.
const ID_CHARS: usize = 12;
/// Unknown examples that a refusal names.
const NAMED: usize = 5;

pub(crate) fn submit(txn: &mut Txn<'_>, it: &SubmitEvalReport) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut report = it.report.clone().unwrap_or_default();
    bundle::load(txn, agent.number, &report.bundle_id)?;
    check(&mut report)?;
    if report.set.is_empty() {
        report.set = of_policy(txn.read(), &agent)?;
    }
    let declared =
        if report.set.is_empty() { Vec::new() } else { fit_to_set(txn, &agent, &mut report)? };
    report.digest = digest::of_report(&report);
    let rows = rows(txn.read(), agent.number, &report.bundle_id)?;
    if let Some((_, there)) = rows.iter().find(|(_, there)| there.digest == report.digest) {
        let report = Some(there.clone());
        return Ok(Answer::EvalReport(Box::new(EvalReportResult { report, already: true })));
    }
    report.summary = Some(summary(&report, declared));
    report.report_id = format!("er-{}", report.digest.chars().take(ID_CHARS).collect::<String>());
    report.agent_id.clone_from(&agent.agent_id);
    report.actor.clone_from(&txn.header.actor);
    report.created_at = time::timestamp(txn.now);
    report.revision = txn.revision;
    let body = EvalBodyRecord { examples: vec![], results: std::mem::take(&mut report.results) };
    txn.put(body_key(agent.number, &report.digest)?, &body);
    let key = Key::of(Kind::EvalReport, agent.number).text(&report.bundle_id).u64(txn.revision);
    txn.put(key.build(), &EvalReportRecord { report: Some(report.clone()) });
    drop_oldest(txn, agent.number, &rows)?;
    txn.event(told(&agent, &report));
    Ok(Answer::EvalReport(Box::new(EvalReportResult { report: Some(report), already: false })))
}

fn told(agent: &AgentRecord, report: &v1::EvalReport) -> pinrail_proto::log::EventRecord {
    let summary = report.summary.clone().unwrap_or_default();
    event::of_bundle("eval.report_submitted", agent, &report.bundle_id)
        .with("report", &report.report_id)
        .with("set", &report.set)
        .with("passed", summary.passed)
        .with("failed", summary.failed)
        .with("errors", summary.errors)
}

/// Checks every rule and sorts what has an order.
fn check(report: &mut v1::EvalReport) -> Result<(), Stop> {
    check_metrics(&mut report.metrics, invalid)?;
    for (what, text) in [("format", &report.format), ("source", &report.source)] {
        if text.len() > limits::EVAL_MESSAGE_BYTES {
            return Err(too_large(what, text.len(), limits::EVAL_MESSAGE_BYTES));
        }
    }
    if report.results.is_empty() {
        return Err(invalid("the report has no results".to_owned()));
    }
    if report.results.len() > limits::EVAL_EXAMPLES {
        return Err(too_many("results", report.results.len(), limits::EVAL_EXAMPLES));
    }
    report.results.sort_by(|a, b| a.example_id.cmp(&b.example_id));
    let twice = report.results.windows(2).find(|pair| pair[0].example_id == pair[1].example_id);
    if let Some(pair) = twice {
        return Err(invalid(format!("example {:?} has two results", pair[0].example_id)));
    }
    report.results.iter().try_for_each(check_result)?;
    let size: usize = report.results.iter().map(|result| result.encoded_len() + 8).sum();
    if size > limits::EVAL_BODY_BYTES {
        return Err(too_large("bytes of results", size, limits::EVAL_BODY_BYTES));
    }
    Ok(())
}

fn check_result(result: &v1::EvalResult) -> Result<(), Stop> {
    let said = |rule: &str| invalid(format!("the result of {:?} {rule}", result.example_id));
    id::check_token("example id", &result.example_id)
        .map_err(|error| invalid(error.to_string()))?;
    if result.outcome() == v1::EvalOutcome::Unspecified {
        return Err(said("neither passed nor failed, and is no error"));
    }
    if result.category.len() > limits::LABEL_VALUE_BYTES {
        return Err(said("has a category of more than 256 bytes"));
    }
    if result.message.len() > limits::EVAL_MESSAGE_BYTES {
        return Err(too_large("message bytes", result.message.len(), limits::EVAL_MESSAGE_BYTES));
    }
    if result.trials_passed > result.trials {
        return Err(said("has more passed tries than tries"));
    }
    if result.scores.len() > limits::EVAL_METRICS {
        return Err(too_many("scores of a result", result.scores.len(), limits::EVAL_METRICS));
    }
    result.scores.iter().try_for_each(|score| check_metric(&score.metric, invalid))
}

/// Every result must be of an example of the set, whose categories count. Gives the set's metrics.
fn fit_to_set(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    report: &mut v1::EvalReport,
) -> Result<Vec<v1::EvalMetric>, Stop> {
    let set = existing(txn.read(), agent.number, &report.set)?;
    let examples = examples(txn.read(), agent.number, &set)?;
    let categories: BTreeMap<&str, &str> =
        examples.iter().map(|it| (it.id.as_str(), it.category.as_str())).collect();
    let mut unknown = Vec::new();
    for result in &mut report.results {
        match categories.get(result.example_id.as_str()) {
            Some(category) => (*category).clone_into(&mut result.category),
            None => unknown.push(result.example_id.clone()),
        }
    }
    if unknown.is_empty() {
        return Ok(set.metrics);
    }
    let more = if unknown.len() > NAMED { ", …" } else { "" };
    let message = format!(
        "{} of {} results are of no example of {}: {}{more}",
        unknown.len(),
        report.results.len(),
        set.set,
        unknown.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ")
    );
    Err(invalid(message).with("unknown", unknown.len()))
}

/// The counts of a report; what the set declares of a metric counts more than what the file says.
fn summary(report: &v1::EvalReport, declared: Vec<v1::EvalMetric>) -> v1::EvalSummary {
    let mut kinds: BTreeMap<String, v1::MetricKind> = BTreeMap::new();
    for metric in report.metrics.iter().chain(&declared) {
        kinds.insert(metric.name.clone(), metric.kind());
    }
    let mut sums: BTreeMap<String, Sum> =
        kinds.keys().map(|name| (name.clone(), Sum::default())).collect();
    let mut summary = v1::EvalSummary::default();
    for result in &report.results {
        summary.examples += 1;
        match result.outcome() {
            v1::EvalOutcome::Passed => summary.passed += 1,
            v1::EvalOutcome::Failed | v1::EvalOutcome::Unspecified => summary.failed += 1,
            v1::EvalOutcome::Error => summary.errors += 1,
        }
        summary.input_tokens = summary.input_tokens.saturating_add(result.input_tokens);
        summary.output_tokens = summary.output_tokens.saturating_add(result.output_tokens);
        summary.cost_micros = summary.cost_micros.saturating_add(result.cost_micros);
        for score in &result.scores {
            // A forged report may name any number of metrics; what is counted is bounded.
            if sums.len() < limits::EVAL_METRICS || sums.contains_key(&score.metric) {
                sums.entry(score.metric.clone()).or_default().add(score);
            }
        }
    }
    summary.metrics = sums.into_iter().map(|(name, sum)| sum.told(name, &kinds)).collect();
    summary
}

/// What the results of one metric come to.
#[derive(Default)]
struct Sum {
    scored: u32,
    passed: u32,
    with_score: i64,
    total: i64,
}

impl Sum {
    fn add(&mut self, score: &v1::EvalScore) {
        self.scored += 1;
        self.passed += u32::from(score.passed());
        if let Some(permille) = score.score_permille {
            self.with_score += 1;
            self.total += i64::from(permille);
        }
    }

    fn told(self, name: String, kinds: &BTreeMap<String, v1::MetricKind>) -> v1::EvalMetricSummary {
        let kind = kinds.get(&name).copied().unwrap_or_default();
        let mean = self.total.checked_div(self.with_score);
        v1::EvalMetricSummary {
            name,
            kind: kind.into(),
            scored: self.scored,
            passed: self.passed,
            mean_permille: mean.and_then(|mean| i32::try_from(mean).ok()),
        }
    }
}

fn drop_oldest(
    txn: &mut Txn<'_>,
    agent: u32,
    rows: &[(RowKey, v1::EvalReport)],
) -> Result<(), Stop> {
    let surplus = (rows.len() + 1).saturating_sub(limits::EVAL_REPORTS_PER_BUNDLE);
    for (key, report) in rows.iter().take(surplus) {
        txn.delete(key.clone());
        txn.delete(body_key(agent, &report.digest)?);
    }
    Ok(())
}

fn invalid(message: String) -> Stop {
    reject(reason::INVALID_EVAL_REPORT, message)
}

/// The reports of a bundle with their keys, oldest first, without results.
fn rows(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<Vec<(RowKey, v1::EvalReport)>, Fault> {
    let range = Key::of(Kind::EvalReport, agent).text(bundle_id).range();
    let rows = read.scan(&range, Order::Ascending, limits::EVAL_REPORTS_PER_BUNDLE + 1)?;
    let row = |(key, value): crate::store::Row| {
        let record: EvalReportRecord = decode(&key, &value)?;
        Ok((RowKey::from_slice(&key), record.report.unwrap_or_default()))
    };
    rows.into_iter().map(row).collect()
}

/// The reports of a bundle, newest first, without results.
pub(crate) fn reports_of(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<Vec<v1::EvalReport>, Fault> {
    Ok(rows(read, agent, bundle_id)?.into_iter().rev().map(|(_, report)| report).collect())
}

/// The newest report of a bundle that `wanted` says yes to, without results.
pub(crate) fn newest(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
    wanted: impl Fn(&v1::EvalReport) -> bool,
) -> Result<Option<v1::EvalReport>, Fault> {
    Ok(reports_of(read, agent, bundle_id)?.into_iter().find(wanted))
}

/// The results of a report, in the order of their examples' ids.
pub(crate) fn results(
    read: &dyn Read,
    agent: u32,
    report: &v1::EvalReport,
) -> Result<Vec<v1::EvalResult>, Fault> {
    Ok(body(read, agent, &report.digest)?.results)
}
