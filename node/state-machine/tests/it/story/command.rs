//! What a story can do: each verb as a command of the log.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{self, AgentRef, Header, StepRef, Taker};
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use pinrail_state_machine::query;

use super::evals;
use super::line::{Line, span};
use super::world::{BEGIN_MS, Held, World};
use super::{drift, drill, outside, release, show, signal};

/// Carries a line out and tells what came of it.
pub(super) fn carry_out(world: &mut World, line: &mut Line) -> Vec<String> {
    let header = header(line);
    let kind = kind(world, line);
    let applied = world.apply(header, kind);
    show::applied(world, &applied)
}

fn header(line: &mut Line) -> Header {
    Header {
        request_id: line.text("request"),
        actor: line.text("actor"),
        reason: line.text("reason"),
        expected_revision: line.number("revision").unwrap_or(0),
        dry_run: line.flag("dry-run"),
    }
}

fn kind(world: &World, line: &mut Line) -> Kind {
    let verb = line.verb.clone();
    administration(line, &verb)
        .or_else(|| route(line, &verb))
        .or_else(|| release::command(world, line, &verb))
        .or_else(|| signal::command(world, line, &verb))
        .or_else(|| drift::command(world, line, &verb))
        .or_else(|| drill::command(world, line, &verb))
        .or_else(|| run(line, &verb))
        .or_else(|| step(world, line, &verb))
        .or_else(|| memory(world, line, &verb))
        .or_else(|| evals::command(line, &verb))
        .or_else(|| hook(world, line, &verb))
        .unwrap_or_else(|| panic!("no such verb: {verb}"))
}

fn administration(line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "init" => Kind::InitCluster(log::InitCluster {
            cluster: "story".to_owned(),
            cluster_id: vec![7; 16].into(),
            incarnation: 1,
            feature_level: line.number("level").map_or(1, |level| u32::try_from(level).unwrap()),
        }),
        "recover" => {
            let incarnation = line.number("incarnation").unwrap_or(2);
            let node = line.word();
            let lost = log::GivenUp { node_id: 2, node: line.word() };
            Kind::RecoverCluster(log::RecoverCluster {
                cluster_id: vec![8; 16].into(),
                incarnation,
                node,
                node_id: 9,
                given_up: vec![lost],
                last_index: 7,
                last_term: 2,
            })
        }
        "probe" => Kind::Probe(log::Probe {}),
        "create-namespace" => {
            let quotas = quotas(line).0;
            Kind::CreateNamespace(log::CreateNamespace { namespace: line.word_or_none(), quotas })
        }
        "update-namespace" => {
            let (quotas, unlimited) = quotas(line);
            Kind::UpdateNamespace(log::UpdateNamespace {
                namespace: line.word(),
                quotas,
                unlimited,
            })
        }
        "delete-namespace" => {
            Kind::DeleteNamespace(log::DeleteNamespace { namespace: line.word() })
        }
        "create-agent" => {
            let agent = agent(line);
            Kind::CreateAgent(Box::new(log::CreateAgent { agent, policy: Some(policy(line)) }))
        }
        "update-agent" => {
            let agent = agent(line);
            Kind::UpdateAgent(Box::new(log::UpdateAgent { agent, policy: Some(policy(line)) }))
        }
        "delete-agent" => Kind::DeleteAgent(log::DeleteAgent { agent: agent(line) }),
        "pause" => {
            let (reject, bundle_id) = (line.flag("reject"), line.text("bundle"));
            Kind::PauseAgent(log::PauseAgent { agent: agent(line), bundle_id, reject })
        }
        "resume" => {
            let bundle_id = line.text("bundle");
            Kind::ResumeAgent(log::ResumeAgent { agent: agent(line), bundle_id })
        }
        "set-environment" => Kind::SetEnvironment(log::SetEnvironment {
            agent: agent(line),
            bundle_id: line.word(),
            endpoint: line.word_or_none(),
        }),
        "create-bundle" => Kind::CreateBundle(log::CreateBundle {
            agent: agent(line),
            bundle_id: line.word(),
            manifest: Some(manifest(line)),
        }),
        _ => return None,
    })
}

/// `open-runs=5 agents=none`: quotas that are set, and those that are taken away.
fn quotas(line: &mut Line) -> (Option<v1::NamespaceAmounts>, Vec<i32>) {
    let mut unlimited = Vec::new();
    let mut amount = |key: &str, quota: v1::Quota| match line.text(key).as_str() {
        "" => None,
        "none" => {
            unlimited.push(quota.into());
            None
        }
        amount => Some(amount.parse().unwrap_or_else(|_| panic!("{key}={amount}"))),
    };
    let set = v1::NamespaceAmounts {
        open_runs: amount("open-runs", v1::Quota::OpenRuns),
        agents: amount("agents", v1::Quota::Agents),
        memory_bytes: amount("memory", v1::Quota::MemoryBytes),
        bundles: amount("bundles", v1::Quota::Bundles),
    };
    ((set != v1::NamespaceAmounts::default()).then_some(set), unlimited)
}

fn route(line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "switch" => Kind::Switch(log::Switch {
            force: line.flag("force"),
            expected_epoch: line.number("epoch").unwrap_or(0),
            capacity: line.number("workers").map(|workers| log::Capacity {
                workers,
                free_slots: workers,
                steps: line
                    .option("serves")
                    .map(|s| s.split(',').map(str::to_owned).collect())
                    .unwrap_or_default(),
                any: line.flag("any"),
            }),
            agent: agent(line),
            bundle_id: line.word(),
        }),
        "rollback" => Kind::Rollback(log::Rollback {
            from_inferred: line.flag("inferred"),
            from_bundle_id: line.text("from"),
            in_flight: in_flight(&line.text("in-flight")).into(),
            agent: agent(line),
        }),
        "set-drain" => Kind::SetDrain(log::SetDrain {
            agent: agent(line),
            bundle_id: line.word(),
            cap_ms: span(&line.word()),
        }),
        _ => return None,
    })
}

fn run(line: &mut Line, verb: &str) -> Option<Kind> {
    Some(match verb {
        "start" => Kind::StartRun(log::StartRun {
            agent: agent(line),
            run_id: line.word(),
            input: line.option("input").map(payload),
            entry: line.text("entry"),
            max_age_ms: line.span("max-age").unwrap_or(0),
            bundle_id: line.text("bundle"),
            parent_run_id: line.text("parent"),
            delay_ms: line.span("delay").unwrap_or(0),
            labels: line.all("label:").into_iter().collect(),
            session: line.text("session"),
            repinnable: line.flag("repinnable").then_some(true),
            priority: line.number("priority").map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX)),
            fairness_key: line.text("key"),
            trace_parent: line.text("trace"),
            restart_step: line.flag("restart-step").then_some(true),
            lease_first: line.option("lease-first").map(|it| taker(&it)),
            kind: run_kind(&line.text("kind")).into(),
            memory_revision: line.number("memory-at").unwrap_or(0),
            memory_layer: line.number("memory-layer").map_or(0, |it| u32::try_from(it).unwrap()),
            callback: line.text("callback"),
        }),
        "cancel" => Kind::CancelRun(log::CancelRun { agent: agent(line), run_id: line.word() }),
        "end-session" => {
            Kind::EndSession(log::EndSession { agent: agent(line), session: line.word() })
        }
        "repin" => {
            let bundle_id = line.text("to");
            Kind::RepinRun(log::RepinRun { agent: agent(line), run_id: line.word(), bundle_id })
        }
        "pause-run" => Kind::PauseRun(log::PauseRun { agent: agent(line), run_id: line.word() }),
        "resume-run" => Kind::ResumeRun(log::ResumeRun { agent: agent(line), run_id: line.word() }),
        "retry" => Kind::RetryRun(log::RetryRun { agent: agent(line), run_id: line.word() }),
        "signal" => Kind::SignalRun(log::SignalRun {
            agent: agent(line),
            run_id: line.word(),
            name: line.word(),
            value: line.option("value").map(payload),
        }),
        "keep" => Kind::KeepRun(log::KeepRun { agent: agent(line), run_id: line.word() }),
        "finish" => {
            let failed = line.option("failed");
            Kind::FinishRun(log::FinishRun {
                outcome: match failed {
                    Some(_) => v1::Outcome::Failed.into(),
                    None => v1::Outcome::Completed.into(),
                },
                failure: failed.map(failure),
                agent: agent(line),
                run_id: line.word(),
                output: line.option("output").map(payload),
                usage: usage(line),
            })
        }
        "tick" => {
            let max_items = u32::try_from(line.number("max").unwrap_or(256)).unwrap();
            let agent = line.word().parse().expect("tick names the agent's number");
            Kind::Tick(log::Tick { agent, max_items })
        }
        _ => return None,
    })
}

pub(super) fn run_kind(word: &str) -> v1::RunKind {
    match word {
        "" => v1::RunKind::Unspecified,
        word => v1::RunKind::from_str_name(&format!("RUN_KIND_{}", word.to_uppercase()))
            .unwrap_or_else(|| panic!("no such kind: {word}")),
    }
}

fn step(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    if !matches!(verb, "lease" | "complete" | "fail" | "checkpoint" | "hand-back" | "expire") {
        return None;
    }
    let agent = agent(line).unwrap();
    let run_id = line.word();
    if verb == "lease" {
        return Some(lease(world, line, &agent, &run_id));
    }
    let held = held(world, line, &run_id);
    let step = Some(step_ref(world, &agent, &run_id, held.step));
    let token = Some(held.token);
    Some(match verb {
        "complete" => {
            let wait = line.option("wait");
            let timeout_ms = line.span("timeout").or_else(|| line.span("sleep"));
            let next = line.option("next").map(|name| {
                let next = log::NextStep { name, input: line.option("input").map(payload) };
                if wait.is_none() && timeout_ms.is_none() {
                    return log::complete_step::Outcome::Next(next);
                }
                let signal = wait.unwrap_or_default();
                log::complete_step::Outcome::Wait(log::WaitStep {
                    signal,
                    timeout_ms,
                    then: Some(next),
                })
            });
            let next = child(line, next);
            let next = fan_out(line).map(log::complete_step::Outcome::All).or(next);
            let lease_next = line.option("lease-next").map(|worker_id| {
                let bundle_id = pinned_bundle(world, &agent, &run_id);
                let serves = line.option("serves").unwrap_or_default();
                let serves = serves.split_terminator(',').map(str::to_owned).collect();
                Taker { worker_id, bundle_id, serves }
            });
            Kind::CompleteStep(log::CompleteStep {
                step,
                token,
                outcome: Some(next.unwrap_or_else(|| {
                    let long = line.number("output-bytes").unwrap_or(0);
                    let long = "x".repeat(usize::try_from(long).unwrap());
                    log::complete_step::Outcome::Done(payload(line.text("output") + &long))
                })),
                usage: usage(line),
                lease_next,
                memory: carried(line),
                ..log::CompleteStep::default()
            })
        }
        "fail" => {
            let progress = line.option("progress").map(payload);
            let mut failure = failure(line.word());
            failure.non_retryable = line.flag("final");
            let usage = usage(line);
            Kind::FailStep(log::FailStep { step, token, failure: Some(failure), usage, progress })
        }
        "checkpoint" => Kind::RecordCheckpoint(log::RecordCheckpoint {
            step,
            token,
            name: line.word(),
            value: Some(payload(line.word())),
            order: 1,
            usage: usage(line),
        }),
        "hand-back" => {
            let progress = line.option("progress").map(payload);
            let usage = usage(line);
            Kind::HandBackStep(log::HandBackStep { step, token, progress, usage })
        }
        _ => {
            let progress = line.option("progress").map(payload);
            Kind::ExpireLease(log::ExpireLease { step, token, progress })
        }
    })
}

/// `child=audit child-input=x next=after`, or `continue=state`, with `live` on the live bundle.
fn child(
    line: &mut Line,
    next: Option<log::complete_step::Outcome>,
) -> Option<log::complete_step::Outcome> {
    use log::complete_step::Outcome;
    if let Some(input) = line.option("continue") {
        let (input, on_live_bundle) = (Some(payload(input)), line.flag("live"));
        return Some(Outcome::ContinueAsNew(log::ContinueRun { input, on_live_bundle }));
    }
    let Some(entry) = line.option("child") else { return next };
    let Some(Outcome::Next(then)) = next else { panic!("a child goes with next=") };
    let input = line.option("child-input").map(payload);
    Some(Outcome::Child(log::ChildRun { entry, input, then: Some(then) }))
}

/// `all=read:a,read:b join=merge settle`: branches with their inputs.
fn fan_out(line: &mut Line) -> Option<log::FanOut> {
    let all = line.option("all")?;
    let branch = |text: &str| {
        let (name, input) = text.split_once(':').unwrap_or((text, ""));
        log::NextStep { name: name.to_owned(), input: Some(payload(input.to_owned())) }
    };
    let branches = all.split(',').filter(|text| !text.is_empty()).map(branch).collect();
    Some(log::FanOut { branches, join: line.text("join"), settle: line.flag("settle") })
}

/// `w1/v1`: a worker and the bundle that it serves.
fn taker(text: &str) -> Taker {
    let (worker, bundle) = text.split_once('/').expect("a worker and its bundle");
    Taker { worker_id: worker.to_owned(), bundle_id: bundle.to_owned(), ..Taker::default() }
}

fn lease(world: &World, line: &mut Line, agent: &AgentRef, run_id: &str) -> Kind {
    let (steps, _) =
        query::steps(world.read(), &agent.namespace, &agent.agent_id, run_id, 0, "").unwrap();
    let asked = line.number("step");
    let open = steps.into_iter().rfind(|step| asked.is_none_or(|n| u64::from(step.number) == n));
    let open = open.unwrap_or_default();
    let bundle_id = line.option("bundle").unwrap_or_else(|| pinned_bundle(world, agent, run_id));
    Kind::LeaseStep(log::LeaseStep {
        step: Some(step_ref(world, agent, run_id, open.number)),
        attempt: open.attempt + 1,
        taker: Some(Taker { worker_id: line.text("worker"), bundle_id, ..Taker::default() }),
    })
}

fn memory(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    if matches!(verb, "promote" | "discard") {
        return Some(transfer(line, verb));
    }
    if !matches!(verb, "put" | "delete") {
        return None;
    }
    let agent = agent(line);
    let target = match line.option("run") {
        Some(run_id) => {
            let held = held(world, line, &run_id);
            let step = Some(step_ref(world, agent.as_ref().unwrap(), &run_id, held.step));
            let lease = log::LeasedRun { step, token: Some(held.token) };
            log::memory_target::Target::Lease(lease)
        }
        None => log::memory_target::Target::BundleId(line.text("bundle")),
    };
    let target = Some(log::MemoryTarget { target: Some(target) });
    let key = line.word();
    let expected_key_revision = line.number("expect");
    Some(if verb == "put" {
        Kind::PutMemory(log::PutMemory {
            agent,
            target,
            key,
            value: Some(payload(line.word())),
            ttl_ms: line.span("ttl").unwrap_or(0),
            expected_key_revision,
        })
    } else {
        Kind::DeleteMemory(log::DeleteMemory { agent, target, key, expected_key_revision })
    })
}

/// `promote support from=v2 to=v1 prefix=users/ late conflict=skip`, `discard support from=v2`.
fn transfer(line: &mut Line, verb: &str) -> Kind {
    let agent = agent(line);
    let layer = line.number("layer").map_or(0, |number| u32::try_from(number).unwrap());
    let from = Some(log::MemorySource { bundle_id: line.text("from"), layer });
    let (prefix, after_key) = (line.text("prefix"), line.text("after"));
    if verb == "discard" {
        return Kind::DiscardMemory(log::DiscardMemory { agent, from, prefix, after_key });
    }
    let on_conflict = match line.text("conflict").as_str() {
        "skip" => v1::OnConflict::Skip,
        "overwrite" => v1::OnConflict::Overwrite,
        _ => v1::OnConflict::Fail,
    };
    Kind::PromoteMemory(log::PromoteMemory {
        agent,
        from,
        to_bundle_id: line.text("to"),
        prefix,
        late: line.flag("late"),
        on_conflict: on_conflict.into(),
        after_key,
    })
}

/// Writes that a completion carries: `put:users/7=Ada delete:users/8=`.
fn carried(line: &mut Line) -> Vec<log::MemoryWrite> {
    let expected_key_revision = line.number("expect");
    let write = |key, value| log::MemoryWrite { key, value, ttl_ms: 0, expected_key_revision };
    let puts = line.all("put:").into_iter().map(|(key, value)| write(key, Some(payload(value))));
    let mut writes: Vec<_> = puts.collect();
    writes.extend(line.all("delete:").into_iter().map(|(key, _)| write(key, None)));
    writes
}

/// `support` or `billing/support`.
#[expect(clippy::unnecessary_wraps, reason = "the commands' fields are optional")]
pub(super) fn agent(line: &mut Line) -> Option<AgentRef> {
    Some(agent_ref(&line.word()))
}

pub(super) fn agent_ref(name: &str) -> AgentRef {
    let (namespace, agent_id) = name.split_once('/').unwrap_or(("", name));
    AgentRef { namespace: namespace.to_owned(), agent_id: agent_id.to_owned() }
}

/// The last token that the run's steps were given, or `token=N`, the Nth.
fn held(world: &World, line: &mut Line, run_id: &str) -> Held {
    let all = world.held.get(run_id).map(Vec::as_slice).unwrap_or_default();
    let number = line.number("token").map_or(all.len(), |n| usize::try_from(n).unwrap());
    *all.get(number.wrapping_sub(1)).unwrap_or_else(|| panic!("{run_id} was never leased"))
}

fn step_ref(world: &World, agent: &AgentRef, run_id: &str, step: u32) -> StepRef {
    let number = query::agent_number(world.read(), &agent.namespace, &agent.agent_id).unwrap();
    StepRef { agent: number, run_id: run_id.to_owned(), step }
}

fn pinned_bundle(world: &World, agent: &AgentRef, run_id: &str) -> String {
    query::pin(world.read(), &agent.namespace, &agent.agent_id, run_id).unwrap().bundle_id
}

fn policy(line: &mut Line) -> v1::Policy {
    let execution =
        if line.flag("external") { v1::Execution::External } else { v1::Execution::Unspecified };
    let runs = v1::RunPolicy {
        execution: execution.into(),
        max_age: line.span("max-age").map(duration),
        retention: line.span("retention").map(duration),
        max_open: line.number("max-open"),
        keep_alive: line.span("keep-alive").map(duration),
        ..v1::RunPolicy::default()
    };
    let steps = v1::StepPolicy {
        max_attempts: line.number("max-attempts").map(|n| u32::try_from(n).unwrap()),
        lease: line.span("lease").map(duration),
        schedule_to_close: line.span("schedule-to-close").map(duration),
        max_running: line.number("max-running"),
        on_exhausted: match line.text("on-exhausted").as_str() {
            "pause" => v1::OnExhausted::Pause.into(),
            _ => v1::OnExhausted::Unspecified.into(),
        },
        ..v1::StepPolicy::default()
    };
    let switch = v1::SwitchPolicy {
        drain_cap: line.span("drain-cap").map(duration),
        grace: line.span("grace").map(duration),
        on_drain: match line.text("on-drain").as_str() {
            "repin" => v1::OnDrain::Repin.into(),
            _ => v1::OnDrain::Unspecified.into(),
        },
        ..v1::SwitchPolicy::default()
    };
    let in_flight = in_flight(&line.text("in-flight"));
    let drill = v1::DrillPolicy {
        every: line.span("every").map(duration),
        limit: line.span("limit").map(duration),
        ..v1::DrillPolicy::default()
    };
    let memory = v1::MemoryPolicy {
        quota_bytes: line.number("quota"),
        versions: line.span("versions").map(duration),
        ..v1::MemoryPolicy::default()
    };
    let overlap = match line.text("overlap").as_str() {
        "parallel" => v1::Overlap::Parallel,
        "reject" => v1::Overlap::Reject,
        _ => v1::Overlap::Unspecified,
    };
    let sessions = v1::SessionPolicy {
        max_age: line.span("session-age").map(duration),
        cutoff: line.span("cutoff").map(duration),
        overlap: overlap.into(),
    };
    let environment = v1::EnvironmentPolicy {
        min_slots: line.number("min-slots").map(|n| u32::try_from(n).unwrap()),
    };
    let policy = v1::Policy {
        hooks: outside::hooks_policy(line),
        memory: Some(memory),
        environment: Some(environment),
        drill: Some(drill),
        sessions: Some(sessions),
        description: line.text("description"),
        runs: Some(runs),
        steps: Some(steps),
        switch: Some(switch),
        rollback: Some(v1::RollbackPolicy { in_flight: in_flight.into() }),
        ..v1::Policy::default()
    };
    let (signals, drift) = (signal::policy(line), drift::policy(line));
    let policy = v1::Policy { signals, drift, ..policy };
    release::policy(line, policy)
}

/// `deliver support pager @7/0 delivered attempts=2 status=200 cursor=9`, and `redeliver support pager [@7/0]`.
fn hook(world: &World, line: &mut Line, verb: &str) -> Option<Kind> {
    if !matches!(verb, "deliver" | "redeliver") {
        return None;
    }
    let agent = agent(line);
    let hook = line.word();
    let place = line.word_or_none();
    let (revision, index) = match place.strip_prefix('@').and_then(|it| it.split_once('/')) {
        Some((revision, index)) => (revision.parse().unwrap(), index.parse().unwrap()),
        None => (0, 0),
    };
    if verb == "redeliver" {
        return Some(Kind::Redeliver(log::Redeliver { agent, hook, revision, index }));
    }
    let state = line.word_or_none().to_uppercase();
    let now_ms = BEGIN_MS + world.elapsed_ms();
    let result = log::DeliveryResult {
        revision,
        index,
        r#type: line.option("type").unwrap_or_else(|| "route.switched".to_owned()),
        state: v1::DeliveryState::from_str_name(&format!("DELIVERY_STATE_{state}"))
            .unwrap_or_default()
            .into(),
        attempts: line.number("attempts").map_or(1, |it| u32::try_from(it).unwrap()),
        status: line.number("status").map_or(0, |it| u32::try_from(it).unwrap()),
        error: line.text("error"),
        event_ms: BEGIN_MS,
        tried_ms: now_ms,
        next_ms: now_ms + line.span("again").unwrap_or(0),
        until_ms: BEGIN_MS + 86_400_000,
    };
    let agent = agent.unwrap();
    let number = query::agent_number(world.read(), &agent.namespace, &agent.agent_id).unwrap();
    let results = if revision == 0 { vec![] } else { vec![result] };
    let cursor = line.number("cursor").unwrap_or(0);
    let hooks = vec![log::HookProgress { hook, cursor, results }];
    Some(Kind::RecordDeliveries(log::RecordDeliveries { agent: number, hooks }))
}

fn in_flight(word: &str) -> v1::InFlight {
    match word {
        "" => v1::InFlight::Unspecified,
        "keep" => v1::InFlight::Keep,
        "cancel" => v1::InFlight::Cancel,
        "restart" => v1::InFlight::Restart,
        other => panic!("in-flight={other}"),
    }
}

/// A manifest that is good unless the story says otherwise: `code=c0ffee model=2025-09-29 prompt:system=text
/// index:kb=2/emb-3 tool:search=1/schema/read_only step:plan=2`.
fn manifest(line: &mut Line) -> v1::BundleManifest {
    let model = |(name, snapshot): (String, String)| {
        let part = v1::ModelPart {
            provider: "acme".to_owned(),
            name: "large".to_owned(),
            snapshot,
            ..v1::ModelPart::default()
        };
        (name, part)
    };
    let snapshot = line.option("model").unwrap_or_else(|| "2025-09-29".to_owned());
    let mut models = vec![model(("default".to_owned(), snapshot))];
    models.extend(line.all("model:").into_iter().map(model));
    let prompt = |(name, text)| (name, v1::PromptPart { text, digest: String::new() });
    let digest = |(name, digest)| (name, v1::PromptPart { text: String::new(), digest });
    let mut prompts: Vec<_> = line.all("prompt:").into_iter().map(prompt).collect();
    prompts.extend(line.all("digest:").into_iter().map(digest));
    let image = line.text("image");
    let git_commit = if image.is_empty() {
        line.option("code").unwrap_or_else(|| "c0ffee".to_owned())
    } else {
        line.text("code")
    };
    v1::BundleManifest {
        entry: line.text("entry"),
        code: Some(v1::CodePart { git_commit, image }),
        prompts: prompts.into_iter().collect(),
        models: models.into_iter().collect(),
        indexes: line.all("index:").into_iter().map(index).collect(),
        tools: line.all("tool:").into_iter().map(tool).collect(),
        steps: line.all("step:").into_iter().map(declared_step).collect(),
        message: line.text("message"),
        parent: line.text("parent"),
        ..v1::BundleManifest::default()
    }
}

fn index((name, value): (String, String)) -> (String, v1::IndexPart) {
    let (version, embedding_model) = value.split_once('/').unwrap_or((&value, "emb-3"));
    let part =
        v1::IndexPart { version: version.to_owned(), embedding_model: embedding_model.to_owned() };
    (name, part)
}

fn tool((name, value): (String, String)) -> (String, v1::ToolPart) {
    let mut words = value.split('/');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (version, schema, class) = (word(), word(), word());
    let side_effects = match class.as_str() {
        "read_only" => v1::SideEffects::ReadOnly,
        "idempotent" => v1::SideEffects::Idempotent,
        "destructive" => v1::SideEffects::Destructive,
        _ => v1::SideEffects::Unspecified,
    };
    let part = v1::ToolPart {
        version,
        input_schema_json: format!("{{\"title\":\"{schema}\"}}"),
        output_schema_json: "{}".to_owned(),
        side_effects: side_effects.into(),
        ..v1::ToolPart::default()
    };
    (name, part)
}

fn declared_step((name, attempts): (String, String)) -> (String, v1::StepPolicy) {
    let max_attempts = attempts.parse().ok();
    (name, v1::StepPolicy { max_attempts, ..v1::StepPolicy::default() })
}

fn payload(text: String) -> v1::Payload {
    v1::Payload { content_type: "text/plain".to_owned(), data: text.into_bytes().into() }
}

fn failure(reason: String) -> v1::Failure {
    v1::Failure { reason, ..v1::Failure::default() }
}

/// `tool:mail=destructive/2`: two calls of a tool that a rollback cannot undo. `used:default=900/80/1250`: tokens of a
/// model in and out, and what they cost in millionths. `served:default=large-2`: which model served. `broken:search=2/docs`:
/// replies that broke their schema, and where the first one did.
fn usage(line: &mut Line) -> Option<v1::Usage> {
    let tool = |(name, value): (String, String)| {
        let (class, calls) = value.split_once('/').unwrap_or((&value, "1"));
        v1::ToolUsage {
            tool: name,
            calls: calls.parse().unwrap(),
            side_effects: class.to_owned(),
            ..v1::ToolUsage::default()
        }
    };
    let model = |(model, value): (String, String)| {
        let mut numbers = value.split('/').map(|number| number.parse().unwrap());
        let mut number = || numbers.next().unwrap_or(0);
        v1::ModelUsage {
            model,
            input_tokens: number(),
            output_tokens: number(),
            cost_micros: number(),
            calls: 1,
            ..v1::ModelUsage::default()
        }
    };
    let broken = |(name, value): (String, String)| {
        let (count, place) = value.split_once('/').unwrap_or((&value, ""));
        v1::ToolUsage {
            tool: name,
            checked: count.parse().unwrap(),
            schema_violations: count.parse().unwrap(),
            side_effects: "read_only".to_owned(),
            violation_path: format!("/{place}"),
            violation: "it is not of type array".to_owned(),
            ..v1::ToolUsage::default()
        }
    };
    let served = |(model, served_model)| v1::ModelUsage {
        model,
        served_model,
        calls: 1,
        ..v1::ModelUsage::default()
    };
    let mut tools: Vec<_> = line.all("tool:").into_iter().map(tool).collect();
    tools.extend(line.all("broken:").into_iter().map(broken));
    let mut models: Vec<_> = line.all("used:").into_iter().map(model).collect();
    models.extend(line.all("served:").into_iter().map(served));
    (!tools.is_empty() || !models.is_empty()).then_some(v1::Usage { models, tools })
}
