//! Enum values as the words that JSON, tables and filters say: `running` for `RUN_STATE_RUNNING`; and back.

use prost_reflect::EnumDescriptor;

use super::POOL;
use crate::v1;

/// An enum of the API whose values have words.
pub trait Worded: Copy + Into<i32> + TryFrom<i32> {
    /// Its full name.
    const NAME: &'static str;
}

macro_rules! worded {
    ($($name:ident)*) => {
        $(impl Worded for v1::$name {
            const NAME: &'static str = concat!("pinrail.v1.", stringify!($name));
        })*
    };
}

worded! {
    BundleState ChangeKind Compare CostBy DeliveryState DriftAction DriftClass DriftSource DriftState
    DrillMode DrillPart DrillState EndReason HealthState InFlight MemberRole OnConflict Outcome PairState
    PinReason ReleaseState RunKind RunState ScoreSource SideEffects SignalKind SignalMode SignalState Stage
    StageMode StepState Verdict Want WorkerState
}

fn descriptor<E: Worded>() -> EnumDescriptor {
    POOL.get_enum_by_name(E::NAME).expect("a generated enum has a descriptor")
}

/// The word of a value; `None` for one that is not set.
#[must_use]
pub fn word<E: Worded>(value: E) -> Option<String> {
    let number = value.into();
    let descriptor = descriptor::<E>();
    let value = descriptor.get_value(number).filter(|_| number != 0)?;
    Some(of(&descriptor, value.name()))
}

/// Every word of an enum, in the order of its numbers.
#[must_use]
pub fn words<E: Worded>() -> Vec<String> {
    let descriptor = descriptor::<E>();
    let values = descriptor.values().filter(|value| value.number() != 0);
    values.map(|value| of(&descriptor, value.name())).collect()
}

/// The value of a word.
///
/// # Errors
/// Names the words that there are.
pub fn parse<E: Worded>(text: &str) -> Result<E, String> {
    let descriptor = descriptor::<E>();
    let mut values = descriptor.values();
    let value = values.find(|value| value.number() != 0 && of(&descriptor, value.name()) == text);
    value
        .and_then(|value| E::try_from(value.number()).ok())
        .ok_or_else(|| format!("{text:?} is none of {}", words::<E>().join(", ")))
}

/// `running` for `RUN_STATE_RUNNING` of `RunState`.
pub(super) fn of(descriptor: &EnumDescriptor, value: &str) -> String {
    let mut prefix = String::new();
    for c in descriptor.name().chars() {
        if c.is_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix.push('_');
    value.strip_prefix(&prefix).unwrap_or(value).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_leads_back_to_its_value() {
        for text in words::<v1::RunState>() {
            let state: v1::RunState = parse(&text).expect("it is a word");
            assert_eq!(word(state), Some(text));
        }
        assert_eq!(parse("max_age"), Ok(v1::EndReason::MaxAge));
        assert_eq!(word(v1::RunState::Unspecified), None);
    }

    #[test]
    fn what_is_no_word_is_told_the_words() {
        for wrong in ["", "unspecified", "LIVE", "alive"] {
            let why = parse::<v1::RunKind>(wrong).expect_err(wrong);
            assert!(why.ends_with("is none of live, canary, shadow, eval, smoke, drill"), "{why}");
        }
    }
}
