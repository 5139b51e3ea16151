//! Pairs for people: those of a release, and one side by side. They are compared anew as they are read, by what the release
//! froze.

use pinrail_proto::log::RunRecord;
use pinrail_proto::time::duration;
use pinrail_proto::v1::{self, Compare, PairState, ShadowGate, Stage};
use pinrail_proto::{limits, reason};
use pinrail_state_machine::outcome::{Stop, reject};
use pinrail_state_machine::query::{self, MIRROR_OF};
use pinrail_state_machine::store::{Fault, Read};

use super::pair::{self, Judged, Stands};
use super::{mirror, opinion, prefix_of};

/// Mirrored runs that one page looks at; it may be short because of it.
const EXAMINED: usize = 2_000;

/// The shadow stage of a release.
struct Shadow {
    release_id: String,
    /// The agent's number.
    agent: u32,
    prefix: String,
    gate: ShadowGate,
}

impl Shadow {
    fn find(read: &dyn Read, namespace: &str, agent: &str, release: &str) -> Result<Self, Stop> {
        let release = query::release(read, namespace, agent, release)?;
        let stage = release.gates.iter().find(|gate| gate.stage() == Stage::Shadow);
        let attempt = stage.map_or(0, |gate| gate.attempt);
        let gates = release.policy.and_then(|policy| policy.gates).unwrap_or_default();
        Ok(Self {
            agent: query::agent_number(read, namespace, agent)?,
            prefix: prefix_of(namespace, agent, &release.release_id, attempt),
            gate: gates.shadow.unwrap_or_default(),
            release_id: release.release_id,
        })
    }

    fn pair(&self, read: &dyn Read, shadow: &RunRecord) -> Result<v1::ShadowPair, Fault> {
        let live_id = shadow.labels.get(MIRROR_OF).cloned().unwrap_or_default();
        let live = query::run_record(read, self.agent, &live_id)?;
        let (state, why) = match pair::judge(read, self.agent, shadow, &self.gate)? {
            Stands::Open | Stands::AwaitsJudge(_) => (PairState::Open, String::new()),
            Stands::Compared(Judged::Same) => (PairState::Same, String::new()),
            Stands::Compared(Judged::Diverged { why, .. }) => (PairState::Diverged, why),
            Stands::Compared(Judged::NotComparable { why }) => (PairState::NotComparable, why),
        };
        let judged = self.gate.compare() == Compare::Judge;
        let judge_run_id = opinion::run_id(&shadow.run_id);
        let judge = judged && query::run_record(read, self.agent, &judge_run_id)?.is_some();
        let took = |run: &RunRecord| {
            (run.ended_ms != 0).then(|| duration(run.ended_ms.saturating_sub(run.pinned_ms)))
        };
        Ok(v1::ShadowPair {
            live_run_id: live_id,
            shadow_run_id: shadow.run_id.clone(),
            state: state.into(),
            why,
            live_state: live.as_ref().map_or(0, |live| live.state),
            shadow_state: shadow.state,
            live_took: live.as_ref().and_then(took),
            shadow_took: took(shadow),
            live_cost_micros: live.as_ref().map_or(0, pair::cost_of),
            shadow_cost_micros: pair::cost(read, self.agent, shadow, &self.gate)?,
            judge_run_id: if judge { judge_run_id } else { String::new() },
        })
    }

    fn side(&self, read: &dyn Read, run: &RunRecord) -> Result<v1::PairSide, Fault> {
        Ok(v1::PairSide {
            run_id: run.run_id.clone(),
            bundle_id: run.bundle_id.clone(),
            state: run.state,
            output: query::run_output(read, self.agent, &run.run_id)?,
            failure: run.failure.clone(),
            tools: query::trajectory(read, self.agent, &run.run_id)?,
            usage: run.usage.clone(),
        })
    }
}

/// A page of pairs. The revision is for the caller to fill in.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RELEASE_NOT_FOUND`.
pub(crate) fn list(
    read: &dyn Read,
    it: &v1::ListShadowPairsRequest,
) -> Result<v1::ListShadowPairsResponse, Stop> {
    let shadow = Shadow::find(read, &it.namespace, &it.agent_id, &it.release_id)?;
    let size = match it.page_size {
        0 => limits::PAGE_DEFAULT,
        asked => asked.min(limits::PAGE),
    } as usize;
    let runs = query::runs_named(read, shadow.agent, &shadow.prefix, &it.page_token, EXAMINED)?;
    let looked_at = runs.len();
    let (mut pairs, mut last, mut seen) = (Vec::new(), String::new(), 0);
    for run in runs {
        if pairs.len() == size {
            break;
        }
        seen += 1;
        last.clone_from(&run.run_id);
        let pair = shadow.pair(read, &run)?;
        if it.state() == PairState::Unspecified || it.state() == pair.state() {
            pairs.push(pair);
        }
    }
    let more = seen < looked_at || looked_at == EXAMINED;
    Ok(v1::ListShadowPairsResponse {
        release_id: shadow.release_id,
        compare: shadow.gate.compare,
        pairs,
        next_page_token: if more { last } else { String::new() },
        revision: 0,
    })
}

/// One pair, by the mirror's or by the live run's id. The revision is for the caller to fill in.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RELEASE_NOT_FOUND`; `RUN_NOT_FOUND` where the run was not mirrored in the release, or is forgotten.
pub(crate) fn show(
    read: &dyn Read,
    it: &v1::GetShadowPairRequest,
) -> Result<v1::GetShadowPairResponse, Stop> {
    let shadow = Shadow::find(read, &it.namespace, &it.agent_id, &it.release_id)?;
    let mirror_id = if it.run_id.starts_with(&shadow.prefix) {
        it.run_id.clone()
    } else {
        mirror::run_id(&shadow.prefix, &it.run_id)
    };
    let Some(run) = query::run_record(read, shadow.agent, &mirror_id)? else {
        let message = format!("{} is of no pair of {}", it.run_id, shadow.release_id);
        return Err(reject(reason::RUN_NOT_FOUND, message));
    };
    let pair = shadow.pair(read, &run)?;
    let live = query::run_record(read, shadow.agent, &pair.live_run_id)?;
    Ok(v1::GetShadowPairResponse {
        release_id: shadow.release_id.clone(),
        compare: shadow.gate.compare,
        input: query::run_input(read, shadow.agent, &mirror_id)?,
        live: live.map(|live| shadow.side(read, &live)).transpose()?,
        shadow: Some(shadow.side(read, &run)?),
        pair: Some(pair),
        revision: 0,
    })
}
