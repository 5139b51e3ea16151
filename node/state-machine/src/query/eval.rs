//! Reads of evals: sets, reports, and the mix of a set beside that of production.

use std::collections::BTreeSet;

use pinrail_proto::log::AgentRecord;
use pinrail_proto::time::{millis, timestamp};
use pinrail_proto::{id, reason, v1};

use crate::eval::{examples, existing_set, label_counts, newest, reports_of, results, sets_of};
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Read};
use crate::txn::decode;
use crate::{agent, bundle};

use super::page::page;

/// A page of an agent's eval sets, by name and version, without examples.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn eval_sets(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::EvalSet>, String), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let range = Key::of(Kind::EvalSet, agent.number).range();
    let (rows, next) = page(read, &range, page_size, token)?;
    let mut sets = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record: pinrail_proto::log::EvalSetRecord = decode(&key, &value)?;
        sets.push(record.set.unwrap_or_default());
    }
    Ok((sets, next))
}

/// A version of an eval set with its examples; a name alone means the version that was registered last.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `EVAL_SET_NOT_FOUND`, `INVALID_ID`.
pub fn eval_set(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    set: &str,
) -> Result<v1::EvalSet, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let mut found = named(read, &agent, set)?;
    found.examples = examples(read, agent.number, &found)?;
    Ok(found)
}

fn named(read: &dyn Read, agent: &AgentRecord, set: &str) -> Result<v1::EvalSet, Stop> {
    if set.contains('@') {
        return existing_set(read, agent.number, set);
    }
    id::check_name("eval set", set)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    let versions = sets_of(read, agent.number)?.into_iter().filter(|it| it.name == set);
    versions.max_by_key(|it| it.created_revision).ok_or_else(|| {
        reject(reason::EVAL_SET_NOT_FOUND, format!("the agent has no eval set {set:?}"))
    })
}

/// A page of reports without their results, newest first: of one bundle, or of all of them one after the other.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn eval_reports(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle_id: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::EvalReport>, String), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let mut all = Vec::new();
    if bundle_id.is_empty() {
        for record in bundle::all(read, agent.number)? {
            all.extend(reports_of(read, agent.number, &record.bundle_id)?);
        }
    } else {
        bundle::existing(read, agent.number, bundle_id)?;
        all = reports_of(read, agent.number, bundle_id)?;
    }
    all.sort_by_key(|report| std::cmp::Reverse(report.revision));
    let before = match token {
        "" => u64::MAX,
        token => token.parse().map_err(|_| {
            reject(reason::INVALID_REQUEST, "the page token is not one of this list")
        })?,
    };
    all.retain(|report| report.revision < before);
    let size = super::page::size_of(page_size) as usize;
    let more = all.len() > size;
    all.truncate(size);
    let next = all.last().filter(|_| more).map_or_else(String::new, |it| it.revision.to_string());
    Ok((all, next))
}

/// A report of a bundle with its results: the newest, or one by its id.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`, `EVAL_REPORT_NOT_FOUND`.
pub fn eval_report(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle_id: &str,
    report_id: &str,
) -> Result<v1::EvalReport, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    bundle::existing(read, agent.number, bundle_id)?;
    let wanted = |it: &v1::EvalReport| report_id.is_empty() || it.report_id == report_id;
    let found = newest(read, agent.number, bundle_id, wanted)?;
    let mut report = found.ok_or_else(|| {
        let message = match report_id {
            "" => format!("bundle {bundle_id} has no eval report"),
            named => format!("bundle {bundle_id} has no eval report {named}"),
        };
        reject(reason::EVAL_REPORT_NOT_FOUND, message)
    })?;
    report.results = results(read, agent.number, &report)?;
    Ok(report)
}

/// The categories of a set beside those of production in the policy's window. Without a set: the policy's, or else that
/// of the bundle's newest report.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`, `EVAL_SET_NOT_FOUND`, `INVALID_ID`.
pub fn eval_coverage(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle_id: &str,
    set: &str,
) -> Result<v1::EvalCoverage, Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let gate =
        agent::policy(read, agent.number)?.gates.unwrap_or_default().evals.unwrap_or_default();
    let mut set = if set.is_empty() { gate.set.clone() } else { set.to_owned() };
    if !bundle_id.is_empty() {
        bundle::existing(read, agent.number, bundle_id)?;
        if set.is_empty() {
            let newest = newest(read, agent.number, bundle_id, |it| !it.set.is_empty())?;
            set = newest.map_or_else(String::new, |it| it.set);
        }
    }
    if set.is_empty() {
        let message =
            "the policy names no eval set (`gates.evals.set`), and neither did the question";
        return Err(reject(reason::EVAL_SET_NOT_FOUND, message));
    }
    let set = named(read, &agent, &set)?;
    coverage_of(read, agent.number, &set, &gate.coverage.unwrap_or_default()).map_err(Stop::from)
}

/// The same by an agent's number and for one policy: what the gate is judged by.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn coverage_of(
    read: &dyn Read,
    agent: u32,
    set: &v1::EvalSet,
    policy: &v1::CoveragePolicy,
) -> Result<v1::EvalCoverage, Fault> {
    let window = policy.window.as_ref().and_then(millis).unwrap_or(0);
    let since_ms = super::position(read)?.now_ms.saturating_sub(window);
    let runs = label_counts(read, agent, policy.label(), since_ms)?;
    let mut names: BTreeSet<&str> = runs.keys().map(String::as_str).collect();
    names.extend(set.categories.iter().map(|it| it.category.as_str()));
    let total_runs: u64 = runs.values().sum();
    let total_examples: u64 = set.categories.iter().map(|it| it.count).sum();
    let category = |name: &str| {
        let of_set = set.categories.iter().find(|it| it.category == name);
        let (runs, examples) =
            (runs.get(name).copied().unwrap_or(0), of_set.map_or(0, |it| it.count));
        let (runs_permille, examples_permille) =
            (permille(runs, total_runs), permille(examples, total_examples));
        let few = examples < u64::from(policy.min_cases());
        let gap = runs_permille.saturating_sub(examples_permille);
        v1::CategoryCoverage {
            category: name.to_owned(),
            runs,
            runs_permille,
            examples: u32::try_from(examples).unwrap_or(u32::MAX),
            examples_permille,
            short: runs_permille > 0
                && ((runs_permille >= policy.floor_permille() && few)
                    || gap > policy.max_gap_permille()),
        }
    };
    let mut categories: Vec<v1::CategoryCoverage> = names.into_iter().map(category).collect();
    let gap_permille = distance(&categories, total_runs, total_examples);
    categories.sort_by_key(|it| std::cmp::Reverse(it.runs));
    Ok(v1::EvalCoverage {
        set: set.set.clone(),
        label: policy.label().to_owned(),
        window_start: timestamp(since_ms),
        runs: total_runs,
        examples: u32::try_from(total_examples).unwrap_or(u32::MAX),
        categories,
        gap_permille,
        max_gap_permille: policy.max_gap_permille(),
        floor_permille: policy.floor_permille(),
        min_cases: policy.min_cases(),
    })
}

/// Thousandths, rounded; 0 of nothing.
fn permille(part: u64, whole: u64) -> u32 {
    let rounded = (u128::from(part) * 1_000 + u128::from(whole) / 2).checked_div(u128::from(whole));
    rounded.and_then(|it| u32::try_from(it).ok()).unwrap_or(0)
}

/// Total variation distance of two mixes in thousandths: half of the sum of what the shares differ by. 0 where one of
/// them is empty.
fn distance(categories: &[v1::CategoryCoverage], runs: u64, examples: u64) -> u32 {
    let (runs, examples) = (u128::from(runs), u128::from(examples));
    let difference = |it: &v1::CategoryCoverage| {
        (u128::from(it.runs) * examples).abs_diff(u128::from(it.examples) * runs)
    };
    let sum: u128 = categories.iter().map(difference).sum();
    let whole = 2 * runs * examples;
    let rounded = (sum * 1_000 + whole / 2).checked_div(whole);
    rounded.and_then(|it| u32::try_from(it).ok()).unwrap_or(0)
}

/// What the gate reads of an agent's reports and sets, by the agent's number.
pub mod gate {
    use super::{Fault, Read, v1};

    /// A registered version without its examples; `None`: it is not registered.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub fn set(read: &dyn Read, agent: u32, set: &str) -> Result<Option<v1::EvalSet>, Fault> {
        match super::existing_set(read, agent, set) {
            Ok(found) => Ok(Some(found)),
            Err(crate::outcome::Stop::Rejected(_)) => Ok(None),
            Err(crate::outcome::Stop::Fault(fault)) => Err(fault),
        }
    }

    /// The examples of a set, in the order of their ids.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub fn examples(
        read: &dyn Read,
        agent: u32,
        set: &v1::EvalSet,
    ) -> Result<Vec<v1::EvalExample>, Fault> {
        super::examples(read, agent, set)
    }

    /// Reports of a bundle, newest first, without results.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub fn reports(
        read: &dyn Read,
        agent: u32,
        bundle_id: &str,
    ) -> Result<Vec<v1::EvalReport>, Fault> {
        super::reports_of(read, agent, bundle_id)
    }

    /// The results of a report, in the order of their examples' ids.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub fn results(
        read: &dyn Read,
        agent: u32,
        report: &v1::EvalReport,
    ) -> Result<Vec<v1::EvalResult>, Fault> {
        super::results(read, agent, report)
    }
}
