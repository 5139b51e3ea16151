//! JUnit XML, as pytest and many others write it: a test case is an example, `<failure>` a failure, `<error>` an error;
//! skipped cases are left out.
//!
//! The property `example_id` names the example, else the test's name, with its class where two have the same name. The
//! property `category` or `task_kind` names its category.

use std::collections::BTreeMap;

use pinrail_proto::v1;
use roxmltree::{Document, Node};
use v1::EvalOutcome as Outcome;

use super::trial::{Score, Trial, contents, results};
use super::{Format, ImportError, Imported, add_up};

/// What the one metric of these files is called.
const METRIC: &str = "test";

pub(super) fn xml(text: &[u8]) -> Result<Imported, ImportError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| ImportError::Broken(format!("it is no UTF-8: {error}")))?;
    let document = Document::parse(text.trim_start_matches('\u{feff}'))
        .map_err(|error| ImportError::Broken(format!("it is no XML: {error}")))?;
    let root = document.root_element();
    if !matches!(root.tag_name().name(), "testsuites" | "testsuite") {
        let message =
            format!("XML that begins with <{}>, not <testsuites>", root.tag_name().name());
        return Err(ImportError::Unknown(message));
    }
    for suite in root.descendants().filter(|node| node.has_tag_name("testsuite")) {
        // Suites that hold suites sum them up, or do not, as their tool likes.
        if !suite.children().any(|child| child.has_tag_name("testsuite")) {
            check(suite)?;
        }
    }
    let cases: Vec<Node<'_, '_>> =
        root.descendants().filter(|node| node.has_tag_name("testcase")).collect();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        *names.entry(case.attribute("name").unwrap_or_default()).or_default() += 1;
    }
    let judged = cases.iter().filter(|case| !has(**case, "skipped"));
    let trials: Vec<Trial> = judged.map(|case| trial(*case, &names)).collect();
    let skipped = cases.len() - trials.len();
    Ok(Imported {
        format: Format::Junit,
        tool: root.attribute("name").unwrap_or("junit").to_owned(),
        metrics: vec![v1::EvalMetric {
            name: METRIC.to_owned(),
            kind: v1::MetricKind::Structured.into(),
        }],
        contents: contents(&trials),
        results: results(trials),
        notes: match skipped {
            0 => Vec::new(),
            skipped => vec![format!("{skipped} skipped cases are left out")],
        },
    })
}

/// Holds the counts of a suite against its cases.
fn check(suite: Node<'_, '_>) -> Result<(), ImportError> {
    let cases = || suite.children().filter(|child| child.has_tag_name("testcase"));
    let says = |attribute: &str| suite.attribute(attribute).and_then(|it| it.trim().parse().ok());
    let with = |tag: &'static str| cases().filter(|case| has(*case, tag)).count();
    add_up("tests", says("tests"), cases().count())?;
    add_up("failures", says("failures"), with("failure"))?;
    add_up("errors", says("errors"), with("error"))
}

fn has(case: Node<'_, '_>, tag: &str) -> bool {
    case.children().any(|child| child.has_tag_name(tag))
}

fn trial(case: Node<'_, '_>, names: &BTreeMap<&str, usize>) -> Trial {
    let said = |tag: &str| case.children().find(|child| child.has_tag_name(tag)).map(said);
    let (outcome, message) = match (said("failure"), said("error")) {
        (Some(message), _) => (Outcome::Failed, message),
        (None, Some(message)) => (Outcome::Error, message),
        (None, None) => (Outcome::Passed, String::new()),
    };
    let name = case.attribute("name").unwrap_or_default();
    let is_shared = names.get(name).is_some_and(|count| *count > 1);
    let id = property(case, "example_id").map(str::to_owned).unwrap_or_else(|| {
        match case.attribute("classname") {
            Some(class) if is_shared => format!("{class}.{name}"),
            Some(_) | None => name.to_owned(),
        }
    });
    let category = property(case, "category").or_else(|| property(case, "task_kind"));
    let seconds: Option<f64> = case.attribute("time").and_then(|time| time.parse().ok());
    let score = (outcome != Outcome::Error).then(|| Score {
        metric: METRIC.to_owned(),
        passed: Some(outcome == Outcome::Passed),
        score: None,
    });
    Trial {
        category: category.unwrap_or_default().to_owned(),
        scores: score.into_iter().collect(),
        message,
        latency_ms: seconds.unwrap_or(0.0) * 1_000.0,
        ..Trial::new(id, outcome)
    }
}

fn said(node: Node<'_, '_>) -> String {
    let text = node.attribute("message").or_else(|| node.text()).unwrap_or_default();
    text.trim().to_owned()
}

fn property<'a>(case: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let properties = case.children().filter(|child| child.has_tag_name("properties"));
    let all = properties.flat_map(|it| it.children().collect::<Vec<_>>());
    let mut named = all.filter(|it| it.attribute("name") == Some(name));
    named.find_map(|it| it.attribute("value")).filter(|value| !value.is_empty())
}
