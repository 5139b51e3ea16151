//! Shadow: live runs are mirrored on the candidate, and pairs that are over are compared.
//!
//! Mirrored runs serve nobody and are first to be shed: they are started behind the live run, at the lowest priority, as
//! long as few enough are open and cost little enough. Nothing of it is in the way of a live run. What was compared is
//! remembered here only to save work: another leader compares again and comes to the same.

mod compare;
mod mirror;
mod opinion;
mod pair;
pub(crate) mod pairs;

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::limits;
use pinrail_proto::log::RunRecord;
use pinrail_proto::v1::{self, Payload, RunKind};
use pinrail_state_machine::query::{self, Attended};
use pinrail_state_machine::store::{Fault, Read};
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::super::Dispatch;
use super::{Finding, propose};
use pair::{Judged, Stands};

/// Pairs that are looked at; far more than a gate asks for.
const MOST: usize = 20_000;
/// Divergent pairs that the evidence names.
const NAMED: usize = 20;
/// How often all mirrored runs are looked for: one whose start was not acknowledged is there all the same.
const AGAIN: Duration = Duration::from_secs(30);

/// What the driver remembers of the shadow stages that are under way.
#[derive(Debug, Default)]
pub(super) struct Shadows(BTreeMap<(u32, u32), Stage>);

/// One stage.
#[derive(Debug, Default)]
struct Stage {
    attempt: u32,
    share_bp: u32,
    /// Pairs that were compared, by the id of the shadow run, and what they cost.
    judged: BTreeMap<String, Judged>,
    judged_micros: u64,
    /// The others.
    open: BTreeSet<String>,
    /// Runs that are under way, of mirrors and of judges; and what the open pairs cost so far.
    running: usize,
    open_micros: u64,
    /// When all of them were looked for last.
    looked: Option<Instant>,
}

/// The text that the ids of all shadow runs of an attempt begin with.
fn prefix(it: &Attended) -> String {
    let release_id = format!("r{}", it.release.number);
    prefix_of(&it.namespace, &it.agent_id, &release_id, it.release.attempt)
}

fn prefix_of(namespace: &str, agent_id: &str, release_id: &str, attempt: u32) -> String {
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    let hash = pinrail_proto::id::agent_hash(namespace, agent_id);
    format!("{hash}-{release_id}.shadow.{attempt}.")
}

fn gate(it: &Attended) -> v1::ShadowGate {
    it.policy.gates.as_ref().and_then(|gates| gates.shadow.clone()).unwrap_or_default()
}

impl Shadows {
    /// Forgets stages that are over.
    pub(super) fn keep(&mut self, agent: u32, all: &[Attended]) {
        let under_way = |number: u32| {
            all.iter()
                .any(|it| it.release.number == number && it.release.stage() == v1::Stage::Shadow)
        };
        self.0.retain(|(of, number), _| *of != agent || under_way(*number));
    }

    /// Whether a release of an agent is at this stage.
    pub(super) fn has(&self, agent: u32) -> bool {
        self.0.range((agent, 0)..=(agent, u32::MAX)).next().is_some()
    }

    fn stage(&mut self, it: &Attended) -> &mut Stage {
        let stage = self.0.entry((it.agent, it.release.number)).or_default();
        if stage.attempt != it.release.attempt {
            let from = gate(it).share_bp.first().copied().unwrap_or(1_000);
            *stage = Stage { attempt: it.release.attempt, share_bp: from, ..Stage::default() };
        }
        stage
    }

    /// Compares what is over, has what needs it judged, and says whether that is enough.
    pub(super) async fn look(&mut self, dispatch: &Dispatch, it: &Attended) -> Finding {
        let gate = gate(it);
        let stage = self.stage(it);
        let again = stage.looked.is_none_or(|at| at.elapsed() >= AGAIN);
        let read = dispatch.inner.replica.read(|read| {
            if again {
                stage.find(read, it, &gate)?;
            }
            stage.compare(read, it.agent, &gate)
        });
        let awaiting = match read {
            Ok(awaiting) => awaiting,
            Err(error) => {
                tracing::warn!(%error, "mirrored runs cannot be read");
                return Finding::Wait("the state cannot be read".to_owned());
            }
        };
        for (shadow_id, input) in awaiting {
            if !stage.has_room(&gate) {
                break;
            }
            propose(dispatch, it, opinion::start(it, &shadow_id, input)).await;
            stage.running += 1;
        }
        stage.raise(it, &gate);
        let workers = dispatch.workers(&it.namespace, &it.agent_id, &it.release.bundle_id);
        let safe = workers.unwrap_or_default().iter().any(|worker| worker.shadow_safe);
        stage.verdict(&gate, safe)
    }
}

impl Stage {
    /// Looks for all mirrored runs: those of an earlier leader too.
    fn find(&mut self, read: &dyn Read, it: &Attended, gate: &v1::ShadowGate) -> Result<(), Fault> {
        self.judged_micros = 0;
        for run in query::runs_named(read, it.agent, &prefix(it), "", MOST)? {
            if self.judged.contains_key(&run.run_id) {
                self.judged_micros += pair::cost(read, it.agent, &run, gate)?;
            } else {
                self.open.insert(run.run_id);
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Compares the open pairs whose runs are over. Answers those that a step has to judge.
    fn compare(
        &mut self,
        read: &dyn Read,
        agent: u32,
        gate: &v1::ShadowGate,
    ) -> Result<Vec<(String, Payload)>, Fault> {
        let mut awaiting = Vec::new();
        (self.running, self.open_micros) = (0, 0);
        for run_id in self.open.clone() {
            let Some(run) = query::run_record(read, agent, &run_id)? else {
                self.open.remove(&run_id);
                continue;
            };
            let cost = pair::cost(read, agent, &run, gate)?;
            match pair::judge(read, agent, &run, gate)? {
                Stands::Compared(judged) => {
                    self.open.remove(&run_id);
                    self.judged.insert(run_id, judged);
                    self.judged_micros += cost;
                    continue;
                }
                Stands::Open => self.running += usize::from(is_running(read, agent, &run)?),
                Stands::AwaitsJudge(input) => awaiting.push((run_id, input)),
            }
            self.open_micros += cost;
        }
        Ok(awaiting)
    }

    fn cost_micros(&self) -> u64 {
        self.judged_micros + self.open_micros
    }

    /// Whether one more run may be started.
    fn has_room(&self, gate: &v1::ShadowGate) -> bool {
        self.running < gate.max_open() as usize && self.cost_micros() < gate.max_cost_micros()
    }

    /// A share that will not bring the pairs in time grows towards all of the live runs.
    fn raise(&mut self, it: &Attended, gate: &v1::ShadowGate) {
        let most = gate.share_bp.last().copied().unwrap_or(limits::WHOLE_BP);
        let whole_ms = it.release.deadline_ms.saturating_sub(it.release.stage_ms).max(1);
        let gone_ms = it.now_ms.saturating_sub(it.release.stage_ms);
        let pairs = (self.judged.len() + self.open.len()) as u64;
        // Pairs that there should be by now, had they come evenly over half of the time.
        let due = u64::from(gate.min_pairs()) * gone_ms * 2 / whole_ms;
        if pairs < due && self.share_bp < most {
            self.share_bp = (self.share_bp * 2).min(most);
        }
    }

    fn verdict(&self, gate: &v1::ShadowGate, safe: bool) -> Finding {
        let mut diverged = Vec::new();
        let (mut same, mut apart) = (0_u64, 0_u64);
        for (run_id, judged) in &self.judged {
            match judged {
                Judged::Same => same += 1,
                Judged::Diverged { live, why } => {
                    diverged.push(json!({ "live": live, "shadow": run_id, "why": why }));
                }
                Judged::NotComparable { .. } => apart += 1,
            }
        }
        let count = diverged.len() as u64;
        let pairs = same + count;
        let permille = (count * 1_000).checked_div(pairs).unwrap_or(0);
        diverged.truncate(NAMED);
        let evidence = json!({
            "pairs": pairs, "min_pairs": gate.min_pairs(), "diverged": count,
            "divergence_permille": permille,
            "max_divergence_permille": gate.max_divergence_permille(),
            "not_comparable": apart, "open": self.open.len(), "share_bp": self.share_bp,
            "cost_micros": self.cost_micros(), "divergent": diverged,
        });
        let needed = u64::from(gate.min_pairs());
        if pairs < needed {
            if !safe {
                return Finding::Wait("no shadow-safe worker".to_owned());
            }
            return Finding::Wait(format!("{pairs} of {needed} pairs"));
        }
        let limit = u64::from(gate.max_divergence_permille());
        let text = format!("{count} of {pairs} pairs differ ({permille} ‰, at most {limit} ‰)");
        if permille <= limit {
            Finding::pass(text, evidence)
        } else {
            Finding::fail(text, evidence)
        }
    }
}

impl Shadows {
    /// Mirrors live runs that have just begun.
    pub(super) async fn mirror(&mut self, dispatch: &Dispatch, agent: u32, began: &[String]) {
        let now_ms = dispatch.inner.replica.cluster_time_ms();
        let all = match dispatch.inner.replica.read(|read| query::attended(read, agent, now_ms)) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(agent, %error, "releases cannot be read");
                return;
            }
        };
        let at_shadow = |it: &&Attended| {
            it.release.stage() == v1::Stage::Shadow
                && it.release.hold() == v1::HoldCause::Unspecified
        };
        let Some(it) = all.iter().find(at_shadow) else { return };
        let gate = gate(it);
        let stage = self.stage(it);
        for run_id in began {
            if !stage.has_room(&gate) {
                return;
            }
            if let Some(mirror) = mirror::start(dispatch, it, run_id, stage.share_bp).await {
                stage.open.insert(mirror);
                stage.running += 1;
            }
        }
    }
}

/// Whether a mirrored run, or the judge of its pair, is under way; a live run that is not over is no concern of the stage.
fn is_running(read: &dyn Read, agent: u32, shadow: &RunRecord) -> Result<bool, Fault> {
    if shadow.ended_ms == 0 {
        return Ok(true);
    }
    let judge = query::run_record(read, agent, &opinion::run_id(&shadow.run_id))?;
    Ok(judge.is_some_and(|judge| judge.ended_ms == 0))
}

/// Whether a run is one that is mirrored.
fn is_mirrored(run: &RunRecord, it: &Attended) -> bool {
    run.kind() == RunKind::Live
        && run.bundle_id == it.release.baseline_bundle_id
        && run.parent_run_id.is_empty()
        && !run.external
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> v1::ShadowGate {
        v1::ShadowGate {
            min_pairs: Some(4),
            max_divergence_permille: Some(250),
            share_bp: vec![1_000, 10_000],
            ..v1::ShadowGate::default()
        }
    }

    fn stage(judged: &[Judged]) -> Stage {
        let judged = (0..).zip(judged).map(|(n, it): (u32, _)| (format!("s{n}"), it.clone()));
        Stage { judged: judged.collect(), share_bp: 1_000, ..Stage::default() }
    }

    fn diverged() -> Judged {
        Judged::Diverged { live: "l".to_owned(), why: "/answer".to_owned() }
    }

    #[test]
    fn pairs_that_cannot_be_compared_count_for_nothing() {
        let apart = Judged::NotComparable { why: "suppressed".to_owned() };
        let said = |pairs: &[Judged], safe| match stage(pairs).verdict(&gate(), safe) {
            Finding::Wait(reason) => reason,
            Finding::Judged { verdict, .. } => format!("{verdict:?}"),
            Finding::Advance { .. } => panic!("a canary"),
        };
        let same = Judged::Same;
        assert_eq!(said(&[], false), "no shadow-safe worker");
        assert_eq!(said(&[same.clone(), apart.clone(), same.clone()], true), "2 of 4 pairs");
        let four = [same.clone(), same.clone(), same.clone(), diverged(), apart];
        assert_eq!(said(&four, true), "Pass");
        assert_eq!(said(&[same.clone(), same, diverged(), diverged()], true), "Fail");
    }

    #[test]
    fn the_share_grows_only_while_pairs_are_late() {
        let release = pinrail_proto::log::ReleaseRecord {
            stage_ms: 1_000,
            deadline_ms: 101_000,
            ..pinrail_proto::log::ReleaseRecord::default()
        };
        let at = |now_ms| Attended {
            namespace: String::new(),
            agent_id: String::new(),
            agent: 1,
            release: release.clone(),
            policy: v1::Policy::default(),
            steps: Vec::new(),
            baseline_pins: 0,
            fires: None,
            now_ms,
        };
        let mut late = stage(&[]);
        late.raise(&at(2_000), &gate());
        assert_eq!(late.share_bp, 1_000, "nothing is due yet");
        late.raise(&at(51_000), &gate());
        assert_eq!(late.share_bp, 2_000);
        for _ in 0..9 {
            late.raise(&at(61_000), &gate());
        }
        assert_eq!(late.share_bp, 10_000);
        let mut early = stage(&[Judged::Same, Judged::Same, Judged::Same, Judged::Same]);
        early.raise(&at(51_000), &gate());
        assert_eq!(early.share_bp, 1_000);
    }
}
