//! Signals: how the candidates that are watched stand, and what fires or is clean again. The state has all of the numbers;
//! this looks at them from time to time, so that a look costs little beside the runs that it is about.

use std::collections::BTreeMap;

use pinrail_proto::json;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{ClearSignal, FireSignal};
use pinrail_proto::time::{millis, timestamp_millis};
use pinrail_proto::v1::{self, SignalMode, SignalState, Stage};
use pinrail_state_machine::query::{self, Attended};
use tokio::time::{Duration, Instant};

use super::super::Dispatch;
use super::{propose, propose_because};

/// A window is looked at so often while it passes by once.
const LOOKS: u32 = 60;
/// No more often than this, and no less.
const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(10);
/// A signal that fired is not clean again before this part of its window is over: it would only come back.
const PART: u64 = 10;

/// What was seen of each agent last.
#[derive(Debug, Default)]
pub(super) struct Watching {
    agents: BTreeMap<u32, Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    watches: Vec<v1::SignalWatch>,
}

impl Watching {
    /// How the signals of a release stood a moment ago. None: it is not watched, or was not looked at yet.
    pub(super) fn of(&self, it: &Attended) -> Option<&v1::SignalWatch> {
        let seen = self.agents.get(&it.agent)?;
        let release_id = format!("r{}", it.release.number);
        seen.watches.iter().find(|watch| watch.release_id == release_id)
    }

    pub(super) fn forget(&mut self, agent: u32) {
        self.agents.remove(&agent);
    }

    /// Looks at an agent's signals when it is time, and says what fires and what is clean again. True: something was said,
    /// so what is known of the releases may be old.
    pub(super) async fn look(&mut self, dispatch: &Dispatch, agent: u32, all: &[Attended]) -> bool {
        let now = Instant::now();
        let every = all.iter().map(every).min().unwrap_or(MOST);
        // A canary keeps its traffic while somebody is waited for before the switch.
        let is_watched = all.iter().any(|it| {
            matches!(it.release.stage(), Stage::Canary | Stage::Switch | Stage::Quarantine)
        });
        let is_early = self.agents.get(&agent).is_some_and(|seen| now < seen.at + every);
        if !is_watched || is_early {
            return false;
        }
        let now_ms = dispatch.inner.replica.cluster_time_ms();
        let watches =
            dispatch.inner.replica.read(|read| query::signal_watches(read, agent, now_ms));
        let watches = match watches {
            Ok(watches) => watches,
            Err(error) => {
                tracing::warn!(agent, %error, "signals cannot be read");
                return false;
            }
        };
        let mut said = false;
        for watch in &watches {
            let Some(it) = all.iter().find(|it| is_of(watch, it)) else { continue };
            for reading in &watch.readings {
                said |= say(dispatch, it, watch, reading).await;
            }
        }
        self.agents.insert(agent, Seen { at: now, watches });
        said
    }
}

fn is_of(watch: &v1::SignalWatch, it: &Attended) -> bool {
    watch.release_id == format!("r{}", it.release.number)
}

fn every(it: &Attended) -> Duration {
    let window = it.policy.signals.as_ref().and_then(|signals| signals.window.as_ref());
    let window = Duration::from_millis(window.and_then(millis).unwrap_or(600_000));
    (window / LOOKS).clamp(LEAST, MOST)
}

/// What is to be done about a reading.
#[derive(Debug, PartialEq, Eq)]
enum Todo {
    Nothing,
    Fire,
    Clear,
}

fn todo(watch: &v1::SignalWatch, reading: &v1::SignalReading) -> Todo {
    let acts = matches!(reading.mode(), SignalMode::Rollback | SignalMode::Notify);
    let Some(firing) = &reading.firing else {
        let fires = reading.state() == SignalState::Firing;
        return if acts && fires && reading.muted_until.is_none() {
            Todo::Fire
        } else {
            Todo::Nothing
        };
    };
    let ms = |at: Option<&prost_types::Timestamp>| timestamp_millis(at);
    let seen = watch.candidate.clone().unwrap_or_default();
    let (since, until) = (ms(seen.since.as_ref()), ms(seen.until.as_ref()));
    let rested_ms = ms(firing.fired_at.as_ref()) + until.saturating_sub(since) / PART;
    // With too few runs to judge by it goes on to fire.
    if reading.state() == SignalState::Ok && until >= rested_ms {
        Todo::Clear
    } else {
        Todo::Nothing
    }
}

async fn say(
    dispatch: &Dispatch,
    it: &Attended,
    watch: &v1::SignalWatch,
    reading: &v1::SignalReading,
) -> bool {
    let (agent, release) = (it.agent, it.release.number);
    match todo(watch, reading) {
        Todo::Nothing => return false,
        Todo::Clear => {
            let clear = ClearSignal { agent, release, signal: reading.signal };
            propose(dispatch, it, Kind::ClearSignal(clear)).await;
        }
        Todo::Fire => {
            tracing::info!(
                agent = it.agent_id,
                bundle = it.release.bundle_id,
                signal = name(reading.signal()),
                "a signal fires: {}",
                reading.summary
            );
            let evidence = serde_json::json!({
                "reading": json::of(reading),
                "candidate": watch.candidate.as_ref().map(json::of),
                "baseline": watch.baseline.as_ref().map(json::of),
            });
            let fire = FireSignal {
                agent,
                release,
                phase: watch.phase,
                signal: reading.signal,
                summary: reading.summary.clone(),
                evidence: evidence.to_string(),
                capacity: dispatch.capacity(&it.namespace, &it.agent_id, &watch.baseline_bundle_id),
            };
            propose_because(dispatch, it, Kind::FireSignal(fire), &reading.summary).await;
        }
    }
    true
}

/// `p95_latency`.
pub(super) fn name(signal: v1::SignalKind) -> String {
    signal.as_str_name().trim_start_matches("SIGNAL_KIND_").to_lowercase()
}

/// How the signals stand, in a line for a verdict: `p95 +3 % (limit +25 %, n 60), cost 12 of 50`.
pub(super) fn told(watch: &v1::SignalWatch) -> String {
    let told = |reading: &v1::SignalReading| match reading.state() {
        SignalState::Ok | SignalState::Firing | SignalState::InsufficientData => {
            Some(reading.summary.clone())
        }
        SignalState::Unspecified | SignalState::NotMeasured | SignalState::Off => None,
    };
    watch.readings.iter().filter_map(told).collect::<Vec<_>>().join(", ")
}

/// The signals that lack runs to be judged by, in words. None: none does.
pub(super) fn lacking(watch: &v1::SignalWatch) -> Option<String> {
    let lacks = |reading: &&v1::SignalReading| reading.state() == SignalState::InsufficientData;
    let lacking: Vec<_> =
        watch.readings.iter().filter(lacks).map(|reading| reading.summary.clone()).collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinrail_proto::time::timestamp;

    fn reading(state: SignalState, mode: SignalMode) -> v1::SignalReading {
        v1::SignalReading { state: state.into(), mode: mode.into(), ..Default::default() }
    }

    fn watch() -> v1::SignalWatch {
        let candidate = v1::Cohort {
            since: timestamp(400_000),
            until: timestamp(1_000_000),
            ..v1::Cohort::default()
        };
        v1::SignalWatch { candidate: Some(candidate), ..v1::SignalWatch::default() }
    }

    #[test]
    fn what_fires_is_said_once_and_not_while_it_is_muted_or_off() {
        let firing = reading(SignalState::Firing, SignalMode::Notify);
        assert_eq!(todo(&watch(), &firing), Todo::Fire);
        let muted = v1::SignalReading { muted_until: timestamp(2), ..firing.clone() };
        assert_eq!(todo(&watch(), &muted), Todo::Nothing);
        let again = v1::SignalReading { firing: Some(v1::Firing::default()), ..firing };
        assert_eq!(todo(&watch(), &again), Todo::Nothing);
        assert_eq!(todo(&watch(), &reading(SignalState::Off, SignalMode::Off)), Todo::Nothing);
    }

    #[test]
    fn it_is_clean_again_after_a_rest_and_not_for_lack_of_runs() {
        let fired = |at_ms| Some(v1::Firing { fired_at: timestamp(at_ms), ..Default::default() });
        let ok = reading(SignalState::Ok, SignalMode::Notify);
        let long_ago = v1::SignalReading { firing: fired(900_000), ..ok.clone() };
        assert_eq!(todo(&watch(), &long_ago), Todo::Clear);
        let just_now = v1::SignalReading { firing: fired(950_000), ..ok };
        assert_eq!(todo(&watch(), &just_now), Todo::Nothing);
        let few = reading(SignalState::InsufficientData, SignalMode::Notify);
        let few = v1::SignalReading { firing: fired(1_000), ..few };
        assert_eq!(todo(&watch(), &few), Todo::Nothing);
    }
}
