//! What is watched at a moment: the candidate of a release in its canary beside the live bundle of the same time, and behind
//! the switch beside what was frozen at it.

use pinrail_proto::log::{AgentRecord, ReleaseRecord, SliceRecord};
use pinrail_proto::time::{duration, timestamp};
use pinrail_proto::v1::{self, RunKind, SignalMode, SignalState, Stage};

use crate::store::{Fault, Read};
use crate::{bundle, drift, release};

use super::firing::{last_firing, mute};
use super::freeze::frozen;
use super::histogram;
use super::judge::{Seen, judge, slow_ms};
use super::overdue::{Overdue, overdue};
use super::settings::{Rules, WATCHED, Windows};
use super::window::sum;

/// Runs that a bundle serves users with.
pub(crate) const SERVING: [RunKind; 2] = [RunKind::Live, RunKind::Canary];
/// Runs whose scores count.
const SCORED: [RunKind; 3] = [RunKind::Live, RunKind::Canary, RunKind::Shadow];

/// The phase that a release is watched in. None: it has no traffic to be watched, or is over.
pub(crate) fn phase(agent: &AgentRecord, it: &ReleaseRecord) -> Option<Stage> {
    if agent.active_release == it.number && release::is_canary(agent) {
        return Some(Stage::Canary);
    }
    let in_quarantine = agent.quarantine_release == it.number && it.stage() == Stage::Quarantine;
    in_quarantine.then_some(Stage::Quarantine)
}

/// The release in canary first, then the one in quarantine.
pub(crate) fn watched(
    read: &dyn Read,
    agent: &AgentRecord,
    now_ms: u64,
) -> Result<Vec<v1::SignalWatch>, Fault> {
    let mut all = Vec::new();
    for number in [agent.active_release, agent.quarantine_release] {
        let Some(it) = release::find(read, agent.number, number)? else { continue };
        if let Some(phase) = phase(agent, &it) {
            all.push(watch(read, agent, &it, phase, now_ms)?);
        }
    }
    Ok(all)
}

fn watch(
    read: &dyn Read,
    agent: &AgentRecord,
    it: &ReleaseRecord,
    phase: Stage,
    now_ms: u64,
) -> Result<v1::SignalWatch, Fault> {
    let rules = Rules::of(&release::policy(read, agent.number, it.number)?);
    let kinds: &[RunKind] = if phase == Stage::Canary { &[RunKind::Canary] } else { &SERVING };
    // What an earlier release of the same bundle was like says nothing of this one.
    let since = |span_ms: u64| now_ms.saturating_sub(span_ms).max(it.started_ms);
    let since_ms = since(rules.windows.window_ms);
    let (baseline_id, baseline_since_ms, until_ms, baseline) =
        baseline(read, agent, it, phase, (since_ms, now_ms))?;
    let overdue = match slow_ms(&baseline, &rules) {
        Some(limit_ms) => overdue(read, agent.number, (&it.bundle_id, kinds), limit_ms, now_ms)?,
        None => Overdue::default(),
    };
    let of_candidate =
        |kinds: &[RunKind], since_ms| sum(read, agent, &it.bundle_id, kinds, since_ms);
    let seen = Seen {
        candidate: of_candidate(kinds, since_ms)?,
        scores: of_candidate(&SCORED, since(rules.windows.scores_ms))?,
        overdue,
        baseline,
        drift: match bundle::find(read, agent.number, &it.bundle_id)? {
            Some(candidate) => drift::open(read, agent.number, &candidate)?,
            None => None,
        },
    };
    let mut candidate = cohort(&it.bundle_id, (since_ms, now_ms), &seen.candidate);
    candidate.overdue = seen.overdue.runs();
    candidate.cost_micros = candidate.cost_micros.saturating_add(seen.overdue.cost_micros);
    rate(&mut candidate, &seen.scores);
    Ok(v1::SignalWatch {
        release_id: release::id(it.number),
        bundle_id: it.bundle_id.clone(),
        baseline_bundle_id: baseline_id.clone(),
        phase: phase.into(),
        candidate: Some(candidate),
        baseline: Some(cohort(&baseline_id, (baseline_since_ms, until_ms), &seen.baseline)),
        readings: readings(read, agent, it, (phase, &rules), &seen, now_ms)?,
    })
}

/// The bundle that the candidate is compared with, of what time, and what its runs were like then.
fn baseline(
    read: &dyn Read,
    agent: &AgentRecord,
    it: &ReleaseRecord,
    phase: Stage,
    (since_ms, now_ms): (u64, u64),
) -> Result<(String, u64, u64, SliceRecord), Fault> {
    if phase == Stage::Canary {
        let live = &agent.live_bundle_id;
        let sum = sum(read, agent, live, &[RunKind::Live], since_ms)?;
        return Ok((live.clone(), since_ms, now_ms, sum));
    }
    let frozen = frozen(read, agent.number, it.number)?.unwrap_or_default();
    let sum = frozen.sum.unwrap_or_default();
    Ok((frozen.bundle_id, frozen.since_ms, frozen.until_ms, sum))
}

fn readings(
    read: &dyn Read,
    agent: &AgentRecord,
    it: &ReleaseRecord,
    (phase, rules): (Stage, &Rules),
    seen: &Seen,
    now_ms: u64,
) -> Result<Vec<v1::SignalReading>, Fault> {
    let mut all = Vec::new();
    for signal in WATCHED {
        let mut reading = judge(signal, seen, rules);
        let mode = rules.mode(signal, phase);
        reading.set_mode(mode);
        if mode == SignalMode::Off {
            reading.set_state(SignalState::Off);
        }
        if let Some(mute) = mute(read, agent.number, signal, now_ms)? {
            reading.muted_until = timestamp(mute.until_ms);
            reading.mute_reason = mute.reason;
        }
        reading.firing = last_firing(read, agent, it, signal)?;
        all.push(reading);
    }
    Ok(all)
}

/// What a bundle's runs that serve users are like at present.
pub(crate) fn present(
    read: &dyn Read,
    agent: &AgentRecord,
    bundle_id: &str,
    now_ms: u64,
) -> Result<v1::Cohort, Fault> {
    let windows = Windows::of_agent(agent);
    let since_ms = now_ms.saturating_sub(windows.window_ms);
    let serving = sum(read, agent, bundle_id, &SERVING, since_ms)?;
    let scores_since_ms = now_ms.saturating_sub(windows.scores_ms);
    let scores = sum(read, agent, bundle_id, &SCORED, scores_since_ms)?;
    let mut cohort = cohort(bundle_id, (since_ms, now_ms), &serving);
    rate(&mut cohort, &scores);
    Ok(cohort)
}

/// The API's view of what was counted.
pub(crate) fn cohort(bundle_id: &str, (since, until): (u64, u64), it: &SliceRecord) -> v1::Cohort {
    let quantile = |permille| histogram::quantile(&it.latency, permille).map(duration);
    let mut cohort = v1::Cohort {
        bundle_id: bundle_id.to_owned(),
        since: timestamp(since),
        until: timestamp(until),
        completed: it.completed,
        failed: it.failed,
        cancelled: it.cancelled,
        overdue: 0,
        p50: quantile(500),
        p95: quantile(950),
        cost_micros: it.cost_micros,
        scored: 0,
        score_permille: 0,
    };
    rate(&mut cohort, it);
    cohort
}

fn rate(cohort: &mut v1::Cohort, scores: &SliceRecord) {
    cohort.scored = scores.scored;
    let mean = scores.score_sum_permille / scores.scored.max(1);
    cohort.score_permille = u32::try_from(mean).unwrap_or(u32::MAX);
}
