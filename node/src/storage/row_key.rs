//! Keys as a tree holds them: ordered as their bytes are, and mostly compared without looking at those, which are elsewhere
//! in memory and in no cache of the processor.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Words of eight bytes: kind, agent, and what of a run's id tells it from most others.
const WORDS: usize = 3;

#[derive(Debug, Clone)]
pub(super) struct RowKey<'k> {
    /// The first bytes, as if zeros followed the last one.
    head: [u64; WORDS],
    bytes: Cow<'k, [u8]>,
}

impl<'k> RowKey<'k> {
    /// To look for a row.
    pub(super) fn of(bytes: &'k [u8]) -> Self {
        Self { head: head(bytes), bytes: Cow::Borrowed(bytes) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for RowKey<'static> {
    fn from(bytes: Vec<u8>) -> Self {
        Self { head: head(&bytes), bytes: Cow::Owned(bytes) }
    }
}

fn head(bytes: &[u8]) -> [u64; WORDS] {
    let mut padded = [0; 8 * WORDS];
    let length = bytes.len().min(padded.len());
    padded[..length].copy_from_slice(&bytes[..length]);
    let mut head = [0; WORDS];
    for (word, bytes) in head.iter_mut().zip(padded.as_chunks::<8>().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    head
}

impl Ord for RowKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

impl PartialOrd for RowKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RowKey<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_bytes() {
        let mut keys = vec![Vec::new()];
        for length in [1, 2, 7, 8, 9, 23, 24, 25, 40] {
            for last in [0, 1, 0x7f, 0x80, 0xff] {
                for rest in [0, 0x61, 0xff] {
                    let mut key = vec![rest; length];
                    key[length - 1] = last;
                    keys.push(key);
                }
            }
        }
        for one in &keys {
            for other in &keys {
                assert_eq!(RowKey::of(one).cmp(&RowKey::of(other)), one.cmp(other));
            }
        }
    }
}
