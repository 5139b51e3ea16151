//! Somebody who keeps what they are told of an agent's pins, a few at a time.

use std::collections::BTreeMap;

use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, PinCursor};

use crate::replica::Replica;

/// Pins by run, as they are: their revisions are those of the moments at which they were told.
type Pins = BTreeMap<String, v1::LookupPinResponse>;

#[derive(Debug)]
pub(super) struct Keeper {
    agent: &'static str,
    cursor: PinCursor,
    kept: Pins,
}

impl Keeper {
    pub(super) fn new(agent: &'static str) -> Self {
        Self { agent, cursor: start(agent), kept: Pins::new() }
    }

    /// Hears the next few. Answers whether there may be more.
    pub(super) fn hear(&mut self, replica: &Replica, limit: u32) -> bool {
        let (pins, next) = match query::pin_changes(replica.read(), &self.cursor, limit) {
            Ok(heard) => heard,
            Err(Stop::Rejected(it)) => {
                assert_eq!(it.reason, "COMPACTED");
                (self.cursor, self.kept) = (start(self.agent), Pins::new());
                return true;
            }
            Err(Stop::Fault(fault)) => panic!("{fault}"),
        };
        for pin in pins {
            assert!(!pin.open || pin.pin.is_some(), "an open one without a pin is none");
            match pin.open {
                true => self.kept.insert(pin.run_id.clone(), bare(pin)),
                false => self.kept.remove(&pin.run_id),
            };
        }
        self.cursor = next;
        self.cursor.is_behind(query::position(replica.read()).unwrap().revision)
    }

    /// What is kept, and what there is.
    pub(super) fn compare(&self, replica: &Replica) -> (Pins, Pins) {
        let mut open = Pins::new();
        for bundle in query::drains(replica.read(), "", self.agent, "").unwrap() {
            let pins = query::pins(replica.read(), "", self.agent, &bundle.bundle_id, 1_000, "");
            for pin in pins.unwrap().0 {
                let found = query::pin(replica.read(), "", self.agent, &pin.run_id).unwrap();
                open.insert(pin.run_id, bare(found));
            }
        }
        (self.kept.clone(), open)
    }
}

fn start(agent: &str) -> PinCursor {
    PinCursor::after("default".to_owned(), agent.to_owned(), 0)
}

fn bare(pin: v1::LookupPinResponse) -> v1::LookupPinResponse {
    v1::LookupPinResponse { revision: 0, ..pin }
}
