//! `signal`: how a candidate does beside the bundle that it replaces, and what somebody says about it.

use std::time::Duration;

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags, api_duration, duration, word};
use super::human;
use super::problem::Problem;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `signal`.
#[derive(Debug, Clone, Subcommand)]
pub enum Signal {
    /// What is watched, how each signal stands, and what fired
    #[command(
        after_help = "Examples:\n  pinrail signal show support --watch\n  pinrail signal show support --release r7 -o json"
    )]
    Show(Show),
    /// Say that you know: the release waits for this firing no longer
    #[command(
        after_help = "Example:\n  pinrail signal ack support p95_latency --reason \"the provider is slow for both\""
    )]
    Ack(Ack),
    /// Silence a signal for a while; it neither fires nor delays anything
    #[command(
        after_help = "Examples:\n  pinrail signal mute support failure_rate --for 2h --reason \"SUP-812\"\n  pinrail signal mute support failure_rate --for 0s --reason \"fixed\""
    )]
    Mute(Mute),
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Whose firings; without it those of what is watched, else of the newest release
    #[arg(long, value_name = "RELEASE", default_value = "", hide_default_value = true)]
    release: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Ack {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the signal, as `signal show` has it
    #[arg(value_name = "SIGNAL", value_parser = word::<v1::SignalKind>)]
    signal: v1::SignalKind,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Mute {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the signal, as `signal show` has it
    #[arg(value_name = "SIGNAL", value_parser = word::<v1::SignalKind>)]
    signal: v1::SignalKind,
    /// Time from now, at most 30d; 0s lets it sound again
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    span: Duration,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Signal) -> Done {
    match verb {
        Signal::Show(args) => show(context, args).await,
        Signal::Ack(args) => ack(context, args).await,
        Signal::Mute(args) => mute(context, args).await,
    }
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetSignalsRequest {
                agent_id: agent_id.clone(),
                release_id: args.release.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.signals().get(request).await?;
            Ok::<_, Problem>(View::object(&answer, &agent_id, text(&answer)))
        })
        .await
}

async fn ack(context: &Context, args: &Ack) -> Done {
    let request = v1::AckSignalRequest {
        agent_id: context.agent(&args.agent)?,
        signal: args.signal.into(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.signals().ack(request).await?;
    let name = human::signal(args.signal);
    let text = answer.firing.iter().map(firing).collect::<String>();
    context.show(&View::object(&answer, &name, text))
}

async fn mute(context: &Context, args: &Mute) -> Done {
    let request = v1::MuteSignalRequest {
        agent_id: context.agent(&args.agent)?,
        signal: args.signal.into(),
        span: Some(api_duration(args.span)),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.signals().mute(request).await?;
    let name = human::signal(args.signal);
    let text = pairs(&[
        ("signal", name.clone()),
        ("muted until", human::at(answer.muted_until.as_ref())),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &name, text))
}

fn text(answer: &v1::GetSignalsResponse) -> String {
    let mut text = String::new();
    for watch in &answer.watches {
        let phase = human::stage(watch.phase());
        text.push_str(&format!(
            "{} in {phase}: {} beside {}\n",
            watch.release_id, watch.bundle_id, watch.baseline_bundle_id
        ));
        let both = watch.candidate.iter().chain(&watch.baseline);
        text.push_str(&indent(&cohorts(both).render(false)));
        text.push_str(&indent(&readings(&watch.readings).render(false)));
        text.push('\n');
    }
    if let Some(live) = answer.live.as_ref().filter(|_| answer.watches.is_empty()) {
        text.push_str("nothing is watched; the live bundle:\n");
        text.push_str(&indent(&cohorts(std::iter::once(live)).render(false)));
    }
    if !answer.firings.is_empty() {
        text.push_str("fired\n");
        text.extend(answer.firings.iter().map(|it| indent(&firing(it))));
    }
    if !answer.mutes.is_empty() {
        text.push_str("muted\n");
        text.extend(answer.mutes.iter().map(|it| indent(&silenced(it))));
    }
    text
}

fn silenced(it: &v1::SignalMute) -> String {
    let (signal, until) = (human::signal(it.signal()), human::at(it.until.as_ref()));
    format!("{signal} until {until} by {}: {}\n", it.actor, it.reason)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// What runs were like, a row for each bundle.
pub(super) fn cohorts<'a>(all: impl Iterator<Item = &'a v1::Cohort>) -> Table {
    let columns = [
        "BUNDLE",
        "OVER",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "OVERDUE",
        "P50",
        "P95",
        "COST/RUN",
        "SCORE",
    ];
    let mut table = Table::new(&columns, &[]);
    for it in all {
        let cost = it.cost_micros / it.completed.max(1);
        table.row(vec![
            it.bundle_id.clone(),
            over(it),
            it.completed.to_string(),
            it.failed.to_string(),
            it.cancelled.to_string(),
            it.overdue.to_string(),
            human::api_span(it.p50.as_ref()),
            human::api_span(it.p95.as_ref()),
            human::micros(cost),
            match it.scored {
                0 => "-".to_owned(),
                n => format!("{} (n {n})", human::permille(it.score_permille.into())),
            },
        ]);
    }
    table
}

/// `10m`, or `24h to 02:14Z` when it was frozen.
fn over(it: &v1::Cohort) -> String {
    let ms =
        |at: &Option<prost_types::Timestamp>| pinrail_proto::time::timestamp_millis(at.as_ref());
    let (since, until) = (ms(&it.since), ms(&it.until));
    let span = human::span(Duration::from_millis(until.saturating_sub(since)));
    let now = human::now_ms();
    if until + 60_000 > now {
        return span;
    }
    format!("{span} to {}", human::clock(it.until.as_ref(), now))
}

fn readings(all: &[v1::SignalReading]) -> Table {
    let mut table = Table::new(&["SIGNAL", "STATE", "MODE", "FIGURES", "NOTE"], &[]);
    for it in all {
        table.row(vec![
            human::signal(it.signal()),
            state(it),
            human::signal_mode(it.mode()),
            it.figures.iter().map(figure).collect::<Vec<_>>().join(", "),
            note(it),
        ]);
    }
    table
}

fn state(it: &v1::SignalReading) -> String {
    let word = human::signal_state(it.state());
    if it.state() == v1::SignalState::Firing { word.to_uppercase() } else { word }
}

fn figure(it: &v1::SignalFigure) -> String {
    match it.bounds.as_str() {
        "" => format!("{} {}", it.name, it.value),
        bounds => format!("{} {} ({bounds})", it.name, it.value),
    }
}

/// Who said what about it.
fn note(it: &v1::SignalReading) -> String {
    if it.muted_until.is_some() {
        let until = human::clock(it.muted_until.as_ref(), human::now_ms());
        return format!("muted until {until}: {}", it.mute_reason);
    }
    match &it.firing {
        Some(firing) if firing.acked_at.is_some() => {
            format!("acknowledged by {}: {}", firing.acked_by, firing.ack_reason)
        }
        Some(_) => "nobody acknowledged it".to_owned(),
        None => String::new(),
    }
}

/// `p95_latency +31 % FIRING (limit +25 %, n 412)   cost +7 % ok`: the line of a status.
pub(super) fn line(watch: &v1::SignalWatch) -> String {
    let told = |it: &v1::SignalReading| -> Vec<String> {
        let mark = match it.state() {
            v1::SignalState::InsufficientData => return it.figures.iter().map(figure).collect(),
            v1::SignalState::Off | v1::SignalState::NotMeasured | v1::SignalState::Unspecified => {
                return Vec::new();
            }
            v1::SignalState::Ok | v1::SignalState::Firing => muted(it),
        };
        let one = |figure: &v1::SignalFigure| {
            let word = if figure.over { format!("FIRING{mark}") } else { "ok".to_owned() };
            if figure.over {
                format!("{} {} {word} ({})", figure.name, figure.value, figure.bounds)
            } else {
                format!("{} {} {word}", figure.name, figure.value)
            }
        };
        it.figures.iter().map(one).collect()
    };
    watch.readings.iter().flat_map(told).collect::<Vec<_>>().join("   ")
}

fn muted(it: &v1::SignalReading) -> &'static str {
    let is_acked = it.firing.as_ref().is_some_and(|firing| firing.acked_at.is_some());
    match (&it.muted_until, is_acked) {
        (Some(_), _) => " (muted)",
        (None, true) => " (acknowledged)",
        (None, false) => "",
    }
}

/// What was seen when one fired, and what became of it.
pub(super) fn firing(it: &v1::Firing) -> String {
    let cleared = it.cleared_at.as_ref().map(|at| human::at(Some(at)));
    let acked = it
        .acked_at
        .as_ref()
        .map(|at| format!("{} by {}: {}", human::at(Some(at)), it.acked_by, it.ack_reason));
    pairs(&[
        ("signal", human::signal(it.signal())),
        ("release", format!("{} of {}, {}", it.release_id, it.bundle_id, human::stage(it.phase()))),
        ("fired", human::at(it.fired_at.as_ref())),
        ("seen", it.summary.clone()),
        ("led to", it.action.clone()),
        ("clean again", cleared.unwrap_or_default()),
        ("acknowledged", acked.unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure_of(name: &str, value: &str, bounds: &str, over: bool) -> v1::SignalFigure {
        v1::SignalFigure { name: name.into(), value: value.into(), bounds: bounds.into(), over }
    }

    fn reading(
        signal: v1::SignalKind,
        state: v1::SignalState,
        figures: Vec<v1::SignalFigure>,
    ) -> v1::SignalReading {
        v1::SignalReading {
            signal: signal.into(),
            state: state.into(),
            figures,
            ..Default::default()
        }
    }

    fn watch() -> v1::SignalWatch {
        let latency = vec![
            figure_of("p95", "+31 %", "limit +25 %, n 412", true),
            figure_of("slow share", "21 %", "limit 5 %", true),
        ];
        let cost = vec![figure_of("cost", "+7 %", "limit +50 %, n 412", false)];
        let scores = vec![figure_of("pass rate", "12 of 50", "", false)];
        v1::SignalWatch {
            release_id: "r7".into(),
            bundle_id: "v42".into(),
            baseline_bundle_id: "v41".into(),
            phase: v1::Stage::Quarantine.into(),
            readings: vec![
                reading(v1::SignalKind::P95Latency, v1::SignalState::Firing, latency),
                reading(v1::SignalKind::CostPerCompletedRun, v1::SignalState::Ok, cost),
                reading(v1::SignalKind::EvalPassRate, v1::SignalState::InsufficientData, scores),
            ],
            ..Default::default()
        }
    }

    #[test]
    fn the_line_of_a_status_reads_as_documented() {
        assert_eq!(
            line(&watch()),
            "p95 +31 % FIRING (limit +25 %, n 412)   slow share 21 % FIRING (limit 5 %)   \
             cost +7 % ok   pass rate 12 of 50"
        );
    }

    #[test]
    fn everything_that_is_known_is_said() {
        let fired = v1::Firing {
            release_id: "r7".into(),
            bundle_id: "v42".into(),
            signal: v1::SignalKind::P95Latency.into(),
            summary: "p95 +31 % (limit +25 %, n 412)".into(),
            action: "notified, not rolled back: v41 has no live worker".into(),
            ..Default::default()
        };
        let answer = v1::GetSignalsResponse {
            watches: vec![watch()],
            firings: vec![fired],
            mutes: vec![v1::SignalMute {
                signal: v1::SignalKind::Drift.into(),
                reason: "SUP-7".into(),
                actor: "ada".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = text(&answer);
        for part in [
            "r7 in quarantine: v42 beside v41",
            "FIRING",
            "12 of 50",
            "led to",
            "no live worker",
            "by ada: SUP-7",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
