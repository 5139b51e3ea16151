//! Keys of the store: they come apart as they were built, and their order is that of their parts.

use pinrail_state_machine::key::{Key, Kind, Parts, RowKey};

/// The parts of a key whose layout has every kind of part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Built<'a> {
    agent: u32,
    text: &'a str,
    number: u64,
    state: u8,
    last: &'a str,
}

impl<'a> Built<'a> {
    fn of(data: &'a [u8]) -> Option<Self> {
        let (agent, rest) = data.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (state, rest) = rest.split_first()?;
        let (agent, number) = (u32::from_be_bytes(*agent), u64::from_be_bytes(*number));
        let text = std::str::from_utf8(rest).ok()?;
        // No id holds a zero byte.
        let (text, last) = text.split_once('\0').unwrap_or((text, ""));
        (!last.contains('\0')).then_some(Self { agent, text, number, state: *state, last })
    }

    fn key(&self) -> RowKey {
        let key = Key::of(Kind::Ready, self.agent).text(self.text);
        key.u64(self.number).u8(self.state).last(self.last)
    }
}

pub(crate) fn built_and_taken_apart(data: &[u8]) {
    // Taking apart survives what was never built.
    let mut parts = Parts::new(data);
    while parts.text().is_some() && parts.u32().is_some() && parts.u64().is_some() {}
    let (one, other) = data.split_at(data.len() / 2);
    let (Some(one), Some(other)) = (Built::of(one), Built::of(other)) else { return };
    for built in [&one, &other] {
        let key = built.key();
        let mut parts = Parts::new(&key);
        assert_eq!(key[0], Kind::Ready as u8);
        assert_eq!(parts.u32(), Some(built.agent));
        assert_eq!(parts.text(), Some(built.text));
        assert_eq!((parts.u64(), parts.u8()), (Some(built.number), Some(built.state)));
        assert_eq!(parts.last(), Some(built.last));
    }
    assert_eq!(one.key().cmp(&other.key()), one.cmp(&other));
    // A range of a prefix holds what begins with it, and nothing else.
    let range = Key::of(Kind::Ready, one.agent).text(one.text).range();
    let within = |key: &[u8]| *range.start <= *key && *key < *range.end;
    assert!(within(&one.key()));
    let shared = (one.agent, one.text) == (other.agent, other.text);
    assert_eq!(within(&other.key()), shared);
}
