//! The leases that a worker holds, and what a heartbeat says about them.

use std::collections::BTreeMap;

use pinrail_proto::v1;
use xxhash_rust::xxh3::xxh3_64;

/// Up to so many leases a heartbeat carries their list; beyond, the digest alone.
pub(crate) const LISTED: usize = 64;

/// A token in the order that the digest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) revision: u64,
    pub(crate) incarnation: u64,
}

impl From<v1::StepToken> for Token {
    fn from(token: v1::StepToken) -> Token {
        Token { revision: token.revision, incarnation: token.incarnation }
    }
}

impl From<Token> for v1::StepToken {
    fn from(token: Token) -> v1::StepToken {
        v1::StepToken { incarnation: token.incarnation, revision: token.revision }
    }
}

/// What a lease is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) run_id: String,
    pub(crate) step: u32,
}

/// XXH3-64 over the tokens (incarnation, revision; big-endian) in ascending order of revision.
pub(crate) fn digest(tokens: impl Iterator<Item = Token>) -> u64 {
    let mut bytes = Vec::new();
    for token in tokens {
        bytes.extend(token.incarnation.to_be_bytes());
        bytes.extend(token.revision.to_be_bytes());
    }
    xxh3_64(&bytes)
}

/// The list for a hello or a heartbeat.
pub(crate) fn list<'a>(held: impl Iterator<Item = (Token, &'a Lease)>) -> Vec<v1::HeldStep> {
    held.map(|(token, lease)| v1::HeldStep {
        token: Some(token.into()),
        run_id: lease.run_id.clone(),
        step: lease.step,
    })
    .collect()
}

/// A heartbeat over what is held.
pub(crate) fn heartbeat(held: &BTreeMap<Token, Lease>, free_slots: u32) -> v1::Heartbeat {
    let held_list = if held.len() <= LISTED {
        list(held.iter().map(|(token, lease)| (*token, lease)))
    } else {
        Vec::new()
    };
    v1::Heartbeat {
        tools: Vec::new(),
        held_digest: digest(held.keys().copied()),
        held: held_list,
        free_slots,
        progress: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(count: u64) -> BTreeMap<Token, Lease> {
        (0..count)
            .map(|i| {
                let lease = Lease { run_id: format!("r{i}"), step: 1 };
                (Token { revision: i, incarnation: 9 }, lease)
            })
            .collect()
    }

    #[test]
    fn the_digest_is_over_big_endian_tokens_by_revision() {
        let mut bytes = Vec::new();
        for revision in [0_u64, 1] {
            bytes.extend(9_u64.to_be_bytes());
            bytes.extend(revision.to_be_bytes());
        }
        assert_eq!(heartbeat(&held(2), 3).held_digest, xxh3_64(&bytes));
        assert_eq!(heartbeat(&held(0), 3).held_digest, xxh3_64(&[]));
    }

    #[test]
    fn long_lists_are_left_to_the_digest() {
        assert_eq!(heartbeat(&held(64), 0).held.len(), 64);
        assert!(heartbeat(&held(65), 0).held.is_empty());
    }
}
