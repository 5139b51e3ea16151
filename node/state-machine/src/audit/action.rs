//! Which commands are administrative actions, and what they are about.

use std::collections::BTreeMap;

use pinrail_proto::log::AgentRef;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::{MemorySource, MemoryTarget};
use pinrail_proto::v1::ScoreSource;

use crate::cluster;
use crate::signal::word;

/// What somebody does, and to what.
#[derive(Debug, Clone, Default)]
pub(super) struct Action {
    /// As the command line calls it.
    pub(super) name: &'static str,
    /// The agent's number, where the command gives only that.
    pub(super) number: u32,
    pub(super) namespace: String,
    pub(super) agent_id: String,
    pub(super) bundle_id: String,
    pub(super) run_id: String,
    /// Key of memory, where one is written.
    pub(super) memory_key: String,
    pub(super) session: String,
    /// Its policy is compared too.
    pub(super) of_policy: bool,
    /// The leader does it by what a person decided before: it counts only where it moves the route.
    pub(super) is_automatic: bool,
    /// What else was asked for.
    pub(super) details: BTreeMap<String, String>,
}

impl Action {
    fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn of(name: &'static str, agent: Option<&AgentRef>) -> Self {
        let agent = agent.cloned().unwrap_or_default();
        Self { namespace: agent.namespace, agent_id: agent.agent_id, ..Self::named(name) }
    }

    fn bundle(self, bundle_id: &str) -> Self {
        Self { bundle_id: bundle_id.to_owned(), ..self }
    }

    fn run(self, run_id: &str) -> Self {
        Self { run_id: run_id.to_owned(), ..self }
    }

    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    fn with_if(self, is: bool, key: &str) -> Self {
        if is { self.with(key, true) } else { self }
    }
}

/// `None`: the leader, a worker or an application does this in the course of things.
pub(super) fn of(command: &Command) -> Option<Action> {
    Some(match command {
        Command::InitCluster(_) => Action::named("cluster form"),
        Command::RecoverCluster(it) => Action::named("cluster recover")
            .with("node", &it.node)
            .with("given_up", cluster::names_of_given_up(it))
            .with("last_index", it.last_index)
            .with("last_term", it.last_term),
        Command::SetFeatureLevel(_) => Action::named("cluster raise-feature-level"),
        Command::CreateNamespace(it) => {
            Action { namespace: it.namespace.clone(), ..Action::named("namespace create") }
        }
        Command::UpdateNamespace(it) => {
            Action { namespace: it.namespace.clone(), ..Action::named("namespace update") }
        }
        Command::DeleteNamespace(it) => {
            Action { namespace: it.namespace.clone(), ..Action::named("namespace delete") }
        }
        Command::CreateAgent(it) => {
            Action { of_policy: true, ..Action::of("agent create", it.agent.as_ref()) }
        }
        Command::UpdateAgent(it) => {
            Action { of_policy: true, ..Action::of("agent update", it.agent.as_ref()) }
        }
        Command::DeleteAgent(it) => {
            Action { of_policy: true, ..Action::of("agent delete", it.agent.as_ref()) }
        }
        Command::PauseAgent(it) => {
            Action::of("agent pause", it.agent.as_ref()).bundle(&it.bundle_id)
        }
        Command::ResumeAgent(it) => {
            Action::of("agent resume", it.agent.as_ref()).bundle(&it.bundle_id)
        }
        Command::SetEnvironment(it) => {
            Action::of("environment set", it.agent.as_ref()).bundle(&it.bundle_id)
        }
        Command::CreateBundle(it) => {
            Action::of("bundle create", it.agent.as_ref()).bundle(&it.bundle_id)
        }
        // A start is an application's; one that names its bundle passes the route by.
        Command::StartRun(it) if !it.bundle_id.is_empty() => {
            Action::of("run start", it.agent.as_ref()).bundle(&it.bundle_id).run(&it.run_id)
        }
        Command::CancelRun(it) => Action::of("run cancel", it.agent.as_ref()).run(&it.run_id),
        Command::RetryRun(it) => Action::of("run retry", it.agent.as_ref()).run(&it.run_id),
        Command::PauseRun(it) => Action::of("run pause", it.agent.as_ref()).run(&it.run_id),
        Command::ResumeRun(it) => Action::of("run resume", it.agent.as_ref()).run(&it.run_id),
        Command::RepinRun(it) => Action::of("run repin", it.agent.as_ref()).run(&it.run_id),
        Command::EndSession(it) => Action {
            session: it.session.clone(),
            ..Action::of("session end", it.agent.as_ref()).with("session", &it.session)
        },
        Command::PutMemory(it) => {
            operated("memory put", it.agent.as_ref(), it.target.as_ref(), &it.key)?
        }
        Command::DeleteMemory(it) => {
            operated("memory delete", it.agent.as_ref(), it.target.as_ref(), &it.key)?
        }
        Command::PromoteMemory(it) => from(
            Action::of("memory promote", it.agent.as_ref()).bundle(&it.to_bundle_id),
            it.from.as_ref(),
        )
        .with("prefix", &it.prefix)
        .with("after_key", &it.after_key)
        .with_if(it.late, "late"),
        Command::DiscardMemory(it) => {
            from(Action::of("memory discard", it.agent.as_ref()), it.from.as_ref())
                .with("prefix", &it.prefix)
                .with("after_key", &it.after_key)
        }
        Command::Switch(it) => {
            Action::of("switch", it.agent.as_ref()).bundle(&it.bundle_id).with_if(it.force, "force")
        }
        Command::Rollback(it) => {
            Action::of("rollback", it.agent.as_ref()).bundle(&it.from_bundle_id)
        }
        Command::SetDrain(it) => Action::of("drain set", it.agent.as_ref()).bundle(&it.bundle_id),
        Command::StartRelease(it) => Action::of("release start", it.agent.as_ref())
            .bundle(&it.bundle_id)
            .with_if(it.force, "force")
            .with_if(it.fast, "fast"),
        Command::PromoteRelease(it) => {
            Action::of("release promote", it.agent.as_ref()).with_if(it.force, "force")
        }
        Command::HoldRelease(it) => Action::of("release hold", it.agent.as_ref()),
        Command::ResumeRelease(it) => Action::of("release resume", it.agent.as_ref()),
        Command::AbortRelease(it) => Action::of("release abort", it.agent.as_ref()),
        Command::ExtendQuarantine(it) => Action::of("quarantine extend", it.agent.as_ref()),
        Command::RecycleBundle(it) => {
            Action::of("bundle recycle", it.agent.as_ref()).bundle(&it.bundle_id)
        }
        Command::RecordVerdict(it) => {
            Action { number: it.agent, is_automatic: true, ..Action::named("release verdict") }
        }
        Command::AdvanceCanary(it) => Action {
            number: it.agent,
            is_automatic: true,
            ..Action::named("release advance-canary")
        },
        Command::CreateEvalSet(it) => {
            let set = it.set.clone().unwrap_or_default();
            Action::of("eval set create", it.agent.as_ref())
                .with("set", format!("{}@{}", set.name, set.version))
        }
        Command::SubmitEvalReport(it) => {
            let report = it.report.clone().unwrap_or_default();
            Action::of("eval submit", it.agent.as_ref())
                .bundle(&report.bundle_id)
                .with("set", report.set)
                .with("source", report.source)
        }
        Command::ScoreRun(it) if it.source() == ScoreSource::Human => {
            Action::of("run score", it.agent.as_ref())
                .run(&it.run_id)
                .with("score_permille", it.score_permille)
        }
        Command::FireSignal(it) => Action {
            number: it.agent,
            is_automatic: true,
            ..Action::named("signal fire").with("signal", word(it.signal()))
        },
        Command::AckSignal(it) => {
            Action::of("signal ack", it.agent.as_ref()).with("signal", word(it.signal()))
        }
        Command::MuteSignal(it) => Action::of("signal mute", it.agent.as_ref())
            .with("signal", word(it.signal()))
            .with("span_ms", it.span_ms),
        Command::AcceptDrift(it) => Action::of("tool accept", it.agent.as_ref())
            .bundle(&it.bundle_id)
            .with("tool", &it.name),
        Command::StartDrill(it) if !it.scheduled => Action::of("drill start", it.agent.as_ref()),
        Command::StartDrill(it) => {
            Action { is_automatic: true, ..Action::of("drill start", it.agent.as_ref()) }
        }
        Command::TurnRoute(it) => {
            Action { number: it.agent, is_automatic: true, ..Action::named("drill turn-route") }
        }
        Command::AbortDrill(it) => Action::of("drill abort", it.agent.as_ref()),
        Command::Redeliver(it) => {
            let what = match it.revision {
                0 => "all dead".to_owned(),
                revision => format!("{revision}/{}", it.index),
            };
            Action::of("hook redeliver", it.agent.as_ref())
                .with("hook", &it.hook)
                .with("deliveries", what)
        }
        Command::StartRun(_)
        | Command::Probe(_)
        | Command::ScoreRun(_)
        | Command::ClearSignal(_)
        | Command::RecordDrill(_)
        | Command::ScheduleDrill(_)
        | Command::ReportDrift(_)
        | Command::ClearDrift(_)
        | Command::FinishRun(_)
        | Command::KeepRun(_)
        | Command::SignalRun(_)
        | Command::LeaseStep(_)
        | Command::CompleteStep(_)
        | Command::FailStep(_)
        | Command::RecordCheckpoint(_)
        | Command::HandBackStep(_)
        | Command::ExpireLease(_)
        | Command::RecordDeliveries(_)
        | Command::Tick(_) => return None,
    })
}

/// A write of memory by an operator; `None`: a run writes its own.
fn operated(
    name: &'static str,
    agent: Option<&AgentRef>,
    target: Option<&MemoryTarget>,
    key: &str,
) -> Option<Action> {
    let bundle_id = match target.and_then(|target| target.target.as_ref()) {
        Some(Target::Lease(_)) => return None,
        Some(Target::BundleId(bundle_id)) => bundle_id.as_str(),
        None => "",
    };
    let action = Action::of(name, agent).bundle(bundle_id).with("key", key);
    Some(Action { memory_key: key.to_owned(), ..action })
}

fn from(action: Action, source: Option<&MemorySource>) -> Action {
    let source = source.cloned().unwrap_or_default();
    match source.layer {
        0 => action.with("from", source.bundle_id),
        layer => action.with("from", format!("layer:{layer}")),
    }
}
