//! What a policy says is to be done about drift, with the defaults of `docs/FILES.md` for what it leaves open.

use pinrail_proto::log::DriftCount;
use pinrail_proto::v1::{self, DriftAction, DriftClass, DriftSource};

/// What is done about open drift of a class. Only the tools of a worker can be blocked: a reply was given already, and a
/// model has served.
pub(crate) fn action(policy: &v1::Policy, source: DriftSource, class: DriftClass) -> DriftAction {
    let said = said(policy, class);
    match (said, source) {
        (DriftAction::Block, DriftSource::Response | DriftSource::Model) => DriftAction::Alert,
        (said, _) => said,
    }
}

fn said(policy: &v1::Policy, class: DriftClass) -> DriftAction {
    let drift = policy.drift.unwrap_or_default();
    let (said, default) = match class {
        DriftClass::Compatible => (drift.compatible(), DriftAction::Accept),
        DriftClass::Breaking | DriftClass::Unspecified => (drift.breaking(), DriftAction::Alert),
    };
    if said == DriftAction::Unspecified { default } else { said }
}

/// How much of what is open alarms.
pub(crate) fn alarming(policy: &v1::Policy, count: Option<DriftCount>) -> u64 {
    let count = count.unwrap_or_default();
    let of = |class, open: u32| match said(policy, class) {
        DriftAction::Accept => 0,
        DriftAction::Alert | DriftAction::Block | DriftAction::Unspecified => u64::from(open),
    };
    of(DriftClass::Breaking, count.breaking) + of(DriftClass::Compatible, count.compatible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_schemas_block_and_what_is_accepted_alarms_nobody() {
        let mut policy = v1::Policy::default();
        let breaking = DriftClass::Breaking;
        assert_eq!(action(&policy, DriftSource::Schema, breaking), DriftAction::Alert);
        assert_eq!(
            action(&policy, DriftSource::Schema, DriftClass::Compatible),
            DriftAction::Accept
        );
        policy.drift.get_or_insert_default().set_breaking(DriftAction::Block);
        assert_eq!(action(&policy, DriftSource::Schema, breaking), DriftAction::Block);
        assert_eq!(action(&policy, DriftSource::Model, breaking), DriftAction::Alert);
        let count = DriftCount { breaking: 2, compatible: 3, ..DriftCount::default() };
        assert_eq!(alarming(&policy, Some(count)), 2);
        assert_eq!(alarming(&policy, None), 0);
    }
}
