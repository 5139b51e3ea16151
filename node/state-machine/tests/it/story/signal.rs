//! Signals in stories: scores, firings, and how each stands.

use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::time::{duration, millis};
use pinrail_proto::v1::{self, ScoreSource, SignalKind, SignalMode};
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use super::command::{agent, agent_ref};
use super::line::{Line, span};
use super::show;
use super::world::World;

/// A command about signals; `None` when the line is none.
pub(super) fn command(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "score" => Kind::ScoreRun(log::ScoreRun {
            source: match line.text("by").as_str() {
                "judge" => ScoreSource::Judge.into(),
                "human" => ScoreSource::Human.into(),
                _ => ScoreSource::Unspecified.into(),
            },
            comment: line.text("comment"),
            agent: agent(line),
            run_id: line.word(),
            score_permille: line.word().parse().unwrap(),
        }),
        "fire" => fire(world, line),
        "clear" => {
            let (number, watch) = watch(world, line);
            Kind::ClearSignal(log::ClearSignal {
                agent: number,
                release: release_number(&watch),
                signal: signal(&line.word()).into(),
            })
        }
        "ack" => Kind::AckSignal(log::AckSignal {
            agent: agent(line),
            signal: signal(&line.word()).into(),
        }),
        "mute" => Kind::MuteSignal(log::MuteSignal {
            agent: agent(line),
            signal: signal(&line.word()).into(),
            span_ms: span(&line.word()),
        }),
        _ => return None,
    })
}

/// `fire support p95_latency workers=2`: as the leader does that saw it, with the live workers of the bundle that is
/// returned to.
fn fire(world: &World, line: &mut Line) -> Kind {
    let (number, watch) = watch(world, line);
    let signal = signal(&line.word());
    let reading = watch.readings.iter().find(|reading| reading.signal() == signal);
    let summary = reading.cloned().unwrap_or_default().summary;
    let capacity = line.number("workers").map(|workers| log::Capacity {
        workers,
        free_slots: workers,
        steps: Vec::new(),
        any: true,
    });
    Kind::FireSignal(log::FireSignal {
        agent: number,
        release: line.number("of").map_or_else(|| release_number(&watch), |n| n as u32),
        phase: watch.phase,
        signal: signal.into(),
        summary,
        evidence: "{}".to_owned(),
        capacity,
    })
}

/// The agent's number, and what is watched first.
fn watch(world: &World, line: &mut Line) -> (u32, v1::SignalWatch) {
    let agent = agent_ref(&line.word());
    let number = query::agent_number(world.read(), &agent.namespace, &agent.agent_id).unwrap();
    let watches = query::signal_watches(world.read(), number, world.now_ms()).unwrap();
    (number, watches.into_iter().next().unwrap_or_default())
}

fn release_number(watch: &v1::SignalWatch) -> u32 {
    watch.release_id.trim_start_matches('r').parse().unwrap_or(0)
}

fn signal(word: &str) -> SignalKind {
    SignalKind::from_str_name(&format!("SIGNAL_KIND_{}", word.to_uppercase())).unwrap()
}

fn mode(word: &str) -> SignalMode {
    match word {
        "" => SignalMode::Unspecified,
        word => SignalMode::from_str_name(&format!("SIGNAL_MODE_{}", word.to_uppercase())).unwrap(),
    }
}

/// `min-samples=3 window=10m scores=1h baseline=24h on-canary=notify on-quarantine=rollback`.
pub(super) fn policy(line: &mut Line) -> Option<v1::SignalsPolicy> {
    let scores = line.span("scores").map(duration);
    let latency = v1::P95LatencySignal {
        max_slow_share_permille: line.number("slow-share").map(|n| u32::try_from(n).unwrap()),
        ..v1::P95LatencySignal::default()
    };
    let policy = v1::SignalsPolicy {
        canary: mode(&line.text("on-canary")).into(),
        quarantine: mode(&line.text("on-quarantine")).into(),
        window: line.span("window").map(duration),
        min_samples: line.number("min-samples").map(|n| u32::try_from(n).unwrap()),
        baseline_window: line.span("baseline").map(duration),
        eval_pass_rate: scores
            .map(|window| v1::EvalPassRateSignal { window: Some(window), ..Default::default() }),
        p95_latency: (latency != v1::P95LatencySignal::default()).then_some(latency),
        ..v1::SignalsPolicy::default()
    };
    (policy != v1::SignalsPolicy::default()).then_some(policy)
}

/// `signals support`: what is watched, how each signal stands, what fired.
pub(super) fn signals(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let of = line.word_or_none();
    let now_ms = world.now_ms();
    let found = query::signals(world.read(), &agent.namespace, &agent.agent_id, &of, now_ms)?;
    let mut told = Vec::new();
    if let Some(live) = found.live.as_ref().filter(|_| found.watches.is_empty()) {
        told.push(cohort(live));
    }
    for watch in &found.watches {
        let phase = show::word(watch.phase().as_str_name(), "STAGE_");
        told.push(format!("{} of {}, {phase}", watch.release_id, watch.bundle_id));
        told.extend(watch.candidate.as_ref().map(cohort));
        told.extend(watch.baseline.as_ref().map(cohort));
        told.extend(watch.readings.iter().map(reading));
    }
    told.extend(found.firings.iter().map(fired));
    told.extend(found.mutes.iter().map(muted));
    Ok(told)
}

/// `explain support r1`: what the runs of both bundles are like.
pub(super) fn explain(world: &World, line: &mut Line) -> Result<Vec<String>, Stop> {
    let agent = agent_ref(&line.word());
    let run_id = line.word();
    let (read, now_ms) = (world.read(), world.now_ms());
    let found = query::explain_run(read, &agent.namespace, &agent.agent_id, &run_id, now_ms)?;
    let mut told: Vec<String> = found.cohort.iter().map(cohort).collect();
    told.extend(found.previous_cohort.iter().map(|it| format!("before: {}", cohort(it))));
    told.extend(found.watches.iter().map(|it| format!("watched in {}", it.release_id)));
    Ok(told)
}

fn cohort(it: &v1::Cohort) -> String {
    let mut text = format!(
        "{} since {}: {} completed, {} failed, {} cancelled",
        it.bundle_id,
        show::at(it.since.as_ref()),
        it.completed,
        it.failed,
        it.cancelled
    );
    if it.overdue > 0 {
        text.push_str(&format!(", {} overdue", it.overdue));
    }
    if let Some(p95) = it.p95.as_ref().and_then(millis) {
        text.push_str(&format!(", p95 {p95} ms"));
    }
    if it.cost_micros > 0 {
        text.push_str(&format!(", {} millionths", it.cost_micros));
    }
    if it.scored > 0 {
        text.push_str(&format!(", {} scored, mean {}", it.scored, it.score_permille));
    }
    text
}

fn reading(it: &v1::SignalReading) -> String {
    let signal = show::word(it.signal().as_str_name(), "SIGNAL_KIND_");
    let state = show::word(it.state().as_str_name(), "SIGNAL_STATE_");
    let mode = show::word(it.mode().as_str_name(), "SIGNAL_MODE_");
    let figures = it.figures.iter().map(|figure| {
        let bounds = match figure.bounds.as_str() {
            "" => String::new(),
            bounds => format!(" ({bounds})"),
        };
        format!("{} {}{bounds}", figure.name, figure.value)
    });
    let mut text = format!("  {signal} {state}, {mode}");
    for figure in figures {
        text.push_str(&format!("; {figure}"));
    }
    if it.muted_until.is_some() {
        text.push_str(&format!("; muted until {}", show::at(it.muted_until.as_ref())));
    }
    if it.firing.as_ref().is_some_and(|firing| firing.acked_at.is_some()) {
        text.push_str("; acknowledged");
    }
    text
}

fn muted(it: &v1::SignalMute) -> String {
    let signal = show::word(it.signal().as_str_name(), "SIGNAL_KIND_");
    format!(
        "{signal} is muted until {} by {}: {}",
        show::at(it.until.as_ref()),
        it.actor,
        it.reason
    )
}

/// One line about a firing.
pub(super) fn fired(it: &v1::Firing) -> String {
    let signal = show::word(it.signal().as_str_name(), "SIGNAL_KIND_");
    let mut text = format!(
        "{signal} fired {} on {}: {} ({})",
        show::at(it.fired_at.as_ref()),
        it.bundle_id,
        it.summary,
        it.action
    );
    if it.cleared_at.is_some() {
        text.push_str(&format!(", clean {}", show::at(it.cleared_at.as_ref())));
    }
    if it.acked_at.is_some() {
        text.push_str(&format!(", acknowledged by {}: {}", it.acked_by, it.ack_reason));
    }
    text
}
