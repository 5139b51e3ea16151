//! A release's report for people, as Markdown. Pure: the same report gives the same text.

use std::collections::BTreeSet;
use std::time::Duration;

use pinrail_proto::time::{millis, timestamp_millis};
use pinrail_proto::{json, v1};
use prost_types::Timestamp;

/// The whole page.
pub(super) fn of(report: &v1::ReleaseReport) -> String {
    let release = report.release.clone().unwrap_or_default();
    let mut page = Page::default();
    head(&mut page, report, &release);
    timeline(&mut page, &release);
    verdicts(&mut page, &release);
    changes(&mut page, report);
    metrics(&mut page, report);
    firings(&mut page, report);
    evals(&mut page, report);
    costs(&mut page, report);
    cannot_undo(&mut page, report, &release);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    fn title(&mut self, text: &str) {
        self.line(format!("\n## {text}\n"));
    }

    fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) {
        self.line(format!("| {} |", head.join(" | ")));
        self.line(format!("|{}", "---|".repeat(head.len())));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
            self.line(format!("| {} |", cells.join(" | ")));
        }
    }
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn at(time: Option<&Timestamp>) -> String {
    time.map_or_else(String::new, json::rfc3339)
}

fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

fn latency(duration: Option<&prost_types::Duration>) -> String {
    duration.and_then(millis).map_or_else(|| "-".to_owned(), span)
}

fn money(micros: u64, currency: &str) -> String {
    format!("{}.{:06} {currency}", micros / 1_000_000, micros % 1_000_000)
}

/// `2.5 %` of 25 in a thousand.
fn permille(part: u64, whole: u64) -> String {
    let permille = part.saturating_mul(1_000).checked_div(whole).unwrap_or(0);
    format!("{}.{} %", permille / 10, permille % 10)
}

fn state(release: &v1::Release) -> String {
    word(release.state().as_str_name(), "RELEASE_STATE_")
}

fn head(page: &mut Page, report: &v1::ReleaseReport, release: &v1::Release) {
    let (id, agent, bundle) = (&release.release_id, &release.agent_id, &release.bundle_id);
    page.line(format!("# Release {id} of {agent}: {bundle}\n"));
    let end = match release.end_reason.as_str() {
        "" => String::new(),
        why => format!(": {why}"),
    };
    page.line(format!("**{}**{}\n", state(release), cell(&end)));
    let until = release.ended_at.as_ref().or(report.as_of.as_ref());
    let took =
        timestamp_millis(until).saturating_sub(timestamp_millis(release.started_at.as_ref()));
    let mut rows = vec![
        vec!["candidate".to_owned(), bundle.clone()],
        vec!["baseline".to_owned(), or_none(&release.baseline_bundle_id)],
        vec!["started".to_owned(), at(release.started_at.as_ref())],
        vec!["switched".to_owned(), or_none(&at(release.switched_at.as_ref()))],
        vec!["ended".to_owned(), or_none(&at(release.ended_at.as_ref()))],
        vec!["took".to_owned(), span(took)],
        vec!["by".to_owned(), or_none(&release.actor)],
        vec!["reason".to_owned(), or_none(&release.reason)],
        vec!["policy revision".to_owned(), release.policy_revision.to_string()],
    ];
    if release.by_hand {
        rows.push(vec!["procedure".to_owned(), "switched by hand".to_owned()]);
    }
    page.table(&["", ""], rows);
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn timeline(page: &mut Page, release: &v1::Release) {
    page.title("Timeline");
    let row = |it: &v1::Transition| {
        let name = |state: v1::ReleaseState| word(state.as_str_name(), "RELEASE_STATE_");
        let to = if it.from() == it.to() || it.from() == v1::ReleaseState::Unspecified {
            name(it.to())
        } else {
            format!("{} → {}", name(it.from()), name(it.to()))
        };
        let (actor, why) = (or_none(&it.actor), or_none(&it.reason));
        vec![at(it.at.as_ref()), it.what.clone(), to, actor, why, it.revision.to_string()]
    };
    let head = ["when", "what", "state", "who", "why", "revision"];
    page.table(&head, release.transitions.iter().map(row).collect());
}

fn verdicts(page: &mut Page, release: &v1::Release) {
    page.title("Verdicts");
    let row = |gate: &v1::Gate| {
        let mut verdict = word(gate.verdict().as_str_name(), "VERDICT_");
        if !gate.overridden_by.is_empty() {
            verdict.push_str(&format!(", passed over by {}", gate.overridden_by));
        }
        let took = timestamp_millis(gate.decided_at.as_ref())
            .checked_sub(timestamp_millis(gate.started_at.as_ref()));
        let took = took.filter(|_| gate.decided_at.is_some()).map_or_else(|| "-".to_owned(), span);
        vec![
            word(gate.stage().as_str_name(), "STAGE_"),
            word(gate.mode().as_str_name(), "STAGE_MODE_"),
            verdict,
            gate.attempt.to_string(),
            took,
            or_none(&gate.reason),
        ]
    };
    let head = ["stage", "mode", "verdict", "attempt", "took", "why"];
    page.table(&head, release.gates.iter().map(row).collect());
    for gate in release.gates.iter().filter(|gate| has_evidence(&gate.evidence)) {
        let stage = word(gate.stage().as_str_name(), "STAGE_");
        evidence(page, &format!("Evidence of {stage}"), &gate.evidence);
    }
}

fn has_evidence(text: &str) -> bool {
    !matches!(text, "" | "{}" | "null")
}

fn evidence(page: &mut Page, title: &str, text: &str) {
    let pretty = serde_json::from_str::<serde_json::Value>(text)
        .and_then(|value| serde_json::to_string_pretty(&value));
    page.line(format!("\n<details><summary>{title}</summary>\n\n```json"));
    page.line(pretty.unwrap_or_else(|_| text.to_owned()));
    page.line("```\n\n</details>");
}

fn changes(page: &mut Page, report: &v1::ReleaseReport) {
    if report.changes.is_empty() {
        return;
    }
    page.title("What changed");
    let row = |it: &v1::PartChange| {
        let kind = word(it.kind().as_str_name(), "CHANGE_KIND_");
        let (before, after) = (or_none(&it.before), or_none(&it.after));
        vec![it.part.clone(), or_none(&it.name), kind, before, after]
    };
    let head = ["part", "name", "change", "before", "after"];
    page.table(&head, report.changes.iter().map(row).collect());
}

fn metrics(page: &mut Page, report: &v1::ReleaseReport) {
    page.title("Metrics");
    let sides: Vec<&v1::Cohort> = report.candidate.iter().chain(&report.baseline).collect();
    let of = |name: &str, value: &dyn Fn(&v1::Cohort) -> String| {
        std::iter::once(name.to_owned()).chain(sides.iter().map(|side| value(side))).collect()
    };
    let ended = |side: &v1::Cohort| side.completed + side.failed;
    let rows = vec![
        of("since", &|it| at(it.since.as_ref())),
        of("until", &|it| at(it.until.as_ref())),
        of("completed runs", &|it| it.completed.to_string()),
        of("failed runs", &|it| format!("{} ({})", it.failed, permille(it.failed, ended(it)))),
        of("cancelled runs", &|it| it.cancelled.to_string()),
        of("p50 latency", &|it| latency(it.p50.as_ref())),
        of("p95 latency", &|it| latency(it.p95.as_ref())),
        of("cost", &|it| money(it.cost_micros, &report.currency)),
        of("cost per completed run", &|it| {
            money(it.cost_micros / it.completed.max(1), &report.currency)
        }),
        of("mean score", &|it| match it.scored {
            0 => "-".to_owned(),
            n => format!(
                "{}.{:03} ({n} scored)",
                it.score_permille / 1_000,
                it.score_permille % 1_000
            ),
        }),
    ];
    let names = sides.iter().map(|side| side.bundle_id.as_str());
    let head: Vec<&str> = std::iter::once("").chain(names).collect();
    page.table(&head, rows);
}

fn firings(page: &mut Page, report: &v1::ReleaseReport) {
    if report.firings.is_empty() {
        return;
    }
    page.title("Signals that fired");
    let row = |it: &v1::Firing| {
        vec![
            at(it.fired_at.as_ref()),
            word(it.signal().as_str_name(), "SIGNAL_KIND_"),
            word(it.phase().as_str_name(), "STAGE_"),
            it.summary.clone(),
            it.action.clone(),
            or_none(&at(it.cleared_at.as_ref())),
            or_none(&it.acked_by),
        ]
    };
    let head = ["when", "signal", "phase", "seen", "led to", "clean again", "acknowledged by"];
    page.table(&head, report.firings.iter().map(row).collect());
    for it in report.firings.iter().filter(|it| has_evidence(&it.evidence)) {
        let signal = word(it.signal().as_str_name(), "SIGNAL_KIND_");
        let title = format!("Evidence of {signal}, {}", at(it.fired_at.as_ref()));
        evidence(page, &title, &it.evidence);
    }
}

fn evals(page: &mut Page, report: &v1::ReleaseReport) {
    if report.evals.is_empty() {
        return;
    }
    page.title("Eval reports");
    let row = |it: &v1::EvalReport| {
        let sum = it.summary.clone().unwrap_or_default();
        vec![
            it.bundle_id.clone(),
            it.set.clone(),
            format!(
                "{} ({})",
                sum.passed,
                permille(sum.passed.into(), (sum.passed + sum.failed).into())
            ),
            sum.failed.to_string(),
            sum.errors.to_string(),
            it.source.clone(),
            at(it.created_at.as_ref()),
        ]
    };
    let head = ["bundle", "set", "passed", "failed", "errors", "source", "submitted"];
    page.table(&head, report.evals.iter().map(row).collect());
}

fn costs(page: &mut Page, report: &v1::ReleaseReport) {
    page.title("Cost");
    page.line("By kind of run, over all of each bundle's life.\n");
    let all = || report.candidate_costs.iter().chain(&report.baseline_costs);
    let kinds: BTreeSet<i32> = all().map(|cost| cost.kind).collect();
    let of = |costs: &[v1::Cost], kind: Option<i32>| {
        let of_kind = costs.iter().filter(|cost| kind.is_none_or(|kind| cost.kind == kind));
        money(of_kind.map(|cost| cost.cost_micros).sum(), &report.currency)
    };
    let row = |name: String, kind| {
        vec![name, of(&report.candidate_costs, kind), of(&report.baseline_costs, kind)]
    };
    let mut rows: Vec<Vec<String>> = kinds
        .into_iter()
        .map(|kind| {
            let name = v1::RunKind::try_from(kind).unwrap_or_default();
            row(word(name.as_str_name(), "RUN_KIND_"), Some(kind))
        })
        .collect();
    rows.push(row("total".to_owned(), None));
    page.table(&["kind", "candidate", "baseline"], rows);
}

fn cannot_undo(page: &mut Page, report: &v1::ReleaseReport, release: &v1::Release) {
    let (candidate, baseline) = (&release.bundle_id, &release.baseline_bundle_id);
    let is_back = release.state() == v1::ReleaseState::RolledBack;
    page.title(if is_back {
        "What the rollback did not undo"
    } else {
        "What a rollback could not undo"
    });
    let mut lines = Vec::new();
    for it in &report.side_effects {
        let class = word(it.class().as_str_name(), "SIDE_EFFECTS_");
        lines.push(format!(
            "- {} calls of the tool `{}` ({class}) by {candidate}",
            it.calls, it.tool
        ));
    }
    if report.memory_keys > 0 {
        let keys = report.memory_keys;
        let command = "memory promote";
        lines.push(format!(
            "- {keys} keys of memory that {candidate} wrote: a rollback hides them; `pinrail {command}` carries them over"
        ));
    }
    if report.late_writes > 0 {
        let writes = report.late_writes;
        lines.push(format!(
            "- {writes} writes to the memory of {baseline} behind the switch, which {candidate} does not see"
        ));
    }
    if lines.is_empty() {
        page.line("Nothing that was reported.");
    }
    lines.iter().for_each(|line| page.line(line));
}

#[cfg(test)]
mod tests {
    use pinrail_proto::time::{duration, timestamp};

    use super::*;

    fn report() -> v1::ReleaseReport {
        let gate = v1::Gate {
            stage: v1::Stage::Smoke.into(),
            verdict: v1::Verdict::Pass.into(),
            reason: "1 of 1 cases".to_owned(),
            evidence: "{\"cases\":[1]}".to_owned(),
            ..v1::Gate::default()
        };
        let started = v1::Transition {
            at: timestamp(1_000),
            to: v1::ReleaseState::Preparing.into(),
            what: "started".to_owned(),
            reason: "a | b\nc".to_owned(),
            ..v1::Transition::default()
        };
        let cohort = |bundle: &str| v1::Cohort {
            bundle_id: bundle.to_owned(),
            completed: 95,
            failed: 5,
            p95: Some(duration(1_200)),
            cost_micros: 2_500_000,
            ..v1::Cohort::default()
        };
        v1::ReleaseReport {
            release: Some(v1::Release {
                agent_id: "support".to_owned(),
                release_id: "r7".to_owned(),
                bundle_id: "v42".to_owned(),
                baseline_bundle_id: "v41".to_owned(),
                state: v1::ReleaseState::RolledBack.into(),
                gates: vec![gate],
                transitions: vec![started],
                started_at: timestamp(1_000),
                ended_at: timestamp(61_000),
                ..v1::Release::default()
            }),
            candidate: Some(cohort("v42")),
            baseline: Some(cohort("v41")),
            side_effects: vec![v1::SideEffect {
                tool: "refund".to_owned(),
                class: v1::SideEffects::Destructive.into(),
                calls: 3,
            }],
            memory_keys: 2,
            currency: "EUR".to_owned(),
            ..v1::ReleaseReport::default()
        }
    }

    #[test]
    fn the_page_has_timeline_verdicts_metrics_and_what_was_not_undone() {
        let page = of(&report());
        for part in [
            "# Release r7 of support: v42\n",
            "**rolled_back**",
            "| took | 1m |",
            "| 1970-01-01T00:00:01.000Z | started | preparing | - | a \\| b c | 0 |",
            "| smoke | unspecified | pass | 0 | - | 1 of 1 cases |",
            "\"cases\": [",
            "|  | v42 | v41 |",
            "| failed runs | 5 (5.0 %) | 5 (5.0 %) |",
            "| p95 latency | 1s 200ms | 1s 200ms |",
            "| cost | 2.500000 EUR | 2.500000 EUR |",
            "## What the rollback did not undo",
            "- 3 calls of the tool `refund` (destructive) by v42",
            "- 2 keys of memory that v42 wrote",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
    }

    #[test]
    fn one_that_did_nothing_lasting_says_so() {
        let page = of(&v1::ReleaseReport::default());
        assert!(page.contains("Nothing that was reported."), "{page}");
    }
}
