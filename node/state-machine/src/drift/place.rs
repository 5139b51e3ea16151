//! What a row of drift is about: all that its key says.

use pinrail_proto::v1::DriftSource;

use crate::key::{Key, Kind, Parts, RowKey};
use crate::store::Fault;

/// Which thing of which bundle, and what was seen in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) agent: u32,
    pub(super) bundle_id: String,
    pub(super) source: DriftSource,
    /// The tool's or the model's.
    pub(super) name: String,
    pub(super) seen: String,
}

impl Place {
    pub(super) fn key(&self) -> RowKey {
        of_bundle(self.agent, &self.bundle_id)
            .u8(number(self.source))
            .text(&self.name)
            .last(&self.seen)
    }

    /// The key without kind and agent: the object of a timer.
    pub(super) fn object(&self) -> RowKey {
        let agent = Key::of(Kind::Drift, self.agent).build().len();
        RowKey::from_slice(&self.key()[agent..])
    }

    pub(super) fn of_object(agent: u32, object: &[u8]) -> Result<Self, Fault> {
        Self::of_key(&Key::of(Kind::Drift, agent).bytes(object).build())
    }

    /// # Errors
    /// A [`Fault`] for a key that none of ours is.
    pub(super) fn of_key(key: &[u8]) -> Result<Self, Fault> {
        Self::parse(Parts::new(key))
            .ok_or_else(|| Fault(format!("key {} does not come apart", hex::encode(key))))
    }

    fn parse(mut parts: Parts<'_>) -> Option<Self> {
        let (agent, bundle_id) = (parts.u32()?, parts.text()?.to_owned());
        let source = DriftSource::try_from(i32::from(parts.u8()?)).ok()?;
        let (name, seen) = (parts.text()?.to_owned(), parts.last()?.to_owned());
        Some(Self { agent, bundle_id, source, name, seen })
    }
}

/// All rows of a bundle begin with this.
pub(super) fn of_bundle(agent: u32, bundle_id: &str) -> Key {
    Key::of(Kind::Drift, agent).text(bundle_id)
}

fn number(source: DriftSource) -> u8 {
    u8::try_from(i32::from(source)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_apart_and_so_does_a_timers_object() {
        let place = Place {
            agent: 7,
            bundle_id: "v1".to_owned(),
            source: DriftSource::Model,
            name: "default".to_owned(),
            seen: "acme/large-2".to_owned(),
        };
        assert_eq!(Place::of_key(&place.key()).unwrap(), place);
        assert_eq!(Place::of_object(7, &place.object()).unwrap(), place);
        assert!(Place::of_object(7, b"v1").is_err());
    }
}
