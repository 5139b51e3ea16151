//! What is sent: a request with one hostile field in it, or bytes that are no request at all.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use pinrail_proto::limits::API_MESSAGE_BYTES;
use pinrail_proto::reason::{self, Reason};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::request;
use super::wire::{framed, prefixed};

/// How deep fields of fields are looked for: deeper than any message of the API is, but for those that hold themselves.
const DEPTH: usize = 7;
const LONG: usize = 1 << 20;
/// Stands for bytes that are no UTF-8 until the message is encoded.
const NO_UTF8: &str = "--no-utf-8--";

/// One hostile value by its name.
type Hostile<T> = (&'static str, fn() -> T);

const TEXTS: &[Hostile<String>] = &[
    ("empty", String::new),
    ("1 MB", || "x".repeat(LONG)),
    ("a path upwards", || "../../../etc/passwd".into()),
    // What ends a text in our keys, and a number behind it.
    ("NUL", || "a\0b".into()),
    ("a key", || "a\0\0\0\0\0\0\0\0\u{1}v1\0".into()),
    ("lines", || "a\r\nx-header: b".into()),
    ("escaped NUL", || "%00".into()),
    ("right to left", || "\u{202e}gnp".into()),
    ("no width", || "a\u{200b}b\u{feff}".into()),
    ("a drill's route", || "support~drill".into()),
    ("no UTF-8", || NO_UTF8.into()),
];

const TOKENS: &[Hostile<String>] = &[
    ("no hex", || "zz".into()),
    ("half a byte", || "123".into()),
    ("before all", || "00".into()),
    ("behind all", || "ff".repeat(64)),
    ("a key of another kind", || format!("20{}{}", "00000001", hex_of("r"))),
    ("a long key", || "2a".repeat(LONG / 2)),
];

const JSONS: &[Hostile<String>] = &[
    ("deep", || "[".repeat(100_000)),
    ("deep and closed", || "[".repeat(50_000) + &"]".repeat(50_000)),
    ("deep objects", || "{\"a\":".repeat(50_000) + "1" + &"}".repeat(50_000)),
    ("wide", || format!("[{}1]", "1,".repeat(LONG / 2))),
    ("a large number", || "1e400".into()),
    ("many digits", || "9".repeat(1_000)),
    ("a mark before", || "\u{feff}{}".into()),
    ("no UTF-8", || NO_UTF8.into()),
];

/// Seconds and nanoseconds.
const TIMES: &[Hostile<(i64, i32)>] = &[
    ("negative", || (-1, 0)),
    ("negative nanoseconds", || (0, -1)),
    ("a second of nanoseconds", || (0, 1_000_000_000)),
    ("two signs", || (1, -1)),
    ("the other two signs", || (-1, 1)),
    ("most", || (i64::MAX, i32::MAX)),
    ("least", || (i64::MIN, i32::MIN)),
    ("least nanoseconds", || (1, i32::MIN)),
];

const FLOATS: &[Hostile<f64>] = &[
    ("NaN", || f64::NAN),
    ("infinite", || f64::INFINITY),
    ("minus infinite", || f64::NEG_INFINITY),
    ("minus zero", || -0.0),
];

const U32: &[Hostile<Value>] = &[
    ("zero", || Value::U32(0)),
    ("most", || Value::U32(u32::MAX)),
    ("2^31", || Value::U32(1 << 31)),
];
const U64: &[Hostile<Value>] = &[
    ("zero", || Value::U64(0)),
    ("most", || Value::U64(u64::MAX)),
    ("2^63", || Value::U64(1 << 63)),
];
const I32: &[Hostile<Value>] =
    &[("zero", || Value::I32(0)), ("-1", || Value::I32(-1)), ("most", || Value::I32(i32::MAX))];
const I64: &[Hostile<Value>] =
    &[("zero", || Value::I64(0)), ("-1", || Value::I64(-1)), ("most", || Value::I64(i64::MAX))];
const ENUMS: &[Hostile<Value>] = &[
    ("unknown", || Value::EnumNumber(9_999)),
    ("negative", || Value::EnumNumber(-1)),
    ("most", || Value::EnumNumber(i32::MAX)),
];
/// Bytes of a message, given a plausible one and its descriptor.
type Garbage = (&'static str, Option<Reason>, fn(&[u8], &MessageDescriptor) -> Bytes);

const GARBAGE: &[Garbage] = &[
    ("nothing", None, |_, _| Bytes::new()),
    ("an empty message", None, |_, _| framed(b"")),
    ("noise", None, |_, _| framed(&noise(100))),
    ("more noise", None, |_, _| framed(&noise(100_000))),
    ("half a message", None, |message, _| framed(&message[..message.len() / 2])),
    ("wrong wire types", None, |_, it| framed(&wrong_wire_types(it))),
    ("a varint without an end", Some(reason::INVALID_REQUEST), |_, _| framed(&[0xff; 20])),
    ("a length behind the end", Some(reason::INVALID_REQUEST), |_, _| framed(b"\xfa\x3f\x7fx")),
    ("unknown fields", None, |message, _| framed(&unknown_fields(message))),
    ("nested groups", Some(reason::INVALID_REQUEST), |_, _| framed(&groups(200))),
    ("a group without an end", Some(reason::INVALID_REQUEST), |_, _| framed(&groups(50)[..60])),
    ("field 0", Some(reason::INVALID_REQUEST), |_, _| framed(&[0, 0])),
    ("the limit", None, |_, _| framed(&padded(API_MESSAGE_BYTES))),
    ("above the limit", Some(reason::LIMIT_EXCEEDED), |_, _| {
        framed(&padded(API_MESSAGE_BYTES + 1))
    }),
    ("2 GiB announced", Some(reason::LIMIT_EXCEEDED), |it, _| prefixed(0, 1 << 31, it)),
    ("4 GiB announced", Some(reason::LIMIT_EXCEEDED), |it, _| prefixed(0, u32::MAX, it)),
    ("more announced than comes", Some(reason::INVALID_REQUEST), |it, _| prefixed(0, 1 << 20, it)),
    ("half a prefix", Some(reason::INVALID_REQUEST), |_, _| Bytes::from_static(b"\0\0")),
    ("compressed by nothing", Some(reason::INVALID_REQUEST), |it, _| {
        prefixed(1, u32::try_from(it.len()).unwrap(), it)
    }),
    ("an unknown flag", Some(reason::INVALID_REQUEST), |it, _| {
        prefixed(7, u32::try_from(it.len()).unwrap(), it)
    }),
];

/// What is put into a field.
#[derive(Clone, Copy)]
pub(super) enum Content {
    Text(fn() -> String),
    Json(fn() -> String),
    Time(fn() -> (i64, i32)),
    Float(fn() -> f64),
    Plain(fn() -> Value),
    /// A key of a map.
    Key(fn() -> String),
    /// Very many of what the field holds.
    Many,
}

/// One hostile request of a method.
#[derive(Clone)]
pub(super) enum Case {
    Garbage(&'static Garbage),
    Field { path: Vec<FieldDescriptor>, name: &'static str, content: Content },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage((name, ..)) => f.write_str(name),
            Self::Field { path, name, .. } => {
                let path: Vec<&str> = path.iter().map(FieldDescriptor::name).collect();
                write!(f, "{} is {name}", path.join("."))
            }
        }
    }
}

impl Case {
    /// The reason that it must be refused with, whatever the method.
    pub(super) fn must(&self) -> Option<Reason> {
        match self {
            Self::Garbage((_, must, _)) => *must,
            Self::Field { name: "no UTF-8", path, .. } => {
                let text = path.last().is_some_and(|field| field.kind() == Kind::String);
                text.then_some(reason::INVALID_REQUEST)
            }
            Self::Field { .. } => None,
        }
    }

    /// The field of the request that it is in.
    pub(super) fn field(&self) -> Option<&FieldDescriptor> {
        match self {
            Self::Garbage(_) => None,
            Self::Field { path, .. } => path.first(),
        }
    }

    /// The message with its prefix.
    pub(super) fn frame(&self, request: &MessageDescriptor, agent: &str) -> Bytes {
        let mut message = request::of(request, agent);
        match self {
            Self::Garbage((_, _, bytes)) => bytes(&message.encode_to_vec(), request),
            Self::Field { path, content, name } => {
                put(&mut message, path, *content, agent);
                let mut bytes = message.encode_to_vec();
                if *name == "no UTF-8" {
                    let from = NO_UTF8.as_bytes();
                    let at = bytes.windows(from.len()).position(|part| part == from);
                    let at = at.expect("the field is in the message");
                    bytes[at..at + from.len()].fill(0xff);
                }
                framed(&bytes)
            }
        }
    }
}

/// Every case of a request.
pub(super) fn all(request: &MessageDescriptor) -> Vec<Case> {
    let mut cases = GARBAGE.iter().map(Case::Garbage).collect();
    fields(request, &mut Vec::new(), &mut cases);
    cases
}

fn fields(message: &MessageDescriptor, path: &mut Vec<FieldDescriptor>, cases: &mut Vec<Case>) {
    for field in message.fields() {
        let held = held(&field);
        path.push(field.clone());
        let mut add = |name, content| {
            cases.push(Case::Field { path: path.clone(), name, content });
        };
        if field.is_map() {
            TEXTS.iter().for_each(|(name, text)| add(name, Content::Key(*text)));
        }
        if field.is_list() || field.is_map() {
            add("many", Content::Many);
        }
        match held.kind() {
            Kind::String if field.name().ends_with("page_token") => {
                TOKENS.iter().for_each(|(name, text)| add(name, Content::Text(*text)));
                TEXTS.iter().for_each(|(name, text)| add(name, Content::Text(*text)));
            }
            Kind::String => {
                if field.name().ends_with("_json") || field.name().contains("schema") {
                    JSONS.iter().for_each(|(name, text)| add(name, Content::Text(*text)));
                }
                TEXTS.iter().for_each(|(name, text)| add(name, Content::Text(*text)));
            }
            Kind::Bytes => JSONS.iter().for_each(|(name, text)| add(name, Content::Json(*text))),
            Kind::Double | Kind::Float => {
                FLOATS.iter().for_each(|(name, float)| add(name, Content::Float(*float)));
            }
            Kind::Uint32 | Kind::Fixed32 => {
                U32.iter().for_each(|(name, value)| add(name, Content::Plain(*value)));
            }
            Kind::Uint64 | Kind::Fixed64 => {
                U64.iter().for_each(|(name, value)| add(name, Content::Plain(*value)));
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                I32.iter().for_each(|(name, value)| add(name, Content::Plain(*value)));
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                I64.iter().for_each(|(name, value)| add(name, Content::Plain(*value)));
            }
            Kind::Enum(_) => {
                ENUMS.iter().for_each(|(name, value)| add(name, Content::Plain(*value)));
            }
            Kind::Bool => add("true", Content::Plain(|| Value::Bool(true))),
            Kind::Message(held) if is_time(&held) => {
                TIMES.iter().for_each(|(name, time)| add(name, Content::Time(*time)));
            }
            Kind::Message(held) => {
                if path.len() < DEPTH && path.iter().filter(|it| **it == field).count() == 1 {
                    fields(&held, path, cases);
                }
            }
        }
        path.pop();
    }
}

fn is_time(message: &MessageDescriptor) -> bool {
    ["google.protobuf.Duration", "google.protobuf.Timestamp"].contains(&message.full_name())
}

/// The field whose value is in the field: of a map, that of its entries.
fn held(field: &FieldDescriptor) -> FieldDescriptor {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field(),
        _ => field.clone(),
    }
}

fn put(message: &mut DynamicMessage, path: &[FieldDescriptor], content: Content, agent: &str) {
    let Some((field, rest)) = path.split_first() else { return };
    let held = held(field);
    if let Content::Many = content
        && rest.is_empty()
    {
        message.set_field(field, many(field, &held, agent));
        return;
    }
    let value = if rest.is_empty() {
        value(&held, content, agent)
    } else {
        let Kind::Message(descriptor) = held.kind() else { return };
        let mut inner = match message.get_field(field).into_owned() {
            Value::Message(inner) if message.has_field(field) => inner,
            _ => request::of(&descriptor, agent),
        };
        put(&mut inner, rest, content, agent);
        Value::Message(inner)
    };
    let key = match content {
        Content::Key(text) if rest.is_empty() => text(),
        _ => "k".to_owned(),
    };
    let value = if field.is_map() {
        Value::Map([(MapKey::String(key), value)].into())
    } else if field.is_list() {
        Value::List(vec![value])
    } else {
        value
    };
    message.set_field(field, value);
}

fn value(field: &FieldDescriptor, content: Content, agent: &str) -> Value {
    match content {
        Content::Text(text) => Value::String(text()),
        Content::Json(text) => Value::Bytes(text().into()),
        Content::Float(float) if field.kind() == Kind::Float => Value::F32(float() as f32),
        Content::Float(float) => Value::F64(float()),
        Content::Plain(value) => value(),
        Content::Time(time) => {
            let Kind::Message(descriptor) = field.kind() else { return Value::Bool(false) };
            let (seconds, nanos) = time();
            let mut message = DynamicMessage::new(descriptor);
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(nanos));
            Value::Message(message)
        }
        Content::Key(_) | Content::Many => usual(field, agent),
    }
}

fn usual(field: &FieldDescriptor, agent: &str) -> Value {
    match field.kind() {
        Kind::Message(descriptor) => Value::Message(request::of(&descriptor, agent)),
        kind => Value::default_value(&kind),
    }
}

fn many(field: &FieldDescriptor, held: &FieldDescriptor, agent: &str) -> Value {
    const MANY: u32 = 2_000;
    if field.is_map() {
        let entry = |n: u32| (MapKey::String(format!("k{n}")), usual(held, agent));
        return Value::Map((0..MANY).map(entry).collect());
    }
    Value::List((0..MANY).map(|_| usual(held, agent)).collect())
}

fn hex_of(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The same bytes each time, by xorshift.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Each field as a number if it is none, and as eight bytes if it is one.
fn wrong_wire_types(message: &MessageDescriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in message.fields() {
        let length_delimited =
            matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_));
        if length_delimited {
            encode_key(field.number(), WireType::Varint, &mut bytes);
            encode_varint(7, &mut bytes);
        } else {
            encode_key(field.number(), WireType::SixtyFourBit, &mut bytes);
            bytes.put_u64(7);
        }
    }
    bytes
}

fn unknown_fields(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for number in 0..5_000 {
        encode_key(10_000 + number, WireType::LengthDelimited, &mut bytes);
        bytes.put_slice(b"\x03abc");
    }
    bytes
}

fn groups(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..depth).for_each(|_| encode_key(9_999, WireType::StartGroup, &mut bytes));
    (0..depth).for_each(|_| encode_key(9_999, WireType::EndGroup, &mut bytes));
    bytes
}

/// One unknown field that makes a message of so many bytes.
fn padded(length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(length);
    encode_key(9_999, WireType::LengthDelimited, &mut bytes);
    // Its length takes four bytes, as that of all that are between 2 MiB and 256 MiB.
    let rest = length - bytes.len() - 4;
    encode_varint(rest as u64, &mut bytes);
    bytes.resize(length, b'x');
    bytes.freeze()
}
