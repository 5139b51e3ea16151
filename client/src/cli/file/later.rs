//! Keys of agent.toml whose meaning comes with a later version. Their default value is accepted, since it is what
//! happens anyway; any other value is an error, never silently ignored.

use super::FileError;
use super::reader::Reader;
use super::tree::{self, Node, Table, Value};
use super::value;

/// Every such key with its default. Sections that `agent.rs` knows hold only the keys that it does not.
const DEFAULTS: &str = include_str!("later.toml");

/// Sections that are read elsewhere, except for the keys listed here.
const SHARED: &[&str] = &["switch", "rollback", "memory"];

/// The later keys by section.
pub(super) fn defaults() -> Table {
    tree::parse(DEFAULTS).expect("the embedded defaults are valid TOML: a test parses them")
}

/// Takes the sections out that belong to later versions as a whole.
pub(super) fn sections(top: &mut Reader<'_>, defaults: &Table) -> Result<(), FileError> {
    for (name, default) in defaults.iter().filter(|(name, _)| !SHARED.contains(&name.as_str())) {
        if let Some(node) = top.named(name) {
            compare(top, &top.key(name), &node, &default.value)?;
        }
    }
    if let Some(hooks) = top.named("hooks") {
        compare(top, "hooks", &hooks, &Value::List(Vec::new()))?;
    }
    Ok(())
}

/// Takes the later keys of a shared section out.
pub(super) fn keys(
    reader: &mut Reader<'_>,
    section: &str,
    defaults: &Table,
) -> Result<(), FileError> {
    let Some(Node { value: Value::Table(keys), .. }) = defaults.get(section) else { return Ok(()) };
    for (key, default) in keys {
        if let Some(node) = reader.named(key) {
            compare(reader, &reader.key(key), &node, &default.value)?;
        }
    }
    Ok(())
}

fn compare(reader: &Reader<'_>, path: &str, node: &Node, default: &Value) -> Result<(), FileError> {
    if let (Value::Table(keys), Value::Table(defaults)) = (&node.value, default)
        && !defaults.is_empty()
    {
        for (key, inner) in keys {
            let path = format!("{path}.{key}");
            let Some(default) = defaults.get(key) else {
                return Err(reader.error(inner.line, format!("unknown key {path}")));
            };
            compare(reader, &path, inner, &default.value)?;
        }
        return Ok(());
    }
    if same(&node.value, default) {
        return Ok(());
    }
    let default = default.json().map_or(String::new(), |json| format!(" {json}"));
    let rule = format!("{path}: not supported yet; only the default{default} is accepted");
    Err(reader.error(node.line, rule))
}

/// Equal in meaning: `1h` is `60m`, 1 is 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => {
            one == other
                || matches!((value::duration(one), value::duration(other)), (Ok(a), Ok(b)) if a == b)
        }
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| same(&one.value, &other.value))
        }
        (Value::Table(one), Value::Table(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, node)| {
                    other.get(key).is_some_and(|other| same(&node.value, &other.value))
                })
        }
        (Value::Integer(_) | Value::Decimal(_), Value::Integer(_) | Value::Decimal(_)) => {
            number(one) == number(other)
        }
        (one, other) => one == other,
    }
}

#[expect(clippy::cast_precision_loss, reason = "the defaults are small numbers")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Decimal(number) => Some(*number),
        Value::Text(_) | Value::Bool(_) | Value::Date(_) | Value::List(_) | Value::Table(_) => None,
    }
}
