//! Sequences of commands: each is applied or refused, the promises hold, and a replica that gets them in other batches
//! has the same rows.
//!
//! The bytes choose: which command, which of its fields, and for each a value of a small vocabulary, so that ids meet. All
//! of it follows from the descriptors, so that a new command takes part at once.

use std::sync::LazyLock;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::{log, v1};
use pinrail_state_machine::key::{Key, Kind as Row};
use pinrail_state_machine::query::dispatch::content_hash;
use pinrail_state_machine::store::MemoryStore;
use pinrail_state_machine::{Machine, invariants};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

const BEGIN_MS: u64 = 1_700_000_000_000;
/// Commands of one input: longer ones teach nothing more.
const MOST: usize = 64;
/// Messages in messages.
const DEPTH: usize = 6;

const TEXTS: [&str; 16] = [
    "support",
    "v1",
    "r",
    "main",
    "",
    "v2",
    "r2",
    "w",
    "k",
    "k/a",
    "n",
    "1",
    "default",
    "other",
    "text/plain",
    "*",
];
const NUMBERS: [u64; 12] =
    [0, 1, 2, 3, 5, 100, 1_000, 10_000, 60_000, 86_400_000, BEGIN_MS, u32::MAX as u64];
/// How much later the next batch is.
const STEPS_MS: [u64; 4] = [0, 10, 5_000, 90_000_000];

static COMMAND: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(pinrail_proto::DESCRIPTORS).expect("it is the build's own");
    pool.get_message_by_name("pinrail.log.v1.Command").expect("it is one of its messages")
});

/// The input, a byte at a time.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    /// 0 when there are no more.
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() % all.len()]
    }

    fn command(&mut self) -> log::Command {
        // A level that this binary does not know stops a member, and is meant to.
        let stops = |field: &FieldDescriptor| field.name() == "set_feature_level";
        let kinds = COMMAND.oneofs().next().expect("its kind");
        let kinds: Vec<FieldDescriptor> = kinds.fields().filter(|kind| !stops(kind)).collect();
        let kind = &kinds[self.next() % kinds.len()];
        let mut command = DynamicMessage::new(COMMAND.clone());
        if let Kind::Message(descriptor) = kind.kind() {
            command.set_field(kind, Value::Message(self.message(&descriptor, DEPTH)));
        }
        let mut command = log::Command::decode(command.encode_to_vec().as_slice())
            .expect("a message decodes by its own descriptor");
        command.header = Some(log::Header { actor: "fuzz".into(), ..log::Header::default() });
        command
    }

    /// One byte says for eight fields whether they are set.
    fn message(&mut self, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut set = 0;
        for (index, field) in descriptor.fields().enumerate() {
            if index % 8 == 0 {
                set = self.next();
            }
            if set >> (index % 8) & 1 == 1
                && let Some(value) = self.field(&field, depth)
            {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Option<Value> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let held = self.value(&entry.map_entry_value_field().kind(), depth)?;
            return Some(Value::Map([(MapKey::String(self.of(&TEXTS).to_owned()), held)].into()));
        }
        let value = self.value(&field.kind(), depth)?;
        Some(if field.is_list() { Value::List(vec![value]) } else { value })
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Option<Value> {
        let number = |choices: &mut Self| choices.of(&NUMBERS);
        Some(match kind {
            Kind::Message(_) if depth == 0 => return None,
            Kind::Message(held) => Value::Message(self.message(held, depth - 1)),
            Kind::String => Value::String(self.of(&TEXTS).to_owned()),
            Kind::Bytes => Value::Bytes(self.of(&["1", "{}", ""]).into()),
            Kind::Bool => Value::Bool(true),
            Kind::Enum(held) => {
                let numbers: Vec<i32> = held.values().map(|value| value.number()).collect();
                Value::EnumNumber(self.of(&numbers))
            }
            Kind::Double => Value::F64(self.of(&[0.0, 0.5, 1.0, -1.0])),
            Kind::Float => Value::F32(self.of(&[0.0, 0.5, 1.0, -1.0])),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(u32::try_from(number(self)).unwrap_or(7)),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number(self)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                Value::I32(i32::try_from(number(self)).unwrap_or(-1))
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Value::I64(i64::try_from(number(self)).unwrap_or(-1))
            }
        })
    }
}

/// A store, and what was applied to it.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) store: MemoryStore,
    log: Vec<(u64, Bytes)>,
}

impl Replica {
    /// A cluster with an agent `support`, its bundles `v1`, which is live, and `v2`, and a run `r` that a worker has.
    pub(crate) fn formed() -> Self {
        let agent =
            || Some(log::AgentRef { namespace: String::new(), agent_id: "support".to_owned() });
        let mut replica = Self::default();
        let mut apply = |kind| {
            let rejected = replica.apply(BEGIN_MS, log::Command { header: None, kind: Some(kind) });
            assert_eq!(rejected, None, "the scene is set");
        };
        apply(Command::InitCluster(log::InitCluster {
            cluster: "test".to_owned(),
            cluster_id: vec![7; 16].into(),
            incarnation: 1,
            feature_level: 1,
        }));
        apply(Command::CreateAgent(Box::new(log::CreateAgent {
            agent: agent(),
            policy: Some(v1::Policy::default()),
        })));
        for bundle in ["v1", "v2"] {
            let model = v1::ModelPart {
                provider: "p".to_owned(),
                name: "m".to_owned(),
                snapshot: "1".to_owned(),
                ..v1::ModelPart::default()
            };
            apply(Command::CreateBundle(log::CreateBundle {
                agent: agent(),
                bundle_id: bundle.to_owned(),
                manifest: Some(v1::BundleManifest {
                    code: Some(v1::CodePart { git_commit: "abc".into(), image: String::new() }),
                    models: [("default".to_owned(), model)].into(),
                    message: bundle.to_owned(),
                    ..v1::BundleManifest::default()
                }),
            }));
        }
        apply(Command::Switch(log::Switch {
            agent: agent(),
            bundle_id: "v1".to_owned(),
            ..log::Switch::default()
        }));
        apply(Command::StartRun(log::StartRun {
            agent: agent(),
            run_id: "r".to_owned(),
            entry: "main".to_owned(),
            input: Some(v1::Payload { content_type: "text/plain".into(), data: "1".into() }),
            ..log::StartRun::default()
        }));
        replica
    }

    /// The reason of a refusal, which must have changed nothing but the cluster's own row.
    fn apply(&mut self, stamp_ms: u64, command: log::Command) -> Option<String> {
        let encoded = Bytes::from(command.encode_to_vec());
        self.log.push((stamp_ms, encoded.clone()));
        let mut machine = Machine::open(&self.store).expect("the store is whole");
        let applied = machine.apply_batch(&batch(stamp_ms, vec![encoded])).expect("no fault");
        let written = machine.finish();
        let rejected = match &applied[0].outcome.result {
            Some(Answer::Rejection(rejection)) => Some(rejection.reason.clone()),
            Some(_) => None,
            None => panic!("an outcome without a result"),
        };
        if rejected.is_some() {
            let cluster = Key::new(Row::Cluster).build();
            assert!(written.writes.keys().all(|key| *key == cluster), "a refusal wrote rows");
        }
        self.store.write(written.writes);
        rejected
    }

    /// Another replica, which gets the commands of one moment in one batch.
    fn again(&self) -> MemoryStore {
        let mut store = MemoryStore::default();
        for moment in self.log.chunk_by(|(one, _), (other, _)| one == other) {
            let commands = moment.iter().map(|(_, command)| command.clone()).collect();
            let mut machine = Machine::open(&store).expect("the store is whole");
            machine.apply_batch(&batch(moment[0].0, commands)).expect("no fault");
            let written = machine.finish();
            store.write(written.writes);
        }
        store
    }
}

fn batch(stamp_ms: u64, commands: Vec<Bytes>) -> Bytes {
    Bytes::from(log::Batch { stamp_ms, commands }.encode_to_vec())
}

pub(crate) fn apply(data: &[u8]) {
    let mut replica = Replica::formed();
    let mut choices = Choices(data);
    let mut now_ms = BEGIN_MS;
    while !choices.0.is_empty() && replica.log.len() < MOST {
        now_ms += choices.of(&STEPS_MS);
        let command = choices.command();
        replica.apply(now_ms, command);
    }
    let violations = invariants::check(&replica.store).expect("the store is whole");
    assert!(violations.is_empty(), "{violations:#?}");
    let again = replica.again();
    assert!(replica.store.rows().eq(again.rows()), "another replica has other rows");
    assert_eq!(
        content_hash(&replica.store).expect("the store is whole"),
        content_hash(&again).expect("the store is whole")
    );
}
