//! Names and ids: what is allowed, and types that cannot hold anything else.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::limits;

/// Why a text is no id. Its message is meant for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {len} bytes; at most {max} are allowed")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error(
        "{what} {value:?} may hold only A-Z a-z 0-9 . _ - and must begin with a letter or digit"
    )]
    BadName { what: &'static str, value: String },
    #[error("{what} holds a control character")]
    Control { what: &'static str },
    #[error("memory key {value:?}: {rule}")]
    BadKey { value: String, rule: &'static str },
}

/// The name of a drill's own route of an agent: one that no user can give, by [`check_name`].
#[must_use]
pub fn drill_route(agent_id: &str) -> String {
    format!("{agent_id}{DRILL_ROUTE}")
}

/// Whether a name is that of a drill's own route.
#[must_use]
pub fn is_drill_route(agent_id: &str) -> bool {
    agent_id.ends_with(DRILL_ROUTE)
}

/// The place of a digest among ten thousand: its first 8 bytes modulo 10,000. A share in basis points draws what lies below
/// it, so a growing share only adds.
#[must_use]
pub fn place(digest: &[u8; 32]) -> u32 {
    let (first, _) = digest.split_first_chunk::<8>().expect("a SHA-256 has 32 bytes");
    u32::try_from(u64::from_be_bytes(*first) % u64::from(limits::WHOLE_BP)).unwrap_or(0)
}

const DRILL_ROUTE: &str = "~drill";

/// Checks a namespace, agent, bundle, step or prompt name: 63 of `[A-Za-z0-9._-]`, first alphanumeric.
///
/// # Errors
/// Says which rule was broken; `what` names the thing in the message.
pub fn check_name(what: &'static str, value: &str) -> Result<(), IdError> {
    if value.is_empty() {
        return Err(IdError::Empty { what });
    }
    if value.len() > limits::NAME_BYTES {
        return Err(IdError::TooLong { what, len: value.len(), max: limits::NAME_BYTES });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !value.as_bytes()[0].is_ascii_alphanumeric() || !value.bytes().all(allowed) {
        return Err(IdError::BadName { what, value: value.to_owned() });
    }
    Ok(())
}

/// Checks a run id, session key, worker id or request id: 1 to 256 bytes without control characters.
///
/// # Errors
/// Says which rule was broken.
pub fn check_token(what: &'static str, value: &str) -> Result<(), IdError> {
    if value.is_empty() {
        return Err(IdError::Empty { what });
    }
    if value.len() > limits::ID_BYTES {
        return Err(IdError::TooLong { what, len: value.len(), max: limits::ID_BYTES });
    }
    if value.chars().any(char::is_control) {
        return Err(IdError::Control { what });
    }
    Ok(())
}

/// Checks a memory key: up to 16 segments joined by `/`, none empty, 1 KiB in all, no control characters.
///
/// # Errors
/// Says which rule was broken.
pub fn check_memory_key(value: &str) -> Result<(), IdError> {
    let bad = |rule| Err(IdError::BadKey { value: value.chars().take(64).collect(), rule });
    if value.is_empty() {
        return Err(IdError::Empty { what: "memory key" });
    }
    if value.len() > limits::MEMORY_KEY_BYTES {
        let max = limits::MEMORY_KEY_BYTES;
        return Err(IdError::TooLong { what: "memory key", len: value.len(), max });
    }
    if value.chars().any(char::is_control) {
        return Err(IdError::Control { what: "memory key" });
    }
    if value.split('/').any(str::is_empty) {
        return bad("a segment is empty");
    }
    if value.split('/').count() > limits::MEMORY_KEY_SEGMENTS {
        return bad("more than 16 segments");
    }
    Ok(())
}

/// A name that has been checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// # Errors
    /// See [`check_name`].
    pub fn parse(what: &'static str, value: &str) -> Result<Self, IdError> {
        check_name(what, value)?;
        Ok(Self(value.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first 8 characters of every run id that our libraries make: from it alone the agent is found.
#[must_use]
pub fn agent_hash(namespace: &str, agent: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(namespace.as_bytes());
    hash.update([0]);
    hash.update(agent.as_bytes());
    hash.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// A run id as our libraries make it: agent hash, `-`, 128 random bits in hex.
#[must_use]
pub fn make_run_id(namespace: &str, agent: &str, random: u128) -> String {
    format!("{}-{random:032x}", agent_hash(namespace, agent))
}

/// The run id that belongs to a request id: asking again with the same one never starts another run.
#[must_use]
pub fn derive_run_id(namespace: &str, agent: &str, request_id: &str) -> String {
    let digest = Sha256::digest(request_id.as_bytes());
    let mut bits = [0; 16];
    bits.copy_from_slice(&digest[..16]);
    make_run_id(namespace, agent, u128::from_be_bytes(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_id_gives_the_same_run_id() {
        let one = derive_run_id("default", "support", "q1");
        assert_eq!(one, derive_run_id("default", "support", "q1"));
        assert_ne!(one, derive_run_id("default", "support", "q2"));
        assert!(one.starts_with(&agent_hash("default", "support")));
    }

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "v42", "A.b_c-d", "0", &"x".repeat(63)] {
            assert_eq!(check_name("bundle", good), Ok(()), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\0", &"x".repeat(64)] {
            assert!(check_name("bundle", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_keys_have_bounded_segments() {
        assert!(check_memory_key("user/77/prefs").is_ok());
        for bad in ["", "/a", "a/", "a//b", "a\nb", &["a"; 17].join("/"), &"k".repeat(1025)] {
            assert!(check_memory_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn run_ids_lead_to_their_agent() {
        let id = make_run_id("default", "support", 7);
        assert!(id.starts_with(&agent_hash("default", "support")));
        assert_ne!(agent_hash("default", "support"), agent_hash("defaults", "upport"));
        assert!(check_token("run id", &id).is_ok());
    }
}
