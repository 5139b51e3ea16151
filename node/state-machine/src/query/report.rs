//! What a release was, gathered from everything that is kept of it.

use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, CostBy};

use crate::outcome::Stop;
use crate::store::Read;
use crate::{agent as agents, release as releases_of, signal};

use super::cost::{CostFilter, costs};

/// Reports on the eval set of each bundle that are told of.
const EVALS: usize = 3;

/// A release by its id, else the active one, else the newest. Currency and Markdown are for the caller to fill in; the time
/// comes in, for one that goes on.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RELEASE_NOT_FOUND`.
pub fn release_report(
    read: &dyn Read,
    namespace: &str,
    agent_id: &str,
    release_id: &str,
    now_ms: u64,
) -> Result<v1::ReleaseReport, Stop> {
    let release = super::release(read, namespace, agent_id, release_id)?;
    let agent = agents::find(read, namespace, agent_id)?;
    let number = releases_of::number(&release.release_id).unwrap_or(0);
    let record = releases_of::find(read, agent.number, number)?.unwrap_or_default();
    let sum = releases_of::sum(read, &agent, &record, now_ms)?;
    let (candidate_id, baseline_id) = (&release.bundle_id, &release.baseline_bundle_id);
    let changes = match baseline_id.as_str() {
        "" => Vec::new(),
        baseline => super::diff(read, namespace, agent_id, baseline, candidate_id)?,
    };
    let candidate = sum.candidate.unwrap_or_default();
    let baseline = sum.baseline.unwrap_or_default();
    let mut firings = signal::firings(read, agent.number, &record)?;
    firings.sort_by_key(|firing| firing.revision);
    let costs_of = |bundle_id: &str| match bundle_id {
        "" => Ok(Vec::new()),
        id => {
            let filter = CostFilter { by: CostBy::Kind, bundle_id: id.to_owned() };
            costs(read, namespace, agent_id, &filter, 0, "").map(|costs| costs.costs)
        }
    };
    let side_effect = |it: &pinrail_proto::log::EffectCount| v1::SideEffect {
        tool: it.tool.clone(),
        class: it.class,
        calls: it.calls,
    };
    Ok(v1::ReleaseReport {
        changes,
        candidate: Some(signal::cohort(
            candidate_id,
            (record.started_ms, sum.until_ms),
            &candidate,
        )),
        baseline: (!baseline_id.is_empty()).then(|| {
            let of = (sum.baseline_since_ms, sum.baseline_until_ms);
            signal::cohort(baseline_id, of, &baseline)
        }),
        firings,
        evals: evals(read, agent.number, &release)?,
        candidate_costs: costs_of(candidate_id)?,
        baseline_costs: costs_of(baseline_id)?,
        side_effects: sum.effects.iter().map(side_effect).collect(),
        memory_keys: sum.memory_keys,
        late_writes: sum.late_writes,
        as_of: timestamp(sum.until_ms),
        release: Some(release),
        ..v1::ReleaseReport::default()
    })
}

/// Reports on the policy's set, of the candidate first.
fn evals(read: &dyn Read, agent: u32, release: &v1::Release) -> Result<Vec<v1::EvalReport>, Stop> {
    let gates = release.policy.as_ref().and_then(|policy| policy.gates.as_ref());
    let set = gates.and_then(|gates| gates.evals.as_ref()).map_or("", |gate| gate.set.as_str());
    let mut found = Vec::new();
    for bundle in [&release.bundle_id, &release.baseline_bundle_id] {
        if set.is_empty() || bundle.is_empty() {
            continue;
        }
        let reports = super::eval_gate::reports(read, agent, bundle)?;
        found.extend(reports.into_iter().filter(|report| report.set == set).take(EVALS));
    }
    Ok(found)
}
