//! What the checks of every section are made of: each refuses with the key, the value and what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use pinrail_proto::time::millis;
use pinrail_proto::{id, reason};
use prost_types::Duration;

use crate::outcome::{Stop, reject};

/// A duration within a range of milliseconds; one that is not set is in range.
pub(super) fn span(
    key: &str,
    value: Option<&Duration>,
    range: RangeInclusive<u64>,
) -> Result<(), Stop> {
    let Some(value) = value else { return Ok(()) };
    let allowed = format!("{} to {} ms", range.start(), range.end());
    match millis(value) {
        Some(ms) if range.contains(&ms) => Ok(()),
        Some(ms) => Err(invalid(key, format!("{ms} ms"), &allowed)),
        None => Err(invalid(key, format!("{} s", value.seconds), &allowed)),
    }
}

/// A number within a range; one that is not set is in range.
pub(super) fn number(
    key: &str,
    value: Option<impl Into<u64>>,
    range: RangeInclusive<u64>,
) -> Result<(), Stop> {
    let Some(value) = value.map(Into::into) else { return Ok(()) };
    if range.contains(&value) {
        return Ok(());
    }
    Err(invalid(key, value, &format!("{} to {}", range.start(), range.end())))
}

/// A decimal in thousandths.
pub(super) fn permille(
    key: &str,
    value: Option<u32>,
    range: RangeInclusive<u64>,
) -> Result<(), Stop> {
    number(&format!("{key} (thousandths)"), value, range)
}

/// A value of an enumeration that this version knows; `words` are its names in agent.toml.
pub(super) fn word<E: TryFrom<i32>>(key: &str, value: i32, words: &str) -> Result<(), Stop> {
    if E::try_from(value).is_ok() {
        return Ok(());
    }
    Err(invalid(key, value, words))
}

/// A list of at most so many.
pub(super) fn count(key: &str, len: usize, most: usize) -> Result<(), Stop> {
    if len <= most {
        return Ok(());
    }
    Err(invalid(key, format!("{len} entries"), &format!("at most {most}")))
}

/// A text of at most so many bytes.
pub(super) fn text(key: &str, text: &str, most: usize) -> Result<(), Stop> {
    if text.len() <= most {
        return Ok(());
    }
    Err(invalid(key, format!("{} bytes", text.len()), &format!("at most {most} bytes")))
}

/// A name of the usual grammar.
pub(super) fn name(key: &str, name: &str) -> Result<(), Stop> {
    if id::check_name("name", name).is_ok() {
        return Ok(());
    }
    let rule = "1 to 63 of A-Z a-z 0-9 . _ - that begin with a letter or digit";
    Err(invalid(key, quoted(name), rule))
}

/// One of some words.
pub(super) fn one_of(key: &str, word: &str, words: &[&str]) -> Result<(), Stop> {
    if words.contains(&word) {
        return Ok(());
    }
    Err(invalid(key, quoted(word), &words.join(", ")))
}

/// One of some words each, none twice.
pub(super) fn some_of(key: &str, list: &[String], words: &[&str]) -> Result<(), Stop> {
    for (at, word) in list.iter().enumerate() {
        one_of(key, word, words)?;
        if list[..at].contains(word) {
            return Err(invalid(key, quoted(word), "each once"));
        }
    }
    Ok(())
}

/// A text as it is shown: its beginning.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

pub(super) fn invalid(key: &str, value: impl Display, range: &str) -> Stop {
    reject(reason::INVALID_POLICY, format!("{key} is {value}; allowed: {range}"))
        .with("key", key)
        .with("range", range)
}
