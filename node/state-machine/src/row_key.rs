//! Keys of rows as trees hold them: ordered as their bytes are. Nearly all are short enough to lie in the tree itself, so that
//! neither making one nor comparing two goes elsewhere in memory.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// The longest key that lies in place: kind, agent, a run's id of 36 bytes as UUIDs have, and what stands before or behind it. With
/// its length and which form it has, a key has 56 bytes then: seven words.
const SHORT: usize = 54;
const WORD: usize = size_of::<u64>();

/// The key of a row: bytes, at most as many as the ids in it allow.
#[derive(Clone)]
pub struct RowKey(Bytes);

#[derive(Clone)]
enum Bytes {
    /// Zeros follow the last byte.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Vec<u8>),
}

impl RowKey {
    #[must_use]
    pub fn new() -> Self {
        Self(Bytes::Short { length: 0, bytes: [0; SHORT] })
    }

    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut key = Self::new();
        key.extend_from_slice(bytes);
        key
    }

    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    /// Where the length is known to whoever calls it, as that of a number, it is a move or two: keys are made of such pieces.
    #[inline]
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        if let Bytes::Short { length, bytes } = &mut self.0 {
            let begin = usize::from(*length);
            let end = begin + more.len();
            if let Some(free) = bytes.get_mut(begin..end) {
                free.copy_from_slice(more);
                *length = u8::try_from(end).unwrap_or(u8::MAX);
                return;
            }
        }
        self.extend_long(more);
    }

    #[cold]
    fn extend_long(&mut self, more: &[u8]) {
        match &mut self.0 {
            Bytes::Short { length, bytes } => {
                self.0 = Bytes::Long([&bytes[..usize::from(*length)], more].concat());
            }
            Bytes::Long(bytes) => bytes.extend_from_slice(more),
        }
    }
}

impl Default for RowKey {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for RowKey {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() > SHORT { Self(Bytes::Long(bytes)) } else { Self::from_slice(&bytes) }
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (
                Bytes::Short { length, bytes },
                Bytes::Short { length: other_length, bytes: other_bytes },
            ) => compare(bytes, other_bytes).then(length.cmp(other_length)),
            _ => self.deref().cmp(other),
        }
    }
}

/// Word by word: quicker than asking the C library, which has to find out first how much there is.
fn compare(one: &[u8; SHORT], other: &[u8; SHORT]) -> Ordering {
    let (words, rest) = one.as_chunks::<WORD>();
    let (other_words, other_rest) = other.as_chunks::<WORD>();
    for (word, other_word) in words.iter().zip(other_words) {
        let (word, other_word) = (u64::from_be_bytes(*word), u64::from_be_bytes(*other_word));
        if word != other_word {
            return word.cmp(&other_word);
        }
    }
    rest.cmp(other_rest)
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.deref() == other.deref()
    }
}

impl Eq for RowKey {}

/// As the bytes of it, which a map may be asked for.
impl Hash for RowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.deref().hash(state);
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::borrow::Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_bytes_and_hold_them() {
        let mut keys = vec![Vec::new()];
        for length in [1, 2, 7, 8, 9, 47, 48, 49, 53, 54, 55, 56, 100] {
            for last in [0, 1, 0x7f, 0x80, 0xff] {
                for rest in [0, 0x61, 0xff] {
                    let mut key = vec![rest; length];
                    key[length - 1] = last;
                    keys.push(key);
                }
            }
        }
        for one in &keys {
            let key = RowKey::from_slice(one);
            assert_eq!(*key, **one);
            let mut in_parts = RowKey::new();
            for part in one.chunks(5) {
                in_parts.extend_from_slice(part);
            }
            assert_eq!(in_parts, key);
            for other in &keys {
                let other_key = RowKey::from(other.clone());
                assert_eq!(key.cmp(&other_key), one.cmp(other), "{key:?} {other_key:?}");
                assert_eq!(key == other_key, one == other);
            }
        }
    }

    #[test]
    fn a_key_takes_no_more_room_than_a_cache_line() {
        assert_eq!(size_of::<RowKey>(), 56);
    }
}
