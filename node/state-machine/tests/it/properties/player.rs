//! Plays operations on a replica: turns each into the command that a client, worker or leader would send.

use std::collections::BTreeMap;

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::complete_step::Outcome as Completion;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::{self, NextStep, StepRef, Taker, Token};
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use pinrail_state_machine::effect::{Effect, StepId};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::query;

use crate::replica::{Replica, agent, create_agent, create_bundle, payload, policy, switch};

use super::op::Op;

pub(super) const AGENTS: [&str; 2] = ["support", "fleet"];
const STEPS: [&str; 4] = ["start", "patient", "hasty", "other"];

/// A replica, and what workers remember of the leases that they were given.
#[derive(Debug, Clone)]
pub(super) struct Player {
    pub(super) replica: Replica,
    /// By the run that was started, for itself and for what came of it: children, and runs that continue it.
    held: BTreeMap<String, Vec<(StepRef, Token)>>,
}

impl Player {
    /// Two agents with four bundles each, of which the first is live.
    pub(super) fn new() -> Self {
        let mut replica = Replica::formed();
        for (agent_id, external) in AGENTS.into_iter().zip([false, true]) {
            replica.must(create_agent(agent_id, external));
            for number in 1..=4 {
                replica.must(create_bundle(agent_id, &bundle_id(number)));
            }
            replica.must(switch(agent_id, "v1"));
        }
        Self { replica, held: BTreeMap::new() }
    }

    /// The commands of one operation: none when time passes or when there is nothing that it could mean.
    pub(super) fn play(&mut self, op: &Op) -> Vec<(Command, Applied)> {
        if let Op::Wait { ms } = op {
            self.replica.now_ms += ms;
            return Vec::new();
        }
        let commands = match op {
            Op::Sweep => vec![tick(0, 256), tick(1, 256), tick(2, 256)],
            other => self.command(other).into_iter().collect(),
        };
        commands.into_iter().map(|command| (command.clone(), self.apply(command))).collect()
    }

    pub(super) fn apply(&mut self, command: Command) -> Applied {
        let applied = self.replica.apply(command);
        for effect in &applied.effects {
            if let Effect::Leased { step, token, .. } = effect {
                let StepId { agent, run_id, step } = step.clone();
                let family = run_id.split(['.', '+']).next().unwrap_or_default().to_owned();
                let step = StepRef { agent, run_id, step };
                self.held.entry(family).or_default().push((step, *token));
            }
        }
        applied
    }

    fn revision(&self) -> u64 {
        query::cluster(self.replica.read()).unwrap().revision
    }

    fn command(&self, op: &Op) -> Option<Command> {
        Some(match op {
            Op::Wait { .. } | Op::Sweep => return None,
            Op::Start { agent: a, run, input, bundle, max_age_ms, entry } => {
                Command::StartRun(log::StartRun {
                    agent: agent(AGENTS[usize::from(*a)]),
                    run_id: run_id(*a, *run),
                    input: Some(payload(&format!("input {input}"))),
                    entry: if *entry == 0 { "" } else { STEPS[usize::from(*entry)] }.to_owned(),
                    max_age_ms: *max_age_ms,
                    bundle_id: bundle_id(*bundle),
                    ..log::StartRun::default()
                })
            }
            Op::StartFor { start, bundle } => {
                let mut command = self.command(start)?;
                if let Command::StartRun(it) = &mut command {
                    let worker_id = "w1".to_owned();
                    it.lease_first = Some(Taker {
                        worker_id,
                        bundle_id: bundle_id(*bundle),
                        ..Taker::default()
                    });
                }
                command
            }
            Op::StartLater { agent: a, run, delay_ms } => Command::StartRun(log::StartRun {
                agent: agent(AGENTS[usize::from(*a)]),
                run_id: run_id(*a, *run),
                input: Some(payload("input 0")),
                delay_ms: *delay_ms,
                ..log::StartRun::default()
            }),
            Op::StartInSession { agent: a, run, session, delay_ms } => {
                Command::StartRun(log::StartRun {
                    agent: agent(AGENTS[usize::from(*a)]),
                    run_id: run_id(*a, *run),
                    input: Some(payload("input 0")),
                    session: format!("talk {session}"),
                    delay_ms: *delay_ms,
                    ..log::StartRun::default()
                })
            }
            Op::Overlap { overlap } => Command::UpdateAgent(Box::new(log::UpdateAgent {
                agent: agent(AGENTS[0]),
                policy: Some(v1::Policy {
                    sessions: Some(v1::SessionPolicy {
                        overlap: *overlap,
                        ..v1::SessionPolicy::default()
                    }),
                    ..policy(false)
                }),
            })),
            Op::StartAside { agent: a, run, kind, bundle, behind } => {
                let now = query::position(self.replica.read()).unwrap().revision;
                Command::StartRun(log::StartRun {
                    agent: agent(AGENTS[usize::from(*a)]),
                    run_id: run_id(*a, *run),
                    input: Some(payload("input 0")),
                    bundle_id: bundle_id(*bundle),
                    kind: *kind,
                    memory_revision: if *behind == 0 { 0 } else { now - u64::from(behind - 1) },
                    ..log::StartRun::default()
                })
            }
            Op::StartRepinnable { run, restart_step } => Command::StartRun(log::StartRun {
                agent: agent(AGENTS[0]),
                run_id: run_id(0, *run),
                input: Some(payload("input 0")),
                repinnable: Some(true),
                restart_step: Some(*restart_step),
                ..log::StartRun::default()
            }),
            Op::Repin { run, bundle } => Command::RepinRun(log::RepinRun {
                agent: agent(AGENTS[0]),
                run_id: run_id(0, *run),
                bundle_id: bundle_id(*bundle),
            }),
            Op::Deliver { agent, back, state, attempts } => {
                let revision = self.revision().saturating_sub(u64::from(*back));
                let result = log::DeliveryResult {
                    revision,
                    r#type: "route.switched".to_owned(),
                    state: *state,
                    attempts: *attempts,
                    tried_ms: self.replica.now_ms,
                    ..log::DeliveryResult::default()
                };
                let hook = "pager".to_owned();
                let hooks =
                    vec![log::HookProgress { hook, cursor: revision, results: vec![result] }];
                Command::RecordDeliveries(log::RecordDeliveries {
                    agent: u32::from(*agent) + 1,
                    hooks,
                })
            }
            Op::Redeliver { agent: a, back } => Command::Redeliver(log::Redeliver {
                agent: agent(AGENTS[usize::from(*a)]),
                hook: "pager".to_owned(),
                revision: match back {
                    0 => 0,
                    back => self.revision().saturating_sub(u64::from(*back)),
                },
                index: 0,
            }),
            Op::EndSession { session } => Command::EndSession(log::EndSession {
                agent: agent(AGENTS[0]),
                session: format!("talk {session}"),
            }),
            Op::Score { agent: a, run, score, human } => {
                let source = if *human { v1::ScoreSource::Human } else { v1::ScoreSource::Judge };
                Command::ScoreRun(log::ScoreRun {
                    agent: agent(AGENTS[usize::from(*a)]),
                    run_id: run_id(*a, *run),
                    score_permille: *score,
                    source: source.into(),
                    comment: String::new(),
                })
            }
            Op::StartChild { agent: a, run, child } => Command::StartRun(log::StartRun {
                agent: agent(AGENTS[usize::from(*a)]),
                run_id: format!("{}.c{child}", run_id(*a, *run)),
                input: Some(payload("input 0")),
                parent_run_id: run_id(*a, *run),
                ..log::StartRun::default()
            }),
            Op::ChildStep { run, back } => {
                let mut command = self.complete(*run, *back, 0, false)?;
                if let Command::CompleteStep(it) = &mut command {
                    let then = NextStep { name: "other".to_owned(), input: None };
                    it.outcome = Some(Completion::Child(log::ChildRun {
                        entry: "patient".to_owned(),
                        input: Some(payload("for the child")),
                        then: Some(then),
                    }));
                }
                command
            }
            Op::Continue { run, back, live, lease_next } => {
                let mut command = self.complete(*run, *back, 0, *lease_next)?;
                if let Command::CompleteStep(it) = &mut command {
                    let input = Some(payload("state"));
                    it.outcome = Some(Completion::ContinueAsNew(log::ContinueRun {
                        input,
                        on_live_bundle: *live,
                    }));
                }
                command
            }
            Op::PauseRun { run } => Command::PauseRun(log::PauseRun {
                agent: agent(AGENTS[0]),
                run_id: run_id(0, *run),
            }),
            Op::ResumeRun { run } => Command::ResumeRun(log::ResumeRun {
                agent: agent(AGENTS[0]),
                run_id: run_id(0, *run),
            }),
            Op::Lease { run, odd } => self.lease(*run, *odd)?,
            Op::Complete { run, back, next, lease_next } => {
                self.complete(*run, *back, *next, *lease_next)?
            }
            Op::WaitStep { run, back, signal, timeout_ms, lease_next } => {
                let mut command = self.complete(*run, *back, 0, *lease_next)?;
                if let Command::CompleteStep(it) = &mut command {
                    let input = Some(payload("state"));
                    it.outcome = Some(Completion::Wait(log::WaitStep {
                        signal: signal_name(*signal),
                        timeout_ms: (*timeout_ms != u64::MAX).then_some(*timeout_ms),
                        then: Some(NextStep { name: "other".to_owned(), input }),
                    }));
                }
                command
            }
            Op::FanOut { run, back, branches, settle, lease_next } => {
                let mut command = self.complete(*run, *back, 0, *lease_next)?;
                if let Command::CompleteStep(it) = &mut command {
                    let input = Some(payload("part"));
                    let branch = NextStep { name: "patient".to_owned(), input };
                    it.outcome = Some(Completion::All(log::FanOut {
                        branches: vec![branch; usize::from(*branches)],
                        join: "other".to_owned(),
                        settle: *settle,
                    }));
                }
                command
            }
            Op::Retry { run } => Command::RetryRun(log::RetryRun {
                agent: agent(AGENTS[0]),
                run_id: run_id(0, *run),
            }),
            Op::Signal { agent: a, run, name } => Command::SignalRun(log::SignalRun {
                agent: agent(AGENTS[usize::from(*a)]),
                run_id: run_id(*a, *run),
                name: signal_name(*name),
                value: (*name == 1).then(|| payload("yes")),
            }),
            Op::Fail { run, back, last, destructive, retry_after_ms } => {
                let (step, token) = self.held(*run, *back)?;
                let failure = v1::Failure {
                    reason: "OOPS".to_owned(),
                    non_retryable: *last,
                    retry_after: (*retry_after_ms != u64::MAX).then(|| duration(*retry_after_ms)),
                    ..v1::Failure::default()
                };
                let usage = destructive.then(usage);
                Command::FailStep(log::FailStep {
                    step,
                    token,
                    failure: Some(failure),
                    usage,
                    progress: None,
                })
            }
            Op::Checkpoint { run, back, name, value } => {
                let (step, token) = self.held(*run, *back)?;
                Command::RecordCheckpoint(log::RecordCheckpoint {
                    step,
                    token,
                    name: format!("c{name}"),
                    value: Some(payload(&format!("value {value}"))),
                    order: 1,
                    usage: (*value == 0).then(usage),
                })
            }
            Op::HandBack { run, back } => {
                let (step, token) = self.held(*run, *back)?;
                Command::HandBackStep(log::HandBackStep {
                    step,
                    token,
                    progress: None,
                    usage: (*back == 0 && *run == 0).then(usage),
                })
            }
            Op::Expire { run, back } => {
                let (step, token) = self.held(*run, *back)?;
                Command::ExpireLease(log::ExpireLease { step, token, progress: None })
            }
            Op::Cancel { agent: a, run } => Command::CancelRun(log::CancelRun {
                agent: agent(AGENTS[usize::from(*a)]),
                run_id: run_id(*a, *run),
            }),
            Op::Finish { run, failed } => {
                let outcome = if *failed { v1::Outcome::Failed } else { v1::Outcome::Completed };
                Command::FinishRun(log::FinishRun {
                    agent: agent(AGENTS[1]),
                    run_id: run_id(1, *run),
                    outcome: outcome.into(),
                    output: Some(payload("output")),
                    ..log::FinishRun::default()
                })
            }
            Op::Keep { run } => {
                Command::KeepRun(log::KeepRun { agent: agent(AGENTS[1]), run_id: run_id(1, *run) })
            }
            Op::Put { .. }
            | Op::PutByRun { .. }
            | Op::Delete { .. }
            | Op::Promote { .. }
            | Op::Discard { .. } => self.memory(op)?,
            Op::Switch { agent: a, bundle, force } => Command::Switch(log::Switch {
                agent: agent(AGENTS[usize::from(*a)]),
                bundle_id: bundle_id(*bundle),
                force: *force,
                expected_epoch: 0,
                capacity: None,
            }),
            Op::Rollback { agent: a, from, in_flight } => Command::Rollback(log::Rollback {
                agent: agent(AGENTS[usize::from(*a)]),
                from_bundle_id: self.left(*a, *from),
                in_flight: *in_flight,
                from_inferred: false,
            }),
            Op::SetDrain { agent: a, bundle, cap_ms } => Command::SetDrain(log::SetDrain {
                agent: agent(AGENTS[usize::from(*a)]),
                bundle_id: bundle_id(*bundle),
                cap_ms: *cap_ms,
            }),
            Op::Pause { agent: a, bundle, reject } => Command::PauseAgent(log::PauseAgent {
                agent: agent(AGENTS[usize::from(*a)]),
                bundle_id: bundle_id(*bundle),
                reject: *reject,
            }),
            Op::Resume { agent: a, bundle } => Command::ResumeAgent(log::ResumeAgent {
                agent: agent(AGENTS[usize::from(*a)]),
                bundle_id: bundle_id(*bundle),
            }),
            Op::Quota { quota, limit } => set_quota(*quota, *limit),
            Op::Tick { agent: a, max_items } => tick(u32::from(*a), *max_items),
        })
    }

    fn left(&self, agent: u8, from: u8) -> String {
        let read = self.replica.read();
        match from {
            0 => query::resolve_route(read, "", AGENTS[usize::from(agent)], "").unwrap().0,
            5 => String::new(),
            named => bundle_id(named),
        }
    }

    fn lease(&self, run: u8, odd: u8) -> Option<Command> {
        let read = self.replica.read();
        let is_ready = |step: &v1::Step| step.state() == v1::StepState::Ready;
        // The newest of its family that waits for a worker, or else the run itself.
        let of_run = |run_id: String| {
            let (steps, _) = query::steps(read, "", AGENTS[0], &run_id, 0, "").ok()?;
            Some((run_id, steps))
        };
        let ready = self.family(run).into_iter().filter_map(of_run);
        let ready = ready.filter(|(_, steps)| steps.iter().any(is_ready)).last();
        let (run_id, steps) = ready.or_else(|| of_run(run_id(0, run)))?;
        let open = steps.iter().find(|step| is_ready(step)).or(steps.last())?;
        let pin = query::pin(read, "", AGENTS[0], &run_id).ok()?;
        let bundle_id = if odd == 1 { "v9".to_owned() } else { pin.bundle_id };
        Some(Command::LeaseStep(log::LeaseStep {
            step: Some(StepRef { agent: 1, run_id, step: open.number }),
            attempt: open.attempt + 1 + u32::from(odd == 2),
            taker: Some(Taker { worker_id: "w1".to_owned(), bundle_id, ..Taker::default() }),
        }))
    }

    fn complete(&self, run: u8, back: u8, next: u8, lease_next: bool) -> Option<Command> {
        let (step, token) = self.held(run, back)?;
        let of = step.as_ref().map_or("", |step| step.run_id.as_str());
        let pin = query::pin(self.replica.read(), "", AGENTS[0], of).ok()?;
        let outcome = match STEPS.get(usize::from(next)) {
            Some(name) => {
                let input = Some(payload("draft"));
                Completion::Next(NextStep { name: (*name).to_owned(), input })
            }
            None => Completion::Done(payload("answer")),
        };
        let taker =
            Taker { worker_id: "w1".to_owned(), bundle_id: pin.bundle_id, ..Taker::default() };
        Some(Command::CompleteStep(log::CompleteStep {
            step,
            token,
            outcome: Some(outcome),
            usage: (next == 1).then(usage),
            lease_next: lease_next.then_some(taker),
            memory: if next == 2 { carried(back) } else { Vec::new() },
            ..log::CompleteStep::default()
        }))
    }

    fn memory(&self, op: &Op) -> Option<Command> {
        let target = |target| Some(log::MemoryTarget { target: Some(target) });
        Some(match op {
            Op::Put { agent: a, bundle, key, ttl_ms, expect } => {
                Command::PutMemory(log::PutMemory {
                    agent: agent(AGENTS[usize::from(*a)]),
                    target: target(Target::BundleId(bundle_id(*bundle))),
                    key: format!("k{key}"),
                    value: Some(payload("by a person")),
                    ttl_ms: *ttl_ms,
                    expected_key_revision: expect.then_some(0),
                })
            }
            Op::PutByRun { run, back, key, ttl_ms } => {
                let (step, token) = self.held(*run, *back)?;
                Command::PutMemory(log::PutMemory {
                    agent: agent(AGENTS[0]),
                    target: target(Target::Lease(log::LeasedRun { step, token })),
                    key: format!("k{key}"),
                    value: Some(payload("by a run")),
                    ttl_ms: *ttl_ms,
                    expected_key_revision: None,
                })
            }
            Op::Delete { agent: a, bundle, key } => Command::DeleteMemory(log::DeleteMemory {
                agent: agent(AGENTS[usize::from(*a)]),
                target: target(Target::BundleId(bundle_id(*bundle))),
                key: format!("k{key}"),
                expected_key_revision: None,
            }),
            Op::Promote { agent: a, layer, to, late, on_conflict } => {
                Command::PromoteMemory(log::PromoteMemory {
                    agent: agent(AGENTS[usize::from(*a)]),
                    from: Some(source(*layer)),
                    to_bundle_id: bundle_id(*to),
                    late: *late,
                    on_conflict: *on_conflict,
                    ..log::PromoteMemory::default()
                })
            }
            Op::Discard { agent: a, layer } => Command::DiscardMemory(log::DiscardMemory {
                agent: agent(AGENTS[usize::from(*a)]),
                from: Some(source(*layer)),
                ..log::DiscardMemory::default()
            }),
            _ => return None,
        })
    }

    /// What a worker remembers of the lease that it was given `back` leases ago.
    fn held(&self, run: u8, back: u8) -> Option<(Option<StepRef>, Option<Token>)> {
        let all = self.held.get(&run_id(0, run))?;
        let (step, token) = all.iter().rev().nth(usize::from(back))?;
        Some((Some(step.clone()), Some(*token)))
    }

    /// The open runs that came of one, itself among them, oldest first.
    fn family(&self, run: u8) -> Vec<String> {
        let first = run_id(0, run);
        let filter = query::RunFilter { open: true, ..query::RunFilter::default() };
        let runs = query::runs(self.replica.read(), "", AGENTS[0], &filter, 0, "");
        let ids = runs.unwrap_or_default().0.into_iter().rev().map(|run| run.run_id);
        ids.filter(|id| id.split(['.', '+']).next() == Some(first.as_str())).collect()
    }
}

fn source(layer: u8) -> log::MemorySource {
    log::MemorySource { bundle_id: String::new(), layer: u32::from(layer) }
}

fn set_quota(quota: i32, limit: u64) -> Command {
    let is = |it: v1::Quota| it as i32 == quota && limit != u64::MAX;
    Command::UpdateNamespace(log::UpdateNamespace {
        namespace: "default".to_owned(),
        quotas: Some(v1::NamespaceAmounts {
            open_runs: is(v1::Quota::OpenRuns).then_some(limit),
            agents: is(v1::Quota::Agents).then_some(limit),
            memory_bytes: is(v1::Quota::MemoryBytes).then_some(limit),
            bundles: is(v1::Quota::Bundles).then_some(limit),
        }),
        unlimited: if limit == u64::MAX { vec![quota] } else { Vec::new() },
    })
}

fn tick(agent: u32, max_items: u32) -> Command {
    Command::Tick(log::Tick { agent, max_items })
}

fn run_id(agent: u8, run: u8) -> String {
    format!("{}-{run}", AGENTS[usize::from(agent)])
}

/// 0 is none.
fn bundle_id(number: u8) -> String {
    if number == 0 { String::new() } else { format!("v{number}") }
}

/// A put and a delete with the completion.
fn carried(back: u8) -> Vec<log::MemoryWrite> {
    let put = log::MemoryWrite {
        key: "k0".to_owned(),
        value: Some(payload("with a completion")),
        ttl_ms: 9_000,
        expected_key_revision: (back == 1).then_some(0),
    };
    vec![put, log::MemoryWrite { key: "k1".to_owned(), ..log::MemoryWrite::default() }]
}

/// 0 is none.
fn signal_name(number: u8) -> String {
    if number == 0 { String::new() } else { format!("s{number}") }
}

fn usage() -> v1::Usage {
    let tool = v1::ToolUsage {
        tool: "pay".to_owned(),
        calls: 1,
        side_effects: "destructive".to_owned(),
        ..v1::ToolUsage::default()
    };
    let model = v1::ModelUsage {
        model: "default".to_owned(),
        input_tokens: 100,
        output_tokens: 10,
        cost_micros: 1_000,
        calls: 1,
        ..v1::ModelUsage::default()
    };
    v1::Usage { models: vec![model], tools: vec![tool] }
}
