//! A scenario's report as a page in Markdown.

use std::fmt::Write as _;

use super::{Report, ms};
use crate::history::Evidence;

/// What ran, what came of it, and each fault with the time to the next acknowledged write.
pub(super) fn markdown(name: &str, report: &Report, evidence: &Evidence) -> String {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let verdict = if report.passed() { "passed" } else { "FAILED" };
    let mut page = format!(
        "# {name}: {verdict}\n\n`chaos {}`\n\n![availability over time]({name}.svg)\n\n```text\n{report}```\n",
        command.join(" ")
    );
    if evidence.faults.is_empty() {
        return page;
    }
    page.push_str(
        "\n| fault | on | at | lasted | next acknowledged write |\n|---|---|---|---|---|\n",
    );
    let begin = evidence.history.iter().map(|entry| entry.invoked_us).min().unwrap_or_default();
    for fault in &evidence.faults {
        let next = fault.effective_us.and_then(|at| evidence.next_acked_write(at));
        let _ = writeln!(
            page,
            "| {:?} | {:?} | {} ms | {} ms | {} |",
            fault.kind,
            fault.nodes,
            ms(fault.injected_us.saturating_sub(begin)),
            ms(fault.healed_us.saturating_sub(fault.injected_us)),
            next.map_or_else(|| "none".to_owned(), |us| format!("{} ms later", ms(us)))
        );
    }
    page
}
