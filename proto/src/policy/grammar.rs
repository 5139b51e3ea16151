//! Texts of a policy that have a grammar.

use crate::{id, limits};

/// An eval set with its version: `core@14`.
#[must_use]
pub fn is_eval_set(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, version)| {
        id::check_name("set", name).is_ok() && id::check_name("version", version).is_ok()
    })
}

/// Where a hook is called: `http://` or `https://`, a host, no name and password (they would be stored and shown), at
/// most 1 KiB.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map_or("", |rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    let named = !host.is_empty() && !host.starts_with(':') && !host.contains('@');
    plain && named && text.len() <= limits::ENDPOINT_BYTES
}

/// Types of events: `run.expired`, `signal.*`, `*`.
#[must_use]
pub fn is_event_pattern(text: &str) -> bool {
    let prefix = text.strip_suffix('*').unwrap_or(text);
    let whole = prefix.len() < text.len();
    let named = if whole { prefix.is_empty() || prefix.ends_with('.') } else { !text.is_empty() };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_');
    named && text.len() <= limits::NAME_BYTES && prefix.bytes().all(plain)
}

/// A variable of the nodes' environment: `env:PAGER_SECRET`.
#[must_use]
pub fn is_variable(text: &str) -> bool {
    text.strip_prefix("env:").is_some_and(|name| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        name.len() <= limits::NAME_BYTES
            && name.bytes().all(plain)
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
    })
}

/// A JSON pointer that is not the whole document: `/answer/id`, at most 1 KiB.
#[must_use]
pub fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.len() <= limits::ENDPOINT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(is: fn(&str) -> bool, good: &[&str], wrong: &[&str]) {
        for text in good {
            assert!(is(text), "{text}");
        }
        for text in wrong {
            assert!(!is(text), "{text}");
        }
    }

    #[test]
    fn eval_sets_name_their_version() {
        all(is_eval_set, &["core@14"], &["", "core", "@14", "core@", "a b@1", "core@1@2"]);
    }

    #[test]
    fn urls_have_a_host_and_no_password() {
        let long = format!("http://{}", "h".repeat(limits::ENDPOINT_BYTES));
        all(
            is_url,
            &["https://pager.example:8443/x?y=1", "http://[::1]:80", "http://h#x"],
            &[
                "",
                "ftp://h",
                "https://",
                "https:///x",
                "http://:80",
                "http://a:b@h",
                "http://h x",
                &long,
            ],
        );
    }

    #[test]
    fn patterns_end_in_a_star_or_are_whole() {
        all(
            is_event_pattern,
            &["run.expired", "signal.*", "*"],
            &["", "signal*", "Run.expired", "run.*.x"],
        );
    }

    #[test]
    fn variables_are_of_the_environment() {
        all(
            is_variable,
            &["env:PAGER_SECRET", "env:_x1"],
            &["hunter2", "env:", "env:1", "env:A B"],
        );
    }

    #[test]
    fn pointers_name_a_part() {
        all(is_pointer, &["/answer/id", "/"], &["", "answer"]);
    }
}
