//! What must be true of a whole story and shows in no single state.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::log::Token;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1::{self, Pin, RunState};
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::outcome::{Applied, Stop};
use pinrail_state_machine::query;

use crate::replica::{Replica, reason};

use super::player::AGENTS;

/// What was acknowledged so far.
#[derive(Debug, Default)]
pub(super) struct History {
    /// First pins of runs, while they are kept.
    first_pins: BTreeMap<(String, String), Pin>,
    /// Where a run was last pinned: bundle and revision.
    pinned: BTreeMap<String, (String, u64)>,
    /// Accepted completions: run, revision of its pin, step.
    completed: BTreeSet<(String, u64, u32)>,
    leases: BTreeSet<(u64, u64)>,
    /// States in which runs were closed, with the start that they belong to.
    closed: BTreeMap<(String, u64), RunState>,
    /// What runs that serve no user began with: the revisions of keys.
    began_with: BTreeMap<(String, String), BTreeMap<String, u64>>,
    last_now_ms: u64,
}

impl History {
    /// Checks one command's answer against all before it. The replica has applied it.
    pub(super) fn note(&mut self, replica: &Replica, command: &Command, applied: &Applied) {
        self.time_never_goes_back(replica);
        self.base_stays(replica);
        if let Some(reason) = reason(applied) {
            // One that is would be asked again for ever, and nothing of the agent ends meanwhile.
            assert!(!matches!(command, Command::Tick(_)), "a sweep is refused: {reason}");
            return;
        }
        match command {
            Command::StartRun(it) => {
                let agent = it.agent.clone().unwrap().agent_id;
                let Some(Answer::StartRun(answer)) = &applied.outcome.result else { panic!() };
                let id = (agent.clone(), it.run_id.clone());
                let Some(pin) = answer.pin.clone() else {
                    assert_eq!(
                        answer.state(),
                        if answer.already { answer.state() } else { RunState::Scheduled }
                    );
                    self.first_pins.remove(&id);
                    return self.note_effects(replica, applied);
                };
                if let Some(token) = answer.token {
                    let taker = it.lease_first.clone().unwrap().bundle_id;
                    assert_eq!(taker, pin.bundle_id, "P1: {} went to another bundle", it.run_id);
                    assert_eq!(token.revision, applied.outcome.revision);
                }
                let in_session = pin.reason() == v1::PinReason::Session;
                if in_session && !answer.already {
                    let bundle = query::bundle(replica.read(), "", &agent, &pin.bundle_id).unwrap();
                    assert_ne!(bundle.state(), v1::BundleState::Rejected, "P3: {}", it.run_id);
                }
                if !in_session
                    && it.parent_run_id.is_empty()
                    && it.bundle_id.is_empty()
                    && !answer.already
                {
                    let (live, epoch, _) =
                        query::resolve_route(replica.read(), "", &agent, "").unwrap();
                    assert_eq!((&pin.bundle_id, pin.epoch), (&live, epoch), "P3");
                }
                if pin.memory_revision != 0 && it.parent_run_id.is_empty() && !answer.already {
                    let seen = seen_by(replica, &agent, &it.run_id).unwrap_or_default();
                    let seen = seen.iter().map(|it| (it.key.clone(), it.revision)).collect();
                    self.began_with.insert(id.clone(), seen);
                }
                if answer.already {
                    // A run that began later was first answered without a pin.
                    if let Some(first) = self.first_pins.get(&id) {
                        same_pin(first, &pin);
                    }
                } else {
                    self.first_pins.insert(id, pin);
                }
            }
            Command::LeaseStep(it) => {
                let run_id = it.step.clone().unwrap().run_id;
                let pin = query::pin(replica.read(), "", AGENTS[0], &run_id).unwrap();
                let taker = it.taker.clone().unwrap().bundle_id;
                assert_eq!(taker, pin.bundle_id, "P1: {run_id} went to a worker of another bundle");
            }
            Command::CompleteStep(it) => {
                let step = it.step.clone().unwrap();
                // A first completion ends its own lease; a repeat gets the first one's answer.
                if applied.effects.iter().any(|effect| ended(effect) == it.token) {
                    let pinned = self.pinned[&step.run_id].1;
                    let is_first = self.completed.insert((step.run_id.clone(), pinned, step.step));
                    assert!(is_first, "P2: {} {} was completed twice", step.run_id, step.step);
                }
            }
            _ => {}
        }
        self.note_effects(replica, applied);
    }

    fn note_effects(&mut self, replica: &Replica, applied: &Applied) {
        for effect in &applied.effects {
            self.note_effect(replica, effect);
        }
        self.closed_stays_closed(replica);
    }

    fn note_effect(&mut self, replica: &Replica, effect: &Effect) {
        if let Effect::Leased { step, bundle_id, token, .. } = effect {
            let run = query::run(replica.read(), "", AGENTS[0], &step.run_id).unwrap();
            let pin = run.pin.unwrap();
            assert_eq!(pin.bundle_id, *bundle_id, "P1: {} was leased off its bundle", step.run_id);
            assert!(self.leases.insert((token.incarnation, token.revision)), "P2: token reused");
            let now = (pin.bundle_id, pin.revision);
            let before = self.pinned.insert(step.run_id.clone(), now.clone());
            if let Some(before) = before {
                let is_new_pin = now.1 > before.1;
                assert!(is_new_pin || now == before, "P1: {} moved in silence", step.run_id);
            }
        }
    }

    fn closed_stays_closed(&mut self, replica: &Replica) {
        for agent in AGENTS {
            let filter = query::RunFilter::default();
            let (runs, _) = query::runs(replica.read(), "", agent, &filter, 0, "").unwrap();
            for run in runs {
                let started = run.started_at.map_or(0, |at| at.seconds * 1_000_000_000)
                    + run.started_at.map_or(0, |at| i64::from(at.nanos));
                let id = (run.run_id.clone(), u64::try_from(started).unwrap());
                if let Some(state) = self.closed.get(&id) {
                    assert_eq!(*state, run.state(), "{} was over", run.run_id);
                } else if run.ended_at.is_some() {
                    self.closed.insert(id, run.state());
                }
            }
        }
    }

    /// P8: whatever others write, drop or carry over, such a run sees what it began with, beneath what it wrote.
    fn base_stays(&mut self, replica: &Replica) {
        self.began_with.retain(|(agent, run_id), base| {
            let Ok(seen) = seen_by(replica, agent, run_id) else { return false };
            let seen: BTreeMap<String, (u64, bool)> =
                seen.into_iter().map(|it| (it.key, (it.revision, it.layer == 0))).collect();
            for (key, (revision, is_own)) in &seen {
                let same = base.get(key) == Some(revision);
                assert!(*is_own || same, "P8: {run_id} sees another {key} than it began with");
            }
            for key in base.keys().filter(|key| !seen.contains_key(*key)) {
                let scope = scope_of(run_id);
                let history =
                    query::memory_history(replica.read(), "", agent, Some(&scope), key, 0, "");
                let newest = history.unwrap().versions.into_iter().next();
                let is_own = newest.is_some_and(|newest| newest.layer == 0);
                assert!(is_own, "P8: {run_id} does not see {key} any more");
            }
            true
        });
    }

    fn time_never_goes_back(&mut self, replica: &Replica) {
        let now_ms = query::position(replica.read()).unwrap().now_ms;
        assert!(now_ms >= self.last_now_ms);
        self.last_now_ms = now_ms;
    }
}

fn scope_of(run_id: &str) -> v1::MemoryScope {
    v1::MemoryScope { scope: Some(v1::memory_scope::Scope::RunId(run_id.to_owned())) }
}

/// What a run sees. An error: it was dropped, or the run is forgotten.
fn seen_by(replica: &Replica, agent: &str, run_id: &str) -> Result<Vec<v1::MemoryVersion>, Stop> {
    let scope = scope_of(run_id);
    let read = replica.read();
    let seen = query::memory_list(read, "", agent, Some(&scope), "", 0, false, 0, "")?;
    Ok(seen.versions)
}

/// The token of the lease that an effect says is over.
fn ended(effect: &Effect) -> Option<Token> {
    match effect {
        Effect::LeaseEnded { token, .. } => Some(*token),
        _ => None,
    }
}

/// What a retried start is told of its pin; the ends follow the bundle's drain.
fn same_pin(first: &Pin, again: &Pin) {
    let facts = |pin: &Pin| {
        (pin.bundle_id.clone(), pin.layer, pin.reason, pin.pinned_at, pin.epoch, pin.revision)
    };
    assert_eq!(facts(first), facts(again));
    assert_eq!(first.expires_at, again.expires_at);
}
