//! What applying a command costs, on a store in memory: a start, and a step that goes on with the next one on the same worker.
//!
//! ```text
//! cargo run --release -p pinrail-state-machine --example apply                  nanoseconds and rows of each command
//! cargo run --release -p pinrail-state-machine --example apply -- step 6400     so many steps, for a profiler
//! ```
//! Times differ from machine to machine; `.ci/instructions` counts instructions of the same commands.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, AgentRef, StepRef, Taker, Token};
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use pinrail_state_machine::Machine;
use pinrail_state_machine::records::Records;
use pinrail_state_machine::store::MemoryStore;
use prost::Message as _;

const AGENT: &str = "bench";
const BUNDLE: &str = "v1";
const WORKER: &str = "w1";
/// Commands of an entry: what 64 clients ask for at once.
const BATCH: usize = 64;
/// Steps of a run.
const STEPS: u32 = 10;
const VALUE_BYTES: usize = 256;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A replica in memory.
struct Replica {
    store: MemoryStore,
    records: Records,
    now_ms: u64,
    rows: usize,
}

impl Replica {
    /// A formed cluster with an agent that is live.
    fn new(execution: v1::Execution) -> Result<Self> {
        let mut replica = Self {
            store: MemoryStore::default(),
            records: Records::default(),
            now_ms: 1_700_000_000_000,
            rows: 0,
        };
        let policy = v1::Policy {
            runs: Some(v1::RunPolicy {
                execution: execution.into(),
                max_open: Some(1_000_000),
                ..v1::RunPolicy::default()
            }),
            steps: Some(v1::StepPolicy {
                max_running: Some(1_024),
                lease: Some(duration(30_000)),
                ..v1::StepPolicy::default()
            }),
            ..v1::Policy::default()
        };
        let model = v1::ModelPart {
            provider: "acme".to_owned(),
            name: "large".to_owned(),
            snapshot: "2025-09-29".to_owned(),
            ..v1::ModelPart::default()
        };
        let manifest = v1::BundleManifest {
            models: [("default".to_owned(), model)].into(),
            code: Some(v1::CodePart { git_commit: "c0ffee".to_owned(), image: String::new() }),
            ..v1::BundleManifest::default()
        };
        replica.apply(vec![
            Command::InitCluster(log::InitCluster {
                cluster: AGENT.to_owned(),
                cluster_id: vec![7; 16].into(),
                incarnation: 1,
                feature_level: pinrail_state_machine::FEATURE_LEVEL,
            }),
            Command::CreateAgent(Box::new(log::CreateAgent {
                agent: agent(),
                policy: Some(policy),
            })),
            Command::CreateBundle(log::CreateBundle {
                agent: agent(),
                bundle_id: BUNDLE.to_owned(),
                manifest: Some(manifest),
            }),
            Command::Switch(log::Switch {
                agent: agent(),
                bundle_id: BUNDLE.to_owned(),
                ..log::Switch::default()
            }),
        ])?;
        Ok(replica)
    }

    /// Applies commands in one entry.
    fn apply(&mut self, commands: Vec<Command>) -> Result<Vec<Answer>> {
        let commands = commands.into_iter().map(|kind| {
            Bytes::from(log::Command { header: None, kind: Some(kind) }.encode_to_vec())
        });
        let batch = log::Batch { stamp_ms: self.now_ms, commands: commands.collect() };
        let entry = Bytes::from(batch.encode_to_vec());
        self.now_ms += 5;
        let mut machine = Machine::open_with(&self.store, std::mem::take(&mut self.records))?;
        let applied = black_box(machine.apply_batch(&entry)?);
        let written = machine.finish();
        self.rows += written.writes.len();
        self.store.write(written.writes);
        self.records = written.records;
        let mut answers = Vec::new();
        for applied in applied {
            match applied.outcome.result {
                Some(Answer::Rejection(refused)) => return Err(refused.message.into()),
                Some(answer) => answers.push(answer),
                None => return Err("an outcome without a result".into()),
            }
        }
        Ok(answers)
    }
}

fn agent() -> Option<AgentRef> {
    Some(AgentRef { namespace: String::new(), agent_id: AGENT.to_owned() })
}

fn value() -> Option<v1::Payload> {
    let data = Bytes::from(vec![b'x'; VALUE_BYTES]);
    Some(v1::Payload { content_type: "application/json".to_owned(), data })
}

fn taker() -> Option<Taker> {
    Some(Taker { worker_id: WORKER.to_owned(), bundle_id: BUNDLE.to_owned(), ..Taker::default() })
}

fn start(number: usize, lease_first: Option<Taker>) -> Command {
    Command::StartRun(log::StartRun {
        agent: agent(),
        run_id: format!("run-{number:012}"),
        input: value(),
        lease_first,
        ..log::StartRun::default()
    })
}

/// Starts of runs that are executed elsewhere.
fn starts(replica: &mut Replica, count: usize) -> Result<()> {
    for first in (0..count).step_by(BATCH) {
        replica.apply((first..first + BATCH).map(|number| start(number, None)).collect())?;
    }
    Ok(())
}

/// Completions that lease the next step.
fn steps(replica: &mut Replica, count: usize) -> Result<()> {
    let mut runs = 0;
    let mut held: Vec<(usize, u32, Option<Token>)> = Vec::new();
    for _ in (0..count).step_by(BATCH) {
        if held.is_empty() {
            let started =
                replica.apply((runs..runs + BATCH).map(|n| start(n, taker())).collect())?;
            for (number, answer) in (runs..).zip(started) {
                let Answer::StartRun(started) = answer else { return Err("no start".into()) };
                held.push((number, 1, started.token));
            }
            runs += BATCH;
        }
        let commands = held.iter().map(|(number, step, token)| complete(*number, *step, *token));
        let answers = replica.apply(commands.collect())?;
        held.retain_mut(|(_, step, _)| {
            *step += 1;
            *step <= STEPS
        });
        for (held, answer) in held.iter_mut().zip(answers) {
            let Answer::Step(result) = answer else { return Err("no step".into()) };
            held.2 = result.token;
        }
    }
    Ok(())
}

fn complete(number: usize, step: u32, token: Option<Token>) -> Command {
    use log::complete_step::Outcome;
    let next = log::NextStep { name: "main".to_owned(), input: value() };
    let outcome = match step {
        STEPS => Outcome::Done(value().unwrap_or_default()),
        _ => Outcome::Next(next),
    };
    Command::CompleteStep(log::CompleteStep {
        step: Some(StepRef { agent: 1, run_id: format!("run-{number:012}"), step }),
        token,
        outcome: Some(outcome),
        lease_next: taker(),
        ..log::CompleteStep::default()
    })
}

#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn measure(name: &str, count: usize) -> Result<()> {
    let (execution, run): (_, fn(&mut Replica, usize) -> Result<()>) = match name {
        "start" => (v1::Execution::External, starts),
        "step" => (v1::Execution::Workers, steps),
        other => return Err(format!("no workload {other:?}; start or step").into()),
    };
    let mut replica = Replica::new(execution)?;
    replica.rows = 0;
    let begun = Instant::now();
    run(&mut replica, count)?;
    let each = begun.elapsed().as_nanos() / count as u128;
    let rows = replica.rows as f64 / count as f64;
    println!("{name}: {count} commands, {each} ns and {rows:.1} rows each");
    Ok(())
}

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    match asked.as_slice() {
        [] => ["start", "step"].into_iter().try_for_each(|name| measure(name, 64_000)),
        [name] => measure(name, 64_000),
        [name, count, ..] => measure(name, count.parse()?),
    }
}
