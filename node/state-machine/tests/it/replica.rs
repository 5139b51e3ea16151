//! A replica for tests: a store in memory, the cluster's clock, the log that it applied. Cloning it forks history.

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, AgentRef, Header};
use pinrail_proto::time::duration;
use pinrail_proto::v1;
use pinrail_state_machine::key::{Key, Kind};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::store::{MemoryStore, Read};
use pinrail_state_machine::{FEATURE_LEVEL, Machine, invariants};
use prost::Message as _;

pub(super) const BEGIN_MS: u64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) store: MemoryStore,
    pub(super) now_ms: u64,
    /// Commands with the stamp of their batch.
    pub(super) log: Vec<(u64, Bytes)>,
}

impl Replica {
    /// A formed cluster on the newest feature level.
    pub(super) fn formed() -> Self {
        Self::formed_at(FEATURE_LEVEL)
    }

    pub(super) fn formed_at(feature_level: u32) -> Self {
        let mut replica = Self { store: MemoryStore::default(), now_ms: BEGIN_MS, log: Vec::new() };
        replica.must(Command::InitCluster(log::InitCluster {
            cluster: "test".to_owned(),
            cluster_id: vec![7; 16].into(),
            incarnation: 1,
            feature_level,
        }));
        replica
    }

    pub(super) fn read(&self) -> &dyn Read {
        &self.store
    }

    /// Applies one command in an entry of its own. A refusal must have changed nothing but the revision.
    pub(super) fn apply(&mut self, command: Command) -> Applied {
        self.ask("", command)
    }

    /// The same with a request id.
    pub(super) fn ask(&mut self, request_id: &str, command: Command) -> Applied {
        let (actor, request_id) = ("test".to_owned(), request_id.to_owned());
        let header = Header { actor, request_id, ..Header::default() };
        let command = log::Command { header: Some(header), kind: Some(command) };
        let encoded = Bytes::from(command.encode_to_vec());
        self.log.push((self.now_ms, encoded.clone()));
        let mut machine = Machine::open(&self.store).unwrap();
        let mut applied = machine.apply_batch(&batch(self.now_ms, vec![encoded])).unwrap();
        let written = machine.finish();
        let applied = applied.remove(0);
        if reason(&applied).is_some() {
            let cluster = Key::new(Kind::Cluster).build();
            assert!(written.writes.keys().all(|key| *key == cluster), "a refusal wrote rows");
            assert!(applied.effects.is_empty(), "a refusal has effects");
        }
        self.store.write(written.writes);
        applied
    }

    /// Applies a command that cannot be refused.
    pub(super) fn must(&mut self, command: Command) -> Answer {
        let applied = self.apply(command);
        assert_eq!(reason(&applied), None, "{applied:?}");
        applied.outcome.result.unwrap()
    }

    /// How many rows of a kind there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.store.rows().filter(|(key, _)| key[0] == kind as u8).count()
    }

    pub(super) fn check_promises(&self) {
        let violations = invariants::check(&self.store).unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Sweeps all that is due of an agent.
    pub(super) fn sweep(&mut self, agent: u32) {
        while let Answer::Tick(tick) = self.must(Command::Tick(log::Tick { agent, max_items: 256 }))
            && tick.more
        {}
    }
}

pub(super) fn batch(stamp_ms: u64, commands: Vec<Bytes>) -> Bytes {
    Bytes::from(log::Batch { stamp_ms, commands }.encode_to_vec())
}

/// The reason of a refusal.
pub(super) fn reason(applied: &Applied) -> Option<&str> {
    match &applied.outcome.result {
        Some(Answer::Rejection(rejection)) => Some(&rejection.reason),
        Some(_) => None,
        None => panic!("an outcome without a result"),
    }
}

pub(super) fn agent(agent_id: &str) -> Option<AgentRef> {
    Some(AgentRef { namespace: String::new(), agent_id: agent_id.to_owned() })
}

pub(super) fn payload(text: &str) -> v1::Payload {
    v1::Payload {
        content_type: "text/plain".to_owned(),
        data: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// Short spans, so that a few steps of the clock reach every end.
pub(super) fn policy(external: bool) -> v1::Policy {
    let execution = if external { v1::Execution::External } else { v1::Execution::Workers };
    v1::Policy {
        runs: Some(v1::RunPolicy {
            execution: execution.into(),
            max_age: Some(duration(60_000)),
            retention: Some(duration(40_000)),
            keep_alive: Some(duration(if external { 15_000 } else { 0 })),
            max_open: Some(6),
            ..v1::RunPolicy::default()
        }),
        steps: Some(v1::StepPolicy {
            max_attempts: Some(2),
            max_running: Some(3),
            start_to_close: Some(duration(12_000)),
            lease: Some(duration(2_000)),
            ..v1::StepPolicy::default()
        }),
        switch: Some(v1::SwitchPolicy {
            on_drain: v1::OnDrain::Repin.into(),
            drain_cap: Some(duration(20_000)),
            grace: Some(duration(5_000)),
            ..v1::SwitchPolicy::default()
        }),
        hooks: vec![v1::Hook {
            name: "pager".to_owned(),
            url: "https://pager.example".to_owned(),
            events: vec!["*".to_owned(), "run.finished".to_owned()],
            ..v1::Hook::default()
        }],
        memory: Some(v1::MemoryPolicy {
            versions: Some(duration(10_000)),
            ..v1::MemoryPolicy::default()
        }),
        ..v1::Policy::default()
    }
}

/// A bundle whose step `patient` waits for a person when its attempts are used up, and whose step `hasty` waits
/// ten seconds for a worker.
pub(super) fn manifest(text: &str) -> v1::BundleManifest {
    let model = v1::ModelPart {
        provider: "acme".to_owned(),
        name: "large".to_owned(),
        snapshot: "2025-09-29".to_owned(),
        ..v1::ModelPart::default()
    };
    let prompt = v1::PromptPart { text: text.to_owned(), digest: String::new() };
    let patient =
        v1::StepPolicy { on_exhausted: v1::OnExhausted::Pause.into(), ..v1::StepPolicy::default() };
    let hasty =
        v1::StepPolicy { schedule_to_start: Some(duration(10_000)), ..v1::StepPolicy::default() };
    v1::BundleManifest {
        code: Some(v1::CodePart { git_commit: "c0ffee".to_owned(), image: String::new() }),
        models: [("default".to_owned(), model)].into(),
        prompts: [("system".to_owned(), prompt)].into(),
        steps: [("patient".to_owned(), patient), ("hasty".to_owned(), hasty)].into(),
        ..v1::BundleManifest::default()
    }
}

pub(super) fn create_agent(agent_id: &str, external: bool) -> Command {
    Command::CreateAgent(Box::new(log::CreateAgent {
        agent: agent(agent_id),
        policy: Some(policy(external)),
    }))
}

pub(super) fn create_bundle(agent_id: &str, bundle_id: &str) -> Command {
    Command::CreateBundle(log::CreateBundle {
        agent: agent(agent_id),
        bundle_id: bundle_id.to_owned(),
        manifest: Some(manifest(bundle_id)),
    })
}

pub(super) fn switch(agent_id: &str, bundle_id: &str) -> Command {
    Command::Switch(log::Switch {
        agent: agent(agent_id),
        bundle_id: bundle_id.to_owned(),
        force: false,
        expected_epoch: 0,
        capacity: None,
    })
}
