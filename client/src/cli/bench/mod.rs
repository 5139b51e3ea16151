//! `bench`: load on the cluster that the command line talks to, and what it came to.

mod text;

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Done};
use super::flags::duration;
use super::problem::{self, Problem};
use crate::bench::{self, Ground, Outcome, Plan, Progress, Usage, Workload};
use crate::client::Client;
use crate::worker::shutdown_signal;

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail bench\n  pinrail bench start --clients 1,64,256 --repeats 3\n  pinrail bench start put --rate 2000 --duration 30s -o json\n  pinrail bench watch --clients 100\n  pinrail bench --remove bench-1f2e3d4c"
)]
pub struct Bench {
    /// What is measured, one after the other; default: start, put, read, lookup, get, step and run
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// Callers at the same time, each with one operation; several numbers make a curve
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Vec<u32>,
    /// Operations in a second, whatever becomes of the earlier ones: latencies count from when each was due. Default: a
    /// client asks again when it has its answer. For watch: writes, which are 50 by default
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Of each measurement
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Before each measurement; operations that begin in it do not count
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// How often all of it is measured; medians are shown
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// A server process on this machine, whose CPU time, memory and writes are shown; may be repeated
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
    /// Measure nothing; remove the namespace that an earlier bench left
    #[arg(long, value_name = "NAMESPACE", conflicts_with_all = ["workloads", "rate", "server_pids"])]
    remove: Option<String>,
}

impl ValueEnum for Workload {
    fn value_variants<'a>() -> &'a [Workload] {
        &Workload::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("a rate is a number of operations in a second".to_owned()),
    }
}

pub(super) async fn run(context: &Context, args: &Bench) -> Done {
    if context.read().is_some() {
        return Err(Problem::usage("--local is for reads; a bench writes, and asks all members"));
    }
    if let Some(namespace) = &args.remove {
        return remove(&context.client, namespace).await;
    }
    let plan = plan(args)?;
    let (stop, made) = (CancellationToken::new(), Mutex::new(String::new()));
    let config = context.settings.config();
    let bench = bench::run(&config, &plan, &stop, |progress| tell(&progress, &plan, &made));
    let Some(outcome) = unless_left(bench, &stop).await else {
        let made = made.lock().clone();
        if !made.is_empty() {
            eprintln!("namespace {made} is left: `pinrail bench --remove {made}` removes it");
        }
        return Ok(problem::INTERRUPTED);
    };
    conclude(context, &plan, outcome?, stop.is_cancelled())
}

/// Lets it end by itself. Asked to stop, it still removes what it made; asked twice, nothing more is waited for.
async fn unless_left<T>(bench: impl Future<Output = T>, stop: &CancellationToken) -> Option<T> {
    tokio::pin!(bench);
    tokio::select! {
        biased;
        () = shutdown_signal() => {}
        done = &mut bench => return Some(done),
    }
    eprintln!("stopping, and removing what was made; another Ctrl-C leaves it");
    stop.cancel();
    tokio::select! {
        biased;
        () = shutdown_signal() => None,
        done = &mut bench => Some(done),
    }
}

fn plan(args: &Bench) -> Result<Plan, Problem> {
    let usual = || Workload::USUAL.into_iter().filter(|it| args.rate.is_none() || !it.is_chained());
    let workloads =
        if args.workloads.is_empty() { usual().collect() } else { args.workloads.clone() };
    if args.rate.is_some()
        && let Some(chained) = workloads.iter().find(|it| it.is_chained())
    {
        let message =
            format!("--rate does not go with {}: each follows the one before it", chained.name());
        return Err(Problem::usage(message));
    }
    if args.duration.is_zero() {
        return Err(Problem::usage("--duration 0s measures nothing"));
    }
    for pid in &args.server_pids {
        Usage::of(*pid).map_err(|error| Problem::usage(format!("--server-pid {pid}: {error}")))?;
    }
    Ok(Plan {
        workloads,
        clients: args.clients.iter().map(|clients| *clients as usize).collect(),
        rate: args.rate,
        warm_up: args.warm_up,
        duration: args.duration,
        repeats: args.repeats as usize,
        server_pids: args.server_pids.clone(),
    })
}

fn tell(progress: &Progress<'_>, plan: &Plan, made: &Mutex<String>) {
    match progress {
        Progress::Made(namespace) => {
            (*namespace).clone_into(&mut made.lock());
            eprintln!("namespace {namespace} is made for it, and removed at the end");
        }
        Progress::Measures(workload, clients, round) => {
            let rounds = plan.repeats;
            eprintln!("{}, clients: {clients}, round {round} of {rounds}", workload.name());
        }
        Progress::Removes => eprintln!("removing what was made"),
    }
}

fn conclude(context: &Context, plan: &Plan, outcome: Outcome, is_stopped: bool) -> Done {
    context.show(&text::view(plan, &outcome.measurements, is_stopped))?;
    if let Some((namespace, error)) = outcome.left {
        let mut problem = Problem::from(error);
        problem.message = format!("namespace {namespace} is left: {}", problem.message).into();
        return Err(problem.next(format!("pinrail bench --remove {namespace}")));
    }
    if let Some(error) = outcome.failed {
        return Err(error.into());
    }
    if is_stopped {
        return Ok(problem::INTERRUPTED);
    }
    let failed = outcome.measurements.iter().find(|it| it.figures.operations == 0);
    match failed {
        None => Ok(problem::OK),
        Some(it) => {
            let message = format!("no operation of {} succeeded", it.workload.name());
            let mut problem = Problem::new("NOTHING_DONE", problem::ERROR, message);
            let reasons = it.figures.errors.iter();
            problem.why = reasons.map(|(reason, count)| format!("{reason}  {count}")).collect();
            Err(problem)
        }
    }
}

async fn remove(client: &Client, namespace: &str) -> Done {
    let ground = Ground::left(client, namespace)?;
    ground.remove().await?;
    eprintln!("namespace {namespace} is not there any more");
    Ok(problem::OK)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn planned(words: &[&str]) -> Result<Plan, Problem> {
        let words = ["bench"].iter().chain(words);
        plan(&Line::try_parse_from(words).expect("it parses").bench)
    }

    #[test]
    fn the_usual_workloads_are_measured_unless_some_are_named() {
        assert_eq!(planned(&[]).expect("valid").workloads, Workload::USUAL);
        let plan = planned(&["put", "start", "--clients", "1,64"]).expect("valid");
        assert_eq!(plan.workloads, [Workload::Put, Workload::Start]);
        assert_eq!((plan.clients, plan.repeats), (vec![1, 64], 1));
    }

    #[test]
    fn steps_have_no_rate() {
        assert!(!planned(&["--rate", "10"]).expect("valid").workloads.contains(&Workload::Step));
        assert_eq!(planned(&["step", "--rate", "10"]).expect_err("refused").exit, problem::USAGE);
        for wrong in ["0", "-1", "NaN", "inf", "x"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_said_before_anything_is_made() {
        let problem = planned(&["--server-pid", "4294967295"]).expect_err("no such process");
        assert_eq!(problem.exit, problem::USAGE);
        assert!(problem.message.contains("4294967295"), "{problem:?}");
    }
}
