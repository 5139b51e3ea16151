//! What happened in the golden log, from the first entry on. New entries come at the end of [`history`].

mod levels;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::{self, AgentRef, Header, StepRef, Taker, Token};
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use prost::Message as _;

use super::BEGIN_MS;

/// Entries, and what they say.
pub(super) fn history() -> Vec<(&'static str, Vec<log::Command>)> {
    let alone = alone();
    let before = alone.len() as u64;
    let mut history: Vec<_> =
        alone.into_iter().map(|(says, command)| (says, vec![command])).collect();
    history.extend(levels::entries_that_write_once(before));
    let before = history.iter().map(|(_, commands)| commands.len() as u64).sum();
    history.extend(levels::trunks_that_lie_in_runs(before));
    let before = history.iter().map(|(_, commands)| commands.len() as u64).sum();
    history.extend(levels::continued_runs_that_stay(before));
    let before = history.iter().map(|(_, commands)| commands.len() as u64).sum();
    history.extend(levels::runs_that_hold_ended_steps(before));
    let before = history.iter().map(|(_, commands)| commands.len() as u64).sum();
    history.extend(levels::runs_that_hold_payloads(before));
    history
}

/// Commands in entries of their own.
fn alone() -> Vec<(&'static str, log::Command)> {
    let mut history = foundation();
    history.extend(work());
    history.extend(changes_of_the_route());
    history.extend(waits());
    history.extend(retry());
    history.extend(memory_after_a_rollback());
    history.push(("start h, lease", plain(start_and_lease("h"))));
    history.extend(runs_that_serve_no_user());
    history.extend(evals());
    history.extend(hooks());
    history.extend(quotas());
    history.extend(drift());
    history.extend(drills(history.len() as u64));
    history.extend(levels::traffic_with_request_ids());
    history.extend(levels::leases_that_stand(history.len() as u64));
    history.extend(levels::hard_ends_that_follow(history.len() as u64));
    history
}

/// A hook that is told of the end of a run; one delivery got through, one did not, one is sent again.
fn pager() -> v1::Hook {
    v1::Hook {
        name: "pager".to_owned(),
        url: "https://pager.example/pinrail".to_owned(),
        events: vec!["route.*".to_owned()],
        secret: "env:PAGER_SECRET".to_owned(),
        gate: "evals".to_owned(),
    }
}

fn hooks() -> Vec<(&'static str, log::Command)> {
    let policy = v1::Policy { hooks: vec![pager()], ..v1::Policy::default() };
    let start = log::StartRun {
        agent: agent(),
        run_id: "called back".to_owned(),
        input: payload("question"),
        callback: "pager".to_owned(),
        ..log::StartRun::default()
    };
    let result = |index, state: v1::DeliveryState| log::DeliveryResult {
        revision: 7,
        index,
        r#type: "route.switched".to_owned(),
        state: state.into(),
        attempts: 1,
        status: 503,
        error: "busy".to_owned(),
        event_ms: BEGIN_MS + 6_000,
        tried_ms: BEGIN_MS + 60_000,
        next_ms: BEGIN_MS + 61_000,
        until_ms: BEGIN_MS + 86_406_000,
    };
    let progress = log::HookProgress {
        hook: "pager".to_owned(),
        cursor: 8,
        results: vec![
            result(0, v1::DeliveryState::Delivered),
            result(1, v1::DeliveryState::Pending),
        ],
    };
    vec![
        (
            "update agent, with a hook",
            asked(Command::UpdateAgent(Box::new(log::UpdateAgent {
                agent: agent(),
                policy: Some(policy),
            }))),
        ),
        ("start a run that calls back", plain(Command::StartRun(start))),
        (
            "cancel the run that calls back",
            asked(Command::CancelRun(log::CancelRun {
                agent: agent(),
                run_id: "called back".to_owned(),
            })),
        ),
        (
            "record deliveries",
            plain(Command::RecordDeliveries(log::RecordDeliveries {
                agent: 1,
                hooks: vec![progress],
            })),
        ),
        (
            "redeliver",
            asked(Command::Redeliver(log::Redeliver {
                agent: agent(),
                hook: "pager".to_owned(),
                revision: 3,
                index: 0,
            })),
        ),
    ]
}

/// A pair in quarantine, a drill on its live route, one on a route of its own, and the next one planned.
fn drills(before: u64) -> Vec<(&'static str, log::Command)> {
    let policy = v1::Policy {
        drill: Some(v1::DrillPolicy {
            every: Some(duration(86_400_000)),
            ..v1::DrillPolicy::default()
        }),
        hooks: vec![pager()],
        ..v1::Policy::default()
    };
    let start = |mode: v1::DrillMode| {
        asked(Command::StartDrill(log::StartDrill {
            agent: agent(),
            mode: mode.into(),
            scheduled: false,
            capacity: Some(log::Capacity { workers: 2, free_slots: 8, ..Default::default() }),
        }))
    };
    let part = |drill, part: v1::DrillPart| {
        plain(Command::RecordDrill(log::RecordDrill {
            agent: 1,
            drill,
            part: part.into(),
            verdict: v1::Verdict::Pass.into(),
            took_micros: 4_200,
            reason: "acknowledged".to_owned(),
            evidence: "{}".to_owned(),
        }))
    };
    let update = log::UpdateAgent { agent: agent(), policy: Some(policy) };
    let forced = log::Switch {
        agent: agent(),
        bundle_id: "v9".to_owned(),
        force: true,
        ..log::Switch::default()
    };
    let schedule =
        log::ScheduleDrill { agent: 1, due_ms: BEGIN_MS + 86_400_000, policy_revision: before + 1 };
    vec![
        ("update agent, drills", plain(Command::UpdateAgent(Box::new(update)))),
        ("create v9", plain(bundle("v9", "9"))),
        ("switch to v9", plain(Command::Switch(forced))),
        ("start drill, live", start(v1::DrillMode::Live)),
        ("record drill, prepare", part(1, v1::DrillPart::Prepare)),
        (
            "turn route",
            plain(Command::TurnRoute(log::TurnRoute { agent: 1, drill: 1, back: false })),
        ),
        ("record drill, rollback", part(1, v1::DrillPart::Rollback)),
        ("abort drill", asked(Command::AbortDrill(log::AbortDrill { agent: agent() }))),
        (
            "start drill",
            plain(Command::StartDrill(log::StartDrill {
                agent: agent(),
                mode: v1::DrillMode::Route.into(),
                ..log::StartDrill::default()
            })),
        ),
        ("abort drill again", plain(Command::AbortDrill(log::AbortDrill { agent: agent() }))),
        ("schedule drill", plain(Command::ScheduleDrill(schedule))),
        (
            "recover",
            plain(Command::RecoverCluster(log::RecoverCluster {
                cluster_id: vec![8; 16].into(),
                incarnation: 4,
                node: "n0".to_owned(),
                node_id: 9,
                given_up: vec![log::GivenUp { node_id: 5, node: "n1".to_owned() }],
                last_index: 70,
                last_term: 2,
            })),
        ),
    ]
}

fn foundation() -> Vec<(&'static str, log::Command)> {
    let policy = v1::Policy {
        description: "answers".to_owned(),
        labels: [("team".to_owned(), "support".to_owned())].into(),
        runs: Some(v1::RunPolicy { max_age: Some(duration(3_600_000)), ..Default::default() }),
        ..v1::Policy::default()
    };
    vec![
        (
            "init",
            plain(Command::InitCluster(log::InitCluster {
                cluster: "golden".to_owned(),
                cluster_id: vec![7; 16].into(),
                incarnation: 3,
                feature_level: 1,
            })),
        ),
        (
            "create namespace",
            plain(Command::CreateNamespace(log::CreateNamespace {
                namespace: "billing".to_owned(),
                quotas: None,
            })),
        ),
        (
            "create agent",
            asked(Command::CreateAgent(Box::new(log::CreateAgent {
                agent: agent(),
                policy: Some(policy),
            }))),
        ),
        ("create bundle v1", plain(bundle("v1", "1"))),
        ("create bundle v2", plain(bundle("v2", "2"))),
        (
            "set environment",
            plain(Command::SetEnvironment(log::SetEnvironment {
                agent: agent(),
                bundle_id: "v1".to_owned(),
                endpoint: "http://blue:8080".to_owned(),
            })),
        ),
        ("switch to v1", plain(switch("v1"))),
    ]
}

fn work() -> Vec<(&'static str, log::Command)> {
    // Revisions count the commands from 1; tokens are (incarnation, revision of the lease).
    let first = Some(Token { incarnation: 3, revision: 9 });
    let usage = v1::Usage {
        models: vec![v1::ModelUsage {
            model: "default".to_owned(),
            input_tokens: 900,
            output_tokens: 80,
            cost_micros: 1_250,
            calls: 1,
            ..v1::ModelUsage::default()
        }],
        tools: vec![v1::ToolUsage {
            tool: "mail".to_owned(),
            calls: 2,
            side_effects: "destructive".to_owned(),
            ..v1::ToolUsage::default()
        }],
    };
    let next = log::NextStep { name: "answer".to_owned(), input: payload("notes") };
    vec![
        ("start a", plain(start("a"))),
        ("lease a", plain(lease("a", 1, "v1"))),
        (
            "checkpoint of a",
            plain(Command::RecordCheckpoint(log::RecordCheckpoint {
                step: step("a", 1),
                token: first,
                name: "search-1".to_owned(),
                value: payload("found"),
                order: 1,
                usage: None,
            })),
        ),
        (
            "put memory by a",
            plain(Command::PutMemory(log::PutMemory {
                agent: agent(),
                target: Some(log::MemoryTarget {
                    target: Some(log::memory_target::Target::Lease(log::LeasedRun {
                        step: step("a", 1),
                        token: first,
                    })),
                }),
                key: "users/7".to_owned(),
                value: payload("Ada"),
                ttl_ms: 86_400_000,
                expected_key_revision: Some(0),
            })),
        ),
        (
            "complete a, go on, lease",
            plain(Command::CompleteStep(log::CompleteStep {
                step: step("a", 1),
                token: first,
                outcome: Some(log::complete_step::Outcome::Next(next)),
                usage: Some(usage),
                lease_next: Some(taker("v1")),
                ..log::CompleteStep::default()
            })),
        ),
        (
            "complete a, done",
            plain(Command::CompleteStep(log::CompleteStep {
                step: step("a", 2),
                token: Some(Token { incarnation: 3, revision: 12 }),
                outcome: Some(log::complete_step::Outcome::Done(payload("42").unwrap())),
                ..log::CompleteStep::default()
            })),
        ),
        ("start b", plain(start("b"))),
        ("lease b", plain(lease("b", 1, "v1"))),
        (
            "fail b",
            plain(Command::FailStep(log::FailStep {
                step: step("b", 1),
                token: Some(Token { incarnation: 3, revision: 15 }),
                failure: Some(v1::Failure {
                    reason: "TIMEOUT".to_owned(),
                    message: "the model did not answer".to_owned(),
                    ..v1::Failure::default()
                }),
                usage: None,
                progress: None,
            })),
        ),
    ]
}

/// One run that a signal woke, with another signal kept, and one that waits.
fn waits() -> Vec<(&'static str, log::Command)> {
    let wait = |run_id: &str, revision: u64| {
        plain(Command::CompleteStep(log::CompleteStep {
            step: step(run_id, 1),
            token: Some(Token { incarnation: 3, revision }),
            outcome: Some(log::complete_step::Outcome::Wait(log::WaitStep {
                signal: "approved".to_owned(),
                timeout_ms: Some(60_000),
                then: Some(log::NextStep { name: "answer".to_owned(), input: payload("draft") }),
            })),
            ..log::CompleteStep::default()
        }))
    };
    let signal = |name: &str| {
        asked(Command::SignalRun(log::SignalRun {
            agent: agent(),
            run_id: "e".to_owned(),
            name: name.to_owned(),
            value: payload("yes"),
        }))
    };
    vec![
        ("start e", plain(start("e"))),
        ("lease e", plain(lease("e", 1, "v1"))),
        ("complete e, wait", wait("e", 27)),
        ("signal e, kept", signal("paid")),
        ("signal e, woken", signal("approved")),
        ("start f", plain(start("f"))),
        ("lease f", plain(lease("f", 1, "v1"))),
        ("complete f, wait", wait("f", 32)),
    ]
}

/// A run that is paused when its step used up its attempts, and retried.
fn retry() -> Vec<(&'static str, log::Command)> {
    let steps =
        v1::StepPolicy { on_exhausted: v1::OnExhausted::Pause.into(), ..v1::StepPolicy::default() };
    let policy = v1::Policy { steps: Some(steps), ..v1::Policy::default() };
    vec![
        (
            "update agent",
            plain(Command::UpdateAgent(Box::new(log::UpdateAgent {
                agent: agent(),
                policy: Some(policy),
            }))),
        ),
        ("start g", plain(start("g"))),
        ("lease g", plain(lease("g", 1, "v1"))),
        (
            "fail g for good",
            plain(Command::FailStep(log::FailStep {
                step: step("g", 1),
                token: Some(Token { incarnation: 3, revision: 36 }),
                failure: Some(v1::Failure { non_retryable: true, ..v1::Failure::default() }),
                usage: None,
                progress: None,
            })),
        ),
        (
            "retry g",
            asked(Command::RetryRun(log::RetryRun { agent: agent(), run_id: "g".to_owned() })),
        ),
    ]
}

fn changes_of_the_route() -> Vec<(&'static str, log::Command)> {
    vec![
        ("switch to v2", asked(switch("v2"))),
        ("start c", plain(start("c"))),
        ("start d", plain(start("d"))),
        ("lease d", plain(lease("d", 1, "v2"))),
        (
            "roll v2 back",
            asked(Command::Rollback(log::Rollback {
                agent: agent(),
                from_bundle_id: "v2".to_owned(),
                in_flight: v1::InFlight::Restart.into(),
                from_inferred: false,
            })),
        ),
        ("sweep one", plain(Command::Tick(log::Tick { agent: 1, max_items: 1 }))),
        ("lease c", plain(lease("c", 1, "v1"))),
        (
            "delete memory",
            plain(Command::DeleteMemory(log::DeleteMemory {
                agent: agent(),
                target: None,
                key: "users/7".to_owned(),
                expected_key_revision: None,
            })),
        ),
        (
            "pause v2",
            plain(Command::PauseAgent(log::PauseAgent {
                agent: agent(),
                bundle_id: "v2".to_owned(),
                reject: true,
            })),
        ),
    ]
}

fn memory_after_a_rollback() -> Vec<(&'static str, log::Command)> {
    let put = |key: &str| {
        let target = log::memory_target::Target::BundleId("v2".to_owned());
        plain(Command::PutMemory(log::PutMemory {
            agent: agent(),
            target: Some(log::MemoryTarget { target: Some(target) }),
            key: key.to_owned(),
            value: payload("Eve"),
            ..log::PutMemory::default()
        }))
    };
    let from = || Some(log::MemorySource { bundle_id: "v2".to_owned(), layer: 0 });
    vec![
        ("put memory of v2", put("users/8")),
        ("put more memory of v2", put("users/9")),
        (
            "promote memory of v2",
            asked(Command::PromoteMemory(log::PromoteMemory {
                agent: agent(),
                from: from(),
                to_bundle_id: "v1".to_owned(),
                prefix: "users/".to_owned(),
                late: true,
                on_conflict: v1::OnConflict::Overwrite.into(),
                after_key: "users/8".to_owned(),
            })),
        ),
        ("sweep two", plain(Command::Tick(log::Tick { agent: 1, max_items: 2 }))),
        (
            "discard memory of v2",
            asked(Command::DiscardMemory(log::DiscardMemory {
                agent: agent(),
                from: from(),
                prefix: "users/".to_owned(),
                after_key: "users/7".to_owned(),
            })),
        ),
        (
            "complete c with memory",
            plain(Command::CompleteStep(log::CompleteStep {
                step: step("c", 1),
                token: Some(Token { incarnation: 3, revision: 23 }),
                outcome: Some(log::complete_step::Outcome::Next(log::NextStep {
                    name: "answer".to_owned(),
                    input: payload("notes"),
                })),
                lease_next: Some(taker("v1")),
                memory: vec![
                    log::MemoryWrite {
                        key: "users/7".to_owned(),
                        value: payload("Ada L."),
                        ttl_ms: 3_600_000,
                        expected_key_revision: Some(0),
                    },
                    log::MemoryWrite { key: "users/9".to_owned(), ..log::MemoryWrite::default() },
                ],
                ..log::CompleteStep::default()
            })),
        ),
    ]
}

fn runs_that_serve_no_user() -> Vec<(&'static str, log::Command)> {
    let aside = |run_id: &str, kind: v1::RunKind, memory_revision, memory_layer| {
        plain(Command::StartRun(log::StartRun {
            agent: agent(),
            run_id: run_id.to_owned(),
            bundle_id: "v1".to_owned(),
            kind: kind.into(),
            memory_revision,
            memory_layer,
            ..log::StartRun::default()
        }))
    };
    let lease = plain(lease("i", 1, "v1"));
    let leased =
        log::LeasedRun { step: step("i", 1), token: Some(Token { incarnation: 3, revision: 47 }) };
    let target = log::memory_target::Target::Lease(leased);
    vec![
        ("start i as a shadow", aside("i", v1::RunKind::Shadow, 43, 1)),
        ("lease i", lease),
        (
            "put memory of i",
            plain(Command::PutMemory(log::PutMemory {
                agent: agent(),
                target: Some(log::MemoryTarget { target: Some(target) }),
                key: "users/7".to_owned(),
                value: payload("Eve"),
                ..log::PutMemory::default()
            })),
        ),
        ("start j as a smoke test", aside("j", v1::RunKind::Smoke, 0, 0)),
        (
            "cancel j",
            plain(Command::CancelRun(log::CancelRun { agent: agent(), run_id: "j".to_owned() })),
        ),
    ]
}

fn evals() -> Vec<(&'static str, log::Command)> {
    let metric = v1::EvalMetric { name: "tone".to_owned(), kind: v1::MetricKind::Judge.into() };
    let example = v1::EvalExample {
        id: "refund-1".to_owned(),
        category: "refund".to_owned(),
        input: payload("where is it?"),
        expect: Some(v1::EvalExpectation {
            contains: vec!["refund".to_owned()],
            matches: "(?i)policy".to_owned(),
            ..v1::EvalExpectation::default()
        }),
        ..v1::EvalExample::default()
    };
    let set = v1::EvalSet {
        name: "core".to_owned(),
        version: "14".to_owned(),
        metrics: vec![metric],
        examples: vec![example],
        ..v1::EvalSet::default()
    };
    let score =
        v1::EvalScore { metric: "tone".to_owned(), passed: Some(true), score_permille: Some(700) };
    let result = v1::EvalResult {
        example_id: "refund-1".to_owned(),
        outcome: v1::EvalOutcome::Passed.into(),
        scores: vec![score],
        ..v1::EvalResult::default()
    };
    let report = v1::EvalReport {
        bundle_id: "v1".to_owned(),
        set: "core@14".to_owned(),
        format: "pinrail".to_owned(),
        results: vec![result],
        ..v1::EvalReport::default()
    };
    let create = log::CreateEvalSet { agent: agent(), set: Some(set) };
    let submit = log::SubmitEvalReport { agent: agent(), report: Some(report) };
    vec![
        ("create eval set", asked(Command::CreateEvalSet(create))),
        ("submit eval report", asked(Command::SubmitEvalReport(submit))),
    ]
}

fn quotas() -> Vec<(&'static str, log::Command)> {
    let quotas = v1::NamespaceAmounts {
        open_runs: Some(20),
        agents: Some(10),
        memory_bytes: Some(1 << 20),
        bundles: None,
    };
    vec![
        (
            "create namespace with quotas",
            plain(Command::CreateNamespace(log::CreateNamespace {
                namespace: "sales".to_owned(),
                quotas: Some(v1::NamespaceAmounts { bundles: Some(0), ..quotas }),
            })),
        ),
        (
            "set quotas",
            asked(Command::UpdateNamespace(log::UpdateNamespace {
                namespace: "default".to_owned(),
                quotas: Some(quotas),
                unlimited: vec![v1::Quota::Bundles.into()],
            })),
        ),
        ("start within a quota", plain(start("q"))),
    ]
}

/// One that is accepted, one that is over, and what a run shows.
fn drift() -> Vec<(&'static str, log::Command)> {
    let report = |digit: &str, class: v1::DriftClass| {
        plain(Command::ReportDrift(log::ReportDrift {
            agent: 1,
            bundle_id: "v1".to_owned(),
            tool: "mail".to_owned(),
            expected: "0".repeat(64),
            seen: digit.repeat(64),
            class: class.into(),
            changes: vec![v1::DriftChange {
                path: "input /required".to_owned(),
                class: class.into(),
                what: "region is required now".to_owned(),
            }],
            input_schema_json: "{\"required\":[\"region\"]}".to_owned(),
            output_schema_json: "{}".to_owned(),
            worker_id: "w1".to_owned(),
        }))
    };
    let clear = log::ClearDrift {
        agent: 1,
        bundle_id: "v1".to_owned(),
        tool: "mail".to_owned(),
        seen: "b".repeat(64),
    };
    let accept = log::AcceptDrift {
        agent: agent(),
        bundle_id: "v1".to_owned(),
        name: "mail".to_owned(),
        source: v1::DriftSource::Schema.into(),
    };
    let usage = v1::Usage {
        models: vec![v1::ModelUsage {
            model: "default".to_owned(),
            served_model: "large-2".to_owned(),
            calls: 1,
            ..v1::ModelUsage::default()
        }],
        tools: vec![v1::ToolUsage {
            tool: "mail".to_owned(),
            schema_digest: "0".repeat(64),
            calls: 3,
            schema_violations: 1,
            side_effects: "read_only".to_owned(),
            checked: 2,
            violation_path: "/to".to_owned(),
            violation: "it is not of type string".to_owned(),
        }],
    };
    vec![
        ("report drift", report("a", v1::DriftClass::Breaking)),
        ("report more drift", report("b", v1::DriftClass::Compatible)),
        ("clear drift", plain(Command::ClearDrift(clear))),
        ("accept drift", asked(Command::AcceptDrift(accept))),
        ("start k", plain(start_and_lease("k"))),
        (
            "complete k, which shows drift",
            plain(Command::CompleteStep(log::CompleteStep {
                step: step("k", 1),
                token: Some(Token { incarnation: 3, revision: 65 }),
                outcome: Some(log::complete_step::Outcome::Done(payload("42").unwrap())),
                usage: Some(usage),
                ..log::CompleteStep::default()
            })),
        ),
    ]
}

fn plain(kind: Command) -> log::Command {
    log::Command { header: None, kind: Some(kind) }
}

/// With everything that a header can say.
fn asked(kind: Command) -> log::Command {
    let header = Header {
        request_id: format!(
            "request-{}",
            log::Command { header: None, kind: Some(kind.clone()) }.encoded_len()
        ),
        actor: "ada".to_owned(),
        reason: "golden".to_owned(),
        expected_revision: 0,
        dry_run: false,
    };
    log::Command { header: Some(header), kind: Some(kind) }
}

#[expect(clippy::unnecessary_wraps, reason = "the commands' fields are optional")]
fn agent() -> Option<AgentRef> {
    Some(AgentRef { namespace: String::new(), agent_id: "support".to_owned() })
}

#[expect(clippy::unnecessary_wraps, reason = "the commands' fields are optional")]
fn step(run_id: &str, step: u32) -> Option<StepRef> {
    Some(StepRef { agent: 1, run_id: run_id.to_owned(), step })
}

#[expect(clippy::unnecessary_wraps, reason = "the commands' fields are optional")]
fn payload(text: &str) -> Option<v1::Payload> {
    let data = Bytes::copy_from_slice(text.as_bytes());
    Some(v1::Payload { content_type: "text/plain".to_owned(), data })
}

fn taker(bundle_id: &str) -> Taker {
    Taker { worker_id: "w1".to_owned(), bundle_id: bundle_id.to_owned(), ..Taker::default() }
}

fn switch(bundle_id: &str) -> Command {
    Command::Switch(log::Switch {
        agent: agent(),
        bundle_id: bundle_id.to_owned(),
        ..log::Switch::default()
    })
}

fn start(run_id: &str) -> Command {
    Command::StartRun(log::StartRun {
        agent: agent(),
        run_id: run_id.to_owned(),
        input: payload("question"),
        labels: [("task_kind".to_owned(), "refund".to_owned())].into(),
        ..log::StartRun::default()
    })
}

fn start_and_lease(run_id: &str) -> Command {
    Command::StartRun(log::StartRun {
        agent: agent(),
        run_id: run_id.to_owned(),
        lease_first: Some(taker("v1")),
        ..log::StartRun::default()
    })
}

fn lease(run_id: &str, number: u32, bundle_id: &str) -> Command {
    Command::LeaseStep(log::LeaseStep {
        step: step(run_id, number),
        attempt: 1,
        taker: Some(taker(bundle_id)),
    })
}

fn bundle(bundle_id: &str, version: &str) -> Command {
    let model = v1::ModelPart {
        provider: "acme".to_owned(),
        name: "large".to_owned(),
        snapshot: "2025-09-29".to_owned(),
        snapshot_is_name: false,
        parameters_json: "{\"temperature\":0.2}".to_owned(),
    };
    let prompt = v1::PromptPart { digest: String::new(), text: format!("prompt {version}") };
    let index = v1::IndexPart { version: version.to_owned(), embedding_model: "emb-3".to_owned() };
    let tool = v1::ToolPart {
        version: version.to_owned(),
        input_schema_json: "{}".to_owned(),
        output_schema_json: "{}".to_owned(),
        side_effects: v1::SideEffects::Destructive.into(),
        ..v1::ToolPart::default()
    };
    let steps = v1::StepPolicy { max_attempts: Some(2), ..v1::StepPolicy::default() };
    Command::CreateBundle(log::CreateBundle {
        agent: agent(),
        bundle_id: bundle_id.to_owned(),
        manifest: Some(v1::BundleManifest {
            entry: "plan".to_owned(),
            code: Some(v1::CodePart { git_commit: "c0ffee".to_owned(), image: String::new() }),
            prompts: [("system".to_owned(), prompt)].into(),
            models: [("default".to_owned(), model)].into(),
            indexes: [("kb".to_owned(), index)].into(),
            tools: [("mail".to_owned(), tool)].into(),
            steps: [("plan".to_owned(), steps)].into(),
            message: "golden".to_owned(),
            labels: [("team".to_owned(), "support".to_owned())].into(),
            parent: String::new(),
        }),
    })
}
