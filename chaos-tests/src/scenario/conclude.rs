//! How every scenario ends: the healed cluster must serve, drain, agree and show everything; then the judge speaks.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Load, Nemesis};
use crate::check::judge;
use crate::history::Evidence;
use crate::report::{Keeper, Report};
use crate::worker::read_journals;

/// The healed cluster must serve within this time.
const SERVE: Duration = Duration::from_secs(10);
/// Drains that are not over this long after their bound are the judge's business.
const SLACK: Duration = Duration::from_secs(4);
/// The members must have applied the same within this time.
const AGREE: Duration = Duration::from_secs(30);

/// Settles, reads everything and judges. Fewer than `least_acked` acknowledged calls prove nothing.
///
/// # Errors
/// When the harness failed.
pub(super) async fn conclude(
    mut load: Load,
    mut nemesis: Nemesis,
    keeper: &Keeper,
    least_acked: usize,
) -> Result<Report> {
    let mut problems = Vec::new();
    nemesis.cluster.wait_leader(SERVE).await.context("the healed cluster has no leader")?;
    load.wait_drains(SLACK).await;
    // Workers are taken away first, so that nothing is recorded after it was read.
    let worker_log = match nemesis.workers.take() {
        Some(workers) => read_journals(&workers.stop().await?)?,
        None => Vec::new(),
    };
    let applied = match nemesis.cluster.nodes.agree(AGREE).await {
        Ok(agreed) => agreed.applied_index,
        Err(error) => {
            problems.push(format!("{error:#}"));
            0
        }
    };
    let mut finals = load.final_read(&worker_log).await.context("the final read")?;
    let (watched, late) = load.heard(&mut finals).await.context("the events")?;
    problems.extend(late);
    if let Err(error) = nemesis.cluster.must_run() {
        problems.push(format!("{error:#}"));
    }
    let mut evidence = Evidence {
        history: load.recorder.entries(),
        worker_log,
        faults: load.recorder.faults(),
        finals,
        watched,
        logs: Vec::new(),
    };
    keeper.write("evidence.json", &evidence)?;
    // They lie in the same folder as they are.
    evidence.logs = nemesis.cluster.logs(applied).await.context("the members' logs")?;
    let mut report = Report::of(&evidence, judge(&evidence));
    report.problems.extend(problems);
    let acked = evidence.history.iter().filter(|entry| entry.ok().is_some()).count();
    if acked < least_acked {
        report.harness.push(format!("only {acked} calls were acknowledged"));
    }
    keeper.publish(&report, &evidence)?;
    Ok(report)
}
